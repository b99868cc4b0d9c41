// YAML to Config and back. Unknown keys, wrong types and values out of range are errors that name
// line, key and allowed range. The only place that reads environment variables.
#pragma once

#include <string>
#include <string_view>

#include "config/config.h"
#include "shared/result.h"

namespace sluice::cfg {

// Errors: bad_config, detail "FILE:LINE: KEY: what is wrong; allowed: RANGE".
Result<Config> parse_config(std::string_view yaml, const std::string& file_name);
Result<Config> load_config(const std::string& path);  // also io_error as bad_config

// Relations between keys (parse_config calls it): context fits the KV memory and the rings, TLS
// pair complete, a non-loopback address has keys, names unique, files exist where named.
Result<void> validate(const Config& config);

// The effective configuration as YAML that parse_config reads back to the same values. Key digests
// are masked (`masked`) for people, kept (`full`) for the children that the parent starts.
enum class Secrets : std::uint8_t { masked, full };
std::string print_config(const Config& config, Secrets secrets);

}  // namespace sluice::cfg
