// The OpenAPI 3.1 document of this gateway: made of the table of operations (routes.h), the table
// of settings (config/settings.h) for limits and their ranges, and one schema per body. No thread
// rule.
#pragma once

#include <string>
#include <vector>

#include "gateway/http/routes.h"

namespace sluice::gw {

std::string openapi_document();

// The statuses of errors that an operation may answer with, ascending.
std::vector<std::uint16_t> error_statuses(const Operation& operation);

}  // namespace sluice::gw
