// The step, in five lines and what each of them needs.
#include "worker/engine.h"

#include <algorithm>
#include <cmath>

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
  limits.embeddings_max = facts.embedding_size > 0 ? limits.sequences_max : 0;
  limits.hash_key = hash_key;
  return limits;
}

Engine::Engine(Executor& executor, const Clock& clock, const SchedulerLimits& limits)
    : executor_(executor),
      clock_(clock),
      scheduler_(limits),
      sampler_(limits.vocab_size),
      top_((std::size_t{limits.sequences_max} + kStepScoresMax) * kTopLogprobsMax),
      embedding_size_(limits.embeddings_max > 0 ? executor.facts().embedding_size : 0),
      sums_((std::size_t{limits.sequences_max} + limits.waiting_max) * embedding_size_),
      embeddings_(limits.embeddings_max * embedding_size_) {
  spans_.reserve(limits.sequences_max);
  suspects_.reserve(limits.sequences_max);
  sampled_.reserve(2 * std::size_t{limits.sequences_max} + kStepScoresMax);
}

const StepPlan& Engine::plan() {
  plan_ = &scheduler_.plan();
  spans_.clear();
  suspects_.clear();
  for (const PlanItem& item : plan_->items) {
    spans_.push_back(
        {item.sequence, item.ids, item.start, item.blocks, item.num_logits, item.wants_hidden});
    suspects_.push_back(item.sequence);
  }
  return *plan_;
}

const StepOutcome& Engine::compute() {
  CHECK(plan_ != nullptr);
  sampled_.clear();
  num_top_ = num_embeddings_ = 0;
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
  std::size_t hidden_row = 0;
  for (const PlanItem& item : plan_->items) {
    sample_rows(item, logits.first(item.num_logits * vocab_size));
    logits = logits.subspan(item.num_logits * vocab_size);
    if (item.wants_hidden) pool(item, hidden_row);
  }
}

// Rows behind ids of the prompt are about the id that follows, the row behind the last id is drawn
// from.
void Engine::sample_rows(const PlanItem& item, std::span<const float> logits) {
  const std::size_t vocab_size = scheduler_.limits().vocab_size;
  const Sequence& sequence = scheduler_.sequence(item.slot);
  const std::span<TopLogprob> top =
      std::span(top_).subspan(num_top_, item.num_logits * sequence.sampling.num_top_logprobs);
  num_top_ += top.size();
  std::size_t next = item.start + item.ids.size() - item.num_logits + 1;
  for (std::uint32_t row = 0; row < item.num_logits; ++row, ++next) {
    const auto of_row = logits.subspan(row * vocab_size, vocab_size);
    const auto top_of_row = top.subspan(row * std::size_t{sequence.sampling.num_top_logprobs},
                                        sequence.sampling.num_top_logprobs);
    if (next < sequence.ids.size())
      sampled_.push_back(sampler_.score(of_row, sequence.ids[next], top_of_row));
    else if (sequence.output_max == 0)
      sampled_.emplace_back();  // nothing follows the prompt
    else
      sampled_.push_back(
          sampler_.sample({of_row, sequence.sampling, sequence.counts.counts(), sequence.bias,
                           sequence.stop_ids, sequence.choice, sequence.num_output(), top_of_row}));
  }
}

void Engine::pool(const PlanItem& item, std::size_t& next_row) {
  const HiddenRows hidden = executor_.hidden();
  CHECK(next_row + item.ids.size() <= hidden.num_rows);
  double* const sums = sums_.data() + item.slot * embedding_size_;
  if (item.start == 0) std::fill_n(sums, embedding_size_, 0.0);
  for (std::size_t i = 0; i < item.ids.size(); ++i) {
    const float* const row = hidden.data + next_row++ * hidden.stride;
    for (std::size_t d = 0; d < embedding_size_; ++d) sums[d] += double{row[d]};
  }
  if (item.ends_embedding) add_embedding(item);
}

// The length of the mean scales with that of the sum: the sum is divided once.
void Engine::add_embedding(const PlanItem& item) {
  const double* const sums = sums_.data() + item.slot * embedding_size_;
  const std::span<float> embedding =
      std::span(embeddings_).subspan(num_embeddings_++ * embedding_size_, embedding_size_);
  double squares = 0.0;
  for (std::size_t d = 0; d < embedding_size_; ++d) squares += sums[d] * sums[d];
  SampledToken& result = sampled_.emplace_back();
  if (!std::isfinite(squares)) {
    result.status = SampleStatus::bad_logits;
    return;
  }
  const double scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
  for (std::size_t d = 0; d < embedding_size_; ++d)
    embedding[d] = static_cast<float>(sums[d] * scale);
  result.embedding = embedding;
}

}  // namespace sluice::eng
