// One HTTP request to a gateway and its whole answer, for the command line: plain or TLS, one
// connection per call, bounded in time and size. Not a general client: no redirects, no proxies.
#pragma once

#include <string>
#include <string_view>

#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::size_t kAnswerBytesMax = 64u << 20;
inline constexpr int kCallTimeoutSeconds = 30;  // of each read and write

struct HttpTarget {
  bool is_tls = false;
  std::string host;  // an IPv6 address without its brackets
  std::string port;
  std::string authorities;  // PEM file that TLS trusts; empty: those of the system
};
// "http://HOST[:PORT]" or "https://HOST[:PORT]", a trailing slash allowed. Errors: invalid_value.
Result<HttpTarget> parse_url(std::string_view url);

struct HttpCall {
  std::string method, path;
  std::string headers;  // lines with CR LF, without Host, Content-Type and Content-Length
  std::string body;     // JSON; empty: none
};
struct HttpAnswer {
  int status = 0;
  std::string body;
};
// Errors: io_error, which says what could not be done; never repeats a header.
Result<HttpAnswer> send_call(const HttpTarget& target, const HttpCall& call);

}  // namespace sluice::gw
