// The process's logger: one line per event on stderr, key=value, the time and the role first.
#pragma once

#include <string>

namespace sluice::gw {

// `level`: error, warn, info or debug, as the configuration has it.
void log_to_stderr(const std::string& role, const std::string& level);

}  // namespace sluice::gw
