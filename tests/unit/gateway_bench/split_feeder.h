// Offers text to a parser in pieces of seeded sizes, so that every border is crossed sooner or
// later.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "shared/random.h"

namespace sluice::bench {

// Calls take(piece) for consecutive pieces of 1..size_max bytes.
template <class Take>
void feed_in_pieces(std::string_view text, std::uint64_t seed, std::size_t size_max, Take take) {
  for (std::uint32_t i = 0; !text.empty(); ++i) {
    const std::size_t size =
        std::min(text.size(), 1 + random_bits(RandomKey{seed, 0, i}, 0) % size_max);
    take(text.substr(0, size));
    text.remove_prefix(size);
  }
}

}  // namespace sluice::bench
