// One turn after another; everything that waits is bounded and named.
#include "worker/worker_loop.h"

#include <poll.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "shared/check.h"

namespace sluice::eng {
namespace {

// A busy loop looks at the control channel this often: a system call per step would cost more.
constexpr Duration kControlPeriod = std::chrono::milliseconds(1);
// An idle worker turns this often, so that its heartbeat shows life.
constexpr Duration kIdleSleep = std::chrono::milliseconds(250);
// The gateway rings when it made room; this bounds the wait if it died in between.
constexpr Duration kBlockedSleep = std::chrono::milliseconds(10);
// Records taken per turn: running sequences do not wait behind a flood of submissions.
constexpr int kRecordsPerTurn = 512;
constexpr int kSpinsPerLook = 32;

std::uint64_t ns_of(Tick tick) { return static_cast<std::uint64_t>(tick.time_since_epoch().count()); }

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

WorkerLoop::Gateway::Gateway(shm::Region&& region, shm::Region& step_region, int bell_fd)
    : submit(std::move(region)),
      reader(step_region, submit, 0),
      writer(step_region, submit),
      bell(bell_fd, step_region, submit) {}

WorkerLoop::WorkerLoop(const WorkerWiring& wiring, Engine& engine, const Clock& clock)
    : wiring_(wiring), engine_(engine), clock_(clock), progress_(wiring.step_region) {}

Result<void> WorkerLoop::run() {
  while (true) {
    if (clock_.now() >= control_due_) {
      const Result<bool> is_open = handle_control();
      if (!is_open) return is_open.error();
      if (!*is_open) return {};
      control_due_ = clock_.now() + kControlPeriod;
    }
    const Result<Turn> result = turn();
    if (!result) return result.error();
    if (*result == Turn::worked) continue;
    if (owes_drained()) {
      if (const auto said = say_drained(); !said) return said.error();
      continue;
    }
    sleep(*result == Turn::idle ? kIdleSleep : kBlockedSleep, *result);
    control_due_ = Tick{};
  }
}

Result<bool> WorkerLoop::handle_control() {
  ControlMessage message;
  while (true) {
    const Result<bool> received = wiring_.control.try_receive(message);
    if (!received) {
      if (received.error().code == Errc::client_gone) return false;
      return received.error();
    }
    if (!*received) break;
    if (message.kind == ControlKind::attach) {
      if (const auto attached = attach(message); !attached) return attached.error();
    } else if (message.kind == ControlKind::drain) {
      is_draining_ = true;
    } else {
      return make_error(Errc::corrupt_record, "unexpected control message");
    }
  }
  return true;
}

bool WorkerLoop::owes_drained() const {
  return is_draining_ && !has_said_drained_ && !engine_.scheduler().has_sequences() &&
         !unpublished_ && !reject_;
}

Result<void> WorkerLoop::say_drained() {
  has_said_drained_ = true;
  ControlMessage drained;
  drained.kind = ControlKind::drained;
  drained.worker = wiring_.worker;
  drained.epoch = wiring_.epoch;
  return wiring_.control.send(drained);
}

Result<void> WorkerLoop::attach(ControlMessage& message) {
  if (message.fds.size() != 1)
    return make_error(Errc::corrupt_record, "attach carries one descriptor");
  auto region = shm::Region::attach(
      std::move(message.fds[0]),
      {shm::RegionKind::submit, wiring_.worker, wiring_.epoch, message.gateway_epoch});
  if (!region) return region.error();
  engine_.scheduler().drop_all();
  reject_.reset();
  gateway_.reset();  // its reader and writer go before the region that they look at
  gateway_.emplace(std::move(*region), wiring_.step_region, wiring_.gateway_bell);
  // A record that waited for room still goes out: its tokens were counted. Else the credits do.
  if (!unpublished_) unpublished_ = Unpublished{};
  return {};
}

Result<WorkerLoop::Turn> WorkerLoop::turn() {
  if (!gateway_) return Turn::idle;
  if (unpublished_ || reject_) {
    const bool is_out = (!unpublished_ || try_publish()) && (!reject_ || try_reject());
    if (gateway_->writer.is_corrupt())
      return make_error(Errc::corrupt_region, "the gateway's read position is impossible");
    if (!is_out) return Turn::blocked;
  }
  if (const auto drained = drain_ring(); !drained) return drained.error();
  if (engine_.scheduler().has_sequences() || engine_.scheduler().has_entries()) {
    step();
    return Turn::worked;
  }
  return unpublished_ || reject_ ? Turn::worked : Turn::idle;
}

Result<void> WorkerLoop::drain_ring() {
  bool has_read = false;
  for (int i = 0; i < kRecordsPerTurn && !reject_ && engine_.scheduler().can_take_events(); ++i) {
    const shm::ReadOutcome record = gateway_->reader.read();
    if (record.status == shm::ReadStatus::empty) break;
    if (record.status == shm::ReadStatus::corrupt)
      return make_error(Errc::corrupt_record, "the submit ring is corrupt");
    if (const auto taken = take_record(record); !taken) return taken.error();
    has_read = true;
  }
  if (!has_read) return {};
  gateway_->reader.release();
  gateway_->bell.ring_if_sleeping();  // it may wait for room
  // The gateway learns that its submissions are known; a step's own record says it as well.
  unpublished_ = Unpublished{};
  return {};
}

Result<void> WorkerLoop::take_record(const shm::ReadOutcome& record) {
  switch (record.type) {
    case RecordType::submit: {
      const auto submission = parse_submit(record.payload);
      if (!submission) return submission.error();
      submit(*submission);
      return {};
    }
    case RecordType::cancel: {
      const auto cancel = parse_cancel(record.payload);
      if (!cancel) return cancel.error();
      engine_.scheduler().cancel(SequenceId{cancel->sequence});
      return {};
    }
    case RecordType::drain: is_draining_ = true; return {};
    default: return make_error(Errc::corrupt_record, "unexpected record on the submit ring");
  }
}

void WorkerLoop::submit(const SubmitView& submission) {
  const auto refuse = [&](Errc code) {
    reject_ = RejectRecord{submission.head.sequence, static_cast<std::uint32_t>(code), 0};
  };
  if (is_draining_) return refuse(Errc::no_healthy_worker);
  const auto added = engine_.scheduler().add(submission, clock_.now());
  if (!added) refuse(added.error().code);
}

void WorkerLoop::step() {
  const Tick started = clock_.now();
  const StepPlan& plan = engine_.plan();
  progress_.begin_forward(step_ + 1, ns_of(started),
                          static_cast<std::uint64_t>(engine_.predicted().count()),
                          engine_.suspects());
  const StepOutcome& outcome = engine_.compute();
  unpublished_ = Unpublished{&plan, &outcome, clock_.now() - started, engine_.forward_time(),
                             engine_.work()};
  report(shm::WorkerPhase::planning);
  try_publish();
}

// False: no room now.
bool WorkerLoop::try_publish() {
  const auto entries =
      unpublished_->outcome != nullptr ? unpublished_->outcome->entries : std::span<const StepEntry>{};
  const std::size_t bytes = sizeof(StepRecord) + entries.size_bytes();
  CHECK(bytes <= gateway_->writer.payload_bytes_max());
  const std::span<std::byte> space = gateway_->writer.try_claim(RecordType::step, bytes);
  if (space.data() == nullptr) return false;
  const Scheduler& scheduler = engine_.scheduler();
  const Credits credits = is_draining_ ? Credits{0, 0, 0} : scheduler.credits();
  StepRecord head{};
  head.step = ++step_;
  head.duration_ns = static_cast<std::uint64_t>(unpublished_->duration.count());
  head.generated_total = engine_.generated_total();
  head.submit_position = gateway_->reader.position();
  head.credit_tokens = credits.tokens;
  head.credit_blocks = credits.blocks;
  head.credit_sequences = credits.sequences;
  head.num_running = scheduler.num_running();
  head.num_waiting = scheduler.num_waiting();
  head.num_blocks_free = scheduler.blocks().num_free();
  head.num_blocks_cached = scheduler.blocks().num_parked();
  head.num_slots_unfilled = scheduler.num_slots_unfilled();
  if (const StepPlan* const plan = unpublished_->plan) {
    head.num_preemptions = plan->num_preemptions;
    head.num_prefill_tokens = plan->num_prefill_tokens;
    head.num_decode_tokens = plan->num_decode_tokens;
    head.num_prefix_queries = plan->num_prefix_queries;
    head.num_prefix_hits = plan->num_prefix_hits;
    head.num_sequences = static_cast<std::uint32_t>(plan->items.size());
    head.forward_ns = static_cast<std::uint64_t>(unpublished_->forward.count());
    head.operations = unpublished_->work.operations;
    head.bytes_moved = unpublished_->work.bytes_moved;
  }
  head.num_entries = static_cast<std::uint32_t>(entries.size());
  std::memcpy(space.data(), &head, sizeof head);
  if (!entries.empty())
    std::memcpy(space.data() + sizeof head, entries.data(), entries.size_bytes());
  gateway_->writer.commit(bytes);
  gateway_->bell.ring_if_sleeping();
  unpublished_.reset();
  return true;
}

bool WorkerLoop::try_reject() {
  if (!gateway_->writer.try_write(RecordType::reject, std::as_bytes(std::span(&*reject_, 1))))
    return false;
  gateway_->bell.ring_if_sleeping();
  reject_.reset();
  return true;
}

bool WorkerLoop::ring_is_quiet() const { return !gateway_ || gateway_->reader.is_empty(); }

// Ends early when either bell rings. `why`: idle waits for records, blocked for room.
void WorkerLoop::sleep(Duration at_most, Turn why) {
  if (why == Turn::idle && gateway_) {
    const Tick until = clock_.now() + kIdleSpin;
    do {
      for (int i = 0; i < kSpinsPerLook; ++i) {
        if (!ring_is_quiet()) return;
        pause_cpu();
      }
    } while (clock_.now() < until);
#ifndef NDEBUG
    engine_.scheduler().check_invariants();
#endif
  }
  report(why == Turn::idle ? shm::WorkerPhase::idle : shm::WorkerPhase::blocked);
  const shm::SleepScope scope(wiring_.step_region);
  // Once more under the flag, so that no wake-up is lost (doorbell.h).
  if (why == Turn::idle && !ring_is_quiet()) return;
  if (why == Turn::blocked && unpublished_ && try_publish()) return;
  std::array<pollfd, 2> waited{{{wiring_.own_bell, POLLIN, 0}, {wiring_.control.fd(), POLLIN, 0}}};
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(at_most);
  ::poll(waited.data(), waited.size(), static_cast<int>(ms.count()));
  shm::drain_doorbell(wiring_.own_bell);
}

void WorkerLoop::report(shm::WorkerPhase phase) {
  const Scheduler& scheduler = engine_.scheduler();
  shm::Progress counts;
  counts.generated_total = engine_.generated_total();
  counts.num_running = scheduler.num_running();
  counts.num_waiting = scheduler.num_waiting();
  counts.num_blocks_total = scheduler.blocks().num_blocks();
  counts.num_blocks_free = scheduler.blocks().num_free();
  progress_.turn(phase, ns_of(clock_.now()), counts);
}

}  // namespace sluice::eng
