// HttpResponseParser: an incremental parser of HTTP/1.x responses for the load client: status line,
// the few headers that frame a body, Content-Length, chunked and until-close bodies. Pull style:
// the caller offers bytes and gets back how many were used and the piece of body among them (a view
// into the offered bytes; nothing is copied but the head and chunk-size lines). Informational (1xx)
// responses are skipped. Not a general client: no trailers are kept, no headers beyond framing.
// Everything is bounded: kHeadBytesMax, kLineBytesMax. One response per reset(); no thread rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::bench {

enum class HttpParse : std::uint8_t {
  more,   // all offered bytes were used; the response goes on
  body,   // `body` is set; offer the rest again
  done,   // the response is complete; bytes after `consumed` belong to the next one
  error,  // not HTTP, or over a bound
};

struct HttpStep {
  HttpParse parse;
  std::size_t consumed;
  std::string_view body;
};

class HttpResponseParser {
 public:
  static constexpr std::size_t kHeadBytesMax = 64u << 10;
  static constexpr std::size_t kLineBytesMax = 4096;  // chunk size with extensions, trailer lines

  void reset();
  HttpStep next(std::string_view bytes);
  // The peer closed: true if that completes the response (a body without a length).
  bool finish_at_close();

  int status() const { return status_; }
  bool head_complete() const { return state_ > State::head; }
  bool has_begun() const { return state_ != State::head || !line_.empty(); }
  bool keep_alive() const { return keep_alive_; }

 private:
  enum class State : std::uint8_t {
    head,
    until_close,
    counted,
    chunk_size,
    chunk_data,
    chunk_end,
    trailer,
    done,
    error
  };
  HttpStep fail();
  HttpStep take_head(std::string_view bytes);
  HttpStep take_counted(std::string_view bytes);
  HttpStep take_line(std::string_view bytes);
  bool parse_head();
  bool parse_status_line(std::string_view line);
  bool parse_header(std::string_view line);
  bool on_line(std::string_view line);

  State state_ = State::head;
  std::string line_;             // head or line so far
  std::uint64_t remaining_ = 0;  // of the counted body or the chunk
  int status_ = 0;
  bool keep_alive_ = true;
  bool is_chunked_ = false;
  bool has_length_ = false;
};

}  // namespace sluice::bench
