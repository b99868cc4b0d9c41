// CORS: which browser origins may read answers, and the header lines that say so. No thread rule.
#pragma once

#include <string>
#include <string_view>

#include "config/config.h"
#include "gateway/http/request_reader.h"

namespace sluice::gw {

// `origin` as sent; false for an absent one.
bool is_origin_allowed(const cfg::Cors& cors, std::string_view origin);
// Lines for an answer to an allowed origin.
void append_cors_headers(std::string& out, std::string_view origin);
// Further lines for the answer to a preflight; `allow`: methods of the path.
void append_preflight_headers(std::string& out, const RequestHead& head, std::string_view allow);

}  // namespace sluice::gw
