// Scheduler: decides what each step computes. Pure: the same calls give the same plans.
//
// Continuous batching with chunked prefill (Yu et al., "Orca", OSDI 2022; Agrawal et al.,
// "Sarathi-Serve", OSDI 2024) over paged KV (Kwon et al., "vLLM", SOSP 2023):
//   1. every decoding sequence gets its token, 2. running prefills share the rest of the token
//   budget, the older first, 3. waiting sequences are admitted while budget, places and blocks last.
// A sequence is admitted with blocks for all of its ids, less what the prefix cache holds. When a
// decode finds no block, sequences are preempted: those without a token yet first, among equals the
// youngest; they give their blocks back, keep their ids and wait at the front (recompute).
//
// Invariants: every sequence added ends in exactly one entry with a finish reason (or drop_all);
// blocks free + used + parked == total; a block's references == tables that hold it; nothing waits
// while a place, a token of budget and enough blocks are free; one security class at a time is
// resident where the policy says so. plan() and apply() alternate; nothing else is called between.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "shared/clock.h"
#include "shared/result.h"
#include "worker/core/block_pool.h"
#include "worker/core/prefix_cache.h"
#include "worker/core/sequence.h"
#include "worker/core/step_plan.h"

namespace sluice::eng {

enum class ClassPolicy : std::uint8_t {
  separate,  // security classes are never resident together; memory is zeroed in between
  mixed,
};

struct SchedulerLimits {
  std::uint32_t num_blocks = 4096;
  std::uint32_t block_tokens = 16;      // even
  std::uint32_t sequences_max = 64;     // in one step; <= step_tokens_max
  std::uint32_t waiting_max = 64;       // more waiting ones are refused; credits stay below
  std::uint32_t step_tokens_max = 512;  // token budget of a step
  std::uint32_t context_tokens = 4096;  // longest prompt + output
  std::uint32_t vocab_size = 0;
  bool prefix_cache = true;
  ClassPolicy classes = ClassPolicy::separate;
  HashKey hash_key{};                   // secret of the prefix cache
};

// One step of priority is worth so much waiting.
inline constexpr Duration kPriorityAging = std::chrono::seconds(10);

struct Credits {  // what may be submitted beyond all that was added
  std::uint32_t tokens;     // prompt + restored output; a longest context always fits an idle worker
  std::uint32_t blocks;     // one per block_tokens begun, of prompt + restored output + 1
  std::uint32_t sequences;
  friend bool operator==(const Credits&, const Credits&) = default;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Errors: context_length_exceeded (longer than the context or the whole KV memory), invalid_value
  // (an id outside the vocabulary, a known sequence id), over_capacity (beyond the credits).
  Result<void> add(const SubmitView& submission, Tick now);
  // Idempotent; unknown ids are ignored. The sequence is in no later plan; the next outcome says so.
  void cancel(SequenceId id);
  // Forgets every sequence without entries: nobody is left to read them. The prefix cache stays.
  void drop_all();

  const StepPlan& plan();
  // sampled: [plan.num_logits], in plan order. The outcome holds until the next plan().
  const StepOutcome& apply(std::span<const SampledToken> sampled);

  const Sequence& sequence(std::uint32_t slot) const { return slots_[slot]; }
  bool has_sequences() const { return num_known() > 0; }
  // False when so many cancellations wait for the next outcome that none must follow before it.
  bool can_take_events() const { return cancelled_.size() < slots_.size(); }
  bool has_entries() const { return !cancelled_.empty(); }  // a plan and apply bring them out
  std::uint32_t num_running() const { return static_cast<std::uint32_t>(running_.size()); }
  std::uint32_t num_waiting() const { return static_cast<std::uint32_t>(waiting_.size()); }
  // Slots of used blocks that hold no token yet: what allocation by blocks wastes. Shared blocks are
  // full. O(running).
  std::uint32_t num_slots_unfilled() const;
  Credits credits() const;
  const BlockPool& blocks() const { return pool_; }
  const SchedulerLimits& limits() const { return limits_; }
  void check_invariants() const;  // O(sequences + blocks): in tests after every event, when idle

 private:
  using Slot = std::uint32_t;

  std::uint32_t num_known() const { return num_running() + num_waiting(); }
  std::optional<Slot> find(SequenceId id) const;
  std::uint32_t blocks_for(std::uint32_t num_tokens) const;
  std::uint32_t num_available() const { return pool_.num_free() + pool_.num_parked(); }
  void enqueue(Slot slot);
  void remove_waiting(Slot slot);
  void reset(Slot slot);

  void extend_tables();
  Slot choose_victim() const;
  void preempt(Slot slot);
  void plan_running();
  void plan_waiting();
  void plan_item(Slot slot, std::uint32_t num_tokens);
  bool try_admit(Slot slot);
  bool admit_class(const Sequence& sequence);
  std::uint32_t share_prefix(Sequence& sequence);

  BlockId take_block();
  void share_block(BlockId block);
  void release_blocks(Sequence& sequence, std::uint32_t first);
  void extend_chain(Sequence& sequence, std::uint32_t num_full);
  PrefixCache::Content content(const Sequence& sequence, std::uint32_t index) const;
  void register_blocks(Sequence& sequence);
  bool emit(Slot slot, const SampledToken& sampled);  // true: the sequence ended

  const SchedulerLimits limits_;
  BlockPool pool_;
  PrefixCache cache_;
  std::vector<Sequence> slots_;          // [sequences_max + waiting_max]
  std::vector<Slot> unused_slots_;       // stack
  std::vector<Slot> running_;            // by key, the oldest first
  std::vector<Slot> waiting_;            // by key, the next one LAST
  std::vector<std::uint8_t> is_written_; // [num_blocks] since the last zeroing
  std::uint32_t resident_class_ = 0;     // of the running sequences and the cached blocks
  std::uint32_t waiting_tokens_ = 0;     // sum of num_ids over waiting_
  std::uint32_t waiting_blocks_ = 0;     // sum of blocks_for(num_ids + 1) over waiting_
  // The head of the queue did not fit when so many blocks were available: not tried again before
  // more are, or another sequence is the head.
  SequenceId blocked_head_{};
  std::uint32_t blocked_available_ = 0;
  StepPlan plan_;
  StepOutcome outcome_;
  std::vector<StepEntry> entries_;
  std::vector<StepEntry> cancelled_;
  bool is_planned_ = false;              // between plan() and apply()
};

}  // namespace sluice::eng
