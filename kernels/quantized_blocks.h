// The block formats of GGUF's quantized tensors (ggml-org/ggml: docs and ggml-common.h describe
// them): num_elements of a row share one block of bytes. Here they become floats, which loading
// stores as F16 where no kernel multiplies the blocks themselves (shapes.h says which can). d, m:
// binary16; element i of a block:
//
//   q8_0   d | i8 q[32]                                  d q[i]
//   q4_0   d | u8 q[16]                                  d (nibble(i) - 8): i low, i + 16 high
//   q4_k   d m | u8 s[12] | u8 q[128]                    d scale(i / 32) nibble(i) - m min(i / 32)
//   q5_k   d m | u8 s[12] | u8 h[32] | u8 q[128]         the same with bit i / 32 of h[i % 32] as
//   16 q6_k   u8 l[128] | u8 h[64] | i8 s[16] | d           d s[i / 16] (six bits(i) - 32)
//
// Super-blocks (k) have 256 elements. q4_k and q5_k: elements 64 c + (0..31) are the low nibbles of
// q[32 c ..], 64 c + (32..63) the high ones. q6_k: of each half of 128, elements 0..31 and 32..63
// are low nibbles of l[0..63], 64..127 the high ones; two more bits come from h[i % 32].
//
// Exact up to one rounding: products of at most 11 + 7 + 5 bits fit a float, and only q4_k and q5_k
// subtract. Every product is a multiple of 2^-24, so as binary16 (where finite) a value is off by
// at most 2^-11 of itself, however small it is. Pure functions; any alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::krn {

enum class BlockFormat : std::uint8_t { q8_0, q4_0, q4_k, q5_k, q6_k };

struct BlockShape {
  std::size_t num_elements;
  std::size_t bytes;
};
BlockShape block_shape(BlockFormat format);

// Of sub-block j < 8 of the 12 bytes s of q4_k and q5_k. Sub-blocks 0..3 have their six bits in
// s[j] and s[j + 4]; of 4..7 the low four are the nibbles of s[j + 4], the upper two the spare bits
// of s[j - 4] and s[j].
struct SixBits {
  std::uint8_t scale;
  std::uint8_t min;
};
SixBits scale_and_min(const std::uint8_t* s, std::size_t j);

// q8_0 and q4_0 alone: blocks of `x` [num_blocks * num_elements], finite, as ggml's reference makes
// them. q8_0: d = max |x| / 127, q = x / d rounded half away from zero. q4_0: d = m / -8, m the
// first x of the largest magnitude, nibble = x / d + 8 rounded half up, at most 15. d is rounded to
// binary16 behind that, and is an infinity where it does not fit.
void quantize(BlockFormat format, const float* x, std::size_t num_blocks, std::uint8_t* blocks);

// out [num_blocks * num_elements]. A scale that is not finite gives elements that are not.
void dequantize(BlockFormat format, const void* blocks, std::size_t num_blocks, float* out);

}  // namespace sluice::krn
