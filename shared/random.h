// Counter-based randomness: a number is a function of its key (seed, choice, position, draw), so a
// sample does not depend on batch mates, order or restarts. Mixing is the finalizer of SplitMix64
// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014), chained over
// the key's words.
#pragma once

#include <cstdint>

namespace sluice {

constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

struct RandomKey {
  std::uint64_t seed;
  std::uint32_t choice;    // index of the sequence within its request
  std::uint32_t position;  // index of the output token being drawn
};

// `draw` numbers the values needed for one position; every (key, draw) is independent.
constexpr std::uint64_t random_bits(const RandomKey& key, std::uint32_t draw) {
  const std::uint64_t a = mix64(key.seed);
  const std::uint64_t b = mix64(a ^ ((std::uint64_t{key.choice} << 32) | key.position));
  return mix64(b ^ draw);
}

// Uniform in [0, 1), 53 bits.
constexpr double random_unit(const RandomKey& key, std::uint32_t draw) {
  return static_cast<double>(random_bits(key, draw) >> 11) * 0x1.0p-53;
}

}  // namespace sluice
