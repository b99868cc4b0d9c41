// The hot path allocates nothing: operator new is counted around a thousand steps after a warm-up,
// with sequences coming, going, being cancelled, preempted and sharing prefixes all the while.
#include <gtest/gtest.h>

#include "tests/support/allocation_count.h"
#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

TEST(Engine, AThousandStepsAllocateNothing) {
  CannedModel model = a_canned_model(1000);
  model.facts.num_blocks = 40;  // little enough to preempt
  CannedExecutor executor(model);
  ManualClock clock;
  Engine engine(executor, clock, scheduler_limits(executor.facts(), {1, 2}));
  std::vector<Submission> submissions;
  for (std::uint64_t i = 0; i < 64; ++i) {
    Submission submission = Submission(i + 1).prompt(20 + i % 30, i % 7).output_max(60);
    submission.stop_ids({kTestEos}).temperature(i % 2 == 0 ? 0.0f : 1.0f);
    submission.sampling().seed = i;
    if (i % 4 == 1) submission.sampling().top_p = 0.9f;
    if (i % 4 == 3) submission.sampling().top_k = 5;
    if (i % 8 == 5) submission.sampling().presence_penalty = 0.5f;
    if (i % 8 == 7) submission.sampling().wants_logprob = 1;
    if (i % 16 == 7) submission.sampling().num_top_logprobs = 20;
    if (i % 16 == 15) submission.prompt_logprobs_from(1);
    if (i % 32 == 3) submission.embed();
    submissions.push_back(submission);
  }
  std::uint64_t num_added = 0;
  std::uint32_t num_preemptions = 0;
  std::uint64_t num_tokens = 0;
  std::size_t num_in_steps = 0;
  const auto steps = [&](int count) {
    for (int i = 0; i < count; ++i) {
      while (engine.scheduler().credits().sequences > 0) {
        SubmitView view = submissions[num_added % submissions.size()].view();
        view.head.sequence = ++num_added;
        ASSERT_TRUE(engine.scheduler().add(view, clock.now()));
      }
      if (i % 50 == 0) engine.scheduler().cancel(SequenceId{num_added - 3});
      const std::size_t before = allocation_count();
      num_preemptions += engine.plan().num_preemptions;
      num_tokens += engine.compute().num_tokens;
      num_in_steps += allocation_count() - before;
    }
  };
  steps(100);
  num_preemptions = 0;
  num_tokens = 0;
  num_in_steps = 0;
  steps(1000);
  EXPECT_EQ(num_in_steps, 0u);
  EXPECT_GT(num_preemptions, 0u);
  EXPECT_GT(num_tokens, 3000u);
}

}  // namespace
}  // namespace sluice::eng
