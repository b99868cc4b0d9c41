// UTF-8, as the WHATWG Encoding Standard decodes it: an invalid sequence becomes one U+FFFD for
// each maximal part that could have begun a character (Unicode 15, section 3.9, table 3-8). Python,
// ICU and browsers agree on it, so a text has one meaning wherever it is decoded. Pure functions;
// no thread rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::tok {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8Status : std::uint8_t {
  character,   // `size` bytes are a whole character
  invalid,     // `size` bytes (>= 1) are one maximal invalid part
  incomplete,  // all `size` bytes that are there could begin a character
};

struct Utf8Unit {
  Utf8Status status;
  std::uint8_t size;  // 1..4
};

// The first unit of `bytes`. REQUIRES: not empty.
Utf8Unit next_utf8(std::string_view bytes);

bool is_valid_utf8(std::string_view bytes);
// Appends `bytes` with every invalid or incomplete part replaced.
void append_valid_utf8(std::string_view bytes, std::string& out);

}  // namespace sluice::tok
