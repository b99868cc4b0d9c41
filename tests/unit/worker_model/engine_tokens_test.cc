// P2 through scheduler, transformer and sampler together: sampled tokens and their logprobs, bit
// for bit, of requests that share steps, chunks, KV blocks and a prefix and are preempted on the
// way, are those of each request alone on the scalar path.
#include <gtest/gtest.h>

#include <bit>
#include <map>

#include "tests/support/worker_builders.h"
#include "worker/executor_cpu.h"

namespace sluice::eng {
namespace {

struct Token {
  TokenId id;
  std::uint32_t logprob_bits;
  bool operator==(const Token&) const = default;
};
using Tokens = std::vector<Token>;

struct Totals {
  Endings all;
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_hits = 0;
  std::size_t sequences_in_a_step = 0;  // most
};

std::unique_ptr<ExecutorCpu> open(const char* kernels, std::uint32_t threads,
                                  std::uint32_t num_blocks, std::uint32_t step_tokens_max) {
  ExecutorCpuOptions options;
  options.directory = SLUICE_GOLDEN_DIR "/tiny_llama/f16_llama3";
  options.kernels = kernels;
  options.threads = threads;
  options.num_blocks = num_blocks;
  options.step_tokens_max = step_tokens_max;
  options.sequences_max = 6;
  auto executor = ExecutorCpu::open(options);
  EXPECT_TRUE(executor.has_value()) << executor.error().detail;
  return std::move(*executor);
}

// Submissions enter as the credits allow.
std::map<std::uint64_t, Tokens> run(Executor& executor, const std::vector<Submission>& submissions,
                                    Totals& totals) {
  ManualClock clock;
  Engine engine(executor, clock, scheduler_limits(executor.facts(), {11, 12}));
  Scheduler& scheduler = engine.scheduler();
  std::map<std::uint64_t, Tokens> got;
  std::size_t next = 0;
  while (next < submissions.size() || scheduler.has_sequences()) {
    while (next < submissions.size() && scheduler.credits().sequences > 0)
      EXPECT_TRUE(scheduler.add(submissions[next++].view(), clock.now()));
    const StepPlan& plan = engine.plan();
    totals.preemptions += plan.num_preemptions;
    totals.prefix_hits += plan.num_prefix_hits;
    totals.sequences_in_a_step = std::max(totals.sequences_in_a_step, plan.items.size());
    const StepOutcome& outcome = engine.compute();
    collect_all(outcome, totals.all);
    for (const StepEntry& entry : outcome.entries) {
      if (entry.kind != EntryKind::token) continue;  // a prompt's: in totals.all
      EXPECT_EQ(entry.position, got[entry.sequence].size());
      got[entry.sequence].push_back({entry.token, std::bit_cast<std::uint32_t>(entry.logprob)});
    }
    scheduler.check_invariants();
    clock.advance(std::chrono::milliseconds(1));
  }
  return got;
}

std::vector<Submission> assorted_submissions() {
  std::vector<Submission> submissions;
  for (std::uint64_t id = 1; id <= 14; ++id) {
    // Every other one begins with the same 64 tokens.
    std::vector<TokenId> ids = Submission(0).prompt(64, 99).prompt_ids();
    const auto own = Submission(0).prompt(5 + 9 * (id % 7), id).prompt_ids();
    if (id % 2 == 0) ids.clear();
    ids.insert(ids.end(), own.begin(), own.end());
    Submission submission = Submission(id).prompt(ids).output_max(40);
    submission.sampling().temperature = id % 5 == 0 ? 0.0f : 0.7f + 0.05f * static_cast<float>(id);
    submission.sampling().seed = 1000 + id;
    submission.sampling().wants_logprob = 1;
    if (id % 3 == 0) submission.sampling().top_p = 0.9f;
    if (id % 4 == 1) {
      submission.sampling().presence_penalty = 0.5f;
      submission.sampling().frequency_penalty = 0.3f;
    }
    submission.sampling().num_top_logprobs = static_cast<std::uint16_t>(id % 4 * 5);
    if (id % 4 == 2) submission.prompt_logprobs_from(1);
    submissions.push_back(submission);
  }
  for (std::uint64_t id = 15; id <= 20; ++id) {
    Submission submission = Submission(id).prompt(11 * (id - 14), id % 2);
    if (id % 2 == 0) {
      submission.embed();
    } else {
      submission.output_max(0).prompt_logprobs_from(1).sampling().num_top_logprobs = 3;
    }
    submissions.push_back(submission);
  }
  return submissions;
}

TEST(EngineTokens, AreThoseOfEachRequestAlone) {
  const std::vector<Submission> submissions = assorted_submissions();
  std::map<std::uint64_t, Tokens> want;
  const auto oracle = open("scalar", 1, 64, 512);
  Totals alone;
  for (const Submission& submission : submissions) want.merge(run(*oracle, {submission}, alone));
  EXPECT_EQ(alone.preemptions, 0u);
  EXPECT_EQ(alone.prefix_hits, 0u);  // an engine of its own, a cache of its own
  ASSERT_EQ(want.size(), 14u);
  for (const krn::KernelTable* const* t = krn::usable_kernels(); *t != nullptr; ++t) {
    for (const std::uint32_t threads : {1u, 2u}) {
      SCOPED_TRACE(testing::Message() << (*t)->name << " threads " << threads);
      // 20 blocks of 16 slots: two long sequences fill them.
      const auto executor = open((*t)->name, threads, 20, 37);
      Totals totals;
      const auto got = run(*executor, submissions, totals);
      EXPECT_GT(totals.preemptions, 0u);
      EXPECT_GT(totals.prefix_hits, 0u);
      EXPECT_GT(totals.sequences_in_a_step, 2u);
      for (const auto& [id, tokens] : want) {
        EXPECT_EQ(tokens.size(), 40u);
        EXPECT_EQ(got.at(id), tokens) << "sequence " << id;
      }
      for (const auto& [id, ended] : alone.all) {
        const Ended& other = totals.all.at(id);
        EXPECT_EQ(other.top, ended.top) << "sequence " << id;
        EXPECT_EQ(other.prompt_scored, ended.prompt_scored) << "sequence " << id;
        EXPECT_EQ(other.prompt_top, ended.prompt_top) << "sequence " << id;
        EXPECT_EQ(other.embedding, ended.embedding) << "sequence " << id;
      }
    }
  }
}

// A prompt's log-probabilities are those that the same tokens get as output.
TEST(EngineTokens, APromptIsScoredAsItsTokensWouldBeWhenDrawn) {
  const auto executor = open("auto", 1, 64, 512);
  Submission drawn = Submission(1).prompt(9, 3).output_max(30);
  drawn.sampling().wants_logprob = 1;
  drawn.sampling().num_top_logprobs = 4;
  Totals totals;
  run(*executor, {drawn}, totals);
  const Ended first = totals.all.at(1);
  ASSERT_EQ(first.tokens.size(), 30u);
  std::vector<TokenId> ids = drawn.prompt_ids();
  ids.insert(ids.end(), first.tokens.begin(), first.tokens.end());
  Submission scored = Submission(2).prompt(ids).output_max(0).prompt_logprobs_from(9);
  scored.sampling().num_top_logprobs = 4;
  run(*executor, {scored}, totals);
  EXPECT_EQ(totals.all.at(2).prompt_scored, first.scored);
  EXPECT_EQ(totals.all.at(2).prompt_top, first.top);
}

}  // namespace
}  // namespace sluice::eng
