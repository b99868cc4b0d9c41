// Histogram: counts per bucket with fixed borders. Observing allocates nothing. Values are integers
// in the unit of the borders (nanoseconds, tokens). Plain value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "shared/clock.h"

namespace sluice::gw {

class Histogram {
 public:
  static constexpr std::size_t kBordersMax = 23;

  // `borders`: ascending, inclusive upper ends; static storage.
  explicit constexpr Histogram(std::span<const std::int64_t> borders) : borders_(borders) {}

  void observe(std::int64_t value) { observe(value, 1); }
  void observe(std::int64_t value, std::uint64_t times) {
    std::size_t bucket = 0;
    while (bucket < borders_.size() && value > borders_[bucket]) ++bucket;
    counts_[bucket] += times;
    count_ += times;
    // A worker's figures may be absurd: the sum stays at its end instead of wrapping.
    if (__builtin_add_overflow(sum_, value * static_cast<std::int64_t>(times), &sum_))
      sum_ = std::numeric_limits<std::int64_t>::max();
  }
  void observe(Duration value) { observe(value.count()); }

  std::span<const std::int64_t> borders() const { return borders_; }
  // One more than borders: the last one counts what is above all of them. Not cumulative.
  std::span<const std::uint64_t> counts() const {
    return std::span(counts_).first(borders_.size() + 1);
  }
  std::uint64_t count() const { return count_; }
  std::int64_t sum() const { return sum_; }

 private:
  std::span<const std::int64_t> borders_;
  std::array<std::uint64_t, kBordersMax + 1> counts_{};
  std::uint64_t count_ = 0;
  std::int64_t sum_ = 0;
};

}  // namespace sluice::gw
