// What comes of a step: computed positions, new ids, ends.
#include <algorithm>

#include "shared/check.h"
#include "worker/core/scheduler.h"

namespace sluice::eng {

const StepOutcome& Scheduler::apply(std::span<const SampledToken> sampled) {
  CHECK(is_planned_ && sampled.size() == plan_.num_logits + plan_.num_embeddings);
  is_planned_ = false;
  entries_.assign(cancelled_.begin(), cancelled_.end());
  top_.clear();
  values_.clear();
  cancelled_.clear();
  outcome_.num_tokens = 0;
  bool has_ended = false;
  for (const PlanItem& item : plan_.items) {
    Sequence& sequence = slots_[item.slot];
    CHECK(sequence.id == item.sequence && sequence.num_computed == item.start);
    const std::size_t num_results = item.num_logits + (item.ends_embedding ? 1 : 0);
    const bool ends = apply_rows(item, sampled.first(num_results));
    sampled = sampled.subspan(num_results);
    if (!ends) continue;
    retire(item.slot);
    has_ended = true;
  }
  if (has_ended)
    std::erase_if(running_,
                  [this](Slot slot) { return slots_[slot].state != SequenceState::running; });
  outcome_.entries = entries_;
  outcome_.top = top_;
  outcome_.values = values_;
  return outcome_;
}

// A row behind an id of the prompt is about the next one; the row behind the last id is drawn from,
// where output is wanted.
bool Scheduler::apply_rows(const PlanItem& item, std::span<const SampledToken> rows) {
  Sequence& sequence = slots_[item.slot];
  sequence.num_computed += static_cast<std::uint32_t>(item.ids.size());
  register_blocks(sequence);
  if (item.ends_embedding) return emit_prompt_end(sequence, rows[0]);
  const std::uint32_t num_ids = sequence.num_ids();
  std::uint32_t next = sequence.num_computed - item.num_logits + 1;
  for (const SampledToken& row : rows) {
    if (next < num_ids && emit_prompt_token(sequence, next, row)) return true;
    if (next == num_ids && sequence.output_max > 0) return emit(sequence, row);
    ++next;
  }
  const bool is_over = sequence.output_max == 0 && sequence.num_uncomputed() == 0;
  return is_over && emit_prompt_end(sequence, {});
}

StepEntry& Scheduler::add_entry(const Sequence& sequence, EntryKind kind,
                                const SampledToken& sampled) {
  StepEntry& entry = entries_.emplace_back();
  entry.sequence = sequence.id.value;
  entry.kind = kind;
  entry.logprob = sampled.logprob;
  entry.num_top = static_cast<std::uint8_t>(sampled.top.size());
  top_.insert(top_.end(), sampled.top.begin(), sampled.top.end());
  return entry;
}

bool Scheduler::fail(const Sequence& sequence) {
  StepEntry& entry = add_entry(sequence, EntryKind::finished, {});
  entry.position = sequence.num_output();
  entry.finish = FinishReason::error;
  return true;
}

bool Scheduler::emit_prompt_token(Sequence& sequence, std::uint32_t index,
                                  const SampledToken& sampled) {
  if (sampled.status != SampleStatus::ok) return fail(sequence);
  CHECK(index == sequence.next_scored);
  StepEntry& entry = add_entry(sequence, EntryKind::prompt_token, sampled);
  entry.token = sequence.ids[index];
  entry.position = index;
  sequence.next_scored = index + 1 < sequence.num_prompt ? index + 1 : 0;
  return false;
}

// REQUIRES: the whole prompt is computed and nothing follows it.
bool Scheduler::emit_prompt_end(Sequence& sequence, const SampledToken& sampled) {
  if (sampled.status != SampleStatus::ok) return fail(sequence);
  StepEntry& entry = add_entry(sequence, EntryKind::prompt_finished, {});
  entry.finish = FinishReason::length;
  entry.cached_tokens = sequence.cached_tokens;
  entry.num_values = static_cast<std::uint32_t>(sampled.embedding.size());
  values_.insert(values_.end(), sampled.embedding.begin(), sampled.embedding.end());
  return true;
}

// Appends the sampled token to its sequence and writes its entry.
bool Scheduler::emit(Sequence& sequence, const SampledToken& sampled) {
  if (sampled.status != SampleStatus::ok) return fail(sequence);
  CHECK(sampled.token < limits_.vocab_size);
  StepEntry& entry = add_entry(sequence, EntryKind::token, sampled);
  entry.position = sequence.num_output();
  entry.token = sampled.token;
  if (!sequence.has_emitted) entry.cached_tokens = sequence.cached_tokens;
  sequence.has_emitted = true;
  ++outcome_.num_tokens;
  // A stop id before min_tokens is masked by the sampler; if one comes out it does not end
  // anything.
  const bool is_stop =
      entry.position >= sequence.sampling.min_tokens &&
      std::ranges::find(sequence.stop_ids, sampled.token) != sequence.stop_ids.end();
  sequence.ids.push_back(sampled.token);
  if (is_stop)
    entry.finish = FinishReason::stop;
  else if (sequence.num_output() == sequence.output_max)
    entry.finish = FinishReason::length;
  else if (!sequence.counts.is_empty())
    sequence.counts.add_output(sampled.token);
  return entry.finish != FinishReason::none;
}

}  // namespace sluice::eng
