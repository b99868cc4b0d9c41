// ThreadPool: a fixed team that runs the chunks of one job at a time. The caller is a member and
// does most of the work when the others are late, so a busy second core costs speed, never
// progress.
//
// Each member has a range of the job for itself, cut into chunks that become smaller towards its
// end, so that a matrix is read in a few long streams and no other member's cache line is touched;
// who is done early takes what is left of the others'.
//
// Not a task queue: one caller, one job, no nesting. run() allocates nothing. Which member runs
// which chunk is left to chance; results must not depend on it (they don't: a chunk owns its
// outputs). An idle member spins for some microseconds (the gap between two kernels), yields, then
// sleeps on a futex, so an idle engine uses no CPU.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace sluice::krn {

class ThreadPool {
 public:
  explicit ThreadPool(std::size_t num_threads);  // the caller included; >= 1
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t num_threads() const { return members_.size() + 1; }

  // Calls body(begin, end) for disjoint ranges that cover [0, count), each at least `grain` long
  // but the last; returns when all are done. Small counts run on the caller alone.
  template <class Body>
  void parallel_for(std::size_t count, std::size_t grain, const Body& body) {
    const auto call = [](const void* context, std::size_t begin, std::size_t end) {
      (*static_cast<const Body*>(context))(begin, end);
    };
    run(count, grain, call, &body);
  }

 private:
  using Call = void (*)(const void* context, std::size_t begin, std::size_t end);

  // What one member is to do. Job number in the upper half of `state`, chunks not yet claimed in
  // the lower. The store that starts a job publishes the other fields (release). A claim reads them
  // (acquire of state) before its compare-exchange; success proves that chunks were left all the
  // while, so the job was not over and the fields were still its own. The caller changes them only
  // when none is left.
  struct alignas(64) Slot {
    std::atomic<std::uint64_t> state{0};
    std::atomic<Call> call{nullptr};
    std::atomic<const void*> context{nullptr};
    std::atomic<std::size_t> begin{0};
    std::atomic<std::size_t> end{0};
    std::atomic<std::uint32_t> num_chunks{0};
  };

  void run(std::size_t count, std::size_t grain, Call call, const void* context);
  static bool run_chunk(Slot& slot);           // false: nothing to claim
  std::uint32_t run_chunks(std::size_t self);  // own ones first; returns how many
  void serve(std::size_t self);
  void wake();
  void sleep(const Slot& slot, std::uint64_t seen);

  std::vector<Slot> slots_;  // of each member, the caller first
  std::uint32_t job_ = 0;
  // Chunks finished by others than the caller; each increment (release) publishes their outputs to
  // the caller (acquire).
  alignas(64) std::atomic<std::uint32_t> finished_{0};
  // Futex word, changed at each start, and how many sleep on it (seq_cst: a sleeper announces
  // itself before it looks at its slot again, the caller writes slots before it looks for
  // sleepers).
  alignas(64) std::atomic<std::uint32_t> bell_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> members_;
};

}  // namespace sluice::krn
