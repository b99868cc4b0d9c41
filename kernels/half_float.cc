// float_to_f16 on vectors of the compiler's own, four at a time: a register of every x86-64.
#include "kernels/half_float.h"

#include <cstring>

namespace sluice::krn {
namespace {

using Ints = std::int32_t __attribute__((vector_size(16)));
using Words = std::uint32_t __attribute__((vector_size(16)));
using Floats = float __attribute__((vector_size(16)));
using Halves = std::uint16_t __attribute__((vector_size(16)));

// Line by line float_to_f16; each half in the lower 16 bits of its lane.
Ints halves_of(const float* x) {
  Ints bits;
  std::memcpy(&bits, x, sizeof bits);
  const Ints magnitude = bits & 0x7fffffff;
  const Floats stepped = reinterpret_cast<Floats>(magnitude) + 0.5f;
  const Ints subnormal = reinterpret_cast<Ints>(stepped) - 0x3f000000;
  // Unsigned: g++ reorders sums of vectors, and one in another order could overflow.
  const auto word = reinterpret_cast<Words>(magnitude);
  const auto normal =
      reinterpret_cast<Ints>((word - 0x38000000u + 0xfffu + ((word >> 13) & 1u)) >> 13);
  Ints half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? Ints{} + 0x7c00 : half;
  half = magnitude > 0x7f800000 ? Ints{} + 0x7e00 : half;
  return half | ((bits >> 16) & 0x8000);
}

}  // namespace

void floats_to_f16(const float* x, std::size_t n, std::uint16_t* out) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const auto low = reinterpret_cast<Halves>(halves_of(x + i));
    const auto high = reinterpret_cast<Halves>(halves_of(x + i + 4));
    const Halves halves = __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
    std::memcpy(out + i, &halves, sizeof halves);
  }
  for (; i < n; ++i) out[i] = float_to_f16(x[i]);
}

}  // namespace sluice::krn
