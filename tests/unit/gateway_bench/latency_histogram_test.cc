// LatencyHistogram against sorted samples: error bound, exact ends, merging, weights.
#include "gateway/bench/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "shared/random.h"

namespace sluice::bench {
namespace {

std::uint64_t sample(std::uint64_t seed, std::uint32_t index) {
  const std::uint64_t bits = random_bits(RandomKey{seed, 0, index}, 0);
  return (bits >> 22) >> (random_bits(RandomKey{seed, 1, index}, 0) % 42);  // all magnitudes
}

TEST(LatencyHistogram, QuantilesAreWithinOneInAThousandOfSortedSamples) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    LatencyHistogram h;
    std::vector<std::uint64_t> sorted;
    for (std::uint32_t i = 0; i < 50 * seed * seed; ++i) {
      sorted.push_back(sample(seed, i));
      h.record(sorted.back());
    }
    std::sort(sorted.begin(), sorted.end());
    for (const double q : {0.0, 0.001, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0}) {
      const auto rank = static_cast<std::size_t>(
          std::max(1.0, std::ceil(q * static_cast<double>(sorted.size()))));
      const std::uint64_t exact = sorted[rank - 1];
      ASSERT_GE(h.quantile(q), exact) << "seed " << seed << " q " << q;
      ASSERT_LE(h.quantile(q), exact + exact / 1024) << "seed " << seed << " q " << q;
    }
    EXPECT_EQ(h.min(), sorted.front());
    EXPECT_EQ(h.max(), sorted.back());
    EXPECT_EQ(h.count(), sorted.size());
  }
}

TEST(LatencyHistogram, SmallValuesAndBucketBordersAreExact) {
  for (std::uint64_t value = 0; value < 2048; ++value) {
    LatencyHistogram h;
    h.record(value);
    h.record(100'000);
    ASSERT_EQ(h.quantile(0.5), value);
  }
  // Every border: the bucket that ends before a power of two must not swallow the power.
  for (std::uint32_t bit = 11; bit < 42; ++bit) {
    LatencyHistogram h;
    h.record((1ull << bit) - 1);
    h.record(1ull << bit);
    ASSERT_EQ(h.quantile(0.5), (1ull << bit) - 1);
    ASSERT_EQ(h.quantile(1.0), 1ull << bit);
  }
}

TEST(LatencyHistogram, WeightsAndMergingEqualRepeatedRecording) {
  LatencyHistogram once, weighted, part;
  for (int i = 0; i < 7; ++i) once.record(5000);
  for (int i = 0; i < 3; ++i) once.record(9000);
  weighted.record(5000, 7);
  weighted.record(1, 0);
  part.record(9000, 3);
  weighted.merge(part);
  for (const double q : {0.0, 0.5, 0.7, 0.71, 1.0})
    EXPECT_EQ(weighted.quantile(q), once.quantile(q));
  EXPECT_EQ(weighted.count(), 10u);
  EXPECT_DOUBLE_EQ(weighted.mean(), 6200);
  EXPECT_EQ(weighted.min(), 5000u);
}

TEST(LatencyHistogram, AnEmptyOneIsZeroAndHugeValuesAreClamped) {
  LatencyHistogram h;
  EXPECT_EQ(h.quantile(0.99), 0u);
  EXPECT_EQ(h.min(), 0u);
  h.record(~0ull);
  EXPECT_EQ(h.quantile(0.5), LatencyHistogram::kValueMax);
}

}  // namespace
}  // namespace sluice::bench
