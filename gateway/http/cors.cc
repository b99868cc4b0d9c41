// Origins and their headers.
#include "gateway/http/cors.h"

#include <algorithm>

namespace sluice::gw {
namespace {

// http(s)://localhost, 127.0.0.1 or [::1], any port.
bool is_local_origin(std::string_view origin) {
  if (origin.starts_with("http://"))
    origin.remove_prefix(7);
  else if (origin.starts_with("https://"))
    origin.remove_prefix(8);
  else
    return false;
  for (const std::string_view host : {"localhost", "127.0.0.1", "[::1]"}) {
    if (!origin.starts_with(host)) continue;
    std::string_view port = origin.substr(host.size());
    if (port.empty()) return true;
    if (port.front() != ':' || port.size() < 2 || port.size() > 6) continue;
    port.remove_prefix(1);
    return std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
  }
  return false;
}

}  // namespace

bool is_origin_allowed(const cfg::Cors& cors, std::string_view origin) {
  if (origin.empty()) return false;
  if (cors.origins.empty()) return is_local_origin(origin);
  return std::any_of(cors.origins.begin(), cors.origins.end(),
                     [&](const std::string& o) { return o == "*" || o == origin; });
}

void append_cors_headers(std::string& out, std::string_view origin) {
  out.append("access-control-allow-origin: ").append(origin);
  out.append(
      "\r\nvary: origin\r\n"
      "access-control-expose-headers: x-request-id, retry-after, retry-after-ms, "
      "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
      "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
      "openai-processing-ms, etag, idempotency-replayed\r\n");
}

void append_preflight_headers(std::string& out, const RequestHead& head, std::string_view allow) {
  out.append("access-control-allow-methods: ").append(allow).append("\r\n");
  // Clients send headers of their own making (x-stainless-...): allow the list that was asked for,
  // as far as it is one.
  const std::string_view asked = head.preflight_headers;
  const bool is_list = std::all_of(asked.begin(), asked.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == ',' || c == ' ';
  });
  out.append("access-control-allow-headers: ");
  out.append(is_list && !asked.empty()
                 ? asked
                 : "authorization, content-type, if-match, idempotency-key, x-request-id");
  out.append("\r\naccess-control-max-age: 600\r\n");
}

}  // namespace sluice::gw
