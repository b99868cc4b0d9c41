// OutputPredictor: quantiles hold for what was seen, are at most a quarter too high, and follow a
// change of habit.
#include "gateway/core/output_predictor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "shared/random.h"

namespace sluice::gw {
namespace {

TEST(OutputPredictor, SaysNothingBeforeItHasSeenEnough) {
  OutputPredictor predictor;
  for (std::uint32_t i = 1; i < OutputPredictor::kSeenMin; ++i) predictor.observe(50);
  EXPECT_EQ(predictor.quantile_tokens(900), 0u);
  predictor.observe(50);
  EXPECT_GE(predictor.quantile_tokens(900), 50u);
}

TEST(OutputPredictor, AQuantileCoversItsShareAndIsAtMostAQuarterTooHigh) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    OutputPredictor predictor;
    std::vector<std::uint32_t> seen;
    for (std::uint32_t i = 0; i < 500; ++i) {
      const auto tokens =
          static_cast<std::uint32_t>(1 + random_bits({seed, 0, i}, 0) % (seed * 97));
      seen.push_back(tokens);
      predictor.observe(tokens);
    }
    std::sort(seen.begin(), seen.end());
    for (const std::uint32_t permille : {500u, 900u, 990u, 1000u}) {
      const std::uint32_t exact = seen[(seen.size() * permille + 999) / 1000 - 1];
      const std::uint32_t predicted = predictor.quantile_tokens(permille);
      EXPECT_GE(predicted, exact) << seed;
      EXPECT_LE(predicted, exact + exact / 4 + 1) << seed;
    }
  }
}

TEST(OutputPredictor, OldHabitsFade) {
  OutputPredictor predictor;
  for (int i = 0; i < 1000; ++i) predictor.observe(1000);
  for (int i = 0; i < 6000; ++i) predictor.observe(10);
  EXPECT_LE(predictor.quantile_tokens(900), 12u);
}

}  // namespace
}  // namespace sluice::gw
