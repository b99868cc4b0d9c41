// ThreadPool: a fixed team that runs the chunks of one job at a time. The caller is a member and
// does most of the work when the others are late, so a busy second core costs speed, never
// progress.
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

  void run(std::size_t count, std::size_t grain, Call call, const void* context);
  bool run_chunk();  // false: nothing to claim
  void serve();
  void wake();
  void sleep(std::uint64_t seen);

  // Job number in the upper half, chunks not yet claimed in the lower. The store that starts a job
  // publishes the fields below (release). A claim reads them (acquire of state_) before its
  // compare-exchange; success proves that chunks were left all the while, so the job was not over
  // and the fields were still its own. The caller changes them only when none is left.
  alignas(64) std::atomic<std::uint64_t> state_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<std::size_t> count_{0};
  std::atomic<std::size_t> chunk_{1};
  std::atomic<std::uint32_t> num_chunks_{0};
  // Chunks finished; each increment (release) publishes a chunk's outputs to the caller (acquire).
  alignas(64) std::atomic<std::uint32_t> finished_{0};
  // Futex word, changed at each start, and how many sleep on it (seq_cst: a sleeper announces
  // itself before it looks at state_ again, the caller writes state_ before it looks for sleepers).
  alignas(64) std::atomic<std::uint32_t> bell_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> members_;
};

}  // namespace sluice::krn
