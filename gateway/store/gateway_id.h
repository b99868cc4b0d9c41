// The name of a gateway in a store that several share: 128 random bits, made once and kept in its
// state directory, so that the next process continues what the last one had charged and leased.
#pragma once

#include <string>

#include "shared/result.h"

namespace sluice::gw {

// 32 hex digits. Errors: io_error; bad_file, for what lies there and is no such name.
Result<std::string> load_gateway_id(const std::string& state_dir);

}  // namespace sluice::gw
