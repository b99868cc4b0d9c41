// The team: claiming by compare-exchange, waiting by spin, yield and futex.
#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace sluice::krn {
namespace {

constexpr std::size_t kChunksPerThread = 4;  // evens out a member that lost its core for a while
constexpr int kSpins = 2000;                 // some 20..60 us: longer than the gap between kernels
constexpr int kYields = 20;

std::uint32_t job_of(std::uint64_t state) {
  return static_cast<std::uint32_t>(state >> 32);
}
std::uint32_t unclaimed_in(std::uint64_t state) {
  return static_cast<std::uint32_t>(state);
}

void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(std::size_t num_threads) {
  members_.reserve(num_threads);
  for (std::size_t i = 1; i < num_threads; ++i) members_.emplace_back([this] { serve(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  wake();
  for (std::thread& member : members_) member.join();
}

void ThreadPool::run(std::size_t count, std::size_t grain, Call call, const void* context) {
  if (count == 0) return;
  grain = std::max<std::size_t>(grain, 1);
  const std::size_t wanted = std::min(count / grain, num_threads() * kChunksPerThread);
  if (members_.empty() || wanted <= 1) return call(context, 0, count);
  const std::size_t chunk = (count + wanted - 1) / wanted;
  const std::uint32_t num_chunks = static_cast<std::uint32_t>((count + chunk - 1) / chunk);
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  count_.store(count, std::memory_order_relaxed);
  chunk_.store(chunk, std::memory_order_relaxed);
  num_chunks_.store(num_chunks, std::memory_order_relaxed);
  finished_.store(0, std::memory_order_relaxed);
  const std::uint64_t job = job_of(state_.load(std::memory_order_relaxed)) + 1u;
  state_.store((job << 32) | num_chunks);  // seq_cst: see sleepers_
  if (sleepers_.load() > 0) wake();
  while (run_chunk()) {
  }
  for (int spins = 0; finished_.load(std::memory_order_acquire) != num_chunks; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();  // a member holds the last chunk and lost its core to someone
    }
  }
}

bool ThreadPool::run_chunk() {
  std::uint64_t state = state_.load(std::memory_order_acquire);
  while (true) {
    const std::uint32_t unclaimed = unclaimed_in(state);
    if (unclaimed == 0) return false;
    const Call call = call_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    const std::size_t count = count_.load(std::memory_order_relaxed);
    const std::size_t chunk = chunk_.load(std::memory_order_relaxed);
    const std::uint32_t num_chunks = num_chunks_.load(std::memory_order_relaxed);
    if (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    const std::size_t begin = (num_chunks - unclaimed) * chunk;
    call(context, begin, std::min(begin + chunk, count));
    finished_.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }
}

void ThreadPool::serve() {
  while (!stopping_.load()) {
    const std::uint64_t seen = state_.load(std::memory_order_acquire);
    if (run_chunk()) continue;
    bool changed = false;
    for (int i = 0; i < kSpins + kYields && !changed; ++i) {
      if (i < kSpins) {
        pause();
      } else {
        std::this_thread::yield();
      }
      changed = job_of(state_.load(std::memory_order_acquire)) != job_of(seen);
    }
    if (!changed) sleep(seen);
  }
}

void ThreadPool::wake() {
  bell_.fetch_add(1);
  ::syscall(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void ThreadPool::sleep(std::uint64_t seen) {
  const std::uint32_t bell = bell_.load();
  sleepers_.fetch_add(1);
  if (job_of(state_.load()) == job_of(seen) && !stopping_.load()) {
    ::syscall(SYS_futex, &bell_, FUTEX_WAIT_PRIVATE, bell, nullptr, nullptr, 0);
  }
  sleepers_.fetch_sub(1);
}

}  // namespace sluice::krn
