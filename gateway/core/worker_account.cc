// WorkerAccount: credits, continuity and throughput of one epoch.
#include "gateway/core/worker_account.h"

#include <algorithm>
#include <utility>

#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr std::uint64_t kThroughputWindowNs = 4'000'000'000;
constexpr std::size_t kUnseenMax = 2 * kBatchSequencesMax;

}  // namespace

void WorkerAccount::open(std::uint32_t model, Epoch epoch, const WorkerFacts& facts,
                         EpochOrigin origin) {
  const std::uint64_t busy_ns = busy_ns_;
  const std::uint64_t busy_tokens = busy_tokens_;
  *this = WorkerAccount{};
  busy_ns_ = busy_ns;  // the same device: the speed of its former epoch is the best guess
  busy_tokens_ = busy_tokens;
  up_ = true;
  origin_ = origin;
  totals_known_ = origin == EpochOrigin::fresh;
  model_ = model;
  epoch_ = epoch;
  facts_ = facts;
  // Until the first record: an empty worker takes what fills two steps.
  room_tokens_ = std::int64_t{2} * facts.step_tokens_max;
  room_blocks_ = facts.num_blocks;
  room_sequences_ = facts.sequences_max;
  unseen_.resize(kUnseenMax);
}

void WorkerAccount::close() {
  up_ = false;
  size_ = 0;
  num_unwritten_ = 0;
  last_ = StepRecord{};
}

void WorkerAccount::condemn(std::string reason) {
  corrupt_ = true;
  corrupt_reason_ = std::move(reason);
}

Result<void> WorkerAccount::take_step(const StepView& step) {
  const StepRecord& head = step.head;
  std::uint64_t tokens = 0;
  for (const StepEntry& entry : step.entries) tokens += entry.kind == EntryKind::token ? 1 : 0;
  if (totals_known_) {
    if (head.step <= last_.step) {
      return make_error(Errc::corrupt_record, "step number does not ascend");
    }
    if (head.generated_total != last_.generated_total + tokens) {
      return make_error(Errc::corrupt_record, "generated_total does not match the entries");
    }
  }
  if (head.num_blocks_free > facts_.num_blocks ||
      head.num_blocks_cached > facts_.num_blocks - head.num_blocks_free) {
    return make_error(Errc::corrupt_record, "more KV blocks than the worker has");
  }
  const std::uint64_t num_blocks_used =
      facts_.num_blocks - head.num_blocks_free - head.num_blocks_cached;
  if (head.num_slots_unfilled > num_blocks_used * facts_.block_tokens) {
    return make_error(Errc::corrupt_record, "more unfilled KV slots than used blocks have");
  }
  if (head.num_sequences > facts_.sequences_max) {
    return make_error(Errc::corrupt_record, "more sequences in a step than the worker takes");
  }
  const bool of_former_ring = head.submit_position > written_position_;
  if (of_former_ring && origin_ == EpochOrigin::fresh) {
    return make_error(Errc::corrupt_record, "submit_position was never written");
  }
  totals_known_ = true;
  if (!of_former_ring) take_credits(head);
  last_ = head;
  ring_full_ = false;
  const std::uint64_t computed = std::uint64_t{head.num_prefill_tokens} + head.num_decode_tokens;
  if (computed > 0) {
    busy_ns_ += std::min(head.duration_ns, kStepNsMax);
    busy_tokens_ += computed;
    while (busy_ns_ > kThroughputWindowNs) {
      busy_ns_ /= 2;
      busy_tokens_ /= 2;
    }
  }
  return {};
}

void WorkerAccount::take_credits(const StepRecord& head) {
  while (size_ > num_unwritten_ && unseen(0).position <= head.submit_position) {
    first_ = (first_ + 1) % unseen_.size();
    --size_;
  }
  room_tokens_ = head.credit_tokens;
  room_blocks_ = head.credit_blocks;
  room_sequences_ = head.credit_sequences;
  for (std::size_t i = 0; i < size_; ++i) {
    room_tokens_ -= static_cast<std::int64_t>(unseen(i).tokens);
    room_blocks_ -= static_cast<std::int64_t>(unseen(i).blocks);
    --room_sequences_;
  }
}

bool WorkerAccount::can_take() const {
  return up_ && !corrupt_ && !ring_full_ && size_ < unseen_.size() && room_tokens_ > 0 &&
         room_blocks_ > 0 && room_sequences_ > 0;
}

std::uint64_t WorkerAccount::blocks_of(std::uint64_t tokens) const {
  const std::uint64_t block = std::max(1u, facts_.block_tokens);
  return (tokens + block) / block;  // the first new token has a slot too
}

void WorkerAccount::submitted(std::uint64_t tokens) {
  CHECK(size_ < unseen_.size());
  const Unseen cost{kNoPosition, tokens, blocks_of(tokens)};
  unseen(size_) = cost;
  ++size_;
  ++num_unwritten_;
  room_tokens_ -= static_cast<std::int64_t>(cost.tokens);
  room_blocks_ -= static_cast<std::int64_t>(cost.blocks);
  --room_sequences_;
}

void WorkerAccount::written(std::uint64_t ring_position) {
  CHECK(num_unwritten_ > 0 && ring_position >= written_position_);
  unseen(first_unwritten()).position = ring_position;
  written_position_ = ring_position;
  --num_unwritten_;
}

void WorkerAccount::wrote(std::uint64_t ring_position) {
  written_position_ = std::max(written_position_, ring_position);
}

void WorkerAccount::unsent() {
  CHECK(num_unwritten_ > 0);
  const std::size_t at = first_unwritten();
  room_tokens_ += static_cast<std::int64_t>(unseen(at).tokens);
  room_blocks_ += static_cast<std::int64_t>(unseen(at).blocks);
  ++room_sequences_;
  for (std::size_t i = at; i + 1 < size_; ++i) unseen(i) = unseen(i + 1);
  --size_;
  --num_unwritten_;
  ring_full_ = true;
}

std::uint64_t WorkerAccount::tokens_per_second() const {
  if (busy_ns_ == 0) return 0;
  // busy_tokens_ < 2^53 by the halving, so seconds are applied in two parts without overflow.
  return busy_tokens_ * 1'000'000 / std::max<std::uint64_t>(1, busy_ns_ / 1000);
}

}  // namespace sluice::gw
