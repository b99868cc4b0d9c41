// Framing of HTTP/1.x responses by RFC 9112; see http_response_parser.h.
#include "gateway/bench/http_response_parser.h"

#include <algorithm>
#include <charconv>

namespace sluice::bench {
namespace {

constexpr std::uint64_t kBodyBytesMax = 1ull << 40;

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trim(std::string_view text) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// Digits only, whole text.
bool parse_number(std::string_view text, int base, std::uint64_t& value) {
  const char* end = text.data() + text.size();
  if (text.empty() || text.front() == '-') return false;
  const auto [stop, error] = std::from_chars(text.data(), end, value, base);
  return error == std::errc() && stop == end && value <= kBodyBytesMax;
}

}  // namespace

void HttpResponseParser::reset() {
  state_ = State::head;
  line_.clear();
  remaining_ = 0;
  status_ = 0;
  keep_alive_ = true;
  is_chunked_ = false;
  has_length_ = false;
}

HttpStep HttpResponseParser::fail() {
  state_ = State::error;
  return {HttpParse::error, 0, {}};
}

HttpStep HttpResponseParser::next(std::string_view bytes) {
  std::size_t used = 0;
  // Each round ends a head, a line or a chunk without a body piece to hand out.
  for (;;) {
    const std::string_view rest = bytes.substr(used);
    if (state_ == State::error) return {HttpParse::error, used, {}};
    if (state_ == State::done) return {HttpParse::done, used, {}};
    if (rest.empty()) return {HttpParse::more, used, {}};
    HttpStep step{};
    switch (state_) {
      case State::head:
        step = take_head(rest);
        break;
      case State::until_close:
        step = {HttpParse::body, rest.size(), rest};
        break;
      case State::counted:
      case State::chunk_data:
        step = take_counted(rest);
        break;
      default:
        step = take_line(rest);
        break;
    }
    used += step.consumed;
    if (step.parse == HttpParse::body) return {HttpParse::body, used, step.body};
  }
}

HttpStep HttpResponseParser::take_head(std::string_view bytes) {
  // The end may straddle two reads: look from the last three bytes that are there already.
  const std::size_t before = line_.size();
  line_.append(bytes.substr(0, kHeadBytesMax + 1 - std::min(before, kHeadBytesMax)));
  const std::size_t end = line_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
  if (end == std::string::npos) {
    if (line_.size() > kHeadBytesMax) return fail();
    return {HttpParse::more, line_.size() - before, {}};
  }
  const std::size_t consumed = end + 4 - before;
  line_.resize(end + 2);
  if (!parse_head()) return fail();
  return {HttpParse::more, consumed, {}};
}

bool HttpResponseParser::parse_head() {
  std::string_view head = line_;
  bool is_first = true;
  while (!head.empty()) {
    const std::size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (is_first ? !parse_status_line(line) : !parse_header(line)) return false;
    is_first = false;
  }
  line_.clear();
  if (status_ >= 100 && status_ < 200) {
    reset();
    return true;
  }
  if (is_chunked_ && has_length_)
    return false;  // two framings: whoever trusts one is desynchronised
  if (status_ == 204 || status_ == 304)
    state_ = State::done;
  else if (is_chunked_)
    state_ = State::chunk_size;
  else if (has_length_)
    state_ = remaining_ == 0 ? State::done : State::counted;
  else
    state_ = State::until_close;
  return true;
}

bool HttpResponseParser::parse_status_line(std::string_view line) {
  if (line.size() < 12 || !line.starts_with("HTTP/1.") || line[8] != ' ') return false;
  if (line[7] != '0' && line[7] != '1') return false;
  keep_alive_ = line[7] == '1';
  std::uint64_t status = 0;
  if (!parse_number(line.substr(9, 3), 10, status) || status < 100) return false;
  if (line.size() > 12 && line[12] != ' ') return false;
  status_ = static_cast<int>(status);
  return true;
}

bool HttpResponseParser::parse_header(std::string_view line) {
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trim(line.substr(colon + 1));
  if (equals_ignoring_case(name, "content-length")) {
    if (has_length_) return false;
    has_length_ = true;
    return parse_number(value, 10, remaining_);
  }
  if (equals_ignoring_case(name, "transfer-encoding")) {
    is_chunked_ = equals_ignoring_case(value, "chunked");
    return is_chunked_;
  }
  if (equals_ignoring_case(name, "connection")) {
    if (equals_ignoring_case(value, "close")) keep_alive_ = false;
    if (equals_ignoring_case(value, "keep-alive")) keep_alive_ = true;
  }
  return true;
}

HttpStep HttpResponseParser::take_counted(std::string_view bytes) {
  const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, bytes.size()));
  remaining_ -= take;
  if (remaining_ == 0) state_ = state_ == State::counted ? State::done : State::chunk_end;
  return {HttpParse::body, take, bytes.substr(0, take)};
}

HttpStep HttpResponseParser::take_line(std::string_view bytes) {
  const std::size_t end = bytes.find('\n');
  const std::size_t take = end == std::string_view::npos ? bytes.size() : end + 1;
  if (line_.size() + take > kLineBytesMax) return fail();
  line_.append(bytes.substr(0, take));
  if (end == std::string_view::npos) return {HttpParse::more, take, {}};
  if (!line_.ends_with("\r\n")) return fail();
  const bool is_good = on_line(std::string_view(line_).substr(0, line_.size() - 2));
  line_.clear();
  return is_good ? HttpStep{HttpParse::more, take, {}} : fail();
}

// A complete line of chunked framing, without its CRLF.
bool HttpResponseParser::on_line(std::string_view line) {
  if (state_ == State::chunk_end) {
    state_ = State::chunk_size;
    return line.empty();
  }
  if (state_ == State::trailer) {
    if (line.empty()) state_ = State::done;
    return true;
  }
  const std::string_view size = trim(line.substr(0, line.find(';')));
  if (!parse_number(size, 16, remaining_)) return false;
  state_ = remaining_ == 0 ? State::trailer : State::chunk_data;
  return true;
}

bool HttpResponseParser::finish_at_close() {
  if (state_ != State::until_close) return false;
  state_ = State::done;
  keep_alive_ = false;
  return true;
}

}  // namespace sluice::bench
