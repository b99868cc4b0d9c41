// Adding, cancelling and planning. What happens to blocks is in scheduler_blocks.cc, what comes of
// a step in scheduler_apply.cc.
#include "worker/core/scheduler.h"

#include <algorithm>
#include <string>

#include "shared/check.h"

namespace sluice::eng {
namespace {

// Room left to the running sequences when another one joins them, so that it is not preempted at
// once.
constexpr std::uint32_t kWatermarkShare = 100;  // one block in so many
// Priorities beyond this are one: aging stays within a few hours.
constexpr std::uint32_t kPriorityMax = 1000;
// A reused slot keeps vectors up to this size; longer ones go back to the allocator.
constexpr std::size_t kKeptIdsMax = 64u << 10;

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits)
    : limits_(limits),
      pool_(limits.num_blocks),
      cache_(limits.num_blocks, limits.block_tokens),
      slots_(limits.sequences_max + limits.waiting_max),
      is_written_(limits.num_blocks, 0),
      intake_blocks_max_(
          std::max(1u, limits.intake_tokens_max / std::max(1u, limits.block_tokens))),
      lookup_left_(intake_blocks_max_),
      release_left_(intake_blocks_max_) {
  CHECK(limits.sequences_max > 0 && limits.sequences_max <= limits.step_tokens_max);
  CHECK(limits.sequences_max <= kBatchSequencesMax && limits.block_tokens % 2 == 0);
  CHECK(limits.block_tokens > 0 && limits.num_blocks > 0 && limits.vocab_size > 0);
  const std::size_t num_slots = slots_.size();
  for (std::size_t i = num_slots; i > 0; --i) unused_slots_.push_back(static_cast<Slot>(i - 1));
  running_.reserve(limits.sequences_max);
  waiting_.reserve(num_slots);
  leaving_.reserve(num_slots);
  plan_.items.reserve(limits.sequences_max);
  plan_.zero_blocks.reserve(limits.num_blocks);
  cancelled_.reserve(num_slots);
  const std::size_t num_rows = std::size_t{limits.sequences_max} + kStepScoresMax;
  entries_.reserve(num_slots + num_rows);
  top_.reserve(num_rows * kTopLogprobsMax);
}

std::uint32_t Scheduler::blocks_for(std::uint32_t num_tokens) const {
  return (num_tokens + limits_.block_tokens - 1) / limits_.block_tokens;
}

// A few hundred words of contiguous ids: cheaper than a table, and only cancels and adds come here.
std::optional<Scheduler::Slot> Scheduler::find(SequenceId id) const {
  for (const Slot slot : running_)
    if (slots_[slot].id == id) return slot;
  for (const Slot slot : waiting_)
    if (slots_[slot].id == id) return slot;
  return std::nullopt;
}

Result<void> Scheduler::check_head(const SubmitRecord& head) const {
  const std::uint64_t longest = std::uint64_t{head.num_prompt_ids} + head.output_ids_max;
  const bool is_prompt_all = head.output_ids_max == 0 && head.num_output_ids == 0;
  if (head.num_prompt_ids == 0 || (head.output_ids_max <= head.num_output_ids && !is_prompt_all))
    return make_error(Errc::invalid_value, "a submission has a prompt and room for output");
  if (head.prompt_logprobs_from >= head.num_prompt_ids ||
      (head.prompt_logprobs_from > 0 && head.num_output_ids > 0))
    return make_error(Errc::invalid_value, "no such prompt log-probabilities");
  if (head.task == SequenceTask::embed && (!is_prompt_all || head.prompt_logprobs_from > 0))
    return make_error(Errc::invalid_value, "an embedding has no output");
  if (head.task == SequenceTask::embed && limits_.embeddings_max == 0)
    return make_error(Errc::unsupported_parameter, "this worker serves no embeddings");
  if (longest > limits_.context_tokens ||
      longest > std::uint64_t{limits_.num_blocks} * limits_.block_tokens)
    return make_error(
        Errc::context_length_exceeded,
        "prompt and output take " + std::to_string(longest) + " tokens; allowed: " +
            std::to_string(std::min<std::uint64_t>(
                limits_.context_tokens, std::uint64_t{limits_.num_blocks} * limits_.block_tokens)));
  if (find(SequenceId{head.sequence}))
    return make_error(Errc::invalid_value, "the sequence is running already");
  if (unused_slots_.empty()) return make_error(Errc::over_capacity, "more sequences than credits");
  return {};
}

Result<void> Scheduler::check_ids(const SubmitView& submission, Ids which) const {
  const auto is_outside = [this](TokenId id) { return id >= limits_.vocab_size; };
  if ((which == Ids::given && (std::ranges::any_of(submission.prompt, is_outside) ||
                               std::ranges::any_of(submission.output, is_outside))) ||
      std::ranges::any_of(submission.stop_ids, is_outside) ||
      std::ranges::any_of(submission.bias, is_outside, &LogitBias::token))
    return make_error(Errc::invalid_value, "a token id lies outside the vocabulary");
  return {};
}

Result<void> Scheduler::add(const SubmitView& submission, Tick now) {
  CHECK(!is_planned_);
  if (const auto checked = check_head(submission.head); !checked) return checked.error();
  if (const auto checked = check_ids(submission, Ids::given); !checked) return checked.error();
  Sequence& sequence = place(submission, now);
  const std::size_t room = sequence.num_prompt + std::size_t{sequence.output_max};
  sequence.ids.reserve(room);
  sequence.ids.assign(submission.prompt.begin(), submission.prompt.end());
  sequence.ids.insert(sequence.ids.end(), submission.output.begin(), submission.output.end());
  if (uses_counts(sequence.sampling)) {
    sequence.counts.reserve(std::min<std::size_t>(room, limits_.vocab_size));
    for (const TokenId id : submission.prompt) sequence.counts.add_prompt(id);
    for (const TokenId id : submission.output) sequence.counts.add_output(id);
  }
  enqueue(slot_of(sequence));
  return {};
}

Result<void> Scheduler::add(const SubmitView& submission, IdIntake& taken, Tick now) {
  CHECK(!is_planned_ && taken.is_over());
  if (const auto checked = check_head(submission.head); !checked) return checked.error();
  if (!taken.is_valid())
    return make_error(Errc::invalid_value, "a token id lies outside the vocabulary");
  if (const auto checked = check_ids(submission, Ids::taken); !checked) return checked.error();
  Sequence& sequence = place(submission, now);
  sequence.ids.swap(taken.ids_);
  std::swap(sequence.counts, taken.counts_);
  enqueue(slot_of(sequence));
  return {};
}

// Everything of a new sequence but its ids. Room for all that it may become: steps allocate
// nothing.
Sequence& Scheduler::place(const SubmitView& submission, Tick now) {
  const SubmitRecord& head = submission.head;
  const Slot slot = unused_slots_.back();
  unused_slots_.pop_back();
  Sequence& sequence = slots_[slot];
  sequence.id = SequenceId{head.sequence};
  const std::uint32_t priority = std::min(head.priority, kPriorityMax);
  sequence.key = {true, now + priority * kPriorityAging, sequence.id};
  sequence.salt = {head.salt[0], head.salt[1]};
  sequence.security_class = head.security_class;
  sequence.choice = head.choice;
  sequence.num_prompt = head.num_prompt_ids;
  sequence.output_max = head.output_ids_max;
  sequence.task = head.task;
  sequence.next_scored = head.prompt_logprobs_from;
  sequence.sampling = head.sampling;
  const std::uint32_t blocks_max = blocks_for(head.num_prompt_ids + head.output_ids_max);
  sequence.blocks.reserve(blocks_max);
  sequence.chain.reserve(blocks_max);
  sequence.stop_ids.assign(submission.stop_ids.begin(), submission.stop_ids.end());
  sequence.bias.assign(submission.bias.begin(), submission.bias.end());
  return sequence;
}

void Scheduler::enqueue(Slot slot) {
  Sequence& sequence = slots_[slot];
  sequence.state = SequenceState::waiting;
  const auto at = std::ranges::upper_bound(waiting_, sequence.key, std::ranges::greater{},
                                           [this](Slot other) { return slots_[other].key; });
  waiting_.insert(at, slot);
  waiting_tokens_ += sequence.num_ids();
  waiting_blocks_ += blocks_for(sequence.num_ids() + 1);
}

void Scheduler::remove_waiting(Slot slot) {
  if (looking_up_ == slot) looking_up_.reset();
  waiting_.erase(std::ranges::find(waiting_, slot));
  waiting_tokens_ -= slots_[slot].num_ids();
  waiting_blocks_ -= blocks_for(slots_[slot].num_ids() + 1);
}

void Scheduler::cancel(SequenceId id) {
  CHECK(!is_planned_);
  const std::optional<Slot> slot = find(id);
  if (!slot) return;
  if (slots_[*slot].state == SequenceState::waiting)
    remove_waiting(*slot);
  else
    running_.erase(std::ranges::find(running_, *slot));
  StepEntry entry{};
  entry.sequence = id.value;
  entry.position = slots_[*slot].num_output();
  entry.kind = EntryKind::finished;
  entry.finish = FinishReason::cancelled;
  cancelled_.push_back(entry);
  retire(*slot);
}

void Scheduler::drop_all() {
  CHECK(!is_planned_);
  give_back_all();
  for (const std::vector<Slot>* const slots : {&running_, &waiting_}) {
    for (const Slot slot : *slots) {
      break_promise(slots_[slot]);
      release_blocks(slots_[slot], 0);
      recycle(slot);
    }
  }
  running_.clear();
  waiting_.clear();
  cancelled_.clear();
  looking_up_.reset();
  waiting_tokens_ = 0;
  waiting_blocks_ = 0;
}

// An ended sequence, in no list any more, gives its blocks back: what this step has left for that
// now, the rest in later ones.
void Scheduler::retire(Slot slot) {
  Sequence& sequence = slots_[slot];
  sequence.state = SequenceState::leaving;
  break_promise(sequence);
  const auto num_blocks = static_cast<std::uint32_t>(sequence.blocks.size());
  const std::uint32_t num_released = std::min(num_blocks, release_left_);
  release_left_ -= num_released;
  release_blocks(sequence, num_blocks - num_released);
  if (sequence.blocks.empty())
    recycle(slot);
  else
    leaving_.push_back(slot);
}

// The slot's vectors keep their memory for the next sequence, up to a bound.
void Scheduler::recycle(Slot slot) {
  Sequence& sequence = slots_[slot];
  if (sequence.ids.capacity() > kKeptIdsMax || sequence.counts.capacity_bytes() > kKeptIdsMax) {
    sequence = Sequence{};
  } else {
    sequence.id = SequenceId{};
    sequence.state = SequenceState::absent;
    sequence.num_computed = sequence.num_registered = sequence.cached_tokens = 0;
    sequence.was_admitted = sequence.has_emitted = false;
    sequence.ids.clear();
    sequence.chain.clear();
    sequence.counts.clear();
  }
  unused_slots_.push_back(slot);
}

const StepPlan& Scheduler::plan() {
  CHECK(!is_planned_);
  is_planned_ = true;
  plan_.items.clear();
  plan_.zero_blocks.clear();
  plan_.num_prefill_tokens = plan_.num_decode_tokens = 0;
  plan_.num_logits = plan_.num_embeddings = 0;
  plan_.num_preemptions = plan_.num_prefix_queries = plan_.num_prefix_hits = 0;
  plan_.num_looking_up = 0;
  looking_up_.reset();
  scores_left_ = kStepScoresMax;
  lookup_left_ = release_left_ = intake_blocks_max_;
  release_leaving(release_left_);
  extend_tables();
  plan_running();
  // Whoever was preempted just now would be admitted at once into the blocks it gave back.
  if (plan_.num_preemptions == 0) plan_waiting();
  return plan_;
}

// Each running sequence gets the block that its last id needs; whoever goes last pays for it.
void Scheduler::extend_tables() {
  for (std::size_t i = 0; i < running_.size();) {
    const Slot slot = running_[i];
    Sequence& sequence = slots_[slot];
    std::uint32_t blocks_left = limits_.num_blocks;  // as many as it takes: one is needed now
    if (sequence.blocks.size() + sequence.num_promised >= blocks_for(sequence.num_ids())) {
      ++i;
    } else if (reclaim(1, waiting_.size(), blocks_left)) {
      sequence.blocks.push_back(take_block());
    } else {
      const Slot victim = choose_victim();
      const std::size_t at =
          static_cast<std::size_t>(std::ranges::find(running_, victim) - running_.begin());
      preempt(victim);
      if (at < i) --i;  // the rest moved up
    }
  }
}

// REQUIRES: something runs. Without a token yet before others; among equals the youngest.
Scheduler::Slot Scheduler::choose_victim() const {
  for (auto at = running_.rbegin(); at != running_.rend(); ++at)
    if (slots_[*at].num_output() == 0) return *at;
  return running_.back();
}

// It keeps its full blocks as if it had found them, until somebody needs them.
void Scheduler::preempt(Slot slot) {
  Sequence& sequence = slots_[slot];
  running_.erase(std::ranges::find(running_, slot));
  break_promise(sequence);
  const std::uint32_t num_kept = std::min(sequence.num_computed, sequence.first_needed());
  release_blocks(sequence, num_kept / limits_.block_tokens);
  sequence.num_computed = 0;
  sequence.num_registered = 0;
  sequence.key.is_fresh = false;
  enqueue(slot);
  ++plan_.num_preemptions;
}

void Scheduler::plan_running() {
  for (const Slot slot : running_)
    if (slots_[slot].is_decoding()) plan_item(slot, 1);
  for (const Slot slot : running_) {
    if (slots_[slot].is_decoding()) continue;
    const std::uint32_t budget = limits_.step_tokens_max - plan_.num_tokens();
    if (budget == 0) break;
    plan_item(slot, budget);
  }
}

void Scheduler::plan_waiting() {
  for (std::size_t next = waiting_.size(); next > 0; --next) {
    if (running_.size() == limits_.sequences_max || plan_.num_tokens() == limits_.step_tokens_max)
      return;
    const Slot slot = waiting_[next - 1];
    switch (try_admit(slot, next - 1)) {
      case Admission::admitted: {
        const std::uint32_t budget = limits_.step_tokens_max - plan_.num_tokens();
        plan_item(slot, budget);
        break;
      }
      case Admission::looking_up:
        if (plan_.num_looking_up++ == 0) looking_up_ = slot;
        break;
      case Admission::blocked:
        return;
    }
  }
}

// Rows of logits after the next `num_tokens` ids: a prompt's where they are wanted, and the one
// that the next token is drawn from. They always stand behind the last ids.
std::uint32_t Scheduler::num_rows(const Sequence& sequence, std::uint32_t num_tokens) const {
  if (sequence.task == SequenceTask::embed) return 0;
  if (sequence.next_scored == 0 && sequence.output_max == 0) return 0;
  const std::uint32_t end = sequence.num_computed + num_tokens;
  const std::uint32_t first = std::max(sequence.first_needed(), sequence.num_computed);
  return end > first ? end - first : 0;
}

// How many of its ids the step computes: bounded by the budget, the rows for prompts and the
// embeddings that a step may complete. 0 for an embedding alone.
std::uint32_t Scheduler::tokens_of(const Sequence& sequence, std::uint32_t budget) const {
  std::uint32_t num_tokens = std::min(budget, sequence.num_uncomputed());
  if (sequence.task == SequenceTask::embed) {
    const bool ends = num_tokens == sequence.num_uncomputed();
    return ends && plan_.num_embeddings == limits_.embeddings_max ? num_tokens - 1 : num_tokens;
  }
  const std::uint32_t rows = num_rows(sequence, num_tokens);
  const std::uint32_t rows_max = scores_left_ + 1;
  return rows > rows_max ? num_tokens - (rows - rows_max) : num_tokens;
}

void Scheduler::plan_item(Slot slot, std::uint32_t budget) {
  Sequence& sequence = slots_[slot];
  const std::uint32_t num_tokens = tokens_of(sequence, budget);
  if (num_tokens == 0) return;
  for (const std::uint32_t covered = blocks_for(sequence.num_computed + num_tokens);
       sequence.blocks.size() < covered;) {
    CHECK(sequence.num_promised > 0);
    --sequence.num_promised;
    --num_promised_;
    sequence.blocks.push_back(take_block());
  }
  const std::uint32_t rows = num_rows(sequence, num_tokens);
  if (rows > 1) scores_left_ -= rows - 1;
  const bool is_embedding = sequence.task == SequenceTask::embed;
  const bool ends_embedding = is_embedding && num_tokens == sequence.num_uncomputed();
  (sequence.is_decoding() ? plan_.num_decode_tokens : plan_.num_prefill_tokens) += num_tokens;
  plan_.num_logits += rows;
  plan_.num_embeddings += ends_embedding ? 1u : 0u;
  plan_.items.push_back({sequence.id, slot, sequence.num_computed,
                         std::span(sequence.ids).subspan(sequence.num_computed, num_tokens),
                         sequence.blocks, rows, is_embedding, ends_embedding});
}

// A waiting sequence, with `num_behind` others behind it, joins the running ones or goes on
// waiting.
Scheduler::Admission Scheduler::try_admit(Slot slot, std::size_t num_behind) {
  Sequence& sequence = slots_[slot];
  if (!running_.empty() && blocked_head_ == sequence.id && num_available() <= blocked_available_)
    return Admission::blocked;
  if (!admit_class(sequence, slot == waiting_.back())) return Admission::blocked;
  const Lookup lookup = find_prefix(sequence, num_behind);
  if (lookup == Lookup::goes_on) return Admission::looking_up;
  const auto num_hits = static_cast<std::uint32_t>(sequence.blocks.size());
  const std::uint32_t needed = blocks_for(sequence.num_ids()) - num_hits;
  const std::uint32_t kept = running_.empty() ? 0 : limits_.num_blocks / kWatermarkShare;
  if (lookup == Lookup::no_room || !reclaim(needed + kept, num_behind, release_left_)) {
    // Where the step had no more blocks to give back, the next one has.
    blocked_head_ = release_left_ > 0 ? sequence.id : SequenceId{};
    blocked_available_ = num_available();
    return Admission::blocked;
  }
  blocked_head_ = SequenceId{};
  promise(sequence, needed);
  sequence.num_computed = num_hits * limits_.block_tokens;
  sequence.num_registered = num_hits;
  if (!sequence.was_admitted && limits_.prefix_cache) {
    sequence.cached_tokens = std::min(sequence.num_computed, sequence.num_prompt);
    plan_.num_prefix_queries += sequence.num_prompt;
    plan_.num_prefix_hits += sequence.cached_tokens;
  }
  sequence.was_admitted = true;
  remove_waiting(slot);
  sequence.state = SequenceState::running;
  const auto order = [this](Slot other) {
    return OrderKey{true, slots_[other].key.virtual_arrival, slots_[other].id};
  };
  running_.insert(std::ranges::upper_bound(running_, order(slot), std::ranges::less{}, order),
                  slot);
  return Admission::admitted;
}

// Every block that a running sequence of another class holds keeps this one waiting; once they are
// gone the first in the queue changes the class: the cache is forgotten, what waiting and leaving
// sequences hold is taken from them, and what was written is zeroed. That takes as long as it
// takes: nothing runs.
bool Scheduler::admit_class(const Sequence& sequence, bool is_head) {
  if (limits_.classes == ClassPolicy::mixed || sequence.security_class == resident_class_)
    return true;
  if (!running_.empty() || !is_head) return false;
  give_back_all();
  while (const std::optional<BlockId> block = cache_.oldest_parked()) {
    cache_.erase(*block);
    pool_.reclaim(*block);
  }
  for (std::uint32_t i = 0; i < limits_.num_blocks; ++i) {
    if (is_written_[i] == 0) continue;
    plan_.zero_blocks.push_back(BlockId{i});
    is_written_[i] = 0;
  }
  resident_class_ = sequence.security_class;
  return true;
}

std::uint32_t Scheduler::num_slots_unfilled() const {
  const auto unfilled = [this](Slot slot) {
    const Sequence& sequence = slots_[slot];
    const auto num_slots =
        static_cast<std::uint32_t>(sequence.blocks.size()) * limits_.block_tokens;
    return num_slots - std::min(num_slots, sequence.num_computed);
  };
  std::uint32_t num_unfilled = 0;
  for (const Slot slot : running_) num_unfilled += unfilled(slot);
  // One that leaves from the queue holds full blocks, as it did there.
  for (const Slot slot : leaving_)
    if (slots_[slot].num_computed > 0) num_unfilled += unfilled(slot);
  return num_unfilled;
}

// Two steps of look-ahead wait here, so that places freed by a step are filled in the next one. A
// worker that nothing waits in takes one submission of any length. The sequence that is looked up
// counts as if it ran already: else one long prompt would keep all others out for many steps.
Credits Scheduler::credits() const {
  const auto left = [](std::uint32_t all, std::uint32_t taken) {
    return all > taken ? all - taken : 0;
  };
  std::uint32_t num_found = 0;
  for (const Slot slot : waiting_)
    num_found += static_cast<std::uint32_t>(slots_[slot].blocks.size());
  const std::uint32_t admitted_next = looking_up_ ? 1 : 0;
  const std::uint32_t tokens = waiting_tokens_ - (looking_up_ ? slots_[*looking_up_].num_ids() : 0);
  Credits credits{};
  const std::uint32_t look_ahead = 2 * limits_.step_tokens_max;
  credits.tokens = waiting_.size() == admitted_next ? std::max(look_ahead, limits_.context_tokens)
                                                    : left(look_ahead, tokens);
  credits.blocks = left(num_available(), waiting_blocks_ - num_found);
  credits.sequences = static_cast<std::uint32_t>(unused_slots_.size());
  return credits;
}

}  // namespace sluice::eng
