// The thread team: every index exactly once, for all counts, grains and team sizes, over many jobs
// in quick succession (members late from the job before) and after pauses long enough to sleep;
// no CPU while it has nothing to do.
#include <poll.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <memory>
#include <thread>

#include "kernels/cpu/thread_pool.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace sluice::krn {
namespace {

TEST(ThreadPool, CoversEveryIndexExactlyOnce) {
  for (const std::size_t threads : {1u, 2u, 3u, 5u}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (std::size_t count = 0; count < 70; ++count) {
      for (const std::size_t grain : {0u, 1u, 7u, 100u}) {
        std::vector<int> hits(count, 0);  // ranges are disjoint, so plain ints are enough
        pool.parallel_for(count, grain, [&](std::size_t begin, std::size_t end) {
          ASSERT_LT(begin, end);
          for (std::size_t i = begin; i < end; ++i) ++hits[i];
        });
        for (const int n : hits) ASSERT_EQ(n, 1);
      }
    }
  }
}

TEST(ThreadPool, ManyShortJobsSeeTheResultsOfTheJobBefore) {
  ThreadPool pool(3);
  std::vector<std::uint64_t> values(64, 0);
  for (std::uint64_t job = 0; job < 20000; ++job) {
    pool.parallel_for(values.size(), 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) values[i] += job ^ i;
    });
  }
  std::uint64_t want = 0;
  for (std::uint64_t job = 0; job < 20000; ++job) want += job ^ 5u;
  EXPECT_EQ(values[5], want);
}

TEST(ThreadPool, MembersHelp) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  // Both chunks wait for each other: only two threads at once can finish this job.
  pool.parallel_for(2, 1, [&](std::size_t, std::size_t) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 2);
}

// Whoever holds the first chunk of a range waits until all the rest is done: only the other thread
// can do it, so it must take what is left of that range, too.
TEST(ThreadPool, WhoIsEarlyTakesWhatIsLeftOfTheOthers) {
  constexpr std::size_t kCount = 64;
  ThreadPool pool(2);
  for (const std::size_t held : {std::size_t{0}, kCount / 2}) {
    std::atomic<std::size_t> done{0};
    std::size_t held_length = 0;
    pool.parallel_for(kCount, 1, [&](std::size_t begin, std::size_t end) {
      if (begin == held) {
        held_length = end - begin;
        while (done.load() < kCount - (end - begin)) std::this_thread::yield();
      } else {
        done.fetch_add(end - begin);
      }
    });
    EXPECT_EQ(held_length, kCount / 4) << held;
    EXPECT_EQ(done.load(), kCount - held_length);
  }
}

TEST(ThreadPool, SleepingMembersWakeForTheNextJob) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    // Longer than the spin; whether a member sleeps already changes the path, not the outcome.
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
    while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
    std::atomic<int> arrived{0};
    pool.parallel_for(2, 1, [&](std::size_t, std::size_t) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
    ASSERT_EQ(arrived.load(), 2);
  }
}

// A member that spun on would take a small machine's core from everyone else.
TEST(ThreadPool, AnIdleTeamUsesNoCpu) {
  const auto cpu_ms = [] {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
  };
  ThreadPool pool(4);
  std::atomic<int> sum{0};
  const double before = cpu_ms();
  for (int round = 0; round < 5; ++round) {
    pool.parallel_for(4, 1, [&](std::size_t begin, std::size_t end) {
      for (; begin < end; ++begin) sum.fetch_add(1);
    });
    ::poll(nullptr, 0, 40);  // the pause between steps is what is measured
  }
  EXPECT_EQ(sum.load(), 20);
  // Three members that spin through 200 ms would take 600 on free cores, 200 on a single one.
  EXPECT_LT(cpu_ms() - before, 50);
}

}  // namespace
}  // namespace sluice::krn
