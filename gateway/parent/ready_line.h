// What `sluice serve` prints on stdout once it serves: one line that says where and what, and a
// command to paste.
#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"

namespace sluice::gw {

std::string ready_text(const cfg::Config& config, std::uint16_t port);

}  // namespace sluice::gw
