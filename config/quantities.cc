// Reading and writing numbers with units; see quantities.h.
#include "config/quantities.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

namespace sluice::cfg {
namespace {

struct Unit {
  std::string_view suffix;
  std::uint64_t factor;
};
// Longer units first: the first that divides a value is the one it is printed in.
constexpr std::array<Unit, 4> kDurations{
    {{"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};
constexpr std::array<Unit, 4> kSizes{
    {{"GiB", 1u << 30}, {"MiB", 1u << 20}, {"KiB", 1u << 10}, {"", 1}}};

template <std::size_t N>
std::optional<std::uint64_t> parse_with_unit(std::string_view text,
                                             const std::array<Unit, N>& units,
                                             std::uint64_t value_max) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = parse_whole_number(text.substr(0, digits));
  if (!number) return std::nullopt;
  for (const Unit& unit : units) {
    if (text.substr(digits) != unit.suffix) continue;
    if (*number > value_max / unit.factor) return std::nullopt;
    return *number * unit.factor;
  }
  return std::nullopt;
}

template <std::size_t N>
std::string format_with_unit(std::uint64_t value, const std::array<Unit, N>& units) {
  for (const Unit& unit : units)
    if (value % unit.factor == 0 && value >= unit.factor)
      return std::to_string(value / unit.factor) + std::string(unit.suffix);
  return std::string(1, '0').append(units.back().suffix);
}

}  // namespace

std::optional<std::uint64_t> parse_whole_number(std::string_view text) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto value = parse_with_unit(text, kDurations, std::numeric_limits<std::int64_t>::max());
  if (!value) return std::nullopt;
  return std::chrono::milliseconds(static_cast<std::int64_t>(*value));
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  return parse_with_unit(text, kSizes, std::numeric_limits<std::uint64_t>::max());
}

std::string format_duration(std::chrono::milliseconds duration) {
  return format_with_unit(static_cast<std::uint64_t>(duration.count()), kDurations);
}

std::string format_size(std::uint64_t bytes) {
  return format_with_unit(bytes, kSizes);
}

}  // namespace sluice::cfg
