// The error envelope and the headers that go with it.
#include "gateway/api/error_response.h"

#include <algorithm>

#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

bool is_internal(Errc code) {
  return code >= Errc::client_gone;
}

}  // namespace

void append_error_json(std::string& out, const Error& error) {
  const ErrorRow& row = error_row(error.code);
  out.append("{\"error\":{\"message\":");
  append_json_string(out, is_internal(error.code) || error.detail.empty()
                              ? std::string_view("the server could not answer this request")
                              : std::string_view(error.detail));
  out.append(",\"type\":");
  append_json_string(out, row.type);
  out.append(",\"param\":");
  if (error.param.empty())
    out.append("null");
  else
    append_json_string(out, error.param);
  out.append(",\"code\":");
  append_json_string(out, row.api_code);
  out.append("}}");
}

void append_error_event(std::string& out, const Error& error) {
  out.append("data: ");
  append_error_json(out, error);
  out.append("\n\n");
}

void append_error_headers(std::string& out, const Error& error) {
  const ErrorRow& row = error_row(error.code);
  if (error.code == Errc::invalid_api_key) out.append("www-authenticate: Bearer\r\n");
  if (error.retry_after) {
    const std::int64_t ms = std::max<std::int64_t>(error.retry_after->count(), 1);
    out.append("retry-after: ");
    append_integer(out, (ms + 999) / 1000);
    out.append("\r\nretry-after-ms: ");
    append_integer(out, ms);
    out.append("\r\n");
  }
  // Clients retry 408, 409, 429 and 5xx by themselves: say so where that cannot help.
  const bool invites = row.http_status == 408 || row.http_status == 409 || row.http_status == 429 ||
                       row.http_status >= 500;
  if (invites && !row.retryable) out.append("x-should-retry: false\r\n");
}

}  // namespace sluice::gw
