// Lines, fields and dispatch of server-sent events; see sse_parser.h.
#include "gateway/bench/sse_parser.h"

#include <algorithm>
#include <cstring>

namespace sluice::bench {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kDataField = "data: ";

const char* find_byte(std::string_view text, char c) {
  return static_cast<const char*>(std::memchr(text.data(), c, text.size()));
}

}  // namespace

void SseParser::reset() {
  line_.clear();
  data_.clear();
  type_.clear();
  has_data_ = false;
  after_cr_ = false;
  at_start_ = true;
  too_large_ = false;
}

SseParse SseParser::next(std::string_view& input, SseEvent& event) {
  for (;;) {
    if (too_large_) return SseParse::too_large;
    if (input.empty()) return SseParse::more;
    if (try_whole_event(input, event)) return SseParse::event;
    if (!take_line_end(input)) continue;
    if (on_line()) {
      event = {event_type_, event_data_};
      return SseParse::event;
    }
  }
}

// The usual case: "data: ...\n\n" at the start of a line, nothing gathered before, no CR inside.
bool SseParser::try_whole_event(std::string_view& input, SseEvent& event) {
  if (after_cr_ || has_data_ || !line_.empty() || !type_.empty()) return false;
  if (!input.starts_with(kDataField)) return false;
  const char* end = find_byte(input, '\n');
  if (end == nullptr) return false;
  const auto line_bytes = static_cast<std::size_t>(end - input.data());
  if (line_bytes + 1 >= input.size() || end[1] != '\n' || line_bytes > event_bytes_max_)
    return false;
  const std::string_view line = input.substr(0, line_bytes);
  if (find_byte(line, '\r') != nullptr) return false;
  event = {{}, line.substr(kDataField.size())};
  at_start_ = false;
  input.remove_prefix(line_bytes + 2);
  return true;
}

// Moves bytes into line_; true when the line is complete.
bool SseParser::take_line_end(std::string_view& input) {
  if (after_cr_) {
    after_cr_ = false;
    if (input.front() == '\n') {
      input.remove_prefix(1);
      return false;
    }
  }
  const std::size_t end = input.find_first_of("\r\n");
  const std::size_t take = std::min(end, input.size());
  if (line_.size() + data_.size() + take > event_bytes_max_) {
    too_large_ = true;
    return false;
  }
  line_.append(input.substr(0, take));
  if (end == std::string_view::npos) {
    input = {};
    return false;
  }
  after_cr_ = input[end] == '\r';
  input.remove_prefix(end + 1);
  return true;
}

bool SseParser::on_line() {
  std::string_view line = line_;
  if (at_start_ && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  at_start_ = false;
  if (line.empty()) {
    line_.clear();
    event_type_.swap(type_);
    type_.clear();
    if (!has_data_) return false;
    event_data_.swap(data_);
    data_.clear();
    has_data_ = false;
    return true;
  }
  const std::size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  } else if (field == "event") {
    type_ = value;
  }
  line_.clear();
  return false;
}

}  // namespace sluice::bench
