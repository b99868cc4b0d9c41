// Builders for tests of the worker: submissions, a canned model without files, an engine over both,
// and a run of one sequence alone, which every other run must equal.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "shared/clock.h"
#include "shared/messages.h"
#include "shared/random.h"
#include "tests/support/seed.h"
#include "worker/canned_executor.h"
#include "worker/engine.h"

namespace sluice::eng {

using test::test_seed;

class Submission {
 public:
  explicit Submission(std::uint64_t sequence) {
    head_.sequence = sequence;
    head_.output_ids_max = 8;
    head_.sampling.temperature = 0.0f;
  }
  Submission& prompt(std::vector<TokenId> ids) {
    prompt_ = std::move(ids);
    return *this;
  }
  // `count` ids that depend on `salt` alone.
  Submission& prompt(std::size_t count, std::uint64_t salt = 0) {
    prompt_.clear();
    for (std::size_t i = 0; i < count; ++i)
      prompt_.push_back(static_cast<TokenId>(mix64(salt * 1'000'003 + i) % 50));
    return *this;
  }
  Submission& output(std::vector<TokenId> ids) {
    output_ = std::move(ids);
    return *this;
  }
  Submission& output_max(std::uint32_t count) {
    head_.output_ids_max = count;
    return *this;
  }
  Submission& stop_ids(std::vector<TokenId> ids) {
    stop_ids_ = std::move(ids);
    return *this;
  }
  Submission& bias(std::vector<LogitBias> bias) {
    bias_ = std::move(bias);
    return *this;
  }
  Submission& priority(std::uint32_t value) {
    head_.priority = value;
    return *this;
  }
  Submission& security_class(std::uint32_t value) {
    head_.security_class = value;
    return *this;
  }
  Submission& salt(std::uint64_t value) {
    head_.salt[0] = value;
    return *this;
  }
  Submission& prompt_logprobs_from(std::uint32_t index) {
    head_.prompt_logprobs_from = index;
    return *this;
  }
  Submission& check_golden(std::uint16_t value) {
    head_.check_golden = value;
    return *this;
  }
  // The embedding of the prompt instead of output.
  Submission& embed() {
    head_.task = SequenceTask::embed;
    head_.output_ids_max = 0;
    head_.prompt_logprobs_from = 0;
    return *this;
  }
  Submission& choice(std::uint32_t value) {
    head_.choice = value;
    return *this;
  }
  SamplingParams& sampling() { return head_.sampling; }
  Submission& temperature(float value) {
    head_.sampling.temperature = value;
    return *this;
  }

  // Into this object: keep it while the view is used.
  SubmitView view() const {
    SubmitView view{head_, prompt_, output_, stop_ids_, bias_};
    view.head.num_prompt_ids = static_cast<std::uint32_t>(prompt_.size());
    view.head.num_output_ids = static_cast<std::uint32_t>(output_.size());
    view.head.num_stop_ids = static_cast<std::uint32_t>(stop_ids_.size());
    view.head.num_bias = static_cast<std::uint32_t>(bias_.size());
    return view;
  }
  std::uint64_t id() const { return head_.sequence; }
  const std::vector<TokenId>& prompt_ids() const { return prompt_; }

 private:
  SubmitRecord head_{};
  std::vector<TokenId> prompt_{1, 2, 3};
  std::vector<TokenId> output_;
  std::vector<TokenId> stop_ids_;
  std::vector<LogitBias> bias_;
};

inline constexpr TokenId kTestEos = 2;

inline CannedModel a_canned_model(std::uint32_t vocab_size = 64) {
  CannedModel model;
  model.facts.vocab_size = vocab_size;
  model.facts.context_tokens = 256;
  model.facts.block_tokens = 8;
  model.facts.num_blocks = 64;
  model.facts.sequences_max = 8;
  model.facts.step_tokens_max = 32;
  model.eos = kTestEos;
  model.eos_period = 24;
  for (TokenId id = 3; id < vocab_size; ++id) model.readable_ids.push_back(id);
  return model;
}

struct Ended {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::none;
  std::uint32_t num_ends = 0;
  std::uint32_t cached_tokens = 0;
  std::vector<TopLogprob> scored;  // the tokens with their log-probabilities
  std::vector<TopLogprob> top;     // of all of them
  std::vector<TopLogprob> prompt_scored, prompt_top;
  std::vector<float> embedding;
};
using Endings = std::map<std::uint64_t, Ended>;

inline void collect(std::span<const StepEntry> entries, Endings& endings) {
  for (const StepEntry& entry : entries) {
    Ended& ended = endings[entry.sequence];
    if (entry.kind == EntryKind::token) ended.tokens.push_back(entry.token);
    if (entry.cached_tokens > 0) ended.cached_tokens = entry.cached_tokens;
    if (entry.finish == FinishReason::none) continue;
    ended.finish = entry.finish;
    ++ended.num_ends;
  }
}

// The same, with what stands behind the entries of a step.
template <class Step>
void collect_all(const Step& step, Endings& endings) {
  collect(step.entries, endings);
  std::span<const TopLogprob> top = step.top;
  std::span<const float> values = step.values;
  for (const StepEntry& entry : step.entries) {
    Ended& ended = endings[entry.sequence];
    const bool is_prompt = entry.kind == EntryKind::prompt_token;
    if (is_prompt || entry.kind == EntryKind::token)
      (is_prompt ? ended.prompt_scored : ended.scored).push_back({entry.token, entry.logprob});
    std::vector<TopLogprob>& all = is_prompt ? ended.prompt_top : ended.top;
    all.insert(all.end(), top.begin(), top.begin() + entry.num_top);
    top = top.subspan(entry.num_top);
    ended.embedding.insert(ended.embedding.end(), values.begin(),
                           values.begin() + entry.num_values);
    values = values.subspan(entry.num_values);
  }
}

// An engine over a canned executor that it owns.
struct CannedEngine {
  // intake_tokens_max 0: as the worker derives it.
  explicit CannedEngine(const CannedModel& model = a_canned_model(),
                        ClassPolicy classes = ClassPolicy::separate,
                        std::uint32_t intake_tokens_max = 0)
      : executor(model), engine(executor, clock, limits_of(executor, classes, intake_tokens_max)) {}

  static SchedulerLimits limits_of(const CannedExecutor& executor, ClassPolicy classes,
                                   std::uint32_t intake_tokens_max) {
    SchedulerLimits limits = scheduler_limits(executor.facts(), {11, 12});
    limits.classes = classes;
    if (intake_tokens_max > 0) limits.intake_tokens_max = intake_tokens_max;
    return limits;
  }
  Result<void> add(const Submission& submission) {
    return engine.scheduler().add(submission.view(), clock.now());
  }
  void step() {
    engine.plan();
    collect_all(engine.compute(), endings);
    clock.advance(std::chrono::milliseconds(1));
  }
  void run(int steps_max = 100'000) {
    while (engine.scheduler().has_work() && steps_max-- > 0) step();
  }

  ManualClock clock;
  CannedExecutor executor;
  Engine engine;
  Endings endings;
};

// What the submission gives when nothing else runs, in one chunk, with an empty cache.
inline Ended run_alone(const Submission& submission, CannedModel model = a_canned_model()) {
  model.facts.step_tokens_max = std::max(model.facts.step_tokens_max, model.facts.context_tokens);
  CannedEngine alone(model);
  if (!alone.add(submission)) return {};
  alone.run();
  return alone.endings[submission.id()];
}

}  // namespace sluice::eng
