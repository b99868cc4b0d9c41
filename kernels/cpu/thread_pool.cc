// The team: claiming by compare-exchange, waiting by spin, yield and futex.
#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace sluice::krn {
namespace {

// Of a member's range: a half, a quarter, ... and the last two alike. Evens out a member that lost
// its core for a while, and members that are not quite equally fast.
constexpr std::uint32_t kChunksMax = 5;
constexpr int kSpins = 2000;  // some 20..60 us: longer than the gap between kernels
constexpr int kYields = 20;

std::uint32_t job_of(std::uint64_t state) {
  return static_cast<std::uint32_t>(state >> 32);
}
std::uint32_t unclaimed_in(std::uint64_t state) {
  return static_cast<std::uint32_t>(state);
}

// The first k of a range's chunks.
std::size_t length_of_chunks(std::size_t range, std::uint32_t k, std::uint32_t num_chunks) {
  return k == num_chunks ? range : range - (range >> k);
}

void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(std::size_t num_threads) : slots_(num_threads) {
  members_.reserve(num_threads);
  for (std::size_t i = 1; i < num_threads; ++i) members_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  wake();
  for (std::thread& member : members_) member.join();
}

void ThreadPool::run(std::size_t count, std::size_t grain, Call call, const void* context) {
  if (count == 0) return;
  grain = std::max<std::size_t>(grain, 1);
  const std::size_t sharing = std::min(count / grain, num_threads());
  if (sharing <= 1) return call(context, 0, count);
  std::uint32_t num_chunks = 1;
  while (num_chunks < kChunksMax && (count / sharing) >> num_chunks >= grain) ++num_chunks;
  finished_.store(0, std::memory_order_relaxed);
  ++job_;
  for (std::size_t i = sharing; i-- > 0;) {
    Slot& slot = slots_[i];
    slot.call.store(call, std::memory_order_relaxed);
    slot.context.store(context, std::memory_order_relaxed);
    slot.begin.store(count * i / sharing, std::memory_order_relaxed);
    slot.end.store(count * (i + 1) / sharing, std::memory_order_relaxed);
    slot.num_chunks.store(num_chunks, std::memory_order_relaxed);
    slot.state.store((std::uint64_t{job_} << 32) | num_chunks);  // seq_cst: see sleepers_
  }
  if (sleepers_.load() > 0) wake();
  const std::uint32_t others = static_cast<std::uint32_t>(sharing) * num_chunks - run_chunks(0);
  for (int spins = 0; finished_.load(std::memory_order_acquire) != others; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();  // a member holds the last chunk and lost its core to someone
    }
  }
}

bool ThreadPool::run_chunk(Slot& slot) {
  std::uint64_t state = slot.state.load(std::memory_order_acquire);
  while (true) {
    const std::uint32_t unclaimed = unclaimed_in(state);
    if (unclaimed == 0) return false;
    const Call call = slot.call.load(std::memory_order_relaxed);
    const void* context = slot.context.load(std::memory_order_relaxed);
    const std::size_t begin = slot.begin.load(std::memory_order_relaxed);
    const std::size_t range = slot.end.load(std::memory_order_relaxed) - begin;
    const std::uint32_t num_chunks = slot.num_chunks.load(std::memory_order_relaxed);
    if (!slot.state.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire)) {
      continue;
    }
    const std::uint32_t chunk = num_chunks - unclaimed;
    call(context, begin + length_of_chunks(range, chunk, num_chunks),
         begin + length_of_chunks(range, chunk + 1, num_chunks));
    return true;
  }
}

std::uint32_t ThreadPool::run_chunks(std::size_t self) {
  std::uint32_t done = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    while (run_chunk(slots_[(self + i) % slots_.size()])) ++done;
  }
  return done;
}

void ThreadPool::serve(std::size_t self) {
  const Slot& slot = slots_[self];
  while (!stopping_.load()) {
    const std::uint64_t seen = slot.state.load(std::memory_order_acquire);
    if (const std::uint32_t done = run_chunks(self); done > 0)
      finished_.fetch_add(done, std::memory_order_acq_rel);
    bool changed = false;
    for (int i = 0; i < kSpins + kYields && !changed; ++i) {
      if (i < kSpins) {
        pause();
      } else {
        std::this_thread::yield();
      }
      changed = job_of(slot.state.load(std::memory_order_acquire)) != job_of(seen);
    }
    if (!changed) sleep(slot, seen);
  }
}

void ThreadPool::wake() {
  bell_.fetch_add(1);
  ::syscall(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void ThreadPool::sleep(const Slot& slot, std::uint64_t seen) {
  const std::uint32_t bell = bell_.load();
  sleepers_.fetch_add(1);
  if (job_of(slot.state.load()) == job_of(seen) && !stopping_.load()) {
    ::syscall(SYS_futex, &bell_, FUTEX_WAIT_PRIVATE, bell, nullptr, nullptr, 0);
  }
  sleepers_.fetch_sub(1);
}

}  // namespace sluice::krn
