// Dates of the proleptic Gregorian calendar from seconds since 1970; see strftime.h.
#include "tokenizer/jinja/strftime.h"

#include <algorithm>
#include <array>

namespace sluice::jinja {
namespace {

constexpr std::array<std::string_view, 12> kMonths{"January",   "February", "March",    "April",
                                                   "May",       "June",     "July",     "August",
                                                   "September", "October",  "November", "December"};
constexpr std::array<std::string_view, 7> kDays{"Thursday", "Friday",  "Saturday", "Sunday",
                                                "Monday",   "Tuesday", "Wednesday"};

struct Time {
  std::int64_t year;
  std::int64_t month, day;  // from 1
  std::int64_t day_of_year;
  std::int64_t week_day;  // index of kDays
  std::int64_t hour, minute, second;
};

// Years from March to February, in eras of 400 years: then leap days come last.
Time time_of(std::int64_t unix_s) {
  constexpr std::int64_t kDaySeconds = 86'400, kEraDays = 146'097, kDaysTo1970 = 719'468;
  const std::int64_t seconds = ((unix_s % kDaySeconds) + kDaySeconds) % kDaySeconds;
  const std::int64_t days = (unix_s - seconds) / kDaySeconds;
  const std::int64_t shifted = days + kDaysTo1970;
  const std::int64_t era = (shifted >= 0 ? shifted : shifted - kEraDays + 1) / kEraDays;
  const std::int64_t day_of_era = shifted - era * kEraDays;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t from_march =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t month_from_march = (5 * from_march + 2) / 153;
  Time time{};
  time.day = from_march - (153 * month_from_march + 2) / 5 + 1;
  time.month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  time.year = year_of_era + era * 400 + (time.month <= 2 ? 1 : 0);
  const bool is_leap = (time.year % 4 == 0 && time.year % 100 != 0) || time.year % 400 == 0;
  time.day_of_year = time.month <= 2 ? from_march - 305 : from_march + 60 + (is_leap ? 1 : 0);
  time.week_day = ((days % 7) + 7) % 7;
  time.hour = seconds / 3600;
  time.minute = seconds / 60 % 60;
  time.second = seconds % 60;
  return time;
}

std::string padded(std::int64_t number, std::size_t width, char fill) {
  std::string text = std::to_string(number);
  if (text.size() < width && fill != '\0') text.insert(0, width - text.size(), fill);
  return text;
}

bool append_field(const Time& time, char field, bool has_padding, std::string& out) {
  const char zero = has_padding ? '0' : '\0';
  const std::int64_t hour12 = time.hour % 12 == 0 ? 12 : time.hour % 12;
  const std::string_view month = kMonths[static_cast<std::size_t>(time.month - 1)];
  const std::string_view week_day = kDays[static_cast<std::size_t>(time.week_day)];
  switch (field) {
    case 'a':
      out += week_day.substr(0, 3);
      return true;
    case 'A':
      out += week_day;
      return true;
    case 'b':
      out += month.substr(0, 3);
      return true;
    case 'B':
      out += month;
      return true;
    case 'd':
      out += padded(time.day, 2, zero);
      return true;
    case 'e':
      out += padded(time.day, 2, has_padding ? ' ' : '\0');
      return true;
    case 'H':
      out += padded(time.hour, 2, zero);
      return true;
    case 'I':
      out += padded(hour12, 2, zero);
      return true;
    case 'j':
      out += padded(time.day_of_year, 3, zero);
      return true;
    case 'm':
      out += padded(time.month, 2, zero);
      return true;
    case 'M':
      out += padded(time.minute, 2, zero);
      return true;
    case 'p':
      out += time.hour < 12 ? "AM" : "PM";
      return true;
    case 'S':
      out += padded(time.second, 2, zero);
      return true;
    case 'y':
      out += padded(((time.year % 100) + 100) % 100, 2, zero);
      return true;
    case 'Y':
      out += std::to_string(time.year);
      return true;
    case '%':
      out += '%';
      return true;
    default:
      return false;
  }
}

}  // namespace

std::optional<std::string> format_time(std::string_view format, std::int64_t unix_s) {
  // Years of four digits; a clock beyond them is broken.
  constexpr std::int64_t kLast = 253'402'300'799;
  const Time time = time_of(std::clamp<std::int64_t>(unix_s, 0, kLast));
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    ++i;
    const bool has_padding = i >= format.size() || format[i] != '-';
    if (!has_padding) ++i;
    if (i >= format.size() || !append_field(time, format[i], has_padding, out)) return std::nullopt;
  }
  return out;
}

}  // namespace sluice::jinja
