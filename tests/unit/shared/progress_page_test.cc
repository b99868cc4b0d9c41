// The progress page: a reader gets a consistent copy or none, also while the writer writes.
#include "shared/progress_page.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/support/region_pair.h"

namespace sluice::shm {
namespace {

using test::RegionPair;

std::vector<SequenceId> ids(std::uint64_t first, std::size_t count) {
  std::vector<SequenceId> made;
  for (std::size_t i = 0; i < count; ++i) made.emplace_back(first + i);
  return made;
}

TEST(ProgressPage, SaysWhatTheWriterSaid) {
  RegionPair pair(kRingBytesMin);
  ASSERT_TRUE(read_progress(pair.step_peer));
  EXPECT_EQ(read_progress(pair.step_peer)->phase, static_cast<std::uint32_t>(WorkerPhase::loading));
  ProgressWriter writer(pair.step);
  Progress counts;
  counts.generated_total = 99;
  counts.num_running = 3;
  counts.num_waiting = 4;
  counts.num_blocks_total = 50;
  counts.num_blocks_free = 7;
  writer.turn(WorkerPhase::planning, 1000, counts);
  writer.begin_forward(12, 1100, 500, ids(70, 3));
  const Progress page = *read_progress(pair.step_peer);
  EXPECT_EQ(page.step, 12u);
  EXPECT_EQ(page.step_started_ns, 1100u);
  EXPECT_EQ(page.step_predicted_ns, 500u);
  EXPECT_EQ(page.heartbeat_ns, 1100u);
  EXPECT_EQ(page.phase, static_cast<std::uint32_t>(WorkerPhase::forward));
  EXPECT_EQ(page.generated_total, 99u);
  EXPECT_EQ(page.num_running, 3u);
  EXPECT_EQ(page.num_waiting, 4u);
  EXPECT_EQ(page.num_blocks_total, 50u);
  EXPECT_EQ(page.num_blocks_free, 7u);
  ASSERT_EQ(page.num_suspects, 3u);
  EXPECT_EQ(page.suspects[0], 70u);
  EXPECT_EQ(page.suspects[2], 72u);
}

TEST(ProgressPage, ATurnClearsTheSuspects) {
  RegionPair pair(kRingBytesMin);
  ProgressWriter writer(pair.step);
  writer.begin_forward(1, 10, 0, ids(5, kBatchSequencesMax));
  EXPECT_EQ(read_progress(pair.step_peer)->num_suspects, kBatchSequencesMax);
  writer.turn(WorkerPhase::idle, 20, {});
  EXPECT_EQ(read_progress(pair.step_peer)->num_suspects, 0u);
  EXPECT_EQ(read_progress(pair.step_peer)->step, 1u);
}

TEST(ProgressPage, AWriterThatDiedInsideAWriteLeavesNoCopy) {
  RegionPair pair(kRingBytesMin);
  ProgressWriter writer(pair.step);
  writer.begin_forward(1, 10, 0, ids(5, 2));
  pair.step.own_page()[0] ^= std::byte{1};  // the sequence becomes odd
  EXPECT_FALSE(read_progress(pair.step_peer));
}

TEST(ProgressPage, AnAbsurdNumberOfSuspectsIsClamped) {
  RegionPair pair(kRingBytesMin);
  ProgressWriter writer(pair.step);
  writer.begin_forward(1, 10, 0, ids(5, 2));
  const std::uint32_t absurd = 0xffffffff;
  std::memcpy(pair.step.own_page() + 8 + offsetof(Progress, num_suspects), &absurd, sizeof absurd);
  EXPECT_EQ(read_progress(pair.step_peer)->num_suspects, kBatchSequencesMax);
}

// All fields of a write carry one number, so a mixed copy shows.
TEST(ProgressPage, CopiesAreConsistentUnderAConcurrentWriter) {
  RegionPair pair(kRingBytesMin);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> written{0};
  std::thread thread([&] {
    ProgressWriter writer(pair.step);
    for (std::uint64_t n = 1; !stop.load(std::memory_order_relaxed); ++n) {
      const std::vector<SequenceId> suspects(n % 9, SequenceId(n));
      writer.begin_forward(n, n, n, suspects);
      written.store(n, std::memory_order_relaxed);
    }
  });
  std::uint64_t last = 0;
  std::uint64_t num_copies = 0;
  while (num_copies < 20'000 || last < 1000) {
    const auto page = read_progress(pair.step_peer);
    if (!page) continue;
    ++num_copies;
    const std::uint64_t n = page->step;
    ASSERT_EQ(page->step_started_ns, n);
    ASSERT_EQ(page->step_predicted_ns, n);
    ASSERT_EQ(page->num_suspects, n % 9);
    for (std::uint32_t i = 0; i < page->num_suspects; ++i) ASSERT_EQ(page->suspects[i], n);
    ASSERT_GE(n, last) << "time runs backwards";
    last = n;
  }
  stop.store(true);
  thread.join();
  EXPECT_EQ(read_progress(pair.step_peer)->step, written.load());
}

}  // namespace
}  // namespace sluice::shm
