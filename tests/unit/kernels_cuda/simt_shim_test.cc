// The shim itself: its barriers hold in every order, divergence is found, and a kernel that forgets
// a barrier is caught by some order (the reason to have it).
#include "tests/support/simt_shim.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

namespace sluice::simt {
namespace {

constexpr unsigned kThreads = 96;

// Reverses an array through shared memory; correct only with the barrier.
void reverse_kernel(int* data, bool has_barrier) {
  SLUICE_SHARED(int, staged, kThreads);
  staged[threadIdx.x] = data[threadIdx.x];
  if (has_barrier) __syncthreads();
  data[threadIdx.x] = staged[kThreads - 1 - threadIdx.x];
}

std::vector<int> reversed(std::uint64_t seed, bool has_barrier) {
  std::vector<int> data(kThreads);
  std::iota(data.begin(), data.end(), 0);
  const auto outcome =
      launch({1}, {kThreads}, seed, [&] { reverse_kernel(data.data(), has_barrier); });
  EXPECT_TRUE(outcome.ok) << outcome.error;
  return data;
}

TEST(SimtShim, ABarrierHoldsInEveryOrder) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const auto data = reversed(seed, true);
    for (unsigned i = 0; i < kThreads; ++i) ASSERT_EQ(data[i], static_cast<int>(kThreads - 1 - i));
  }
}

TEST(SimtShim, AForgottenBarrierShowsInSomeOrder) {
  unsigned num_wrong = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    num_wrong += reversed(seed, false) != reversed(seed, true);
  EXPECT_GT(num_wrong, 0u);
}

TEST(SimtShim, SeedsGiveDifferentOrders) {
  std::set<std::vector<unsigned>> orders;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<unsigned> order;
    ASSERT_TRUE(launch({1}, {8}, seed, [&] { order.push_back(threadIdx.x); }).ok);
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), 15u);
}

TEST(SimtShim, ShufflesExchangeWithinAWarpOnly) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<int> sums(kThreads);
    const auto outcome = launch({1}, {kThreads}, seed, [&] {
      int value = static_cast<int>(threadIdx.x);
      for (unsigned step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
      sums[threadIdx.x] = value;
    });
    ASSERT_TRUE(outcome.ok) << outcome.error;
    for (unsigned i = 0; i < kThreads; ++i) {
      const int first = static_cast<int>(i / kWarpSize * kWarpSize);
      ASSERT_EQ(sums[i], 32 * first + 31 * 32 / 2);
    }
  }
}

TEST(SimtShim, ABarrierIsReleasedWhenTheOtherThreadsHaveReturned) {
  int passed = 0;
  const auto outcome = launch({1}, {64}, 7, [&] {
    if (threadIdx.x >= 10) return;
    __syncthreads();
    ++passed;
  });
  EXPECT_TRUE(outcome.ok) << outcome.error;
  EXPECT_EQ(passed, 10);
}

TEST(SimtShim, DivergentBarriersAreADeadlock) {
  const auto outcome = launch({1}, {32}, 7, [&] {
    if (threadIdx.x == 0)
      __syncthreads();
    else
      (void)__shfl_xor_sync(~0u, 1, 1);
  });
  EXPECT_FALSE(outcome.ok);
  EXPECT_NE(outcome.error.find("deadlock"), std::string::npos);
}

TEST(SimtShim, SharedMemoryStartsAsNaNInEachBlock) {
  bool all_nan = true;
  const auto outcome = launch({3}, {32}, 1, [&] {
    SLUICE_SHARED(float, value, 32);
    all_nan = all_nan && value[threadIdx.x] != value[threadIdx.x];
    value[threadIdx.x] = 1.0f;
  });
  EXPECT_TRUE(outcome.ok);
  EXPECT_TRUE(all_nan);
}

}  // namespace
}  // namespace sluice::simt
