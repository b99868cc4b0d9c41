// Conversions of the 16-bit weight formats to float and back, by bits, the same on every compiler.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace sluice::krn {

inline float bf16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// IEEE binary16 to binary32, exact, subnormals included; a NaN becomes quiet, as the hardware does
// it.
inline float f16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact in binary32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) {
    const std::uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Nearest, ties to even; a NaN stays a NaN.
inline std::uint16_t float_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// binary32 to binary16: nearest, ties to even; beyond 65520 an infinity; a NaN stays a NaN. Without
// branches, so that a loop of it is vectorized.
inline std::uint16_t float_to_f16(float value) {
  const auto bits = std::bit_cast<std::int32_t>(value);
  const std::int32_t magnitude = bits & 0x7fffffff;
  // Below 2^-14 the target counts in steps of 2^-24: added to 1/2, they are the last bit of a
  // float, and the addition rounds.
  const float stepped = std::bit_cast<float>(magnitude) + 0.5f;
  const std::int32_t subnormal = std::bit_cast<std::int32_t>(stepped) - 0x3f000000;
  const std::int32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  std::int32_t half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? 0x7c00 : half;
  half = magnitude > 0x7f800000 ? 0x7e00 : half;
  return static_cast<std::uint16_t>(half | ((bits >> 16) & 0x8000));
}

// out[i] = float_to_f16(x[i]), twice as fast as a loop of it.
void floats_to_f16(const float* x, std::size_t n, std::uint16_t* out);

}  // namespace sluice::krn
