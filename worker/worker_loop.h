// WorkerLoop: drains the submit ring, turns the engine, publishes one step record per step.
//
//   control message? -> drain ring -> plan -> progress page (suspects) -> forward, sample, apply
//                    -> publish the record (or wait for room: no token is dropped) -> again
//
// Without work it spins briefly (doorbell.h), then sleeps on its doorbell and on the control
// channel. A new gateway (`attach`) ends all sequences of the former one; the step ring goes on
// where it is. Running sequences do not wait for a long submission: it is set aside in the ring,
// copied and taken in by a bounded piece per turn, while the records behind it are read. Until it
// is added its ring space is not released and submit_position stands before it; the credits make up
// for what was read behind. The gateway's bytes are input: records are parsed, ids and lengths
// checked; a submission that can never run is answered by a Reject record, a corrupt ring ends the
// process and thereby its epoch. Thread rule: one thread.
#pragma once

#include <optional>
#include <vector>

#include "shared/byte_ring.h"
#include "shared/control.h"
#include "shared/doorbell.h"
#include "shared/progress_page.h"
#include "worker/engine.h"
#include "worker/golden_digest.h"

namespace sluice::eng {

struct WorkerWiring {
  ControlChannel& control;
  shm::Region& step_region;  // owned by this process
  WorkerId worker;
  Epoch epoch;
  int own_bell;                    // it sleeps on this
  int gateway_bell;                // it rings this
  GoldenDigest* golden = nullptr;  // none: every trial is passed
};

struct Arriving {  // a submission that was set aside
  Tick since{};    // when it was seen: it does not lose its place in the queue
  bool is_cancelled = false;
  Credits known{};         // what it and those added from behind it were charged by the gateway
  bool is_copied = false;  // the rest is valid
  SubmitView submission{};
  std::optional<Errc> refused;
  IdIntake intake;
};

class WorkerLoop {
 public:
  WorkerLoop(const WorkerWiring& wiring, Engine& engine, const Clock& clock);

  // Until the parent closes the control channel. Errors: corrupt_record, corrupt_region.
  Result<void> run();

 private:
  struct Gateway {  // who is attached
    Gateway(shm::Region&& region, shm::Region& step_region, int bell);
    shm::Region submit;
    shm::RingReader reader;
    shm::RingWriter writer;
    shm::DoorbellRinger bell;
  };
  struct Unpublished {  // what a step record says beside the entries and the state of the moment
    const StepPlan* plan = nullptr;  // none: credits alone changed
    const StepOutcome* outcome = nullptr;
    Duration duration{};
    Duration forward{};  // of the duration
    StepWork work;
  };
  enum class Turn : std::uint8_t { worked, idle, blocked };

  Result<bool> handle_control();  // false: the channel closed
  Result<void> attach(ControlMessage& message);
  bool owes_drained() const;
  Result<void> say_drained();
  Result<Turn> turn();
  Result<void> drain_ring();
  Result<void> take_record(const shm::ReadOutcome& record);
  Result<void> take_arriving();
  Result<void> take_aside();
  void set_aside();
  void end_arriving();
  SubmitRecord arriving_head() const;
  std::size_t num_pieces() const;
  void charge(Credits& credits, const SubmitRecord& head, std::uint32_t sequences) const;
  void cancel(std::uint64_t sequence);
  void submit(const SubmitView& submission);
  void refuse(std::uint64_t sequence, Errc code);
  std::optional<std::uint64_t> take_golden(bool is_urgent);
  // False: the rejection is written in reject_. Running sequences wait for its passes.
  bool passes_trial(const SubmitRecord& head);
  void step();
  Credits credits() const;
  bool try_publish();
  bool try_reject();
  bool ring_is_quiet() const;
  void sleep(Duration at_most, Turn why);
  void report(shm::WorkerPhase phase);

  const WorkerWiring wiring_;
  Engine& engine_;
  const Clock& clock_;
  const Duration idle_spin_ = shm::spin_before_sleep();
  shm::ProgressWriter progress_;
  std::optional<Gateway> gateway_;
  std::optional<Unpublished> unpublished_;
  std::optional<RejectRecord> reject_;  // waits for room
  std::optional<Arriving> arriving_;
  Credits published_{};  // by the last record
  std::uint64_t step_ = 0;
  std::optional<std::uint64_t> golden_;  // taken when it first had nothing to do for a while
  std::optional<Tick> idle_since_;
  Duration last_step_{};  // of the last one that computed anything
  Tick control_due_{};
  bool is_bell_rung_ = false;  // and not silenced yet
  bool is_draining_ = false;
  bool has_said_drained_ = false;
};

}  // namespace sluice::eng
