// StreamDecoder: tokens of one sequence to text as it grows. Holds back the bytes of an incomplete
// UTF-8 character until they complete or turn out to be invalid (then U+FFFD, as a decoder of the
// whole would write). The concatenation of all pushes and finish() equals decoding all at once.
// One per sequence; not thread safe; allocates nothing (at most 3 bytes are held).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::tok {

class StreamDecoder {
 public:
  // Appends to `text` what is certain after these bytes.
  void push(std::string_view bytes, std::string& text);
  // The sequence ended: an incomplete character becomes U+FFFD.
  void finish(std::string& text);
  std::size_t held_bytes() const { return held_size_; }

 private:
  std::array<char, 4> held_{};
  std::uint8_t held_size_ = 0;
};

}  // namespace sluice::tok
