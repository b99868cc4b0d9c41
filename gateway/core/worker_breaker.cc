// WorkerBreaker: the state machine, the time of steps by their size, the retry budget.
#include "gateway/core/worker_breaker.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "shared/check.h"

namespace sluice::gw {

namespace {
constexpr std::uint64_t kWhole = 1000;      // of the retry credit: one resubmission
constexpr std::uint32_t kStepsLearned = 8;  // of a size, before any of it can be slow
constexpr std::int64_t kStepNsBound = std::int64_t{1} << 50;  // keeps products far from overflow
}  // namespace

std::string_view worker_breaker_reason_name(WorkerBreakerReason reason) {
  constexpr std::array<std::string_view, kWorkerBreakerReasons> kNames{
      "none",          "failures",       "bad_logits",   "stall",
      "slow_steps",    "retry_due",      "probe_failed", "probes_passed",
      "operator_open", "operator_reset", "golden_digest"};
  return kNames[static_cast<std::size_t>(reason)];
}

WorkerBreaker::WorkerBreaker(const WorkerBreakerParams& params, std::size_t num_workers,
                             std::size_t num_models)
    : workers_(num_workers), closed_up_(num_models) {
  set_params(params);
  num_in_[0] = num_workers;
  retry_credit_ = std::uint64_t{params_.retries_burst} * kWhole;
}

void WorkerBreaker::set_params(const WorkerBreakerParams& params) {
  CHECK(params.open_min > Duration{0} && params.open_max >= params.open_min);
  CHECK(params.failures_max > 0 && params.bad_logits_max > 0 && params.probes > 0);
  CHECK(params.slow_factor > 0 && params.slow_steps_max > 0 && params.slow_steps_max <= 32);
  CHECK(params.retries_burst > 0 && params.retry_interval > Duration{0});
  params_ = params;
}

void WorkerBreaker::up(WorkerId id, std::uint32_t model, Tick) {
  CHECK(id.value < workers_.size() && model < closed_up_.size());
  Worker& worker = workers_[id.value];
  CHECK(!worker.is_up);
  worker.is_up = true;
  worker.is_probing = false;
  worker.model = model;
  worker.slow_steps = 0;
  worker.times.fill({});  // another process may run on another place
  if (worker.state == BreakerState::closed) ++closed_up_[model];
}

void WorkerBreaker::down(WorkerId id, DownReason reason, Tick now) {
  Worker& worker = workers_[id.value];
  CHECK(worker.is_up);
  worker.is_up = false;
  worker.is_probing = false;
  if (worker.state == BreakerState::closed) --closed_up_[worker.model];
  if (reason == DownReason::stalled) {
    failed(id, WorkerBreakerReason::stall, now);
  } else if (reason == DownReason::crashed || reason == DownReason::corrupt) {
    failed(id, WorkerBreakerReason::failures, now);
  }
}

void WorkerBreaker::failed(WorkerId id, WorkerBreakerReason reason, Tick now) {
  Worker& worker = workers_[id.value];
  ++worker.failures;
  if (reason == WorkerBreakerReason::bad_logits) ++worker.bad_logits;
  if (!params_.is_enabled || worker.is_forced) return;
  if (worker.state == BreakerState::half_open) {
    const bool is_golden = reason == WorkerBreakerReason::golden_digest;
    open(id, is_golden ? reason : WorkerBreakerReason::probe_failed, now);
  } else if (worker.state == BreakerState::closed) {
    if (reason == WorkerBreakerReason::bad_logits && worker.bad_logits < params_.bad_logits_max)
      reason = WorkerBreakerReason::failures;
    if (reason == WorkerBreakerReason::failures && worker.failures < params_.failures_max) return;
    open(id, reason, now);
  }
}

void WorkerBreaker::step(WorkerId id, Duration took, std::uint64_t tokens, Tick now) {
  if (tokens == 0) return;
  Worker& worker = workers_[id.value];
  StepTime& time = worker.times[std::min<std::size_t>(std::bit_width(tokens), kStepSizes - 1)];
  const std::int64_t ns = std::clamp<std::int64_t>(took.count(), 0, kStepNsBound);
  const std::int64_t border = time.mean_ns * std::int64_t{params_.slow_factor};
  const bool is_slow =
      time.count >= kStepsLearned && ns > border && ns > params_.slow_floor.count();
  if (is_slow) {
    time.mean_ns += time.mean_ns / 64 + 1;  // a lasting change is learned, but slowly
  } else {
    time.mean_ns += time.count == 0 ? ns : (ns - time.mean_ns) / 8;
  }
  if (time.count < kStepsLearned) ++time.count;
  worker.slow_steps = worker.slow_steps << 1 | (is_slow ? 1u : 0u);
  if (!params_.is_enabled || !is_slow || worker.state == BreakerState::open) return;
  const auto slow = static_cast<std::uint32_t>(std::popcount(worker.slow_steps));
  if (slow < params_.slow_steps_max) return;
  open(id, WorkerBreakerReason::slow_steps, now);
}

bool WorkerBreaker::can_take(WorkerId id, Tick now) const {
  const Worker& worker = workers_[id.value];
  if (!worker.is_up) return false;
  if (worker.state == BreakerState::closed) return true;
  if (closed_up_[worker.model] == 0) return true;  // never all
  if (worker.is_forced) return false;
  if (!params_.is_enabled) return true;
  return now >= worker.retry_at && !worker.is_probing;
}

bool WorkerBreaker::dispatched(WorkerId id, DispatchKind kind, Tick now) {
  refill(now);
  if (kind == DispatchKind::retry) {
    ++retries_;
    retry_credit_ -= std::min(retry_credit_, kWhole);
  } else {
    retry_credit_ = std::min<std::uint64_t>(retry_credit_ + params_.retry_permille,
                                            params_.retries_burst * kWhole);
  }
  Worker& worker = workers_[id.value];
  if (worker.state == BreakerState::closed || worker.is_forced || worker.is_probing ||
      now < worker.retry_at) {
    return false;
  }
  if (worker.state == BreakerState::open) {
    move(id, BreakerState::half_open, WorkerBreakerReason::retry_due, now);
  }
  worker.is_probing = true;
  return true;
}

void WorkerBreaker::ended(WorkerId id, WorkerEnd end, bool was_probe, Tick now) {
  Worker& worker = workers_[id.value];
  if (was_probe) worker.is_probing = false;
  if (end == WorkerEnd::bad_logits) {
    failed(id, WorkerBreakerReason::bad_logits, now);
  } else if (end == WorkerEnd::wrong_golden) {
    failed(id, WorkerBreakerReason::golden_digest, now);
  } else if (end == WorkerEnd::good) {
    worker.failures = 0;
    worker.bad_logits = 0;
    if (!was_probe || worker.state != BreakerState::half_open) return;
    if (++worker.passed < params_.probes) return;
    move(id, BreakerState::closed, WorkerBreakerReason::probes_passed, now);
  }
}

void WorkerBreaker::move(WorkerId id, BreakerState to, WorkerBreakerReason reason, Tick now) {
  Worker& worker = workers_[id.value];
  if (worker.is_up && worker.state == BreakerState::closed) --closed_up_[worker.model];
  if (worker.is_up && to == BreakerState::closed) ++closed_up_[worker.model];
  --num_in_[static_cast<std::size_t>(worker.state)];
  ++num_in_[static_cast<std::size_t>(to)];
  ++transitions_[static_cast<std::size_t>(to)][static_cast<std::size_t>(reason)];
  const WorkerBreakerEvent event{id, worker.state, to, reason, now, worker.retry_at};
  if (events_.size() == kBreakerEventsMax) events_.pop_front();
  events_.push_back(event);
  if (worker.history.size() == kBreakerHistory) worker.history.erase(worker.history.begin());
  worker.history.push_back(event);
  worker.state = to;
  worker.reason = reason;
  worker.since = now;
  if (to == BreakerState::closed) worker.closed_at = now;
}

void WorkerBreaker::open(WorkerId id, WorkerBreakerReason reason, Tick now) {
  Worker& worker = workers_[id.value];
  const bool was_well = worker.state == BreakerState::closed;
  if (was_well && now - worker.closed_at >= params_.open_max) worker.openings = 0;
  worker.retry_at = now + back_off(params_.open_min, params_.open_max, worker.openings);
  worker.openings = std::min(worker.openings + 1, kOpeningsMax);
  worker.passed = worker.failures = worker.bad_logits = worker.slow_steps = 0;
  worker.is_probing = false;
  move(id, BreakerState::open, reason, now);
}

void WorkerBreaker::refill(Tick now) {
  const std::uint64_t most = std::uint64_t{params_.retries_burst} * kWhole;
  if (now <= refilled_at_ || retry_credit_ >= most) {
    refilled_at_ = std::max(refilled_at_, now);
    return;
  }
  const auto intervals = (now - refilled_at_) / params_.retry_interval;
  const auto missing = static_cast<std::int64_t>((most - retry_credit_) / kWhole) + 1;
  retry_credit_ = std::min(
      most, retry_credit_ + kWhole * static_cast<std::uint64_t>(std::min(intervals, missing)));
  refilled_at_ += intervals * params_.retry_interval;
}

// Sequences that it runs, probes too, go on: their ends say nothing until the reset.
void WorkerBreaker::force_open(WorkerId id, Tick now) {
  Worker& worker = workers_[id.value];
  if (std::exchange(worker.is_forced, true)) return;
  open(id, WorkerBreakerReason::operator_open, now);
}

void WorkerBreaker::reset(WorkerId id, Tick now) {
  Worker& worker = workers_[id.value];
  worker.is_forced = false;
  worker.is_probing = false;
  worker.openings = worker.failures = worker.bad_logits = worker.slow_steps = 0;
  if (worker.state != BreakerState::closed) {
    move(id, BreakerState::closed, WorkerBreakerReason::operator_reset, now);
  }
}

bool WorkerBreaker::may_retry(Tick now) {
  refill(now);
  return !params_.is_enabled || retry_credit_ >= kWhole;
}

Tick WorkerBreaker::retry_due(Tick now) {
  return may_retry(now) ? now : refilled_at_ + params_.retry_interval;
}

std::optional<Tick> WorkerBreaker::next_retry(Tick now) const {
  std::optional<Tick> due;
  if (num_in(BreakerState::open) == 0) return due;
  for (const Worker& worker : workers_) {
    if (!worker.is_up || worker.is_forced) continue;
    if (worker.state != BreakerState::open || worker.retry_at <= now) continue;
    due = due ? std::min(*due, worker.retry_at) : worker.retry_at;
  }
  return due;
}

WorkerBreakerView WorkerBreaker::view(WorkerId id) const {
  const Worker& worker = workers_[id.value];
  return {worker.state,    worker.reason,    worker.since,  worker.retry_at,
          worker.openings, worker.is_forced, worker.history};
}

void WorkerBreaker::check_invariants() const {
  std::vector<std::uint32_t> closed(closed_up_.size());
  std::array<std::uint64_t, kBreakerStates> in{};
  for (const Worker& worker : workers_) {
    CHECK(worker.state != BreakerState::throttled);
    ++in[static_cast<std::size_t>(worker.state)];
    CHECK(!worker.is_probing || (worker.is_up && worker.state == BreakerState::half_open));
    CHECK(!worker.is_forced || worker.state == BreakerState::open);
    CHECK(worker.history.size() <= kBreakerHistory);
    if (worker.is_up && worker.state == BreakerState::closed) ++closed[worker.model];
  }
  CHECK(closed == closed_up_ && in == num_in_);
  CHECK(retry_credit_ <= std::uint64_t{params_.retries_burst} * kWhole);
}

}  // namespace sluice::gw
