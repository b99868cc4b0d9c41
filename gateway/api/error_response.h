// An Error as the API's envelope: {"error":{"message","type","param","code"}}.
// Free functions over a caller's buffer; no thread rule.
#pragma once

#include <string>
#include <string_view>

#include "shared/errors.h"

namespace sluice::gw {

// Appends the JSON object. Codes between our own parts read as an internal error without detail.
void append_error_json(std::string& out, const Error& error);
// Appends it as one event of a stream that has begun.
void append_error_event(std::string& out, const Error& error);
// Appends `retry-after`, `retry-after-ms`, `x-should-retry` and `www-authenticate` header lines,
// where the error calls for them.
void append_error_headers(std::string& out, const Error& error);

}  // namespace sluice::gw
