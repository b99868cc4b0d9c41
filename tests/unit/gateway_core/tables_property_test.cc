// IdIndex against std::map and DueQueue against a list, with random events.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "gateway/core/due_queue.h"
#include "gateway/core/histogram.h"
#include "gateway/core/id_index.h"
#include "shared/random.h"

namespace sluice::gw {
namespace {

TEST(IdIndex, BehavesLikeAMapUnderGrowingIds) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    constexpr std::size_t kMost = 24;  // a small table: long probe sequences
    IdIndex index(kMost);
    std::map<std::uint64_t, std::uint32_t> naive;
    std::uint64_t id = mix64(seed) | 1;
    for (std::uint32_t i = 0; i < 2000; ++i) {
      const std::uint64_t dice = random_bits({seed, 0, i}, 0);
      if (naive.size() < kMost && dice % 2 == 0) {
        id += 1 + (dice >> 8) % 70;
        index.insert(SequenceId{id}, i);
        naive[id] = i;
      } else if (!naive.empty()) {
        auto gone = naive.begin();
        std::advance(gone, static_cast<std::ptrdiff_t>((dice >> 8) % naive.size()));
        index.erase(SequenceId{gone->first});
        EXPECT_FALSE(index.find(SequenceId{gone->first}));
        naive.erase(gone);
      }
      ASSERT_EQ(index.size(), naive.size());
      for (const auto& [known, value] : naive) ASSERT_EQ(index.find(SequenceId{known}), value);
    }
  }
}

TEST(DueQueue, PopsInTheOrderOfDueTimesWithOneEntryEach) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    DueQueue queue;
    std::map<std::uint32_t, Tick> naive;
    for (std::uint32_t i = 0; i < 1000; ++i) {
      const std::uint64_t dice = random_bits({seed, 0, i}, 0);
      const auto index = static_cast<std::uint32_t>((dice >> 8) % 40);
      const Tick due{Duration{static_cast<std::int64_t>((dice >> 20) % 500)}};
      if (dice % 4 < 2) {
        queue.set(index, due);
        naive[index] = due;
      } else if (dice % 4 == 2) {
        queue.set(index, std::nullopt);
        naive.erase(index);
      } else {
        const auto soonest =
            std::min_element(naive.begin(), naive.end(),
                             [](const auto& a, const auto& b) { return a.second < b.second; });
        const auto popped = queue.pop_due(due);
        const bool is_due = soonest != naive.end() && soonest->second <= due;
        ASSERT_EQ(popped.has_value(), is_due);
        if (popped) {
          ASSERT_EQ(naive.at(*popped), soonest->second);
          naive.erase(*popped);
        }
      }
      ASSERT_EQ(queue.size(), naive.size());
    }
  }
}

TEST(Histogram, PutsAValueIntoTheFirstBucketThatHoldsIt) {
  static constexpr std::int64_t kBorders[] = {10, 20, 30};
  Histogram histogram{kBorders};
  for (const std::int64_t value : {1, 10, 11, 30, 31, 1000}) histogram.observe(value);
  const auto counts = histogram.counts();
  ASSERT_EQ(counts.size(), 4u);
  EXPECT_EQ(counts[0], 2u);
  EXPECT_EQ(counts[1], 1u);
  EXPECT_EQ(counts[2], 1u);
  EXPECT_EQ(counts[3], 2u);
  EXPECT_EQ(histogram.count(), 6u);
  EXPECT_EQ(histogram.sum(), 1083);
}

}  // namespace
}  // namespace sluice::gw
