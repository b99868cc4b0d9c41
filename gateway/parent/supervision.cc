// Start, restart, stall and stop decisions; see supervision.h.
#include "gateway/parent/supervision.h"

#include <algorithm>
#include <csignal>

#include "shared/check.h"
#include "shared/progress_page.h"

namespace sluice::gw {
namespace {

// A worker's prediction is input: it may not put off its own stall for ever.
constexpr Duration kPredictionMax = std::chrono::minutes(5);

Action exit_action(int code, std::string text = {}) {
  Action action{ActionKind::exit, {}, {}, DownReason::none, code, std::move(text)};
  return action;
}

std::uint64_t ns_of(Tick tick) {
  return static_cast<std::uint64_t>(tick.time_since_epoch().count());
}

void append(Actions& to, Actions from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

DownReason down_reason(ExitFacts facts) {
  if (!facts.by_signal) return facts.value == 0 ? DownReason::killed : DownReason::crashed;
  switch (facts.value) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGABRT:
    case SIGTRAP:
    case SIGSYS:
    case SIGXCPU:
    case SIGXFSZ:
      return DownReason::crashed;
    default:
      return DownReason::killed;
  }
}

std::string describe(ChildId child) {
  if (child.kind == ChildId::Kind::gateway) return "gateway";
  return "worker " + std::to_string(child.worker.value);
}

std::string describe(ExitFacts facts) {
  return (facts.by_signal ? "signal " : "exit code ") + std::to_string(facts.value);
}

Supervision::Supervision(const cfg::Supervision& limits, Duration drain_timeout,
                         std::uint32_t num_workers)
    : limits_(limits), drain_timeout_(drain_timeout), workers_(num_workers) {
  CHECK(num_workers > 0 && num_workers <= kWorkersMax);
}

void Supervision::set_limits(const cfg::Supervision& limits, Duration drain_timeout) {
  limits_ = limits;
  drain_timeout_ = drain_timeout;
}

Supervision::Child& Supervision::child(ChildId id) {
  if (id.kind == ChildId::Kind::gateway) return gateway_;
  CHECK(id.worker.value < workers_.size());
  return workers_[id.worker.value];
}

bool Supervision::is_up(WorkerId worker, Epoch epoch) const {
  return worker.value < workers_.size() && workers_[worker.value].state == State::up &&
         workers_[worker.value].epoch == epoch;
}

Action Supervision::spawn(ChildId id) {
  Child& c = child(id);
  CHECK(c.state == State::down);
  c.state = State::starting;
  c.epoch = Epoch(c.epoch.value + 1);
  c.restart_at.reset();
  c.stopped_since.reset();
  c.starting_since.reset();
  forget_sightings(c);
  c.kill_reason = DownReason::none;
  c.announced = false;
  return {ActionKind::spawn, id, c.epoch, DownReason::none, 0, {}};
}

Actions Supervision::start() {
  // Workers take longest until they are ready: they come first.
  Actions actions;
  for (std::uint32_t i = 0; i < workers_.size(); ++i)
    actions.push_back(spawn(worker_child(WorkerId(i))));
  actions.push_back(spawn(kGatewayChild));
  return actions;
}

// Once only: the exit is awaited, a second SIGKILL adds nothing.
Actions Supervision::kill(ChildId id, DownReason reason) {
  Child& c = child(id);
  if (c.state == State::down || c.state == State::ending) return {};
  c.state = State::ending;
  c.kill_reason = reason;
  return {{ActionKind::kill, id, c.epoch, reason, 0, {}}};
}

void Supervision::back_off(Child& c, Tick now) {
  const bool was_healthy = c.up_since != Tick{} && now - c.up_since >= kHealthyAfter;
  const Duration first = limits_.restart_delay;
  const Duration most = limits_.restart_delay_max;
  c.delay = c.delay == Duration::zero() || was_healthy ? first : std::min(2 * c.delay, most);
  c.restart_at = now + c.delay;
  c.up_since = Tick{};
}

Actions Supervision::fail_start(ChildId id, const std::string& why) {
  phase_ = Phase::over;
  return {exit_action(1, describe(id) + ": " + why)};
}

Actions Supervision::spawn_failed(ChildId id, const std::string& why, Tick now) {
  Child& c = child(id);
  c.state = State::down;
  if (phase_ == Phase::over) return {};
  if (phase_ == Phase::starting) return fail_start(id, why);
  back_off(c, now);
  return {};
}

Actions Supervision::exited(ChildId id, ExitFacts facts, const std::string& said, Tick now) {
  Child& c = child(id);
  const Child before = c;
  c.state = State::down;
  c.announced = false;
  if (id == kGatewayChild) gateway_bound_ = false;
  if (phase_ == Phase::over) return {};
  if (phase_ == Phase::starting)
    return fail_start(id, said.empty() ? "ended during the start (" + describe(facts) + ")" : said);

  Actions actions;
  if (before.announced && has_process(gateway_) && id != kGatewayChild)
    actions.push_back(
        {ActionKind::worker_down,
         id,
         before.epoch,
         before.kill_reason != DownReason::none ? before.kill_reason : down_reason(facts),
         0,
         {}});
  if (id == kGatewayChild)
    for (Child& worker : workers_) worker.announced = false;
  if (phase_ == Phase::stopping) {
    append(actions, finish_if_all_gone());
  } else if (phase_ == Phase::draining && id == kGatewayChild) {
    append(actions, begin_stopping(now));  // nobody left to drain for
  } else if (before.kill_reason == DownReason::recycled) {
    c.restart_at = now;  // planned: nothing to back off from
    c.up_since = Tick{};
  } else {
    back_off(c, now);
  }
  return actions;
}

Actions Supervision::stopped(ChildId id, Tick now) {
  Child& c = child(id);
  if (!c.stopped_since) c.stopped_since = now;
  return {};
}

Actions Supervision::continued(ChildId id) {
  child(id).stopped_since.reset();
  forget_sightings(child(id));  // what it had no time to do is no stall
  return {};
}

Actions Supervision::announce_if_ready() {
  const bool any_up = std::any_of(workers_.begin(), workers_.end(),
                                  [](const Child& w) { return w.state == State::up; });
  if (phase_ != Phase::starting || !gateway_bound_ || !any_up) return {};
  phase_ = Phase::serving;
  return {{ActionKind::announce_ready, {}, {}, DownReason::none, 0, {}}};
}

Actions Supervision::gateway_ready(Tick now) {
  if (gateway_.state != State::starting) return {};
  gateway_.state = State::up;
  gateway_.up_since = now;
  gateway_bound_ = true;
  return announce_if_ready();
}

Actions Supervision::worker_hello(WorkerId worker, Tick now) {
  const ChildId id = worker_child(worker);
  Child& c = child(id);
  if (c.state == State::ending) return {};
  if (c.state != State::starting) return misbehaved(id);
  c.state = State::up;
  c.up_since = now;
  Actions actions;
  if (gateway_.state == State::starting || gateway_.state == State::up) {
    c.announced = true;
    actions.push_back({ActionKind::worker_up, id, c.epoch, DownReason::none, 0, {}});
  }
  append(actions, announce_if_ready());
  return actions;
}

Actions Supervision::worker_corrupt(WorkerId worker, Epoch epoch) {
  if (!is_up(worker, epoch)) return {};
  return kill(worker_child(worker), DownReason::corrupt);
}

Actions Supervision::worker_recycle(WorkerId worker, Epoch epoch) {
  if (!is_up(worker, epoch)) return {};
  return kill(worker_child(worker), DownReason::recycled);
}

Actions Supervision::misbehaved(ChildId id) {
  return kill(id, DownReason::corrupt);
}

Actions Supervision::terminate(int signal, Tick now) {
  switch (phase_) {
    case Phase::over:
      return {};
    case Phase::draining:
    case Phase::stopping:
      phase_ = Phase::over;
      return {exit_action(128 + signal)};
    case Phase::starting:
    case Phase::serving:
      break;
  }
  if (gateway_.state != State::up) return begin_stopping(now);
  phase_ = Phase::draining;
  phase_deadline_ = now + drain_timeout_ + kDrainGrace;
  return {{ActionKind::drain, kGatewayChild, gateway_.epoch, DownReason::none, 0, {}}};
}

Actions Supervision::gateway_drained(Tick now) {
  return phase_ == Phase::draining ? begin_stopping(now) : Actions{};
}

// A worker ends when its channel does; until then it would wait for further orders.
Actions Supervision::worker_drained(WorkerId worker, Epoch epoch) {
  const Child& child = workers_[worker.value];
  if (phase_ != Phase::stopping || !has_process(child) || child.epoch != epoch) return {};
  return {{ActionKind::close, worker_child(worker), epoch, DownReason::none, 0, {}}};
}

Actions Supervision::begin_stopping(Tick now) {
  phase_ = Phase::stopping;
  phase_deadline_ = now + kStopGrace;
  Actions actions;
  if (has_process(gateway_))
    actions.push_back({ActionKind::close, kGatewayChild, gateway_.epoch, DownReason::none, 0, {}});
  for (std::uint32_t i = 0; i < workers_.size(); ++i) {
    workers_[i].restart_at.reset();
    if (has_process(workers_[i]))
      actions.push_back({ActionKind::drain,
                         worker_child(WorkerId(i)),
                         workers_[i].epoch,
                         DownReason::none,
                         0,
                         {}});
  }
  gateway_.restart_at.reset();
  append(actions, finish_if_all_gone());
  return actions;
}

Actions Supervision::finish_if_all_gone() {
  const bool any =
      has_process(gateway_) ||
      std::any_of(workers_.begin(), workers_.end(), [&](const Child& w) { return has_process(w); });
  if (any) return {};
  phase_ = Phase::over;
  return {exit_action(0)};
}

Actions Supervision::tick(Tick now) {
  Actions actions;
  if (phase_ == Phase::over) return actions;
  if (phase_ == Phase::stopping) {
    if (now < phase_deadline_) return actions;
    phase_ = Phase::over;  // what is left is killed with the exit
    return {exit_action(0)};
  }
  if (phase_ == Phase::draining && now >= phase_deadline_) return begin_stopping(now);
  if (gateway_.restart_at && *gateway_.restart_at <= now) {
    actions.push_back(spawn(kGatewayChild));
    for (std::uint32_t i = 0; i < workers_.size(); ++i) {
      if (workers_[i].state != State::up) continue;
      workers_[i].announced = true;
      actions.push_back({ActionKind::worker_up,
                         worker_child(WorkerId(i)),
                         workers_[i].epoch,
                         DownReason::none,
                         0,
                         {}});
    }
  }
  for (std::uint32_t i = 0; i < workers_.size(); ++i)
    if (workers_[i].restart_at && *workers_[i].restart_at <= now)
      actions.push_back(spawn(worker_child(WorkerId(i))));
  // A stopped process makes no progress; whoever stopped it is no evidence against its requests.
  const auto stopped_too_long = [&](const Child& c) {
    return c.stopped_since && now - *c.stopped_since > Duration(limits_.stall_floor);
  };
  if (stopped_too_long(gateway_)) append(actions, kill(kGatewayChild, DownReason::killed));
  for (std::uint32_t i = 0; i < workers_.size(); ++i)
    if (stopped_too_long(workers_[i]))
      append(actions, kill(worker_child(WorkerId(i)), DownReason::killed));
  append(actions, end_hanging_starts(now));
  return actions;
}

// Whoever was spawned and has not said its first word: a worker its hello, the gateway that it
// listens.
Actions Supervision::end_hanging_starts(Tick now) {
  Actions actions;
  const auto look_at = [&](ChildId id) {
    Child& c = child(id);
    if (c.state != State::starting || phase_ == Phase::over) return;
    if (!c.starting_since) c.starting_since = now;
    if (now - *c.starting_since <= Duration(limits_.start_timeout)) return;
    if (phase_ == Phase::starting)
      actions =
          fail_start(id, "did not start within " + std::to_string(limits_.start_timeout.count()) +
                             " ms (supervision.start_timeout)");
    else
      append(actions, kill(id, DownReason::stalled));
  };
  look_at(kGatewayChild);
  for (std::uint32_t i = 0; i < workers_.size(); ++i) look_at(worker_child(WorkerId(i)));
  return actions;
}

Duration Supervision::watch_interval() const {
  return std::clamp<Duration>(Duration(limits_.stall_floor) / 4, std::chrono::milliseconds(5),
                              std::chrono::milliseconds(500));
}

Tick Supervision::next_tick(Tick now) const {
  Tick next = now + watch_interval();
  const auto sooner = [&](const std::optional<Tick>& at) {
    if (at) next = std::min(next, std::max(*at, now));
  };
  sooner(gateway_.restart_at);
  for (const Child& worker : workers_) sooner(worker.restart_at);
  if (phase_ == Phase::draining || phase_ == Phase::stopping) sooner(phase_deadline_);
  return next;
}

Actions Supervision::watch(WorkerId worker, const WatchFacts& facts, Tick now) {
  Child& c = child(worker_child(worker));
  if (c.state != State::up || phase_ == Phase::over) return {};
  // A parent that did not look for a while (a machine that slept) has seen nothing in between.
  if (c.last_watch != Tick{} && now - c.last_watch > 8 * watch_interval()) forget_sightings(c);
  c.last_watch = now;
  if (c.stopped_since || !is_stalled(c, facts, now)) return {};
  return kill(worker_child(worker), DownReason::stalled);
}

void Supervision::forget_sightings(Child& worker) {
  worker.same_turn.since.reset();
  worker.same_unread.since.reset();
}

bool Supervision::Sighting::stays_longer_than(Duration limit, std::uint64_t seen, Tick now) {
  if (!since || key != seen) {
    since = now;
    key = seen;
  }
  return now - *since > limit;
}

// A stall is one thing that stays for too long: the same step in forward, the same turn of the loop
// in planning, an unreadable page, or submissions that it does not read between steps. `blocked`
// waits for the gateway and `loading` for the disk: neither is a stall.
bool Supervision::is_stalled(Child& worker, const WatchFacts& facts, Tick now) const {
  using shm::WorkerPhase;
  const auto phase = static_cast<WorkerPhase>(facts.phase);
  const Duration floor = limits_.stall_floor;
  const Duration predicted = std::clamp(facts.step_predicted, Duration::zero(), kPredictionMax);
  const Duration step_limit = std::max(floor, limits_.stall_factor * predicted);
  if (!facts.page_readable) {
    worker.same_unread.since.reset();
    return worker.same_turn.stays_longer_than(floor, 0, now);
  }
  if (phase != WorkerPhase::forward && phase != WorkerPhase::planning &&
      phase != WorkerPhase::idle) {
    forget_sightings(worker);
    return false;
  }
  bool stalled = false;
  if (phase == WorkerPhase::forward)
    stalled = worker.same_turn.stays_longer_than(step_limit, 2 * facts.step + 1, now);
  else if (phase == WorkerPhase::planning)
    stalled = worker.same_turn.stays_longer_than(floor, 2 * ns_of(facts.heartbeat) + 2, now);
  else
    worker.same_turn.since.reset();
  if (!facts.has_unread)
    worker.same_unread.since.reset();
  else if (worker.same_unread.stays_longer_than(step_limit, facts.read_position, now))
    stalled = stalled || phase != WorkerPhase::forward;
  return stalled;
}

}  // namespace sluice::gw
