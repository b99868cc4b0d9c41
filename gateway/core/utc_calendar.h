// Days and months in UTC as plain numbers: what calendar limits are labelled with. Pure.
#pragma once

#include <chrono>
#include <cstdint>

namespace sluice::gw {

using DayNumber = std::int32_t;    // days since 1970-01-01
using MonthNumber = std::int32_t;  // months since January of year 0

// The wall clock is input: what lies outside is taken for the nearest of these (years 1970..9999).
inline constexpr std::int64_t kUnixMsMax = 253'402'300'799'999;

constexpr DayNumber day_number(std::int64_t unix_ms) {
  constexpr std::int64_t kDayMs = 86'400'000;
  return static_cast<DayNumber>(unix_ms / kDayMs);
}
constexpr std::int64_t day_start_unix_ms(DayNumber day) {
  return std::int64_t{day} * 86'400'000;
}
constexpr MonthNumber month_number(DayNumber day) {
  const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{day}}};
  return static_cast<int>(date.year()) * 12 +
         static_cast<int>(static_cast<unsigned>(date.month())) - 1;
}
constexpr DayNumber month_start(MonthNumber month) {
  const std::chrono::year_month_day first{std::chrono::year{month / 12},
                                          std::chrono::month{static_cast<unsigned>(month % 12) + 1},
                                          std::chrono::day{1}};
  return static_cast<DayNumber>(std::chrono::sys_days{first}.time_since_epoch().count());
}

}  // namespace sluice::gw
