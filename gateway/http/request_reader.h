// RequestReader: bytes of one HTTP/1.x request to a head and a body. Beast parses; what its parser
// lets through but what two parties could read differently is refused here first: line folding,
// bare CR or LF, control bytes, several or listed Content-Lengths, Content-Length beside
// Transfer-Encoding, any coding but `chunked`, quoted chunk extensions, a missing or repeated Host.
//
// The head must lie in one piece; it is scanned once for its end and parsed once. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shared/result.h"

namespace sluice::gw {

struct RequestLimits {
  std::uint32_t header_bytes_max = 16 << 10;
  std::uint32_t body_bytes_max = 8 << 20;
};
inline constexpr std::uint32_t kHeaderFieldsMax = 100;
inline constexpr std::uint32_t kChunkExtensionBytesMax = 4096;  // of one request

enum class MediaType : std::uint8_t { none, json, other };

// The fields that some part of the gateway reads; all others are dropped. Memory is reused.
struct RequestHead {
  std::string method;
  std::string path;   // of the target, without scheme, authority and query; raw
  std::string query;  // behind the first '?'; raw
  std::string authorization;
  std::string if_match;
  std::string idempotency_key;
  std::string origin;
  std::string request_id;
  std::string traceparent;
  std::string deadline_ms;        // x-sluice-deadline-ms
  std::string priority;           // x-sluice-priority
  std::string preflight_method;   // access-control-request-method
  std::string preflight_headers;  // access-control-request-headers
  MediaType content_type = MediaType::none;
  bool is_http11 = false;
  bool keep_alive = false;
  bool has_body = false;
  bool expects_continue = false;

  void clear();
};

enum class ReadState : std::uint8_t {
  need_more,  // all complete parts were consumed
  head_done,  // head() is valid; feed() goes on with the body
  complete,   // head() and body() are valid
  failed,     // error() says why; the connection cannot go on
};

class RequestReader {
 public:
  explicit RequestReader(const RequestLimits& limits);
  ~RequestReader();
  RequestReader(RequestReader&&) = delete;

  struct Step {
    ReadState state;
    std::size_t consumed;  // bytes that the caller may drop
  };
  // `bytes`: everything not consumed so far, from the same position. Call again after head_done.
  Step feed(std::string_view bytes);
  // Forgets the request; a large body's memory is given back.
  void reset();

  const RequestHead& head() const;
  std::string& body();
  const Error& error() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::gw
