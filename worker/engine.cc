// The step, in five lines and what each of them needs.
#include "worker/engine.h"

#include <algorithm>

#include "shared/check.h"

namespace sluice::eng {

SchedulerLimits scheduler_limits(const WorkerFacts& facts, const HashKey& hash_key) {
  SchedulerLimits limits;
  limits.num_blocks = facts.num_blocks;
  limits.block_tokens = facts.block_tokens;
  limits.step_tokens_max = facts.step_tokens_max;
  limits.intake_tokens_max = kIntakeBudgets * facts.step_tokens_max;
  limits.sequences_max = std::min({facts.sequences_max, facts.step_tokens_max, kBatchSequencesMax});
  limits.waiting_max = limits.sequences_max;  // every place may fall free in one step
  limits.context_tokens = facts.context_tokens;
  limits.vocab_size = facts.vocab_size;
  limits.hash_key = hash_key;
  return limits;
}

Engine::Engine(Executor& executor, const Clock& clock, const SchedulerLimits& limits)
    : executor_(executor), clock_(clock), scheduler_(limits), sampler_(limits.vocab_size) {
  spans_.reserve(limits.sequences_max);
  suspects_.reserve(limits.sequences_max);
  sampled_.reserve(limits.sequences_max);
}

const StepPlan& Engine::plan() {
  plan_ = &scheduler_.plan();
  spans_.clear();
  suspects_.clear();
  for (const PlanItem& item : plan_->items) {
    spans_.push_back({item.sequence, item.ids, item.start, item.blocks, item.wants_logits});
    suspects_.push_back(item.sequence);
  }
  return *plan_;
}

const StepOutcome& Engine::compute() {
  CHECK(plan_ != nullptr);
  sampled_.clear();
  forward_time_ = Duration::zero();
  work_ = {};
  if (!plan_->zero_blocks.empty()) executor_.zero_blocks(plan_->zero_blocks);
  if (!spans_.empty()) {
    const Tick started = clock_.now();
    const std::span<const float> logits = executor_.forward(spans_);
    forward_time_ = clock_.now() - started;
    work_ = executor_.last_work();
    sample(logits);
    step_time_.observe(plan_->num_tokens(), clock_.now() - started);
  }
  const StepOutcome& outcome = scheduler_.apply(sampled_);
  generated_total_ += outcome.num_tokens;
  return outcome;
}

void Engine::sample(std::span<const float> logits) {
  const std::size_t vocab_size = scheduler_.limits().vocab_size;
  CHECK(logits.size() == plan_->num_logits * vocab_size);
  std::size_t row = 0;
  for (const PlanItem& item : plan_->items) {
    if (!item.wants_logits) continue;
    const Sequence& sequence = scheduler_.sequence(item.slot);
    sampled_.push_back(sampler_.sample(
        {logits.subspan(row * vocab_size, vocab_size), sequence.sampling, sequence.counts.counts(),
         sequence.bias, sequence.stop_ids, sequence.choice, sequence.num_output()}));
    ++row;
  }
}

}  // namespace sluice::eng
