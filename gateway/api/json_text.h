// Appending JSON to a reused buffer: strings with escapes, numbers. Nothing allocates beyond the
// buffer's own growth.
#pragma once

#include <charconv>
#include <concepts>
#include <string>
#include <string_view>

namespace sluice::gw {

// Appends the escaped text without quotes. REQUIRES: valid UTF-8.
void append_json_escaped(std::string& out, std::string_view text);

inline void append_json_string(std::string& out, std::string_view text) {
  out.push_back('"');
  append_json_escaped(out, text);
  out.push_back('"');
}

template <std::integral Int>
void append_integer(std::string& out, Int value) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end);
}

// The shortest digits that read back as the same float. REQUIRES: finite.
inline void append_float(std::string& out, float value) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end);
}

// Milliseconds with three decimals.
void append_milliseconds(std::string& out, double ms);

}  // namespace sluice::gw
