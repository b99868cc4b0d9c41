// Engine: the five lines around the scheduler: plan, forward, sample, apply, outcome. The loop
// plans, leaves the suspects where a crash cannot take them, and only then computes. Thread rule:
// one thread.
#pragma once

#include <vector>

#include "worker/core/sampler.h"
#include "worker/core/scheduler.h"
#include "worker/core/step_time.h"
#include "worker/executor.h"

namespace sluice::eng {

// Token budgets whose prefixes one step looks up. Looking a token up takes about 10 ns, computing
// one 1 us or more: a full step becomes a third longer at the very worst, and usually a few
// percent.
inline constexpr std::uint32_t kIntakeBudgets = 32;

// What the executor says about itself, as the scheduler's limits. sequences_max is cut to the token
// budget and to the suspects' table.
SchedulerLimits scheduler_limits(const WorkerFacts& facts, const HashKey& hash_key);

class Engine {
 public:
  // The executor and the clock outlive the engine.
  Engine(Executor& executor, const Clock& clock, const SchedulerLimits& limits);

  Scheduler& scheduler() { return scheduler_; }
  const Scheduler& scheduler() const { return scheduler_; }

  const StepPlan& plan();
  std::span<const SequenceId> suspects() const { return suspects_; }  // sequences of the plan
  Duration predicted() const { return predict(plan_->num_tokens()); }
  Duration predict(std::uint32_t num_tokens) const { return step_time_.predict(num_tokens); }

  // Computes what was planned. A row with NaN or infinities ends its own sequence alone. An
  // embedding is the mean of its prompt's hidden states, summed position by position whatever the
  // chunks, scaled to length 1 (a mean of 0 stays 0).
  const StepOutcome& compute();
  std::uint64_t generated_total() const { return generated_total_; }
  // Of the last compute(); zero when nothing was to be computed.
  Duration forward_time() const { return forward_time_; }
  StepWork work() const { return work_; }

 private:
  void sample(std::span<const float> logits);
  void sample_rows(const PlanItem& item, std::span<const float> logits);
  void pool(const PlanItem& item, std::size_t& next_row);
  void add_embedding(const PlanItem& item);

  Executor& executor_;
  const Clock& clock_;
  Scheduler scheduler_;
  Sampler sampler_;
  StepTime step_time_;
  const StepPlan* plan_ = nullptr;
  std::vector<SequenceSpan> spans_;
  std::vector<SequenceId> suspects_;
  std::vector<SampledToken> sampled_;
  std::vector<TopLogprob> top_;  // of all rows of a step
  std::size_t num_top_ = 0;      // used by this step
  const std::size_t embedding_size_;
  std::vector<double> sums_;        // [slots, embedding_size]: hidden states so far
  std::vector<float> embeddings_;   // [embeddings_max, embedding_size] of this step
  std::size_t num_embeddings_ = 0;  // of this step
  std::uint64_t generated_total_ = 0;
  Duration forward_time_{};
  StepWork work_;
};

}  // namespace sluice::eng
