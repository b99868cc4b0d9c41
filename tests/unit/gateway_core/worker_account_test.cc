// WorkerAccount: credits around a submit position, continuity of records, throughput.
#include "gateway/core/worker_account.h"

#include <gtest/gtest.h>

namespace sluice::gw {
namespace {

WorkerFacts facts() {
  return {.vocab_size = 100,
          .context_tokens = 1000,
          .block_tokens = 16,
          .num_blocks = 64,
          .sequences_max = 4,
          .step_tokens_max = 64,
          .weights_digest = 1,
          .kernel_path = 2};
}

StepRecord head(std::uint64_t step, std::uint64_t position, std::uint32_t sequences) {
  StepRecord record{};
  record.step = step;
  record.submit_position = position;
  record.credit_tokens = 128;
  record.credit_blocks = 64;
  record.credit_sequences = sequences;
  return record;
}

WorkerAccount opened(EpochOrigin origin = EpochOrigin::fresh) {
  WorkerAccount account;
  account.open(0, Epoch{1}, facts(), origin);
  return account;
}

TEST(WorkerAccount, CountsBlocksWithTheFirstNewToken) {
  const WorkerAccount account = opened();
  EXPECT_EQ(account.blocks_of(15), 1u);
  EXPECT_EQ(account.blocks_of(16), 2u);
  EXPECT_EQ(account.blocks_of(17), 2u);
}

TEST(WorkerAccount, SubtractsWhatTheWorkerHasNotSeenYet) {
  WorkerAccount account = opened();
  account.submitted(10);
  account.written(100);
  account.submitted(10);
  account.written(200);
  ASSERT_TRUE(account.take_step({head(1, 100, 1), {}}));
  EXPECT_EQ(account.num_unseen(), 1u);
  EXPECT_FALSE(account.can_take()) << "the one place is taken by the submission under way";
  ASSERT_TRUE(account.take_step({head(2, 200, 1), {}}));
  EXPECT_TRUE(account.can_take());
}

TEST(WorkerAccount, LetsOneLongPromptOverdrawTheLookAhead) {
  WorkerAccount account = opened();
  EXPECT_TRUE(account.can_take());
  account.submitted(900);
  EXPECT_FALSE(account.can_take());
}

TEST(WorkerAccount, GivesRoomBackWhenTheRingWasFullAndWaitsForTheNextRecord) {
  WorkerAccount account = opened();
  account.submitted(900);
  account.unsent();
  EXPECT_FALSE(account.can_take());
  ASSERT_TRUE(account.take_step({head(1, 0, 4), {}}));
  EXPECT_TRUE(account.can_take());
}

TEST(WorkerAccount, RefusesRecordsThatDoNotContinueTheirEpoch) {
  StepEntry entry{};
  entry.kind = EntryKind::token;
  WorkerAccount account = opened();
  ASSERT_TRUE(account.take_step({head(5, 0, 4), {}}));
  EXPECT_FALSE(account.take_step({head(5, 0, 4), {}}));
  StepRecord untold = head(6, 0, 4);
  EXPECT_FALSE(account.take_step({untold, std::span(&entry, 1)}));
  untold.generated_total = 1;
  EXPECT_TRUE(account.take_step({untold, std::span(&entry, 1)}));
  StepRecord ahead = head(7, 64, 4);
  ahead.generated_total = 1;
  EXPECT_FALSE(account.take_step({ahead, {}})) << "a position that was never written";
  StepRecord blocks = head(8, 0, 4);
  blocks.generated_total = 1;
  blocks.num_blocks_free = 60;
  blocks.num_blocks_cached = 5;
  EXPECT_FALSE(account.take_step({blocks, {}}));
}

TEST(WorkerAccount, RefusesFillingsThatItsBlocksCannotHave) {
  WorkerAccount account = opened();
  StepRecord record = head(1, 0, 4);
  record.num_blocks_free = 60;
  record.num_blocks_cached = 1;
  record.num_slots_unfilled = 3 * 16;  // three blocks are in use
  EXPECT_TRUE(account.take_step({record, {}}));
  record.step = 2;
  record.num_slots_unfilled = 3 * 16 + 1;
  EXPECT_FALSE(account.take_step({record, {}}));
  record.num_slots_unfilled = 0;
  record.num_sequences = 4;
  EXPECT_TRUE(account.take_step({record, {}}));
  record.step = 3;
  record.num_sequences = 5;
  EXPECT_FALSE(account.take_step({record, {}}));
}

TEST(WorkerAccount, CancelsMoveTheRingPositionToo) {
  WorkerAccount account = opened();
  account.submitted(10);
  account.written(100);
  account.wrote(132);
  EXPECT_TRUE(account.take_step({head(1, 132, 4), {}}));
  EXPECT_EQ(account.num_unseen(), 0u);
  EXPECT_FALSE(account.take_step({head(2, 148, 4), {}}));
}

TEST(WorkerAccount, AWorkerOfAFormerGatewayMayTalkAboutTheFormerRingForAWhile) {
  WorkerAccount account = opened(EpochOrigin::former_gateway);
  StepRecord old = head(900, 4096, 0);
  old.generated_total = 12345;
  ASSERT_TRUE(account.take_step({old, {}}));
  EXPECT_TRUE(account.can_take()) << "credits about the former ring were believed";
  StepRecord own = head(901, 0, 0);
  own.generated_total = 12345;
  ASSERT_TRUE(account.take_step({own, {}}));
  EXPECT_FALSE(account.can_take());
}

TEST(WorkerAccount, MeasuresTokensPerSecondWhileBusy) {
  WorkerAccount account = opened();
  EXPECT_EQ(account.tokens_per_second(), 0u);
  for (std::uint64_t step = 1; step <= 5000; ++step) {
    StepRecord record = head(step, 0, 4);
    record.duration_ns = 2'000'000;
    record.num_prefill_tokens = 20;
    ASSERT_TRUE(account.take_step({record, {}}));
  }
  EXPECT_NEAR(static_cast<double>(account.tokens_per_second()), 10'000, 50);
}

}  // namespace
}  // namespace sluice::gw
