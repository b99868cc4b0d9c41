// The seed of a randomized test: TEST_SEED when set, else a fixed one, so that CI is repeatable and
// a failure is replayed by its printed seed.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>

namespace sluice::test {

inline std::uint64_t test_seed(std::uint64_t fallback) {
  const char* const text = std::getenv("TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
}

// Uniform in [low, high].
template <class Rng>
std::uint64_t uniform(Rng& rng, std::uint64_t low, std::uint64_t high) {
  return std::uniform_int_distribution<std::uint64_t>(low, high)(rng);
}

}  // namespace sluice::test
