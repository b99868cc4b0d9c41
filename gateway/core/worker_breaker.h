// WorkerBreaker: which workers get no new work for a while, and how much work may be done twice.
//
//   closed --failures | bad logits | stall | slow steps--> open --retry due, one probe--> half_open
//      ^                                                    ^  \-- doubled back-off           |
//      +---------------- enough good probes ----------------+------------- a bad probe -------+
//
// What trips: `failures_max` sequences or epochs in a row that failed (a good end starts anew; a
// kill from outside is no failure), `bad_logits_max` in a row given up for NaN or infinite logits,
// a stall at once, a wrong golden digest at once, and `slow_steps_max` of the last 32 steps that
// took `slow_factor` times what steps of that size took so far. Its running work stays: the parent
// ends epochs, not this.
//
// A probe is a request whose worker computes its golden digest first (worker/golden_digest.h): one
// that computes something else than it did gives the request back, and is open again.
//
// An operator may open one by force: until reset, no probes.
//
// Never all: while no worker of a model is up and closed, its open ones take work like closed ones,
// those that were opened by force too.
// Retry budget: resubmissions after the end of an epoch take from a budget that each first dispatch
// fills by `retry_permille`, and time by one per `retry_interval`, so that nothing waits for ever.
// Pure; decision thread only; fixed memory; O(1) per event but next_retry().
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "gateway/core/breaker_state.h"
#include "shared/clock.h"
#include "shared/ids.h"
#include "shared/worker_facts.h"

namespace sluice::gw {

enum class WorkerBreakerReason : std::uint8_t {
  none,
  failures,
  bad_logits,
  stall,
  slow_steps,
  retry_due,
  probe_failed,
  probes_passed,
  operator_open,
  operator_reset,
  golden_digest,
};
inline constexpr std::size_t kWorkerBreakerReasons = 11;
std::string_view worker_breaker_reason_name(WorkerBreakerReason reason);

struct WorkerBreakerParams {
  bool is_enabled = true;
  std::uint32_t failures_max = 3;
  std::uint32_t bad_logits_max = 2;
  std::uint32_t slow_factor = 8;
  Duration slow_floor{std::chrono::milliseconds{100}};  // no shorter step is slow
  std::uint32_t slow_steps_max = 8;                     // of 32
  Duration open_min{std::chrono::seconds{5}};
  Duration open_max{std::chrono::minutes{5}};
  std::uint32_t probes = 3;
  std::uint32_t retry_permille = 100;  // of first dispatches
  std::uint32_t retries_burst = 256;   // what one epoch's end may resubmit at once
  Duration retry_interval{std::chrono::milliseconds{100}};
};

struct WorkerBreakerEvent {
  WorkerId worker;
  BreakerState from{}, to{};
  WorkerBreakerReason reason{};
  Tick at{}, retry_at{};
};

// How a sequence left its worker. `neutral`: cancelled, or the epoch ended.
enum class WorkerEnd : std::uint8_t { good, bad_logits, wrong_golden, neutral };
enum class DispatchKind : std::uint8_t { first, retry };

struct WorkerBreakerView {
  BreakerState state{};
  WorkerBreakerReason reason{};
  Tick since{}, retry_at{};
  std::uint32_t openings = 0;
  bool is_forced = false;
  std::vector<WorkerBreakerEvent> history;  // oldest first, at most kBreakerHistory
};

class WorkerBreaker {
 public:
  WorkerBreaker(const WorkerBreakerParams& params, std::size_t num_workers, std::size_t num_models);
  void set_params(const WorkerBreakerParams& params);

  void up(WorkerId worker, std::uint32_t model, Tick now);
  void down(WorkerId worker, DownReason reason, Tick now);  // REQUIRES: up
  void step(WorkerId worker, Duration took, std::uint64_t tokens, Tick now);
  bool can_take(WorkerId worker, Tick now) const;
  // True: it is a probe, say so at its end.
  bool dispatched(WorkerId worker, DispatchKind kind, Tick now);
  void ended(WorkerId worker, WorkerEnd end, bool was_probe, Tick now);

  // ---- operator
  void force_open(WorkerId worker, Tick now);  // until reset
  void reset(WorkerId worker, Tick now);

  bool may_retry(Tick now);
  Tick retry_due(Tick now);                        // when may_retry() says yes at the latest
  std::optional<Tick> next_retry(Tick now) const;  // later than now, of an open worker that is up

  std::deque<WorkerBreakerEvent>& events() { return events_; }  // bounded, the oldest go first
  WorkerBreakerView view(WorkerId worker) const;
  std::size_t num_workers() const { return workers_.size(); }
  // Into the state, for the reason.
  std::uint64_t transitions(BreakerState state, WorkerBreakerReason reason) const {
    return transitions_[static_cast<std::size_t>(state)][static_cast<std::size_t>(reason)];
  }
  std::uint64_t retries() const { return retries_; }
  std::uint64_t num_in(BreakerState state) const {
    return num_in_[static_cast<std::size_t>(state)];
  }
  void check_invariants() const;

 private:
  static constexpr std::size_t kStepSizes = 33;  // steps by bit width of their tokens
  struct StepTime {
    std::int64_t mean_ns = 0;
    std::uint32_t count = 0;
  };
  struct Worker {
    BreakerState state{};
    WorkerBreakerReason reason{};
    bool is_up = false, is_probing = false, is_forced = false;
    std::uint32_t model = 0;
    std::uint32_t failures = 0, bad_logits = 0, passed = 0, openings = 0;
    std::uint32_t slow_steps = 0;  // one bit per step, the newest lowest
    Tick since{}, retry_at{}, closed_at{};
    std::array<StepTime, kStepSizes> times{};
    std::vector<WorkerBreakerEvent> history;
  };
  void move(WorkerId worker, BreakerState to, WorkerBreakerReason reason, Tick now);
  void open(WorkerId worker, WorkerBreakerReason reason, Tick now);
  void failed(WorkerId worker, WorkerBreakerReason reason, Tick now);
  void refill(Tick now);

  WorkerBreakerParams params_;
  std::vector<Worker> workers_;
  std::vector<std::uint32_t> closed_up_;  // by model
  std::uint64_t retry_credit_ = 0;        // thousandths of a resubmission
  Tick refilled_at_{};
  std::uint64_t retries_ = 0;
  std::deque<WorkerBreakerEvent> events_;
  std::array<std::uint64_t, kBreakerStates> num_in_{};
  std::array<std::array<std::uint64_t, kWorkerBreakerReasons>, kBreakerStates> transitions_{};
};

}  // namespace sluice::gw
