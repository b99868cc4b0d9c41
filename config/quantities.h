// Durations and sizes as people write them: 250ms, 10s, 5m, 2h; 512, 64KiB, 8MiB, 1GiB. Formatting
// picks the largest unit that loses nothing, so parsing a formatted value gives it back.
// Pure functions; no thread rule.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::cfg {

// Decimal digits only: no sign, no leading zero, no separators. Nothing: not such a number, or
// beyond 64 bits.
std::optional<std::uint64_t> parse_whole_number(std::string_view text);
// A unit is required: a bare number says nothing about seconds or milliseconds.
std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);
std::optional<std::uint64_t> parse_size(std::string_view text);

std::string format_duration(std::chrono::milliseconds duration);
std::string format_size(std::uint64_t bytes);

}  // namespace sluice::cfg
