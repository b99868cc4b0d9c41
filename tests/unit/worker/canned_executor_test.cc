// The canned executor: golden tokens, sensitivity to every mistake with blocks, the crash marker.
#include "worker/canned_executor.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

const BlockId kTable[] = {BlockId{5}, BlockId{1}, BlockId{9}};

std::vector<float> logits_after(CannedExecutor& executor, std::span<const TokenId> ids,
                                std::uint32_t start, std::span<const BlockId> table) {
  const SequenceSpan span{SequenceId{1}, ids.subspan(start), start, table, true};
  const std::span<const float> logits = executor.forward({&span, 1});
  return {logits.begin(), logits.end()};
}

std::vector<TokenId> some_ids(std::size_t count) {
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>(3 + i % 40));
  return ids;
}

TEST(CannedExecutor, GivesTheGoldenTokens) {
  const Submission submission = Submission(1).prompt({1, 10, 20, 30}).output_max(12);
  EXPECT_EQ(run_alone(submission).tokens,
            (std::vector<TokenId>{54, 36, 48, 41, 37, 40, 17, 29, 7, 60, 23, 11}));
}

TEST(CannedExecutor, ChunksAndBlockNumbersDoNotMatter) {
  const std::vector<TokenId> ids = some_ids(24);
  CannedExecutor whole(a_canned_model());
  const std::vector<float> expected = logits_after(whole, ids, 0, kTable);
  for (std::uint32_t border = 1; border < 24; ++border) {
    CannedExecutor chunked(a_canned_model());
    const BlockId other[] = {BlockId{0}, BlockId{63}, BlockId{7}};
    logits_after(chunked, std::span(ids).first(border), 0, other);
    EXPECT_EQ(logits_after(chunked, ids, border, other), expected) << border;
  }
}

TEST(CannedExecutor, AWrongBlockAnywhereShowsInTheNextLogits) {
  const std::vector<TokenId> ids = some_ids(24);
  CannedExecutor executor(a_canned_model());
  const std::vector<float> expected = logits_after(executor, ids, 0, kTable);
  EXPECT_EQ(logits_after(executor, ids, 23, kTable), expected);
  for (std::size_t wrong = 0; wrong < 3; ++wrong) {
    std::vector<BlockId> table(std::begin(kTable), std::end(kTable));
    table[wrong] = BlockId{40};
    EXPECT_NE(logits_after(executor, ids, 23, table), expected) << wrong;
  }
  executor.zero_blocks(std::span(kTable).first(1));
  EXPECT_NE(logits_after(executor, ids, 23, kTable), expected);
}

TEST(CannedExecutor, StreamsEndByTheEndIdAboutAsOftenAsAsked) {
  CannedModel model = a_canned_model();
  model.facts.context_tokens = 4096;
  model.facts.num_blocks = 600;
  CannedEngine e(model);
  double total = 0.0;
  int num_stopped = 0;
  for (std::uint64_t id = 1; id <= 200; ++id) {
    ASSERT_TRUE(e.add(Submission(id).prompt(5, id).output_max(400).stop_ids({kTestEos})));
    e.run();
    total += static_cast<double>(e.endings[id].tokens.size());
    num_stopped += e.endings[id].finish == FinishReason::stop ? 1 : 0;
  }
  EXPECT_GT(num_stopped, 195);
  EXPECT_GT(total / 200, 17);  // eos_period is 24
  EXPECT_LT(total / 200, 32);
}

TEST(CannedExecutor, FavoursReadableIdsAlone) {
  CannedModel model = a_canned_model();
  model.eos.reset();
  model.readable_ids = {40, 41, 42, 43};
  CannedEngine e(model);
  ASSERT_TRUE(e.add(Submission(1).output_max(200).temperature(2.0f)));
  e.run();
  const std::set<TokenId> seen(e.endings[1].tokens.begin(), e.endings[1].tokens.end());
  EXPECT_EQ(seen, (std::set<TokenId>{40, 41, 42, 43}));
}

CannedModel with_marker() {
  CannedModel model = a_canned_model();
  model.crash_marker = "aab!";
  for (TokenId id = 0; id < model.facts.vocab_size; ++id) model.pieces.push_back("x");
  model.pieces[10] = "a";
  model.pieces[11] = "ab";
  model.pieces[12] = "!";
  return model;
}

TEST(CannedExecutorDeathTest, AbortsOnTheMarkerAcrossTokensChunksAndPrefixHits) {
  const std::vector<TokenId> ids{20, 10, 10, 11, 12, 20};
  EXPECT_DEATH(
      {
        CannedExecutor executor(with_marker());
        logits_after(executor, ids, 0, kTable);
      },
      "");
  EXPECT_DEATH(
      {
        CannedExecutor executor(with_marker());
        logits_after(executor, std::span(ids).first(3), 0, kTable);
        logits_after(executor, ids, 3, kTable);
      },
      "");
}

TEST(CannedExecutor, AlmostTheMarkerIsHarmless) {
  CannedExecutor executor(with_marker());
  const std::vector<TokenId> ids{10, 11, 11, 10, 12, 10, 10, 12};
  EXPECT_FALSE(logits_after(executor, ids, 0, kTable).empty());
}

TEST(CannedExecutor, AStepTakesAtLeastItsDuration) {
  CannedModel model = a_canned_model();
  model.step_duration = std::chrono::milliseconds(3);
  CannedExecutor executor(model);
  const SystemClock clock;
  const Tick start = clock.now();
  logits_after(executor, some_ids(4), 0, kTable);
  EXPECT_GE(clock.now() - start, model.step_duration);
}

}  // namespace
}  // namespace sluice::eng
