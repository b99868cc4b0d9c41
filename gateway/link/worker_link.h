// WorkerLink: the gateway's ends of one worker epoch - its own submit region, the worker's step
// region (read-only), reader, writer, doorbell. Copies, validates, and only then hands out what the
// worker wrote; decides nothing.
//
// A submit region belongs to one (worker epoch, gateway epoch). When a former gateway served this
// worker epoch, reading goes on where that one had published its position.
// Decision thread only.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gateway/core/serving_core.h"
#include "shared/byte_ring.h"
#include "shared/control.h"
#include "shared/doorbell.h"
#include "shared/progress_page.h"

namespace sluice::gw {

enum class LinkRead : std::uint8_t { empty, step, reject, corrupt };

class WorkerLink {
 public:
  // From a worker_up message: its identity, facts and descriptors (consumed). Errors:
  // corrupt_region, corrupt_record (facts out of range), io_error.
  static Result<std::unique_ptr<WorkerLink>> open(ControlMessage& up, Epoch gateway_epoch,
                                                  std::size_t ring_bytes);
  WorkerLink(const WorkerLink&) = delete;
  WorkerLink& operator=(const WorkerLink&) = delete;

  WorkerId worker() const { return worker_; }
  Epoch epoch() const { return epoch_; }
  EpochOrigin origin() const { return origin_; }
  const WorkerFacts& facts() const { return facts_; }
  int submit_fd() const { return submit_.fd().get(); }
  int bell_fd() const { return gateway_bell_.get(); }  // rung by the worker while we sleep
  shm::Region& own_region() { return submit_; }        // for SleepScope

  // The next record. Views hold until the next read(). After `corrupt` (reason in fault()) nothing
  // more is read.
  LinkRead read();
  const StepView& step() const { return step_; }
  const RejectRecord& reject() const { return reject_; }
  const std::string& fault() const { return fault_; }
  // How long its last step took that computed anything; zero before the first.
  Duration last_step() const { return last_step_; }
  bool knows_more() const { return !is_corrupt_ && reader_.knows_more(); }
  bool is_empty() const { return is_corrupt_ || reader_.is_empty(); }
  void release() {
    reader_.release();
    done_ = done_ | shm::WakeFor::room;
  }

  enum class Written : std::uint8_t { yes, no_room, too_large };
  Written write_submit(const Submission& submission, std::span<const std::uint64_t, 2> salt);
  std::uint64_t submit_position() const { return writer_.position(); }
  // Never lost: waits here for room and goes out by flush().
  void write_cancel(SequenceId sequence);
  // True when no cancel waits for room any more.
  bool flush();
  // What to sleep for: records, and room while a cancel waits for it. A submission that found none
  // is tried again at the worker's next record, which says that it has read.
  shm::WakeFor awaited() const {
    return cancels_.empty() ? shm::WakeFor::records : shm::WakeFor::either;
  }
  // Once per batch: wakes the worker if it sleeps for what was read or written. True when a system
  // call was made.
  bool ring() {
    const shm::WakeFor done = std::exchange(done_, shm::WakeFor::nothing);
    return done != shm::WakeFor::nothing && ringer_.ring_if_sleeping(done);
  }

  // Sequences of the step that was being computed; empty outside a forward pass.
  std::vector<SequenceId> suspects() const;

 private:
  struct Ends;  // regions and descriptors on their way into the constructor
  WorkerLink(const ControlMessage& up, Ends ends);
  bool try_write_cancel(SequenceId sequence);
  LinkRead corrupt(std::string reason);

  WorkerId worker_;
  Epoch epoch_;
  EpochOrigin origin_;
  WorkerFacts facts_;
  UniqueFd worker_bell_, gateway_bell_;
  shm::Region submit_, step_region_;
  shm::RingReader reader_;
  shm::RingWriter writer_;
  shm::DoorbellRinger ringer_;
  std::vector<SequenceId> cancels_;  // waiting for room; at most what the worker holds
  StepView step_{};
  RejectRecord reject_{};
  Duration last_step_{};
  bool is_corrupt_ = false;
  shm::WakeFor done_ = shm::WakeFor::nothing;  // since the last ring()
  std::string fault_;
};

}  // namespace sluice::gw
