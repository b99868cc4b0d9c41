// The machine's limits: the loops compute what they claim, and the figures are above what a plain
// scalar loop reaches in the same moment.
#include "kernels/cpu/machine_limits.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/targets.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace sluice::krn {
namespace {

TEST(MachineLimits, TheLoopsComputeWhatTheyClaim) {
  const LimitProbe* probe = usable_probe();
  if (probe == nullptr) GTEST_SKIP() << "no vector unit to measure";
  // Chain j starts at j; a round makes 0.999 x + 0.999 of it. All 16 lanes are alike.
  const std::size_t num_chains = probe->operations_per_round / (2 * kLanes);
  ASSERT_GE(num_chains, 4u);
  for (const std::size_t rounds : {0u, 1u, 7u}) {
    double want = 0;
    for (std::size_t j = 0; j < num_chains; ++j) {
      double x = static_cast<double>(j);
      for (std::size_t i = 0; i < rounds; ++i) x = 0.999 * x + 0.999;
      want += 16 * x;
    }
    EXPECT_NEAR(probe->fma_chains(rounds), want, 1e-3 * (1 + want));
  }
  std::vector<float> data(64 * 5 + 3);
  std::iota(data.begin(), data.end(), 1.0f);
  EXPECT_EQ(probe->read_sum(data.data(), data.size()), 320.0f * 321 / 2);  // whole groups of 64
  EXPECT_EQ(probe->read_sum(data.data(), 63), 0.0f);
}

TEST(MachineLimits, AreAboveAPlainLoop) {
  if (usable_probe() == nullptr) GTEST_SKIP() << "no vector unit to measure";
  ThreadPool team(1);
  const MachineLimits limits = measure_limits(team);
  volatile float start = 1.0f;
  float x = start;
  constexpr int kSteps = 1 << 20;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kSteps; ++i) x = x * 0.999f + 0.999f;  // one chain: bound by its latency
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(x, 0.0f);
  EXPECT_GT(limits.operations_per_second, 2.0 * kSteps / took.count());
  EXPECT_GT(limits.bytes_per_second, 1e8);
  EXPECT_TRUE(std::isfinite(limits.bytes_per_second));
  // Memory of any contents does as well.
  std::vector<float> memory(20u << 20, std::numeric_limits<float>::quiet_NaN());
  EXPECT_GT(measure_limits(team, memory).bytes_per_second, limits.bytes_per_second / 8);
  EXPECT_GT(measure_limits(team, std::span(memory).first(7)).bytes_per_second, 1e8);
}

}  // namespace
}  // namespace sluice::krn
