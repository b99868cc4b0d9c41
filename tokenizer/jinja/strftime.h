// strftime() in UTC with English names, for strftime_now() of templates: the same everywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::jinja {

// Knows %a %A %b %B %d %e %H %I %j %m %M %p %S %y %Y %% and their forms without padding (%-d);
// nothing for another.
std::optional<std::string> format_time(std::string_view format, std::int64_t unix_s);

}  // namespace sluice::jinja
