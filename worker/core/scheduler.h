// Scheduler: decides what each step computes. Pure: the same calls give the same plans.
//
// Continuous batching with chunked prefill (Yu et al., "Orca", OSDI 2022; Agrawal et al.,
// "Sarathi-Serve", OSDI 2024) over paged KV (Kwon et al., "vLLM", SOSP 2023):
//   1. every decoding sequence gets its token, 2. running prefills share the rest of the token
//   budget, the older first, 3. waiting sequences are admitted while budget, places and blocks
//   last.
// A sequence is admitted when blocks for all of its ids, less what the prefix cache holds, are
// free; they are promised to it then and taken as its prefill goes on. When a decode finds no
// block, sequences are preempted: those without a token yet first, among equals the youngest; they
// keep their ids, wait at the front, and compute again what others took from them (recompute).
//
// Between two steps nothing depends on the length of one sequence. A plan hashes, finds and shares
// at most intake_tokens_max tokens of prefixes, and about as many are given back per step:
//
//   waiting --found in pieces--> running --ended--> leaving --given back in pieces--> absent
//
// A prompt's log-probabilities and its embedding need every position's own result: what the prefix
// cache holds is computed again from first_needed() on, and a step computes at most kStepScoresMax
// rows of logits for prompts beyond one per sequence.
//
// A waiting sequence holds the blocks it has found (or kept over a preemption) until somebody needs
// them more. While it is still being looked up, those behind it may pass.
//
// Invariants: every sequence added ends in exactly one entry with a finish reason (or drop_all);
// blocks free + used + parked == total; a block's references == tables that hold it; promised
// blocks
// <= free + parked; nothing waits while a place, a token of budget and enough blocks are free, but
// for its look-up; one security class at a time is resident where the policy says so. plan() and
// apply() alternate; nothing else is called between.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "shared/clock.h"
#include "shared/result.h"
#include "worker/core/block_pool.h"
#include "worker/core/id_intake.h"
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
  // Tokens whose blocks one step looks up, and again as many that it gives back. Raising it admits
  // long cached prompts in fewer steps and lengthens those.
  std::uint32_t intake_tokens_max = 16384;
  std::uint32_t embeddings_max = 16;  // completed in one step; 0: none are served
  bool prefix_cache = true;
  ClassPolicy classes = ClassPolicy::separate;
  HashKey hash_key{};  // secret of the prefix cache
};

// One step of priority is worth so much waiting.
inline constexpr Duration kPriorityAging = std::chrono::seconds(10);

struct Credits {         // what may be submitted beyond all that was added
  std::uint32_t tokens;  // prompt + restored output; a longest context always fits an idle worker
  std::uint32_t blocks;  // one per block_tokens begun, of prompt + restored output + 1
  std::uint32_t sequences;
  friend bool operator==(const Credits&, const Credits&) = default;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Errors: context_length_exceeded (longer than the context or the whole KV memory), invalid_value
  // (an id outside the vocabulary, a known sequence id), over_capacity (beyond the credits),
  // unsupported_parameter (an embedding where none is served).
  Result<void> add(const SubmitView& submission, Tick now);
  // What add() would say about the head of a submission.
  Result<void> check_head(const SubmitRecord& head) const;
  // The same, for a submission whose ids were taken in before (id_intake.h); empties `taken`.
  // REQUIRES: taken.is_over().
  Result<void> add(const SubmitView& submission, IdIntake& taken, Tick now);
  // Idempotent; unknown ids are ignored. The sequence is in no later plan; the next outcome says
  // so.
  void cancel(SequenceId id);
  // Forgets every sequence without entries: nobody is left to read them. The prefix cache stays.
  void drop_all();

  const StepPlan& plan();
  // sampled: one per row of logits and per item with ends_embedding, in plan order. The outcome
  // holds until the next plan().
  const StepOutcome& apply(std::span<const SampledToken> sampled);

  const Sequence& sequence(std::uint32_t slot) const { return slots_[slot]; }
  bool has_sequences() const { return num_known() > 0; }
  // False when so many cancellations wait for the next outcome that none must follow before it.
  bool can_take_events() const { return cancelled_.size() < slots_.size(); }
  bool has_entries() const { return !cancelled_.empty(); }  // a plan and apply bring them out
  bool has_work() const { return has_sequences() || has_entries() || !leaving_.empty(); }
  std::uint32_t num_running() const { return static_cast<std::uint32_t>(running_.size()); }
  std::uint32_t num_waiting() const { return static_cast<std::uint32_t>(waiting_.size()); }
  // Slots of used blocks that hold no token: what allocation by blocks wastes. Shared blocks and
  // those that waiting sequences hold are full. O(running + leaving).
  std::uint32_t num_slots_unfilled() const;
  Credits credits() const;
  const BlockPool& blocks() const { return pool_; }
  const SchedulerLimits& limits() const { return limits_; }
  void check_invariants() const;  // O(sequences + blocks): in tests after every event, when idle

 private:
  using Slot = std::uint32_t;
  enum class Admission : std::uint8_t { admitted, looking_up, blocked };
  enum class Ids : std::uint8_t { given, taken };  // prompt and output: to be checked, or were
  enum class Lookup : std::uint8_t { over, goes_on, no_room };

  std::uint32_t num_known() const { return num_running() + num_waiting(); }
  std::optional<Slot> find(SequenceId id) const;
  std::uint32_t blocks_for(std::uint32_t num_tokens) const;
  // Blocks that are free or cached and promised to nobody.
  std::uint32_t num_available() const {
    return pool_.num_free() + pool_.num_parked() - num_promised_;
  }
  Result<void> check_ids(const SubmitView& submission, Ids which) const;
  Slot slot_of(const Sequence& sequence) const {
    return static_cast<Slot>(&sequence - slots_.data());
  }
  Sequence& place(const SubmitView& submission, Tick now);
  void enqueue(Slot slot);
  void remove_waiting(Slot slot);
  void retire(Slot slot);
  void recycle(Slot slot);

  void extend_tables();
  Slot choose_victim() const;
  void preempt(Slot slot);
  void plan_running();
  void plan_waiting();
  void plan_item(Slot slot, std::uint32_t budget);
  std::uint32_t num_rows(const Sequence& sequence, std::uint32_t num_tokens) const;
  std::uint32_t tokens_of(const Sequence& sequence, std::uint32_t budget) const;
  Admission try_admit(Slot slot, std::size_t num_behind);
  bool admit_class(const Sequence& sequence, bool is_head);
  Lookup find_prefix(Sequence& sequence, std::size_t num_behind);
  void promise(Sequence& sequence, std::uint32_t num_blocks);
  void break_promise(Sequence& sequence);

  bool reclaim(std::uint32_t wanted, std::size_t num_behind, std::uint32_t& blocks_left);
  void release_leaving(std::uint32_t& blocks_left);
  void give_back_all();
  BlockId take_block();
  void share_block(BlockId block);
  void release_blocks(Sequence& sequence, std::uint32_t first);
  void extend_chain(Sequence& sequence, std::uint32_t num_full);
  PrefixCache::Content content(const Sequence& sequence, std::uint32_t index) const;
  void register_blocks(Sequence& sequence);
  bool apply_rows(const PlanItem& item, std::span<const SampledToken> rows);
  StepEntry& add_entry(const Sequence& sequence, EntryKind kind, const SampledToken& sampled);
  bool fail(const Sequence& sequence);
  // True: the sequence ended.
  bool emit(Sequence& sequence, const SampledToken& sampled);
  bool emit_prompt_token(Sequence& sequence, std::uint32_t index, const SampledToken& sampled);
  bool emit_prompt_end(Sequence& sequence, const SampledToken& sampled);

  const SchedulerLimits limits_;
  BlockPool pool_;
  PrefixCache cache_;
  std::vector<Sequence> slots_;           // [sequences_max + waiting_max]
  std::vector<Slot> unused_slots_;        // stack
  std::vector<Slot> running_;             // by key, the oldest first
  std::vector<Slot> waiting_;             // by key, the next one LAST
  std::vector<Slot> leaving_;             // ended; blocks are still to be given back
  std::vector<std::uint8_t> is_written_;  // [num_blocks] since the last zeroing
  const std::uint32_t intake_blocks_max_;
  std::uint32_t lookup_left_;       // blocks that this step may still look up ...
  std::uint32_t release_left_;      // ... and give back
  std::uint32_t scores_left_ = 0;   // rows that this step may still compute for prompt tokens
  std::uint32_t num_promised_ = 0;  // sum of num_promised over running_
  std::optional<Slot>
      looking_up_;  // first in the queue whose look-up the last plan left unfinished
  std::uint32_t resident_class_ = 0;  // of the running sequences and the cached blocks
  std::uint32_t waiting_tokens_ = 0;  // sum of num_ids over waiting_
  std::uint32_t waiting_blocks_ = 0;  // sum of blocks_for(num_ids + 1) over waiting_
  // The head of the queue did not fit when so many blocks were available: not tried again before
  // more are, or another sequence is the head.
  SequenceId blocked_head_{};
  std::uint32_t blocked_available_ = 0;
  StepPlan plan_;
  StepOutcome outcome_;
  std::vector<StepEntry> entries_;
  std::vector<TopLogprob> top_;
  std::vector<float> values_;  // grows with the embeddings, whose size the executor knows
  std::vector<StepEntry> cancelled_;
  bool is_planned_ = false;  // between plan() and apply()
};

}  // namespace sluice::eng
