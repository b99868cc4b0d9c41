// What comes of a step: computed positions, new ids, ends.
#include <algorithm>

#include "shared/check.h"
#include "worker/core/scheduler.h"

namespace sluice::eng {

const StepOutcome& Scheduler::apply(std::span<const SampledToken> sampled) {
  CHECK(is_planned_ && sampled.size() == plan_.num_logits);
  is_planned_ = false;
  entries_.assign(cancelled_.begin(), cancelled_.end());
  cancelled_.clear();
  outcome_.num_tokens = 0;
  std::size_t next_sample = 0;
  bool has_ended = false;
  for (const PlanItem& item : plan_.items) {
    Sequence& sequence = slots_[item.slot];
    CHECK(sequence.id == item.sequence && sequence.num_computed == item.start);
    sequence.num_computed += static_cast<std::uint32_t>(item.ids.size());
    register_blocks(sequence);
    if (!item.wants_logits || !emit(item.slot, sampled[next_sample++])) continue;
    retire(item.slot);
    has_ended = true;
  }
  if (has_ended)
    std::erase_if(running_,
                  [this](Slot slot) { return slots_[slot].state != SequenceState::running; });
  outcome_.entries = entries_;
  return outcome_;
}

// Appends the sampled token to its sequence and writes its entry.
bool Scheduler::emit(Slot slot, const SampledToken& sampled) {
  Sequence& sequence = slots_[slot];
  StepEntry& entry = entries_.emplace_back();
  entry.sequence = sequence.id.value;
  entry.position = sequence.num_output();
  if (sampled.status != SampleStatus::ok) {
    entry.kind = EntryKind::finished;
    entry.finish = FinishReason::error;
    return true;
  }
  CHECK(sampled.token < limits_.vocab_size);
  entry.kind = EntryKind::token;
  entry.token = sampled.token;
  entry.logprob = sampled.logprob;
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
