// WorkerAccount: one worker's epoch as the serving core sees it: what may be sent to it (credits),
// whether its step records continue each other, how fast it is.
//
// Credits: a step record says what may be submitted beyond a position of the submit ring. What was
// sent behind that position is subtracted here:
//
//   submit ring   ...| seen by the worker |  unseen: s1 s2 s3  |
//                                         ^ submit_position    ^ written
//   room = credit - cost(s1) - cost(s2) - cost(s3)
//
// A submission may go while every kind of room is positive, so one of them may overdraw tokens and
// blocks: else a prompt longer than the look-ahead would wait for ever.
//
// A worker that a former gateway used answers with records about the former ring for a while: those
// whose position lies beyond what was written here say nothing about credits.
// Pure; decision thread only; allocates only in open().
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "shared/clock.h"
#include "shared/ids.h"
#include "shared/messages.h"
#include "shared/result.h"
#include "shared/worker_facts.h"

namespace sluice::gw {

enum class EpochOrigin : std::uint8_t { fresh, former_gateway };

class WorkerAccount {
 public:
  void open(std::uint32_t model, Epoch epoch, const WorkerFacts& facts, EpochOrigin origin);
  void close();
  bool is_up() const { return up_; }
  Epoch epoch() const { return epoch_; }
  std::uint32_t model() const { return model_; }
  const WorkerFacts& facts() const { return facts_; }
  EpochOrigin origin() const { return origin_; }

  // Head of a record: order, totals and credits. Errors: corrupt_record.
  Result<void> take_step(const StepView& step);
  // No further records count and nothing more is sent; the parent ends the epoch.
  void condemn(std::string reason);
  bool is_corrupt() const { return corrupt_; }
  const std::string& corrupt_reason() const { return corrupt_reason_; }

  bool can_take() const;
  std::uint64_t blocks_of(std::uint64_t tokens) const;
  void submitted(std::uint64_t tokens);       // charged now, position unknown
  void written(std::uint64_t ring_position);  // of the oldest one without a position
  void wrote(std::uint64_t ring_position);    // anything: cancels move the ring too
  void unsent();                              // the oldest one without a position has no room
  void hold() { ring_full_ = true; }          // nothing more before its next record ...
  void retry() { ring_full_ = false; }        // ... or a while

  std::uint32_t num_unseen() const { return static_cast<std::uint32_t>(size_); }
  const StepRecord& last() const { return last_; }  // telemetry of the latest step
  std::uint64_t tokens_per_second() const;  // measured over the last busy seconds; 0: unknown

 private:
  struct Unseen {
    std::uint64_t position;  // kNoPosition until written
    std::uint64_t tokens;
    std::uint64_t blocks;
  };
  static constexpr std::uint64_t kNoPosition = std::numeric_limits<std::uint64_t>::max();
  Unseen& unseen(std::size_t i) { return unseen_[(first_ + i) % unseen_.size()]; }
  std::size_t first_unwritten() const { return size_ - num_unwritten_; }
  void take_credits(const StepRecord& head);

  bool up_ = false;
  bool corrupt_ = false;
  bool ring_full_ = false;
  bool totals_known_ =
      false;  // false until the first record of an epoch that a former gateway used
  EpochOrigin origin_{};
  std::uint32_t model_ = 0;
  Epoch epoch_;
  WorkerFacts facts_;
  std::string corrupt_reason_;
  StepRecord last_{};

  std::int64_t room_tokens_ = 0, room_blocks_ = 0, room_sequences_ = 0;
  std::uint64_t written_position_ = 0;
  std::vector<Unseen> unseen_;  // a ring of fixed size
  std::size_t first_ = 0, size_ = 0, num_unwritten_ = 0;

  std::uint64_t busy_ns_ = 0, busy_tokens_ = 0;  // decaying sums
};

}  // namespace sluice::gw
