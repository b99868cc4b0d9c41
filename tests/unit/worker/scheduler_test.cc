// The scheduler's behaviours, one each, by running it over the canned executor.
#include "worker/core/scheduler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

CannedModel endless(CannedModel model = a_canned_model()) {
  model.eos.reset();
  return model;
}

TEST(Scheduler, PlansDecodesBeforePrefillsUnderTheTokenBudget) {
  CannedEngine e(endless());
  ASSERT_TRUE(e.add(Submission(1).prompt(4)));
  e.step();
  ASSERT_TRUE(e.add(Submission(2).prompt(100)));
  const StepPlan& plan = e.engine.plan();
  ASSERT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(plan.items[0].sequence, SequenceId{1});
  EXPECT_EQ(plan.num_decode_tokens, 1u);
  EXPECT_EQ(plan.num_prefill_tokens, 31u);
  EXPECT_EQ(plan.items[1].num_logits, 0u);
}

TEST(Scheduler, AdmitsByPriorityThenId) {
  CannedModel model = endless();
  model.facts.sequences_max = 1;
  model.facts.step_tokens_max = 256;
  CannedEngine e(model);
  ASSERT_TRUE(e.add(Submission(9).prompt(4).output_max(1)));
  e.step();
  ASSERT_FALSE(e.engine.scheduler().has_sequences());
  CannedModel wide = endless();
  wide.facts.sequences_max = 4;
  CannedEngine f(wide);
  ASSERT_TRUE(f.add(Submission(7).prompt(4).priority(1)));
  ASSERT_TRUE(f.add(Submission(6).prompt(4)));
  ASSERT_TRUE(f.add(Submission(5).prompt(4)));
  const StepPlan& plan = f.engine.plan();
  ASSERT_EQ(plan.items.size(), 3u);
  EXPECT_EQ(plan.items[0].sequence, SequenceId{5});
  EXPECT_EQ(plan.items[1].sequence, SequenceId{6});
  EXPECT_EQ(plan.items[2].sequence, SequenceId{7});
}

TEST(Scheduler, WaitingOutweighsPriorityInTheEnd) {
  CannedModel model = endless();
  model.facts.sequences_max = 1;
  CannedEngine e(model);
  ASSERT_TRUE(e.add(Submission(1).prompt(4).output_max(3)));
  e.step();
  ASSERT_TRUE(e.add(Submission(2).prompt(4).priority(1)));
  e.clock.advance(kPriorityAging + std::chrono::seconds(1));
  e.engine.scheduler().cancel(SequenceId{1});
  ASSERT_TRUE(e.add(Submission(3).prompt(4).priority(0)));
  EXPECT_EQ(e.engine.plan().items[0].sequence, SequenceId{2});
}

TEST(Scheduler, RefillsAPlaceInTheStepAfterItFellFree) {
  CannedModel model = endless();
  model.facts.sequences_max = 2;
  CannedEngine e(model);
  for (std::uint64_t id = 1; id <= 4; ++id)
    ASSERT_TRUE(e.add(Submission(id).prompt(3).output_max(static_cast<std::uint32_t>(id))));
  e.step();  // 1 and 2 run; 1 ends with its only token
  const StepPlan& plan = e.engine.plan();
  ASSERT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(plan.items[0].sequence, SequenceId{2});
  EXPECT_EQ(plan.items[1].sequence, SequenceId{3});
}

TEST(Scheduler, PreemptsTheYoungestWhenBlocksRunOut) {
  CannedModel model = endless();
  model.facts.num_blocks = 8;  // 64 slots
  model.facts.context_tokens = 64;
  CannedEngine e(model);
  const Submission first = Submission(1).prompt(24, 1).output_max(38);
  const Submission second = Submission(2).prompt(24, 2).output_max(38);
  ASSERT_TRUE(e.add(first));
  ASSERT_TRUE(e.add(second));
  int num_preemptions = 0;
  while (e.engine.scheduler().has_sequences()) {
    const std::uint32_t in_this_step = e.engine.plan().num_preemptions;
    num_preemptions += static_cast<int>(in_this_step);
    if (in_this_step > 0) {
      EXPECT_EQ(e.engine.suspects().size(), 1u);
      EXPECT_EQ(e.engine.suspects()[0], SequenceId{1});
    }
    collect(e.engine.compute().entries, e.endings);
    e.engine.scheduler().check_invariants();
  }
  EXPECT_GT(num_preemptions, 0);
  EXPECT_EQ(e.endings[1].tokens, run_alone(first, model).tokens);
  EXPECT_EQ(e.endings[2].tokens, run_alone(second, model).tokens);
  EXPECT_EQ(e.endings[2].tokens.size(), 38u);
}

TEST(Scheduler, FindsACachedPrefixAndLeavesOneTokenToCompute) {
  CannedEngine e(endless());
  const Submission first = Submission(1).prompt(32).output_max(1);
  ASSERT_TRUE(e.add(first));
  e.run();
  const Submission second = Submission(2).prompt(32).output_max(1);
  ASSERT_TRUE(e.add(second));
  const StepPlan& plan = e.engine.plan();
  EXPECT_EQ(plan.num_prefill_tokens, 8u);  // 24 of 32: the last block is computed again
  EXPECT_EQ(plan.num_prefix_queries, 32u);
  EXPECT_EQ(plan.num_prefix_hits, 24u);
  collect(e.engine.compute().entries, e.endings);
  EXPECT_EQ(e.endings[2].cached_tokens, 24u);
  EXPECT_EQ(e.endings[2].tokens, e.endings[1].tokens);
}

TEST(Scheduler, AnotherSaltFindsNothing) {
  CannedEngine e(endless());
  ASSERT_TRUE(e.add(Submission(1).prompt(32).output_max(1).salt(1)));
  e.run();
  ASSERT_TRUE(e.add(Submission(2).prompt(32).output_max(1).salt(2)));
  EXPECT_EQ(e.engine.plan().num_prefix_hits, 0u);
}

TEST(Scheduler, NeverMixesSecurityClassesAndZeroesBetweenThem) {
  CannedModel model = endless();
  CannedEngine e(model);
  ASSERT_TRUE(e.add(Submission(1).prompt(20).output_max(4).security_class(1)));
  ASSERT_TRUE(e.add(Submission(2).prompt(20).output_max(4).security_class(2)));
  ASSERT_TRUE(e.add(Submission(3).prompt(20).output_max(4).security_class(1)));
  std::vector<std::uint64_t> order;
  std::size_t num_zeroed = 0;
  while (e.engine.scheduler().has_sequences()) {
    const StepPlan& plan = e.engine.plan();
    num_zeroed += plan.zero_blocks.size();
    for (const PlanItem& item : plan.items) {
      EXPECT_EQ(plan.items.size(), 1u);
      if (order.empty() || order.back() != item.sequence.value)
        order.push_back(item.sequence.value);
    }
    e.executor.zero_blocks(plan.zero_blocks);
    EXPECT_TRUE(e.executor.is_zero_for_test(plan.zero_blocks));
    collect(e.engine.compute().entries, e.endings);
    e.engine.scheduler().check_invariants();
  }
  EXPECT_EQ(order, (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(num_zeroed, 6u);  // 3 blocks before 2 started, 3 before 3
}

TEST(Scheduler, MixedPolicyBatchesClassesTogether) {
  CannedEngine e(endless(), ClassPolicy::mixed);
  ASSERT_TRUE(e.add(Submission(1).security_class(1)));
  ASSERT_TRUE(e.add(Submission(2).security_class(2)));
  EXPECT_EQ(e.engine.plan().items.size(), 2u);
}

TEST(Scheduler, CancelIsIdempotentAndEndsOnce) {
  CannedEngine e(endless());
  ASSERT_TRUE(e.add(Submission(1)));
  ASSERT_TRUE(e.add(Submission(2)));
  e.step();
  e.engine.scheduler().cancel(SequenceId{1});
  e.engine.scheduler().cancel(SequenceId{1});
  e.engine.scheduler().cancel(SequenceId{77});
  EXPECT_TRUE(e.engine.scheduler().has_entries());
  e.run();
  EXPECT_EQ(e.endings[1].num_ends, 1u);
  EXPECT_EQ(e.endings[1].finish, FinishReason::cancelled);
  EXPECT_EQ(e.endings[2].finish, FinishReason::length);
  EXPECT_EQ(e.endings.count(77), 0u);
}

TEST(Scheduler, EndsByStopIdAfterMinTokens) {
  CannedEngine probe(endless());
  const Submission plain = Submission(1).output_max(6);
  ASSERT_TRUE(probe.add(plain));
  probe.run();
  const std::vector<TokenId> tokens = probe.endings[1].tokens;
  ASSERT_EQ(tokens.size(), 6u);
  EXPECT_EQ(probe.endings[1].finish, FinishReason::length);

  CannedEngine e(endless());
  ASSERT_TRUE(e.add(Submission(1).output_max(6).stop_ids({tokens[3]})));
  Submission later = Submission(2).output_max(6).stop_ids({tokens[3]});
  later.sampling().min_tokens = 5;
  ASSERT_TRUE(e.add(later));
  e.run();
  EXPECT_EQ(e.endings[1].finish, FinishReason::stop);
  EXPECT_LE(e.endings[1].tokens.size(), 4u);
  EXPECT_EQ(e.endings[1].tokens.back(), tokens[3]);
  EXPECT_GE(e.endings[2].tokens.size(), 5u);
}

TEST(Scheduler, GoesOnWhereARestoredOutputEnded) {
  const CannedModel model = endless();
  const Submission whole = Submission(1).prompt(20).output_max(30).temperature(0.9f);
  const std::vector<TokenId> tokens = run_alone(whole, model).tokens;
  CannedEngine e(model);
  Submission rest = whole;
  rest.output({tokens.begin(), tokens.begin() + 11});
  ASSERT_TRUE(e.add(rest));
  const StepPlan& plan = e.engine.plan();
  EXPECT_EQ(plan.num_prefill_tokens, 31u);
  const StepOutcome& outcome = e.engine.compute();
  EXPECT_EQ(outcome.entries[0].position, 11u);
  collect(outcome.entries, e.endings);
  e.run();
  EXPECT_EQ(e.endings[1].tokens, (std::vector<TokenId>{tokens.begin() + 11, tokens.end()}));
}

TEST(Scheduler, RefusesWhatItCouldNeverRun) {
  CannedModel model = endless();
  model.facts.num_blocks = 4;  // 32 tokens
  CannedEngine e(model);
  EXPECT_EQ(e.add(Submission(1).prompt(25).output_max(8)).error().code,
            Errc::context_length_exceeded);
  EXPECT_TRUE(e.add(Submission(1).prompt(24).output_max(8)));
  EXPECT_EQ(e.add(Submission(1)).error().code, Errc::invalid_value);
  EXPECT_EQ(e.add(Submission(2).prompt(std::vector<TokenId>{64})).error().code,
            Errc::invalid_value);
  EXPECT_EQ(e.add(Submission(2).stop_ids({64})).error().code, Errc::invalid_value);
  EXPECT_EQ(e.add(Submission(2).bias({{64, 1.0f}})).error().code, Errc::invalid_value);
  EXPECT_EQ(e.add(Submission(2).output({1}).output_max(1)).error().code, Errc::invalid_value);
  e.run();
  EXPECT_EQ(e.endings[1].tokens.size(), 8u);
}

TEST(Scheduler, CreditsFallWithWhatWaitsAndRefuseBeyond) {
  CannedModel model = endless();
  model.facts.sequences_max = 2;
  model.facts.step_tokens_max = 32;
  CannedEngine e(model);
  Scheduler& scheduler = e.engine.scheduler();
  EXPECT_EQ(scheduler.credits(), (Credits{256, 64, 4}));
  ASSERT_TRUE(e.add(Submission(1).prompt(20)));
  EXPECT_EQ(scheduler.credits(), (Credits{44, 61, 3}));
  ASSERT_TRUE(e.add(Submission(2).prompt(60)));
  EXPECT_EQ(scheduler.credits(), (Credits{0, 53, 2}));
  ASSERT_TRUE(e.add(Submission(3)));
  ASSERT_TRUE(e.add(Submission(4)));
  EXPECT_EQ(scheduler.credits().sequences, 0u);
  EXPECT_EQ(e.add(Submission(5)).error().code, Errc::over_capacity);
  e.run();
  EXPECT_EQ(scheduler.credits().sequences, 4u);
  EXPECT_EQ(scheduler.credits().blocks, 64u);
}

TEST(Scheduler, DropAllForgetsEverySequenceButKeepsTheCache) {
  CannedEngine e(endless());
  ASSERT_TRUE(e.add(Submission(1).prompt(40)));
  e.step();
  e.step();
  e.engine.scheduler().drop_all();
  e.engine.scheduler().check_invariants();
  EXPECT_FALSE(e.engine.scheduler().has_sequences());
  ASSERT_TRUE(e.add(Submission(1).prompt(40)));
  EXPECT_EQ(e.engine.plan().num_prefix_hits, 32u);
}

// A model whose prompts take many look-ups, and an engine that does two blocks of them per step.
constexpr std::uint32_t kTwoBlocks = 16;

CannedModel long_context() {
  CannedModel model = endless();
  model.facts.num_blocks = 256;
  model.facts.context_tokens = 1024;
  return model;
}

TEST(Scheduler, LooksALongCachedPromptUpInBoundedPieces) {
  CannedEngine e(long_context(), ClassPolicy::separate, kTwoBlocks);
  ASSERT_TRUE(e.add(Submission(1).prompt(400).output_max(1)));
  e.run();
  ASSERT_TRUE(e.add(Submission(9).output_max(200)));
  e.step();
  const Submission second = Submission(2).prompt(400).output_max(1);
  ASSERT_TRUE(e.add(second));
  const Scheduler& scheduler = e.engine.scheduler();
  std::uint32_t num_used = scheduler.blocks().num_used();
  int num_steps = 0;
  while (e.endings[2].tokens.empty()) {
    const StepPlan& plan = e.engine.plan();
    // Two look-ups, and a block for the one that decodes.
    EXPECT_LE(scheduler.blocks().num_used(), num_used + 3);
    num_used = scheduler.blocks().num_used();
    ASSERT_GE(plan.num_decode_tokens, 1u) << "the other one never waits";
    collect(e.engine.compute().entries, e.endings);
    scheduler.check_invariants();
    ++num_steps;
  }
  EXPECT_GE(num_steps, 25);  // 49 blocks are found
  EXPECT_EQ(e.endings[2].cached_tokens, 392u);
  EXPECT_EQ(e.endings[2].tokens, e.endings[1].tokens);
}

TEST(Scheduler, ShortSequencesPassOneThatIsLookedUpAndItIsAdmittedWhenThatIsOver) {
  CannedEngine e(long_context(), ClassPolicy::separate, 2 * kTwoBlocks);
  ASSERT_TRUE(e.add(Submission(1).prompt(400).output_max(1)));
  e.run();
  ASSERT_TRUE(e.add(Submission(2).prompt(400).output_max(1)));
  ASSERT_TRUE(e.add(Submission(3).prompt(6, 3).output_max(50)));
  const StepPlan& plan = e.engine.plan();
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].sequence, SequenceId{3});
  EXPECT_EQ(plan.num_looking_up, 1u);
  collect(e.engine.compute().entries, e.endings);
  // It counts as if it ran: others are not kept out.
  EXPECT_EQ(e.engine.scheduler().credits().tokens, 1024u);
  int num_steps = 1;
  while (e.endings[2].tokens.empty()) {
    e.step();
    ASSERT_LE(++num_steps, 30);
  }
  EXPECT_EQ(e.endings[2].cached_tokens, 392u);
}

TEST(Scheduler, CancelAndDropAllWhileAPrefixIsLookedUpGiveBackWhatWasFound) {
  for (const bool is_cancelled : {true, false}) {
    CannedEngine e(long_context(), ClassPolicy::separate, kTwoBlocks);
    ASSERT_TRUE(e.add(Submission(1).prompt(400).output_max(1)));
    e.run();
    ASSERT_TRUE(e.add(Submission(2).prompt(400).output_max(1)));
    for (int i = 0; i < 5; ++i) e.step();
    Scheduler& scheduler = e.engine.scheduler();
    EXPECT_GT(scheduler.blocks().num_used(), 0u);
    if (is_cancelled)
      scheduler.cancel(SequenceId{2});
    else
      scheduler.drop_all();
    scheduler.check_invariants();
    e.run();
    EXPECT_EQ(scheduler.blocks().num_used(), 0u);
    EXPECT_EQ(e.endings[2].finish, is_cancelled ? FinishReason::cancelled : FinishReason::none);
  }
}

TEST(Scheduler, GivesTheBlocksOfALongSequenceBackInBoundedPieces) {
  CannedEngine e(long_context(), ClassPolicy::separate, kTwoBlocks);
  ASSERT_TRUE(e.add(Submission(1).prompt(400).output_max(1)));
  while (e.endings[1].tokens.empty()) e.step();
  const Scheduler& scheduler = e.engine.scheduler();
  EXPECT_FALSE(scheduler.has_sequences());
  std::uint32_t num_used = scheduler.blocks().num_used();
  EXPECT_GT(num_used, 40u);
  while (scheduler.has_work()) {
    e.step();
    EXPECT_LE(num_used - scheduler.blocks().num_used(), 2u);
    num_used = scheduler.blocks().num_used();
    scheduler.check_invariants();
  }
  EXPECT_EQ(num_used, 0u);
  EXPECT_EQ(scheduler.credits().sequences, 16u);
}

TEST(Scheduler, TakesTheBlocksOfALongPromptAsItsPrefillGoesOn) {
  CannedEngine e(long_context());
  ASSERT_TRUE(e.add(Submission(1).prompt(400).output_max(1)));
  e.step();  // 32 tokens
  EXPECT_EQ(e.engine.scheduler().blocks().num_used(), 4u);
  EXPECT_EQ(e.engine.scheduler().credits().blocks, 256u - 50);  // but promised are all
}

TEST(Scheduler, WhatAWaitingSequenceFoundGoesToARunningOneThatNeedsIt) {
  CannedModel model = endless();
  model.facts.num_blocks = 16;  // 128 slots
  model.facts.context_tokens = 128;
  model.facts.sequences_max = 2;
  CannedEngine e(model, ClassPolicy::separate, 8);
  ASSERT_TRUE(e.add(Submission(1).prompt(80).output_max(1)));
  e.run();
  const Submission running = Submission(2).prompt(8, 2).output_max(100);
  const Submission waiting = Submission(3).prompt(80).output_max(8);
  ASSERT_TRUE(e.add(running));
  e.step();
  ASSERT_TRUE(e.add(waiting));
  int num_preemptions = 0;
  while (e.engine.scheduler().has_work()) {
    num_preemptions += static_cast<int>(e.engine.plan().num_preemptions);
    collect(e.engine.compute().entries, e.endings);
    e.engine.scheduler().check_invariants();
  }
  EXPECT_EQ(e.endings[2].tokens, run_alone(running, model).tokens);
  EXPECT_EQ(e.endings[3].tokens, run_alone(waiting, model).tokens);
}

TEST(Scheduler, IdsTakenInPiecesMakeTheSameSequence) {
  Submission submission = Submission(1).prompt(90, 4).output({5, 6, 7}).output_max(20);
  submission.sampling().temperature = 1.0f;
  submission.sampling().repetition_penalty = 1.3f;
  for (const std::size_t piece : {1u, 7u, 90u, 1000u}) {
    CannedEngine e(endless());
    IdIntake intake;
    const SubmitView view = submission.view();
    ASSERT_TRUE(e.engine.scheduler().check_head(view.head));
    intake.begin(view, 64);
    std::size_t num_pieces = 0;
    for (; !intake.is_over(); ++num_pieces) intake.take(piece);
    EXPECT_EQ(num_pieces, (93 + piece - 1) / piece);
    ASSERT_TRUE(e.engine.scheduler().add(view, intake, e.clock.now()));
    e.run();
    EXPECT_EQ(e.endings[1].tokens, run_alone(submission, endless()).tokens);
  }
}

TEST(Scheduler, IdsTakenInPiecesAreHeldAgainstTheVocabulary) {
  for (const std::size_t bad : {0u, 50u, 89u, 91u}) {
    std::vector<TokenId> prompt(90, 1), output(3, 1);
    (bad < 90 ? prompt[bad] : output[bad - 90]) = 64;
    const Submission submission = Submission(1).prompt(prompt).output(output).output_max(9);
    CannedEngine e(endless());
    IdIntake intake;
    intake.begin(submission.view(), 64);
    while (!intake.is_over()) intake.take(40);
    EXPECT_EQ(e.engine.scheduler().add(submission.view(), intake, e.clock.now()).error().code,
              Errc::invalid_value);
    EXPECT_FALSE(e.engine.scheduler().has_work());
  }
}

// The naive embedding: the mean of the hidden states, one position after another, of length 1.
std::vector<double> naive_embedding(const Submission& submission) {
  CannedExecutor executor(a_canned_model());
  std::vector<BlockId> blocks;
  for (std::uint32_t b = 0; b < 32; ++b) blocks.emplace_back(b);
  std::vector<double> mean(kCannedEmbedding, 0.0);
  const std::vector<TokenId>& ids = submission.prompt_ids();
  for (std::uint32_t i = 0; i < ids.size(); ++i) {
    const SequenceSpan span{SequenceId{1}, std::span(ids).subspan(i, 1), i, blocks, 0, true};
    executor.forward({&span, 1});
    EXPECT_EQ(executor.hidden().num_rows, 1u);
    for (std::uint32_t d = 0; d < kCannedEmbedding; ++d)
      mean[d] += double{executor.hidden().data[d]} / static_cast<double>(ids.size());
  }
  double squares = 0.0;
  for (const double value : mean) squares += value * value;
  for (double& value : mean) value /= std::sqrt(squares);
  return mean;
}

TEST(Engine, AnEmbeddingIsTheMeanOfTheHiddenStatesOfLengthOne) {
  for (const std::size_t length : {1u, 7u, 8u, 31u, 100u}) {
    const Submission submission = Submission(1).prompt(length, 5).embed();
    CannedEngine e;  // chunks of 32
    ASSERT_TRUE(e.add(submission));
    e.run();
    const Ended& ended = e.endings[1];
    EXPECT_EQ(ended.finish, FinishReason::length);
    EXPECT_TRUE(ended.tokens.empty());
    EXPECT_EQ(e.engine.generated_total(), 0u);
    const std::vector<double> naive = naive_embedding(submission);
    ASSERT_EQ(ended.embedding.size(), naive.size());
    for (std::size_t d = 0; d < naive.size(); ++d)
      EXPECT_NEAR(double{ended.embedding[d]}, naive[d], 1e-6);
  }
}

TEST(Scheduler, RefusesEmbeddingsWhereNoneAreServed) {
  CannedModel model = a_canned_model();
  CannedExecutor executor(model);
  SchedulerLimits limits = scheduler_limits(executor.facts(), {1, 2});
  limits.embeddings_max = 0;
  Scheduler scheduler(limits);
  EXPECT_EQ(scheduler.add(Submission(1).embed().view(), Tick{}).error().code,
            Errc::unsupported_parameter);
  EXPECT_TRUE(scheduler.add(Submission(1).view(), Tick{}));
}

TEST(Scheduler, AStepCompletesNoMoreEmbeddingsThanItsLimit) {
  CannedModel model = a_canned_model();
  CannedExecutor executor(model);
  ManualClock clock;
  SchedulerLimits limits = scheduler_limits(executor.facts(), {1, 2});
  limits.embeddings_max = 2;
  Engine engine(executor, clock, limits);
  for (std::uint64_t id = 1; id <= 6; ++id)
    ASSERT_TRUE(engine.scheduler().add(Submission(id).prompt(3, id).embed().view(), clock.now()));
  Endings endings;
  for (int step = 0; engine.scheduler().has_work() && step < 20; ++step) {
    EXPECT_LE(engine.plan().num_embeddings, 2u);
    collect_all(engine.compute(), endings);
    engine.scheduler().check_invariants();
  }
  ASSERT_EQ(endings.size(), 6u);
  for (const auto& [id, ended] : endings)
    EXPECT_EQ(ended.embedding, run_alone(Submission(id).prompt(3, id).embed()).embedding);
}

// What the prefix cache holds is computed again where its results are wanted, and only there.
TEST(Scheduler, APromptsLogprobsComeOutWhetherOrNotItIsCached) {
  CannedEngine e;
  ASSERT_TRUE(e.add(Submission(1).prompt(60, 3).output_max(2)));
  e.run();
  const std::uint32_t starts[] = {1, 30, 59};
  for (const std::uint32_t from : starts) {
    Submission submission = Submission(10 + from).prompt(60, 3).output_max(4);
    submission.prompt_logprobs_from(from).sampling().wants_logprob = 1;
    submission.sampling().num_top_logprobs = 3;
    ASSERT_TRUE(e.add(submission));
    e.run();
    const Ended& got = e.endings[submission.id()];
    const Ended alone = run_alone(submission);
    ASSERT_EQ(got.prompt_scored.size(), 60u - from);
    EXPECT_EQ(got.prompt_scored, alone.prompt_scored);
    EXPECT_EQ(got.prompt_top, alone.prompt_top);
    EXPECT_EQ(got.tokens, alone.tokens);
    EXPECT_EQ(got.cached_tokens, (from - 1) / 8 * 8) << "whole blocks before the first wanted row";
  }
}

TEST(Scheduler, APromptOfWhichNothingElseIsWantedEndsWithoutAToken) {
  CannedEngine e;
  ASSERT_TRUE(e.add(Submission(1).prompt(20, 4).output_max(0)));
  ASSERT_TRUE(e.add(Submission(2).prompt(1, 4).output_max(0)));
  e.run();
  for (const std::uint64_t id : {1u, 2u}) {
    EXPECT_EQ(e.endings[id].finish, FinishReason::length);
    EXPECT_TRUE(e.endings[id].tokens.empty());
  }
  EXPECT_EQ(e.engine.generated_total(), 0u);
}

// An executor that breaks one row of each step.
class BrokenRow final : public Executor {
 public:
  BrokenRow(Executor& inner, SequenceId broken) : inner_(inner), broken_(broken) {}
  WorkerFacts facts() const override { return inner_.facts(); }
  std::span<const float> forward(std::span<const SequenceSpan> spans) override {
    const std::span<const float> logits = inner_.forward(spans);
    copy_.assign(logits.begin(), logits.end());
    std::size_t row = 0;
    for (const SequenceSpan& span : spans) {
      if (span.num_logits == 0) continue;
      if (span.sequence == broken_) copy_[row * facts().vocab_size + 5] = 0.0f / zero_;
      ++row;
    }
    return copy_;
  }
  void zero_blocks(std::span<const BlockId> blocks) override { inner_.zero_blocks(blocks); }

 private:
  Executor& inner_;
  SequenceId broken_;
  float zero_ = 0.0f;
  std::vector<float> copy_;
};

TEST(Engine, ARowWithNanEndsItsOwnSequenceAlone) {
  CannedExecutor canned(endless());
  BrokenRow broken(canned, SequenceId{2});
  ManualClock clock;
  Engine engine(broken, clock, scheduler_limits(canned.facts(), {1, 2}));
  const Submission one = Submission(1).output_max(3);
  const Submission two = Submission(2).output_max(3);
  ASSERT_TRUE(engine.scheduler().add(one.view(), clock.now()));
  ASSERT_TRUE(engine.scheduler().add(two.view(), clock.now()));
  Endings endings;
  while (engine.scheduler().has_sequences()) {
    engine.plan();
    collect(engine.compute().entries, endings);
  }
  EXPECT_EQ(endings[1].finish, FinishReason::length);
  EXPECT_EQ(endings[1].tokens, run_alone(one, endless()).tokens);
  EXPECT_EQ(endings[2].finish, FinishReason::error);
  EXPECT_TRUE(endings[2].tokens.empty());
  EXPECT_EQ(engine.generated_total(), 3u);
}

}  // namespace
}  // namespace sluice::eng
