// One turn after another; everything that waits is bounded and named.
#include "worker/worker_loop.h"

#include <poll.h>

#include <algorithm>
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
// Idle for so long, it takes the golden digest that later ones are compared with.
constexpr Duration kGoldenDelay = std::chrono::milliseconds(200);
// The gateway rings when it made room; this bounds the wait if it died in between.
constexpr Duration kBlockedSleep = std::chrono::milliseconds(10);
// Records taken per turn: running sequences do not wait behind a flood of submissions.
constexpr int kRecordsPerTurn = 512;
constexpr int kSpinsPerLook = 32;
// A record up to so long is copied, checked and taken in at once (about 30 us). A longer one comes
// in pieces: so many bytes are copied, then so many ids taken in (about 30 us each), one piece per
// turn and per kStepOfAPiece that the last step lasted. So it costs long and short steps the same
// share, and the largest record is here within a few hundred milliseconds, whatever a step takes.
constexpr std::size_t kWholeRecordBytesMax = 64u << 10;
constexpr std::size_t kPieceBytes = 128u << 10;
constexpr std::size_t kPieceIds = 16u << 10;
constexpr Duration kStepOfAPiece = std::chrono::milliseconds(1);
constexpr std::int64_t kPiecesMax = 64;

std::uint64_t ns_of(Tick tick) {
  return static_cast<std::uint64_t>(tick.time_since_epoch().count());
}

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
    if (const Tick now = clock_.now(); now >= control_due_) {
      const Result<bool> is_open = handle_control();
      if (!is_open) return is_open.error();
      if (!*is_open) return {};
      control_due_ = now + kControlPeriod;
    }
    const Result<Turn> result = turn();
    if (!result) return result.error();
    if (*result == Turn::worked) {
      idle_since_.reset();
      continue;
    }
    if (owes_drained()) {
      if (const auto said = say_drained(); !said) return said.error();
      continue;
    }
    const bool is_golden_due = wiring_.golden != nullptr && !golden_ && gateway_ &&
                               *result == Turn::idle && !engine_.scheduler().has_sequences();
    if (is_golden_due) {
      const Tick now = clock_.now();
      if (now - idle_since_.value_or(now) >= kGoldenDelay) {
        golden_ = take_golden(false);
        idle_since_.reset();
        continue;
      }
      if (!idle_since_) idle_since_ = now;
    }
    const Duration idle = is_golden_due ? kGoldenDelay : kIdleSleep;
    sleep(*result == Turn::idle ? idle : kBlockedSleep, *result);
  }
}

// Unless it is urgent, whoever comes meanwhile does not wait for it.
std::optional<std::uint64_t> WorkerLoop::take_golden(bool is_urgent) {
  return wiring_.golden->take([&] {
    progress_.begin_forward(step_, ns_of(clock_.now()),
                            static_cast<std::uint64_t>(engine_.predict(kGoldenTokens).count()), {});
    return is_urgent || ring_is_quiet();
  });
}

// Nothing to compare with: what it computes now is taken for right.
bool WorkerLoop::passes_trial(const SubmitRecord& head) {
  if (head.check_golden == 0 || wiring_.golden == nullptr) return true;
  const std::optional<std::uint64_t> digest = take_golden(true);
  if (!golden_) golden_ = digest;
  if (digest == golden_) return true;
  reject_ = RejectRecord{head.sequence, static_cast<std::uint32_t>(Errc::no_healthy_worker), 1};
  return false;
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
         !unpublished_ && !reject_ && !arriving_;
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
  arriving_.reset();
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
  if (arriving_)
    if (const auto taken = take_arriving(); !taken) return taken.error();
  if (engine_.scheduler().has_work()) {
    step();
    return Turn::worked;
  }
  return unpublished_ || reject_ || arriving_ ? Turn::worked : Turn::idle;
}

Result<void> WorkerLoop::drain_ring() {
  bool has_read = false;
  for (int i = 0; i < kRecordsPerTurn && !reject_ && engine_.scheduler().can_take_events(); ++i) {
    if (i > 0 && !gateway_->reader.knows_more()) break;
    const shm::ReadOutcome record = gateway_->reader.read_or_set_aside(kWholeRecordBytesMax);
    if (record.status == shm::ReadStatus::empty) break;
    if (record.status == shm::ReadStatus::corrupt)
      return make_error(Errc::corrupt_record, "the submit ring is corrupt");
    if (record.status == shm::ReadStatus::set_aside) {
      if (record.type != RecordType::submit)
        return make_error(Errc::corrupt_record, "only a submission can be so long");
      set_aside();
      continue;
    }
    if (const auto taken = take_record(record); !taken) return taken.error();
    has_read = true;
  }
  if (!has_read) return {};
  gateway_->reader.release();
  gateway_->bell.ring_if_sleeping(shm::WakeFor::room);
  // The gateway learns that its submissions are known; a step's own record says it as well.
  unpublished_ = Unpublished{};
  return {};
}

void WorkerLoop::set_aside() {
  arriving_.emplace().since = clock_.now();
  gateway_->reader.read_aside(sizeof(SubmitRecord));  // a cancel for it may be the next record
  SubmitRecord head = arriving_head();
  const std::uint32_t context_tokens = engine_.scheduler().limits().context_tokens;
  if (head.num_prompt_ids <= context_tokens &&
      head.num_output_ids <= context_tokens - head.num_prompt_ids)
    charge(arriving_->known, head, 0);
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
      const auto cancelled = parse_cancel(record.payload);
      if (!cancelled) return cancelled.error();
      cancel(cancelled->sequence);
      return {};
    }
    case RecordType::drain:
      is_draining_ = true;
      return {};
    default:
      return make_error(Errc::corrupt_record, "unexpected record on the submit ring");
  }
}

// Some pieces: of the copy first, then of the ids.
Result<void> WorkerLoop::take_arriving() {
  Arriving& arriving = *arriving_;
  if (!arriving.is_copied) return take_aside();
  if (!arriving.refused) {
    arriving.intake.take(num_pieces() * kPieceIds);
    if (!arriving.intake.is_over() || !engine_.scheduler().can_take_events()) return {};
  }
  if (!reject_) end_arriving();
  return {};
}

std::size_t WorkerLoop::num_pieces() const {
  return static_cast<std::size_t>(
      std::clamp<std::int64_t>(last_step_ / kStepOfAPiece, 1, kPiecesMax));
}

Result<void> WorkerLoop::take_aside() {
  const shm::ReadOutcome record = gateway_->reader.read_aside(num_pieces() * kPieceBytes);
  if (record.status == shm::ReadStatus::set_aside) return {};
  if (record.status == shm::ReadStatus::corrupt)
    return make_error(Errc::corrupt_record, "the submit ring is corrupt");
  const auto submission = parse_submit(record.payload);
  if (!submission) return submission.error();
  arriving_->is_copied = true;
  arriving_->submission = *submission;
  if (const auto checked = engine_.scheduler().check_head(submission->head); !checked)
    arriving_->refused = checked.error().code;
  else
    arriving_->intake.begin(*submission, engine_.scheduler().limits().vocab_size);
  return {};
}

// It is known from here on, one way or the other: its ring space is released.
void WorkerLoop::end_arriving() {
  Arriving& arriving = *arriving_;
  const std::uint64_t sequence = arriving.submission.head.sequence;
  if (is_draining_) arriving.refused = Errc::no_healthy_worker;
  const bool has_failed_trial = !arriving.refused && !passes_trial(arriving.submission.head);
  if (!arriving.refused && !has_failed_trial) {
    const auto added =
        engine_.scheduler().add(arriving.submission, arriving.intake, arriving.since);
    if (!added) arriving.refused = added.error().code;
  }
  if (arriving.refused)
    refuse(sequence, *arriving.refused);
  else if (arriving.is_cancelled && !has_failed_trial)
    engine_.scheduler().cancel(SequenceId{sequence});
  arriving_.reset();
  gateway_->reader.drop_aside();
  gateway_->reader.release();
  gateway_->bell.ring_if_sleeping(shm::WakeFor::room);
  unpublished_ = Unpublished{};
}

// The head of a submission that is aside; its checksum may not be known yet. Should it turn out
// wrong, the process ends, and nothing that was concluded from it matters.
SubmitRecord WorkerLoop::arriving_head() const {
  SubmitRecord head;
  std::memcpy(&head, gateway_->reader.unverified_aside().data(), sizeof head);
  return head;
}

void WorkerLoop::cancel(std::uint64_t sequence) {
  if (arriving_ && arriving_head().sequence == sequence)
    arriving_->is_cancelled = true;  // once it is here
  else
    engine_.scheduler().cancel(SequenceId{sequence});
}

void WorkerLoop::submit(const SubmitView& submission) {
  if (is_draining_) return refuse(submission.head.sequence, Errc::no_healthy_worker);
  if (!passes_trial(submission.head)) return;
  const auto added = engine_.scheduler().add(submission, clock_.now());
  if (!added) return refuse(submission.head.sequence, added.error().code);
  if (arriving_) charge(arriving_->known, submission.head, 1);
}

void WorkerLoop::refuse(std::uint64_t sequence, Errc code) {
  reject_ = RejectRecord{sequence, static_cast<std::uint32_t>(code), 0};
}

// What a submission costs in credits.
void WorkerLoop::charge(Credits& credits, const SubmitRecord& head, std::uint32_t sequences) const {
  const std::uint32_t tokens = head.num_prompt_ids + head.num_output_ids;
  credits.tokens += tokens;
  credits.blocks += tokens / engine_.scheduler().limits().block_tokens + 1;
  credits.sequences += sequences;
}

// Beyond submit_position. While a submission is arriving that position stands before it, so that
// the gateway still charges it and what came behind: the worker adds what it knows of them. The
// arriving one is added as if it ran already, but for its place, which it has not taken yet.
Credits WorkerLoop::credits() const {
  if (is_draining_) return {0, 0, 0};
  Credits credits = engine_.scheduler().credits();
  if (!arriving_) return credits;
  credits.tokens += arriving_->known.tokens;
  credits.blocks += arriving_->known.blocks;
  credits.sequences += arriving_->known.sequences;
  return credits;
}

void WorkerLoop::step() {
  const Tick started = clock_.now();
  const StepPlan& plan = engine_.plan();
  progress_.begin_forward(step_ + 1, ns_of(started),
                          static_cast<std::uint64_t>(engine_.predicted().count()),
                          engine_.suspects());
  const StepOutcome& outcome = engine_.compute();
  const Duration duration = clock_.now() - started;
  if (!plan.items.empty()) last_step_ = duration;
  const bool is_news = !plan.items.empty() || plan.num_preemptions > 0 || !outcome.entries.empty();
  if (is_news)
    unpublished_ = Unpublished{&plan, &outcome, duration, engine_.forward_time(), engine_.work()};
  else if (credits() != published_)
    unpublished_ = Unpublished{};
  report(shm::WorkerPhase::planning);
  if (unpublished_) try_publish();
}

// False: no room now.
bool WorkerLoop::try_publish() {
  const auto entries = unpublished_->outcome != nullptr ? unpublished_->outcome->entries
                                                        : std::span<const StepEntry>{};
  const auto top =
      unpublished_->outcome != nullptr ? unpublished_->outcome->top : std::span<const TopLogprob>{};
  const auto values =
      unpublished_->outcome != nullptr ? unpublished_->outcome->values : std::span<const float>{};
  StepRecord head{};
  head.num_entries = static_cast<std::uint32_t>(entries.size());
  head.num_top = static_cast<std::uint32_t>(top.size());
  head.num_values = static_cast<std::uint32_t>(values.size());
  const std::size_t bytes = step_bytes(head);
  CHECK(bytes <= gateway_->writer.payload_bytes_max());
  const std::span<std::byte> space = gateway_->writer.try_claim(RecordType::step, bytes);
  if (space.data() == nullptr) return false;
  const Scheduler& scheduler = engine_.scheduler();
  published_ = credits();
  head.step = ++step_;
  head.duration_ns = static_cast<std::uint64_t>(unpublished_->duration.count());
  head.generated_total = engine_.generated_total();
  head.submit_position = gateway_->reader.position();
  head.credit_tokens = published_.tokens;
  head.credit_blocks = published_.blocks;
  head.credit_sequences = published_.sequences;
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
  write_step(space, {head, entries, top, values});
  gateway_->writer.commit(bytes);
  gateway_->bell.ring_if_sleeping(shm::WakeFor::records);
  unpublished_.reset();
  return true;
}

bool WorkerLoop::try_reject() {
  if (!gateway_->writer.try_write(RecordType::reject, std::as_bytes(std::span(&*reject_, 1))))
    return false;
  gateway_->bell.ring_if_sleeping(shm::WakeFor::records);
  reject_.reset();
  return true;
}

bool WorkerLoop::ring_is_quiet() const {
  return !gateway_ || gateway_->reader.is_empty();
}

// Ends early when the bell rings or a control message comes. `why`: idle waits for records, blocked
// for room.
void WorkerLoop::sleep(Duration at_most, Turn why) {
  if (why == Turn::idle && gateway_) {
    const Tick until = clock_.now() + idle_spin_;
    while (clock_.now() < until) {
      for (int i = 0; i < kSpinsPerLook; ++i) {
        if (!ring_is_quiet()) return;
        pause_cpu();
      }
    }
#ifndef NDEBUG
    engine_.scheduler().check_invariants();
#endif
  }
  report(why == Turn::idle ? shm::WorkerPhase::idle : shm::WorkerPhase::blocked);
  // The bell is silenced here, not when it has woken us: what it announced was waiting long enough.
  if (std::exchange(is_bell_rung_, false)) shm::drain_doorbell(wiring_.own_bell);
  const shm::SleepScope scope(wiring_.step_region,
                              why == Turn::idle ? shm::WakeFor::records : shm::WakeFor::room);
  // Once more under the flag, so that no wake-up is lost (doorbell.h).
  if (why == Turn::idle && !ring_is_quiet()) return;
  if (why == Turn::blocked && (unpublished_ ? try_publish() : try_reject())) return;
  std::array<pollfd, 2> waited{{{wiring_.own_bell, POLLIN, 0}, {wiring_.control.fd(), POLLIN, 0}}};
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(at_most);
  ::poll(waited.data(), waited.size(), static_cast<int>(ms.count()));
  is_bell_rung_ = waited[0].revents != 0;
  control_due_ = waited[1].revents != 0 ? Tick{} : clock_.now() + kControlPeriod;
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
