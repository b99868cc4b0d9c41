// A Beast parser that stores only the fields in use, behind a scan of the raw head.
#include "gateway/http/request_reader.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <cstring>
#include <optional>

namespace sluice::gw {
namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;
using boost::beast::iequals;
using boost::beast::string_view;

// The least that is missing of an unfinished chunked body: "0", CR LF, CR LF. Beast asserts that
// much behind a last chunk, so it never gets less; a sender that stops short of it runs into the
// timeout.
constexpr std::size_t kChunkedBytesMin = 5;
constexpr std::size_t kKeptBodyBytes = 64 << 10;  // of capacity between requests

std::string_view to_std(string_view text) {
  return {text.data(), text.size()};
}

Error malformed(std::string detail) {
  return make_error(Errc::malformed_http, std::move(detail));
}

// Nothing, or why the raw head is refused. `head` ends with an empty line.
const char* scan_head(std::string_view head) {
  for (std::size_t i = 0; i < head.size(); ++i) {
    const auto c = static_cast<unsigned char>(head[i]);
    if (c >= 0x20 && c != 0x7f) continue;
    if (c == '\t') continue;
    if (c != '\r' || i + 1 >= head.size() || head[i + 1] != '\n')
      return "the request head holds a control character or a bare line ending";
    ++i;
    if (i + 1 < head.size() && (head[i + 1] == ' ' || head[i + 1] == '\t'))
      return "folded header lines are not allowed";
  }
  return nullptr;
}

// The path of an origin-form, absolute-form or asterisk-form target. False: no such form.
bool path_of_target(std::string_view target, std::string& path, std::string& query) {
  for (const char c : target)
    if (static_cast<unsigned char>(c) >= 0x80 || c == '#') return false;
  if (target == "*") {
    path.assign(target);
    return true;
  }
  if (!target.starts_with('/')) {
    const std::size_t scheme = target.find("://");
    if (scheme == std::string_view::npos) return false;
    const std::string_view name = target.substr(0, scheme);
    if (!iequals(string_view(name.data(), name.size()), "http") &&
        !iequals(string_view(name.data(), name.size()), "https"))
      return false;
    target.remove_prefix(scheme + 3);
    const std::size_t authority = std::min(target.find_first_of("/?"), target.size());
    if (authority == 0) return false;
    target.remove_prefix(authority);
  }
  const std::size_t mark = std::min(target.find('?'), target.size());
  query.assign(target.substr(std::min(mark + 1, target.size())));
  target = target.substr(0, mark);
  path.assign(target.empty() ? std::string_view("/") : target);
  return true;
}

MediaType media_type(string_view value) {
  string_view name = value.substr(0, value.find(';'));
  while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.remove_suffix(1);
  return iequals(name, "application/json") ? MediaType::json : MediaType::other;
}

class Parser final : public http::basic_parser<true> {
 public:
  RequestHead* head = nullptr;
  std::string* body = nullptr;
  std::optional<Error> refusal;  // our own reason; set together with an error code

 private:
  void refuse(error_code& ec, Error error) {
    refusal = std::move(error);
    ec = http::error::bad_value;
  }

  void on_request_impl(http::verb, string_view method, string_view target, int version,
                       error_code& ec) override {
    head->method.assign(to_std(method));
    head->is_http11 = version == 11;
    if (!path_of_target(to_std(target), head->path, head->query))
      refuse(ec, malformed("the request target is not a path or an http URL in ASCII"));
  }

  void on_response_impl(int, string_view, int, error_code&) override {}

  // Beast parses a single value; what stands in `slot` already came from an earlier line.
  void take_once(std::string& slot, string_view value, error_code& ec) {
    if (!slot.empty()) return refuse(ec, malformed("a header that may stand once is repeated"));
    slot.assign(to_std(value));
  }

  void on_field_impl(http::field field, string_view name, string_view value,
                     error_code& ec) override {
    if (is_past_head_) return;  // trailers are read over
    if (++num_fields_ > kHeaderFieldsMax)
      return refuse(ec, make_error(Errc::headers_too_large,
                                   "at most " + std::to_string(kHeaderFieldsMax) + " headers"));
    switch (field) {
      case http::field::host:
        if (has_host_) refuse(ec, malformed("the host header is repeated"));
        has_host_ = true;
        return;
      case http::field::content_length:
        // Beast checked the number; a list or a second line could be read differently elsewhere.
        if (has_length_ || value.find(',') != string_view::npos)
          refuse(ec, malformed("there must be one content-length"));
        has_length_ = true;
        return;
      case http::field::transfer_encoding:
        if (has_coding_ || !iequals(value, "chunked") || !head->is_http11)
          refuse(ec, malformed("the only transfer-encoding is chunked, in HTTP/1.1"));
        has_coding_ = true;
        return;
      case http::field::content_type:
        head->content_type = media_type(value);
        return;
      case http::field::content_encoding:
        if (!value.empty() && !iequals(value, "identity"))
          refuse(ec, make_error(Errc::unsupported_media_type,
                                "request bodies are accepted without content-encoding only"));
        return;
      case http::field::expect:
        if (!iequals(value, "100-continue"))
          return refuse(ec, malformed("the only expectation is 100-continue"));
        head->expects_continue = true;
        return;
      case http::field::authorization:
        return take_once(head->authorization, value, ec);
      case http::field::if_match:
        return take_once(head->if_match, value, ec);
      case http::field::origin:
        return take_once(head->origin, value, ec);
      case http::field::access_control_request_method:
        return take_once(head->preflight_method, value, ec);
      case http::field::access_control_request_headers:
        return take_once(head->preflight_headers, value, ec);
      default:
        break;
    }
    if (field != http::field::unknown || name.size() < 11) return;
    if (iequals(name, "idempotency-key")) return take_once(head->idempotency_key, value, ec);
    if (iequals(name, "x-request-id")) return take_once(head->request_id, value, ec);
    if (iequals(name, "traceparent")) return take_once(head->traceparent, value, ec);
    if (iequals(name, "x-sluice-deadline-ms")) return take_once(head->deadline_ms, value, ec);
    if (iequals(name, "x-sluice-priority")) return take_once(head->priority, value, ec);
  }

  void on_header_impl(error_code& ec) override {
    is_past_head_ = true;
    if (head->is_http11 && !has_host_)
      return refuse(ec, malformed("HTTP/1.1 requests need a host header"));
    if (has_length_ && has_coding_)
      return refuse(ec, malformed("content-length and transfer-encoding exclude each other"));
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>& length, error_code&) override {
    // Grown with the bytes that come, not with what a client claims.
    if (length) body->reserve(std::min<std::size_t>(*length + 64, kKeptBodyBytes));
  }

  std::size_t on_body_impl(string_view bytes, error_code&) override {
    body->append(bytes.data(), bytes.size());
    return bytes.size();
  }

  void on_chunk_header_impl(std::uint64_t, string_view extension, error_code& ec) override {
    extension_bytes_ += extension.size();
    const bool is_plain = std::all_of(extension.begin(), extension.end(), [](char c) {
      return (c >= 0x20 && c < 0x7f && c != '"') || c == '\t';
    });
    if (!is_plain || extension_bytes_ > kChunkExtensionBytesMax)
      refuse(ec, malformed("chunk extensions must be few and plain"));
  }

  std::size_t on_chunk_body_impl(std::uint64_t, string_view bytes, error_code&) override {
    body->append(bytes.data(), bytes.size());
    return bytes.size();
  }

  void on_finish_impl(error_code&) override {}

  std::uint32_t num_fields_ = 0;
  std::size_t extension_bytes_ = 0;
  bool has_host_ = false;
  bool has_length_ = false;
  bool has_coding_ = false;
  bool is_past_head_ = false;
};

}  // namespace

void RequestHead::clear() {
  for (std::string* text :
       {&method, &path, &query, &authorization, &if_match, &idempotency_key, &origin, &request_id,
        &traceparent, &deadline_ms, &priority, &preflight_method, &preflight_headers})
    text->clear();
  content_type = MediaType::none;
  is_http11 = keep_alive = has_body = expects_continue = false;
}

struct RequestReader::State {
  RequestLimits limits;
  RequestHead head;
  std::string body;
  std::optional<Parser> parser;  // one per request: Beast's parsers are not reused
  std::size_t scanned = 0;       // bytes of the head in which its end does not lie
  bool is_head_done = false;
  Error error{};

  void start() {
    parser.emplace();
    parser->head = &head;
    parser->body = &body;
    // The scan bounds the head before Beast sees it.
    parser->header_limit(limits.header_bytes_max + 4);
    parser->body_limit(std::uint64_t{limits.body_bytes_max});
  }

  Step fail(Error reason) {
    error = std::move(reason);
    return {ReadState::failed, 0};
  }

  Step fail(error_code ec) {
    if (parser->refusal) return fail(std::move(*parser->refusal));
    if (ec == http::error::body_limit)
      return fail(make_error(
          Errc::request_too_large,
          "request bodies hold at most " + std::to_string(limits.body_bytes_max) + " bytes"));
    if (ec == http::error::header_limit)
      return fail(make_error(Errc::headers_too_large, "the request head is too large"));
    return fail(malformed("the request is not valid HTTP/1.1: " + ec.message()));
  }

  Step feed_head(std::string_view bytes) {
    // One empty line before a request line is tolerated (RFC 9112, section 2.2).
    const std::size_t skipped = bytes.starts_with("\r\n") ? 2 : 0;
    const std::string_view text = bytes.substr(skipped);
    // The end may straddle what was scanned and what came.
    const std::size_t from = scanned > skipped + 3 ? scanned - skipped - 3 : 0;
    const std::size_t end = text.find("\r\n\r\n", from);
    scanned = bytes.size();
    const std::size_t head_bytes = end == std::string_view::npos ? text.size() : end + 4;
    if (head_bytes > limits.header_bytes_max)
      return fail(make_error(
          Errc::headers_too_large,
          "the request head holds at most " + std::to_string(limits.header_bytes_max) + " bytes"));
    if (end == std::string_view::npos) {
      // A line that ends without CR would keep us waiting for an end that the sender believes sent.
      for (std::size_t at = text.find('\n', from); at != std::string_view::npos;
           at = text.find('\n', at + 1))
        if (at == 0 || text[at - 1] != '\r')
          return fail(malformed("the request head holds a bare line ending"));
      return {ReadState::need_more, 0};
    }
    if (const char* reason = scan_head(text.substr(0, head_bytes))) return fail(malformed(reason));
    start();
    error_code ec;
    const std::size_t used = parser->put(boost::asio::const_buffer(text.data(), head_bytes), ec);
    if (ec) return fail(ec);
    if (!parser->is_header_done()) return fail(malformed("the request head is incomplete"));
    is_head_done = true;
    head.keep_alive = parser->keep_alive();
    head.has_body = !parser->is_done();
    parser->eager(true);
    return {parser->is_done() ? ReadState::complete : ReadState::head_done, skipped + used};
  }

  Step feed_body(std::string_view bytes) {
    if (parser->is_done()) return {ReadState::complete, 0};
    if (bytes.empty() || (parser->chunked() && bytes.size() < kChunkedBytesMin))
      return {ReadState::need_more, 0};
    error_code ec;
    const std::size_t used = parser->put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
    if (ec && ec != http::error::need_more) return fail(ec);
    // What the parser leaves over is the start of a chunk's head: a line that ends in a bare LF
    // will never be complete.
    if (head.has_body && !parser->is_done() && used < bytes.size()) {
      const std::string_view rest = bytes.substr(used);
      const std::size_t lf = rest.find('\n');
      if (lf != std::string_view::npos && (lf == 0 || rest[lf - 1] != '\r'))
        return fail(malformed("lines of a chunked body end in CR LF"));
    }
    return {parser->is_done() ? ReadState::complete : ReadState::need_more, used};
  }
};

RequestReader::RequestReader(const RequestLimits& limits) : state_(std::make_unique<State>()) {
  state_->limits = limits;
}
RequestReader::~RequestReader() = default;

RequestReader::Step RequestReader::feed(std::string_view bytes) {
  return state_->is_head_done ? state_->feed_body(bytes) : state_->feed_head(bytes);
}

void RequestReader::reset() {
  State& s = *state_;
  s.head.clear();
  s.body.clear();
  if (s.body.capacity() > kKeptBodyBytes) s.body.shrink_to_fit();
  s.parser.reset();
  s.scanned = 0;
  s.is_head_done = false;
}

const RequestHead& RequestReader::head() const {
  return state_->head;
}
std::string& RequestReader::body() {
  return state_->body;
}
const Error& RequestReader::error() const {
  return state_->error;
}

}  // namespace sluice::gw
