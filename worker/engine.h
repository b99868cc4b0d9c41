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
  Duration predicted() const { return step_time_.predict(plan_->num_tokens()); }

  // Computes what was planned. A row with NaN or infinities ends its own sequence alone.
  const StepOutcome& compute();
  std::uint64_t generated_total() const { return generated_total_; }
  // Of the last compute(); zero when nothing was to be computed.
  Duration forward_time() const { return forward_time_; }
  StepWork work() const { return work_; }

 private:
  void sample(std::span<const float> logits);

  Executor& executor_;
  const Clock& clock_;
  Scheduler scheduler_;
  Sampler sampler_;
  StepTime step_time_;
  const StepPlan* plan_ = nullptr;
  std::vector<SequenceSpan> spans_;
  std::vector<SequenceId> suspects_;
  std::vector<SampledToken> sampled_;
  std::uint64_t generated_total_ = 0;
  Duration forward_time_{};
  StepWork work_;
};

}  // namespace sluice::eng
