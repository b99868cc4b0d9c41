// AnswerReader: reads one answer of an OpenAI-compatible server from the bytes of a connection and
// counts what the load client reports: text events, tokens by `usage`, errors, how it ended. It
// does not parse JSON: it looks for the few members it needs, which costs tens of nanoseconds per
// event and is exact for JSON without white space around these members' colons (blanks there are
// allowed for usage). Pure: bytes in, counts out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/bench/http_response_parser.h"
#include "gateway/bench/sse_parser.h"

namespace sluice::bench {

enum class AnswerState : std::uint8_t {
  reading,
  complete,      // whole answer with status 2xx
  http_error,    // whole answer with another status
  stream_error,  // an error event inside a stream
  truncated,     // the connection or the stream ended early
  malformed,     // not HTTP, not an event stream, or over a bound
};

class AnswerReader {
 public:
  // Of a whole (not streamed) answer at least so many last bytes are kept: `usage` stands there.
  static constexpr std::size_t kBodyKeptMax = 64u << 10;

  void start(bool streamed);
  // Text events among these bytes are counted by text_events().
  AnswerState feed(std::string_view bytes);
  AnswerState on_close();

  int status() const { return http_.status(); }
  bool has_begun() const { return http_.has_begun(); }
  bool keep_alive() const { return http_.keep_alive() && !has_leftover_; }
  // Events with non-empty text (choices[].text or delta.content).
  std::uint64_t text_events() const { return text_events_; }
  // usage of the answer; nothing when it had none.
  std::optional<std::uint64_t> completion_tokens() const { return completion_tokens_; }
  std::optional<std::uint64_t> prompt_tokens() const { return prompt_tokens_; }
  std::string_view body() const { return body_; }

 private:
  AnswerState on_body(std::string_view piece);
  void on_event(std::string_view data);
  AnswerState on_end();
  void find_usage(std::string_view json);

  HttpResponseParser http_;
  SseParser sse_;
  AnswerState state_ = AnswerState::reading;
  bool streamed_ = false;
  bool has_leftover_ = false;
  bool saw_done_ = false;
  bool saw_error_ = false;
  std::uint64_t text_events_ = 0;
  std::optional<std::uint64_t> completion_tokens_;
  std::optional<std::uint64_t> prompt_tokens_;
  std::string body_;
};

// True when the JSON has a non-empty string member `text` or `content`.
bool has_text(std::string_view json);
// The number after `"name":`, blanks allowed; the last such member.
std::optional<std::uint64_t> find_number(std::string_view json, std::string_view name);

}  // namespace sluice::bench
