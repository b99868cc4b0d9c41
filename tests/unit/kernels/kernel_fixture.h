// What the kernel tests share: seeded numbers, the list of usable paths, bitwise comparison.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"

namespace sluice::krn {

inline constexpr double kUnit = 0x1p-24;  // half a unit in the last place of 1.0f

inline std::vector<const KernelTable*> all_paths() {
  std::vector<const KernelTable*> paths;
  for (const KernelTable* const* t = usable_kernels(); *t != nullptr; ++t) paths.push_back(*t);
  return paths;
}

inline const KernelTable& oracle() {
  return *find_kernels("scalar");
}

inline std::vector<float> random_floats(std::size_t n, std::uint32_t seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-scale, scale);
  std::vector<float> values(n);
  for (float& value : values) value = uniform(engine);
  return values;
}

inline bool same_bits(const float* a, const float* b, std::size_t n) {
  return n == 0 || std::memcmp(a, b, n * sizeof(float)) == 0;
}

}  // namespace sluice::krn
