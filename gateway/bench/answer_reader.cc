// Counting events and finding usage; see answer_reader.h.
#include "gateway/bench/answer_reader.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace sluice::bench {
namespace {

bool has_non_empty(std::string_view json, std::string_view opening) {
  for (std::size_t from = 0;;) {
    const void* at =
        ::memmem(json.data() + from, json.size() - from, opening.data(), opening.size());
    if (at == nullptr) return false;
    const auto value =
        static_cast<std::size_t>(static_cast<const char*>(at) - json.data()) + opening.size();
    if (value < json.size() && json[value] != '"') return true;
    from = value;
  }
}

}  // namespace

bool has_text(std::string_view json) {
  return has_non_empty(json, R"("text":")") || has_non_empty(json, R"("content":")");
}

std::optional<std::uint64_t> find_number(std::string_view json, std::string_view name) {
  for (std::size_t end = json.size();;) {
    const std::size_t at = json.rfind(name, end);
    if (at == std::string_view::npos || at == 0) return std::nullopt;
    std::size_t i = at + name.size();
    const bool is_quoted = json[at - 1] == '"' && i < json.size() && json[i] == '"';
    i = json.find_first_not_of(" \t\r\n", i + 1);
    if (is_quoted && i != std::string_view::npos && json[i] == ':') {
      i = json.find_first_not_of(" \t\r\n", i + 1);
      std::uint64_t value = 0;
      if (i != std::string_view::npos &&
          std::from_chars(json.data() + i, json.data() + json.size(), value).ec == std::errc())
        return value;
    }
    end = at - 1;
  }
}

void AnswerReader::start(bool streamed) {
  http_.reset();
  sse_.reset();
  state_ = AnswerState::reading;
  streamed_ = streamed;
  has_leftover_ = false;
  saw_done_ = false;
  saw_error_ = false;
  text_events_ = 0;
  completion_tokens_.reset();
  prompt_tokens_.reset();
  body_.clear();
}

AnswerState AnswerReader::feed(std::string_view bytes) {
  while (state_ == AnswerState::reading) {
    const HttpStep step = http_.next(bytes);
    bytes.remove_prefix(step.consumed);
    switch (step.parse) {
      case HttpParse::more:
        return state_;
      case HttpParse::body:
        state_ = on_body(step.body);
        break;
      case HttpParse::done:
        state_ = on_end();
        break;
      case HttpParse::error:
        state_ = AnswerState::malformed;
        break;
    }
  }
  has_leftover_ = has_leftover_ || !bytes.empty();
  return state_;
}

AnswerState AnswerReader::on_body(std::string_view piece) {
  if (!streamed_ || http_.status() / 100 != 2) {
    body_.append(piece.substr(piece.size() - std::min(piece.size(), kBodyKeptMax)));
    if (body_.size() > 2 * kBodyKeptMax) body_.erase(0, body_.size() - kBodyKeptMax);
    return AnswerState::reading;
  }
  SseEvent event;
  for (;;) {
    switch (sse_.next(piece, event)) {
      case SseParse::event:
        on_event(event.data);
        break;
      case SseParse::more:
        return AnswerState::reading;
      case SseParse::too_large:
        return AnswerState::malformed;
    }
  }
}

void AnswerReader::on_event(std::string_view data) {
  if (has_text(data)) {
    ++text_events_;
  } else if (data == "[DONE]") {
    saw_done_ = true;
  } else if (data.starts_with(R"({"error":)")) {
    saw_error_ = true;
  } else {
    find_usage(data);
  }
}

void AnswerReader::find_usage(std::string_view json) {
  if (const auto tokens = find_number(json, "completion_tokens")) completion_tokens_ = tokens;
  if (const auto tokens = find_number(json, "prompt_tokens")) prompt_tokens_ = tokens;
}

AnswerState AnswerReader::on_end() {
  if (http_.status() / 100 != 2) return AnswerState::http_error;
  if (!streamed_) {
    find_usage(body_);
    return AnswerState::complete;
  }
  if (saw_error_) return AnswerState::stream_error;
  return saw_done_ ? AnswerState::complete : AnswerState::truncated;
}

AnswerState AnswerReader::on_close() {
  if (state_ != AnswerState::reading) return state_;
  // An error event is followed by the close: it says more than the cut does.
  if (http_.finish_at_close())
    state_ = on_end();
  else
    state_ = saw_error_ ? AnswerState::stream_error : AnswerState::truncated;
  return state_;
}

}  // namespace sluice::bench
