// ServingCore, one behaviour each, on fake workers: delivery, failover, credits, limits, corrupt
// records, drain - and that a step costs no allocation.
#include "gateway/core/serving_core.h"

#include <gtest/gtest.h>

#include "tests/support/allocation_count.h"
#include "tests/unit/gateway_core/core_harness.h"

namespace sluice::gw {
namespace {

TEST(ServingCore, DeliversWhatTheWorkerGenerates) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(1, 16, 2));
  ASSERT_TRUE(handle);
  for (int i = 0; i < 16; ++i) {
    h.step(0);
    h.deliver();
  }
  const Client& client = h.clients.at(handle->value);
  EXPECT_EQ(client.taken[0], undisturbed(client.spec, 0));
  EXPECT_EQ(client.taken[1], undisturbed(client.spec, 1));
  EXPECT_NE(client.taken[0], client.taken[1]);
  EXPECT_EQ(h.core.stats(*handle).completion_tokens, 32u);
  EXPECT_EQ(h.core.stats(*handle).prompt_tokens, 20u);
  EXPECT_FALSE(h.core.is_live(*handle));
  EXPECT_EQ(h.core.counters(0).ended[static_cast<std::size_t>(EndReason::length)], 2u);
  EXPECT_EQ(h.billed_prompt, 20u);
}

TEST(ServingCore, ATenantWithoutLimitsIsBoundByTheQueue) {
  CoreHarness h(CoreHarness::params(1));
  const LimitsView view = h.core.limits(AccountId{0}, h.now);
  EXPECT_GT(view.requests_limit, 0u);
  EXPECT_EQ(view.requests_remaining, view.requests_limit);
  EXPECT_GT(view.tokens_limit, 0u);
  EXPECT_EQ(view.tokens_reset, Duration{0});
}

TEST(ServingCore, ContinuesByteForByteOnAnotherWorkerAndCountsTheMove) {
  CoreHarness h(CoreHarness::params(2));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 30));
  for (int i = 0; i < 7; ++i) h.step(0);  // none taken yet: a slow client
  h.up(1);
  h.down(0, DownReason::killed, {});
  ASSERT_EQ(h.workers[1].sequences.size(), 1u);
  EXPECT_EQ(h.workers[1].sequences[0].output.size(), 7u) << "drained tokens were not resubmitted";
  for (int i = 0; i < 23; ++i) h.step(1);
  h.deliver();
  const Client& client = h.clients.at(handle->value);
  EXPECT_EQ(client.taken[0], undisturbed(client.spec, 0));
  EXPECT_EQ(h.core.stats(*handle).num_failovers, 1u);
  EXPECT_EQ(h.core.counters(0).discarded_total(), 0u);
}

TEST(ServingCore, WaitsForAWorkerOfEqualWeightsToGoOn) {
  CoreHarness h(CoreHarness::params(2));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 30));
  h.step(0);
  h.down(0, DownReason::killed, {});
  WorkerFacts other = test_facts();
  other.kernel_path = 23;
  h.up(1, other);
  EXPECT_TRUE(h.workers[1].sequences.empty());
  EXPECT_TRUE(h.core.is_live(*handle));
  h.up(0);
  EXPECT_EQ(h.workers[0].sequences.size(), 1u);
}

TEST(ServingCore, SaysThatAContinuationIsNotExactWhereTheWorkerDoesNotPromiseIt) {
  for (const Continuity continuity : {Continuity::exact, Continuity::tokens}) {
    for (const int num_before : {0, 3}) {  // tokens before the move: without any, nothing goes on
      CoreHarness h(CoreHarness::params(2));
      WorkerFacts facts = test_facts();
      facts.continuity = continuity;
      h.up(0, facts);
      const auto handle = h.submit(CoreHarness::spec(5, 30));
      for (int i = 0; i < num_before; ++i) h.step(0);
      EXPECT_TRUE(h.core.stats(*handle).exact);
      h.up(1, facts);
      h.down(0, DownReason::killed, {});
      ASSERT_EQ(h.workers[1].sequences.size(), 1u);
      EXPECT_EQ(h.core.stats(*handle).exact, continuity == Continuity::exact || num_before == 0);
    }
  }
}

TEST(ServingCore, AFinishedSequenceOutlivesItsWorkerForASlowClient) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 3));
  for (int i = 0; i < 3; ++i) h.step(0);
  h.down(0, DownReason::crashed, {});
  h.deliver();
  EXPECT_EQ(h.clients.at(handle->value).taken[0].size(), 3u);
  EXPECT_EQ(h.core.stats(*handle).num_failovers, 0u);
}

TEST(ServingCore, TellsTheWorkerOnceWhenTheClientLeavesAndCountsWhatComesLater) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 30));
  h.step(0);
  h.cancel(*handle);
  EXPECT_TRUE(h.workers[0].sequences[0].is_cancelled);
  h.workers[0].sequences[0].is_cancelled = false;  // a step that was under way
  h.step(0);
  const auto discarded = h.core.counters(0).discarded;
  EXPECT_EQ(discarded[static_cast<std::size_t>(DiscardCause::cancelled)], 2u);
  EXPECT_EQ(h.core.num_held(WorkerId{0}), 1u) << "forgotten before the worker acknowledged";
  h.workers[0].sequences[0].is_cancelled = true;
  h.step(0);
  EXPECT_EQ(h.core.num_held(WorkerId{0}), 0u);
  EXPECT_TRUE(h.reported_corrupt.empty());
}

TEST(ServingCore, ARequestCancelledInTheQueueCostsItsTenantNothing) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].limits[LimitKind::tokens_per_minute] = 1000;
  CoreHarness h(std::move(params));
  h.up(0);
  std::vector<GenerationHandle> handles;
  for (std::uint64_t seed = 0; seed < 9; ++seed)
    handles.push_back(*h.submit(CoreHarness::spec(seed)));
  EXPECT_EQ(h.core.queue().requests(), 1u);
  const auto before = h.core.limits(AccountId{0}, h.now).tokens_remaining;
  h.cancel(handles.back());
  EXPECT_EQ(h.core.limits(AccountId{0}, h.now).tokens_remaining, before + 36);
  EXPECT_EQ(h.core.queue().requests(), 0u);
}

TEST(ServingCore, APassedDeadlineEndsTheRequestWithinOneStep) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  GenerationSpec spec = CoreHarness::spec(5, 30);
  spec.deadline = h.now + std::chrono::seconds(1);
  const auto handle = h.submit(spec);
  h.step(0);
  ASSERT_EQ(h.core.next_due(), *spec.deadline);
  h.now = *spec.deadline;
  h.core.tick(h.now);
  h.carry_out();
  h.deliver();
  ASSERT_TRUE(h.clients.at(handle->value).failure);
  EXPECT_EQ(h.clients.at(handle->value).failure->code, Errc::deadline_exceeded);
  EXPECT_TRUE(h.workers[0].sequences[0].is_cancelled);
  EXPECT_FALSE(h.core.submit(spec, RequestId{1}, std::vector{SequenceId{1}}, h.now));
}

TEST(ServingCore, WhoWaitsTooLongIsToldSoWithAMeasuredRetryAfter) {
  CoreParams params = CoreHarness::params(1);
  params.queue_wait_max = std::chrono::seconds(5);
  CoreHarness h(std::move(params));
  h.up(0);
  for (std::uint64_t seed = 0; seed < 12; ++seed)
    ASSERT_TRUE(h.submit(CoreHarness::spec(seed, 1000)));
  h.step(0);  // 4 tokens in 1 ms: 4,000 tokens a second
  EXPECT_EQ(h.core.overload_retry_after(0), std::chrono::seconds(2)) << h.core.queue().tokens();
  h.now += std::chrono::seconds(5);
  h.core.tick(h.now);
  h.carry_out();
  h.deliver();
  std::uint32_t overloaded = 0;
  for (const auto& [handle, client] : h.clients) {
    if (!client.failure) continue;
    ++overloaded;
    EXPECT_EQ(client.failure->code, Errc::overloaded);
    EXPECT_TRUE(client.failure->retry_after);
  }
  EXPECT_EQ(overloaded, 4u);
}

TEST(ServingCore, TheQueueIsBoundedAndSaysSo) {
  CoreParams params = CoreHarness::params(1);
  params.queue.requests_max = 3;
  params.queue.tokens_max = 2000;
  CoreHarness h(std::move(params));
  h.up(0);
  for (std::uint64_t seed = 0; seed < 11; ++seed) ASSERT_TRUE(h.submit(CoreHarness::spec(seed)));
  const auto refused = h.submit(CoreHarness::spec(99));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::overloaded);
  EXPECT_FALSE(h.core.precheck(TenantId{0}, AccountId{0}, 0, h.now));
  const auto never = h.submit(CoreHarness::spec(100, 3000));
  EXPECT_EQ(never.error().code, Errc::request_exceeds_quota_capacity);
  EXPECT_EQ(h.submit(CoreHarness::spec(100, 4090)).error().code, Errc::context_length_exceeded);
}

TEST(ServingCore, SaysWhetherAModelWasEverReady) {
  CoreHarness h(CoreHarness::params(1));
  EXPECT_EQ(h.submit(CoreHarness::spec(1)).error().code, Errc::model_loading);
  h.up(0);
  h.down(0, DownReason::crashed, {});
  const auto handle = h.submit(CoreHarness::spec(1));
  ASSERT_TRUE(handle) << "a worker that is being restarted is worth waiting for";
  h.now += std::chrono::seconds(11);
  EXPECT_EQ(h.submit(CoreHarness::spec(1)).error().code, Errc::no_healthy_worker);
  h.up(0);
  EXPECT_EQ(h.workers[0].sequences.size(), 1u);
}

TEST(ServingCore, CorruptRecordsCostTheWorkerItsEpochAndNothingElse) {
  struct Case {
    const char* name;
    void (*spoil)(StepEntry&);
  };
  const Case cases[] = {
      {"position", [](StepEntry& e) { e.position = 1; }},
      {"token", [](StepEntry& e) { e.token = kTestVocab; }},
      {"unknown sequence", [](StepEntry& e) { e.sequence = 7; }},
      {"length too early", [](StepEntry& e) { e.finish = FinishReason::length; }},
      {"stop without a stop id", [](StepEntry& e) { e.finish = FinishReason::stop; }},
      {"error on a token", [](StepEntry& e) { e.finish = FinishReason::error; }},
      {"cached", [](StepEntry& e) { e.cached_tokens = 21; }},
      {"cancelled unasked",
       [](StepEntry& e) {
         e.kind = EntryKind::finished;
         e.finish = FinishReason::cancelled;
       }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    CoreHarness h(CoreHarness::params(1));
    h.up(0);
    const auto handle = h.submit(CoreHarness::spec(5, 30));
    StepEntry entry{};
    entry.sequence = h.workers[0].sequences[0].head.sequence;
    entry.kind = EntryKind::token;
    entry.token = 9;
    c.spoil(entry);
    h.workers[0].generated += entry.kind == EntryKind::token ? 1 : 0;
    h.publish(0, std::span(&entry, 1));
    ASSERT_EQ(h.reported_corrupt.size(), 1u);
    EXPECT_TRUE(h.core.worker(WorkerId{0}).is_corrupt());
    h.step(0);  // not heard any more
    EXPECT_EQ(h.core.counters(0).generated, 0u);
    h.down(0, DownReason::corrupt, {});
    h.up(0);
    for (int i = 0; i < 30; ++i) h.step(0);
    h.deliver();
    const Client& client = h.clients.at(handle->value);
    EXPECT_EQ(client.taken[0], undisturbed(client.spec, 0));
  }
}

TEST(ServingCore, EntriesOfAFormerGatewaysSequencesAreDiscarded) {
  CoreParams params = CoreHarness::params(1);
  params.first_id = SequenceId{100};
  CoreHarness h(std::move(params));
  h.up(0, test_facts(), EpochOrigin::former_gateway);
  StepEntry entry{};
  entry.sequence = 50;
  entry.kind = EntryKind::token;
  h.workers[0].generated = 1000;
  h.publish(0, std::span(&entry, 1));
  EXPECT_TRUE(h.reported_corrupt.empty());
  const auto& discarded = h.core.counters(0).discarded;
  EXPECT_EQ(discarded[static_cast<std::size_t>(DiscardCause::gateway_restart)], 1u);
  entry.sequence = 150;
  h.workers[0].generated = 1001;
  h.publish(0, std::span(&entry, 1));
  EXPECT_EQ(h.reported_corrupt.size(), 1u);
}

TEST(ServingCore, AFullRingPutsTheSubmissionBackInItsPlace) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  h.workers[0].is_ring_full = true;
  ASSERT_TRUE(h.submit(CoreHarness::spec(1)));
  EXPECT_EQ(h.core.num_waiting(0), 1u);
  h.workers[0].is_ring_full = false;
  h.step(0);
  EXPECT_EQ(h.core.num_waiting(0), 0u);
  EXPECT_EQ(h.workers[0].sequences.size(), 1u);
}

TEST(ServingCore, ARejectedRequestFailsWithItsReasonAndAFullWorkerIsTriedAgain) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(1));
  RejectRecord record{h.workers[0].sequences[0].head.sequence,
                      static_cast<std::uint32_t>(Errc::over_capacity), 0};
  h.workers[0].sequences.clear();
  h.core.reject(WorkerId{0}, record, h.now);
  h.carry_out();
  EXPECT_EQ(h.core.num_waiting(0), 1u);
  h.step(0);
  ASSERT_EQ(h.workers[0].sequences.size(), 1u);
  record.errc = static_cast<std::uint32_t>(Errc::context_length_exceeded);
  h.core.reject(WorkerId{0}, record, h.now);
  h.carry_out();
  h.deliver();
  ASSERT_TRUE(h.clients.at(handle->value).failure);
  EXPECT_EQ(h.clients.at(handle->value).failure->code, Errc::context_length_exceeded);
}

TEST(ServingCore, OnePoisonedRequestAmongManyIsCondemnedAndTheOthersFinish) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  std::vector<GenerationHandle> handles;
  for (std::uint64_t seed = 0; seed < 32; ++seed)
    handles.push_back(*h.submit(CoreHarness::spec(seed, 8)));
  const std::vector<TokenId> guilty = h.clients.at(handles[2].value).spec.prompt;
  int crashes = 0;
  for (int i = 0; i < 500 && h.core.num_live_requests() > 0; ++i) {
    bool dies = false;
    for (const CoreHarness::Running* running : h.batch(0)) dies |= running->prompt == guilty;
    if (dies) {
      ++crashes;
      h.down(0, DownReason::crashed, h.in_step(0));
      h.up(0);
    } else {
      h.step(0);
    }
    h.deliver();
  }
  EXPECT_LE(crashes, 4);
  for (std::size_t i = 0; i < handles.size(); ++i) {
    const Client& client = h.clients.at(handles[i].value);
    if (i == 2) {
      ASSERT_TRUE(client.failure);
      EXPECT_EQ(client.failure->code, Errc::poisoned_request);
    } else {
      EXPECT_EQ(client.taken[0], undisturbed(client.spec, 0)) << i;
    }
  }
}

TEST(ServingCore, AKillFromOutsideIsNoEvidence) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 8));
  for (int i = 0; i < 20; ++i) {
    h.down(0, DownReason::killed, h.in_step(0));
    h.up(0);
  }
  for (int i = 0; i < 8; ++i) h.step(0);
  h.deliver();
  EXPECT_EQ(h.clients.at(handle->value).taken[0].size(), 8u);
  EXPECT_EQ(h.core.stats(*handle).num_failovers, 20u);
}

TEST(ServingCore, DrainsByFinishingWhatRunsAndTakingNothingNew) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 4));
  h.core.drain(h.now, std::chrono::seconds(30));
  h.carry_out();
  EXPECT_EQ(h.submit(CoreHarness::spec(6)).error().code, Errc::overloaded);
  EXPECT_EQ(h.num_drained, 0u);
  for (int i = 0; i < 4; ++i) h.step(0);
  h.deliver();
  EXPECT_EQ(h.clients.at(handle->value).taken[0].size(), 4u);
  EXPECT_EQ(h.num_drained, 1u);
}

TEST(ServingCore, ADrainThatTakesTooLongEndsWhatIsLeft) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 400));
  h.core.drain(h.now, std::chrono::seconds(30));
  h.carry_out();
  h.now = *h.core.next_due();
  h.core.tick(h.now);
  h.carry_out();
  h.deliver();
  EXPECT_EQ(h.clients.at(handle->value).failure->code, Errc::preempted);
  EXPECT_EQ(h.num_drained, 1u);
}

TEST(ServingCore, AReloadedLimitActsOnTheNextRequest) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  ASSERT_TRUE(h.submit(CoreHarness::spec(5)));
  CoreLimits limits{std::vector<AccountSpec>(5), {}, 5};
  limits.accounts[0].limits[LimitKind::concurrent_requests] = 1;
  h.core.reload(limits, QueueParams{}, std::chrono::seconds(1), h.now);
  EXPECT_EQ(h.submit(CoreHarness::spec(6)).error().code, Errc::concurrency_limit);
}

TEST(ServingCore, AReloadMayTurnATreeOfAccountsUpsideDown) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].parent = AccountId{3};  // a later number
  params.limits.accounts[3].parent = AccountId{1};
  CoreLimits limits = params.limits;
  CoreHarness h(std::move(params));
  h.up(0);
  ASSERT_TRUE(h.submit(CoreHarness::spec(5)));
  limits.accounts[1].parent = AccountId{3};
  limits.accounts[3].parent = AccountId{0};
  limits.accounts[0].parent.reset();
  limits.accounts[0].limits[LimitKind::concurrent_requests] = 1;
  h.core.reload(limits, QueueParams{}, std::chrono::seconds(60), h.now);
  GenerationSpec below = CoreHarness::spec(6);
  below.tenant = TenantId{1};
  EXPECT_EQ(h.submit(below).error().code, Errc::concurrency_limit);
  h.core.check_invariants();
}

TEST(ServingCore, AStreamGoesOnToWhatALoweredLimitStillCovers) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].limits[LimitKind::tokens_per_minute] = 1000;
  CoreLimits limits = params.limits;
  CoreHarness h(std::move(params));
  h.up(0);
  const auto older = h.submit(CoreHarness::spec(5, 100));
  const auto newer = h.submit(CoreHarness::spec(6, 50, 2));
  ASSERT_TRUE(older && newer);
  h.step(0);
  h.deliver();
  limits.accounts[0].limits[LimitKind::tokens_per_minute] = 200;  // 240 are reserved
  h.core.reload(limits, QueueParams{}, std::chrono::seconds(60), h.now);
  h.carry_out();
  EXPECT_TRUE(h.core.is_live(*newer) && h.core.is_live(*older));
  EXPECT_EQ(h.core.limits(AccountId{0}, h.now).tokens_remaining, 0u);
  for (int i = 0; i < 120; ++i) {
    h.step(0);
    h.deliver();
    ASSERT_LE(h.core.ledger().used(AccountId{0}, LimitKind::tokens_per_minute, h.now), 200u);
  }
  const Client& stopped = h.clients.at(newer->value);
  ASSERT_TRUE(stopped.failure);
  EXPECT_EQ(stopped.failure->code, Errc::tokens_rate_limited);
  EXPECT_NE(stopped.failure->detail.find("lowered to 200"), std::string::npos);
  EXPECT_EQ(stopped.taken[0].size() + stopped.taken[1].size(), 60u) << "of 100, 40 were given up";
  for (std::uint32_t choice = 0; choice < 2; ++choice) {
    const std::vector<TokenId> whole = undisturbed(stopped.spec, choice);
    EXPECT_TRUE(
        std::equal(stopped.taken[choice].begin(), stopped.taken[choice].end(), whole.begin()));
  }
  EXPECT_EQ(h.clients.at(older->value).taken[0].size(), 100u) << "the older one had room";
  EXPECT_EQ(h.core.ledger().num_open(), 0u);
  h.core.check_invariants();
}

TEST(ServingCore, AShrunkStreamIsExtendedWhenItsLimitHasRoomAgain) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].limits[LimitKind::tokens_per_minute] = 1000;
  CoreLimits limits = params.limits;
  CoreHarness h(std::move(params));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5, 200));
  ASSERT_TRUE(handle);
  h.step(0);
  h.deliver();
  limits.accounts[0].limits[LimitKind::tokens_per_minute] = 120;
  h.core.reload(limits, QueueParams{}, std::chrono::seconds(60), h.now);
  for (int i = 0; i < 50; ++i) {
    h.step(0);
    h.deliver();
  }
  h.now += std::chrono::seconds(62);  // what it spent is older than a minute
  for (int i = 0; i < 90; ++i) {
    h.step(0);
    h.deliver();
  }
  EXPECT_FALSE(h.clients.at(handle->value).failure);
  EXPECT_EQ(h.clients.at(handle->value).taken[0].size(), 141u);
}

TEST(ServingCore, ALoweredLimitStopsTheNewestStreamsWithinTheReload) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].limits[LimitKind::tokens_per_minute] = 1000;
  CoreLimits limits = params.limits;
  CoreHarness h(std::move(params));
  h.up(0);
  const auto older = h.submit(CoreHarness::spec(5, 100));
  const auto newer = h.submit(CoreHarness::spec(6, 100));
  ASSERT_TRUE(older && newer);
  h.step(0);
  h.deliver();
  limits.accounts[0].limits[LimitKind::tokens_per_minute] = 141;
  h.core.reload(limits, QueueParams{}, std::chrono::seconds(60), h.now);
  h.carry_out();
  EXPECT_FALSE(h.core.is_live(*newer));
  EXPECT_TRUE(h.core.is_live(*older));
  EXPECT_TRUE(h.workers[0].sequences[1].is_cancelled) << "the worker was not told at once";
  h.deliver();
  EXPECT_EQ(h.clients.at(newer->value).failure->code, Errc::tokens_rate_limited);
  EXPECT_EQ(h.core.limits(AccountId{0}, h.now).tokens_remaining, 141u - 21 - 120)
      << "the prompt and the one accepted token are billed";
  limits.accounts[0].standing = Standing::revoked;
  h.core.reload(limits, QueueParams{}, std::chrono::seconds(60), h.now);
  h.carry_out();
  h.deliver();
  EXPECT_EQ(h.clients.at(older->value).failure->code, Errc::invalid_api_key);
  h.core.check_invariants();
}

TEST(ServingCore, AnIncrementalStreamEndsAtTheBorderWhereNoMoreIsReserved) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].mode = ReservationMode::incremental;
  params.limits.accounts[0].limits[LimitKind::tokens_per_minute] = 20 + 2 * kGrantTokens + 10;
  CoreHarness h(std::move(params));
  h.up(0);
  GenerationSpec spec = CoreHarness::spec(5, 1000);
  spec.stop_ids.clear();
  const auto handle = h.submit(spec);
  ASSERT_TRUE(handle) << "the whole bound would never fit";
  Client& client = h.clients.at(handle->value);
  for (std::uint32_t i = 1; i <= 2 * kGrantTokens; ++i) {
    h.step(0);
    if (i % 3 == 0) h.deliver();  // several tokens, and the one beyond the border, in one delivery
    ASSERT_FALSE(client.failure) << i;
  }
  h.step(0);
  h.deliver();
  ASSERT_TRUE(client.failure);
  EXPECT_EQ(client.failure->code, Errc::tokens_rate_limited);
  EXPECT_TRUE(client.failure->retry_after);
  EXPECT_EQ(client.taken[0].size(), 2u * kGrantTokens) << "it ends at the border, not before";
  EXPECT_EQ(h.billed(), 2u * kGrantTokens);
  EXPECT_EQ(h.core.counters(0).discarded[static_cast<std::size_t>(DiscardCause::limit)], 1u);
  EXPECT_TRUE(h.workers[0].sequences[0].is_cancelled);
  EXPECT_EQ(h.core.ledger().used(AccountId{0}, LimitKind::tokens_per_minute, h.now),
            20u + 2 * kGrantTokens);
  h.core.check_invariants();
}

TEST(ServingCore, AQuantileReservationLearnsHowLongAnswersAre) {
  CoreParams params = CoreHarness::params(1);
  params.limits.accounts[0].mode = ReservationMode::quantile;
  CoreHarness h(std::move(params));
  h.up(0);
  const auto held = [&] {
    return h.core.ledger().used(AccountId{0}, LimitKind::concurrent_kv_tokens, h.now);
  };
  for (std::uint64_t seed = 0; seed < OutputPredictor::kSeenMin; ++seed) {
    GenerationSpec spec = CoreHarness::spec(seed, 12);
    spec.stop_ids.clear();
    ASSERT_TRUE(h.submit(spec));
    EXPECT_EQ(held(), 20u + 12);
    for (int i = 0; i < 12; ++i) h.step(0);
    h.deliver();
    EXPECT_EQ(held(), 0u);
  }
  GenerationSpec spec = CoreHarness::spec(99, 500);
  spec.stop_ids.clear();
  const auto longer = h.submit(spec);
  ASSERT_TRUE(longer);
  EXPECT_LE(held(), 20u + 15);
  for (int i = 0; i < 500; ++i) h.step(0);
  h.deliver();
  EXPECT_EQ(h.clients.at(longer->value).taken[0].size(), 500u) << "a wrong prediction stops nobody";
  h.core.check_invariants();
}

TEST(ServingCore, AHandleThatEndedIsIgnored) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(5));
  h.cancel(*handle);
  h.core.cancel(*handle, CancelCause::client_gone, h.now);
  h.core.stop(*handle, 0, h.now);
  h.core.accept(*handle, 0, 1, h.now);
  EXPECT_TRUE(h.core.pending(*handle, 0).empty());
  EXPECT_TRUE(h.core.pending(GenerationHandle{}, 0).empty());
  EXPECT_TRUE(h.core.pending(GenerationHandle{~0ull}, 0).empty());
  h.carry_out();
}

// Entries of one sequence that wants `num_top` alternatives.
struct ScoredSteps {
  CoreHarness& h;
  std::uint32_t num_top;
  std::vector<StepEntry> entries{};
  std::vector<TopLogprob> top{};

  std::uint64_t running() const { return h.workers[0].sequences[0].head.sequence; }
  void add(EntryKind kind, std::uint32_t position, TokenId token) {
    StepEntry entry{};
    entry.sequence = running();
    entry.kind = kind;
    entry.position = position;
    entry.token = token;
    entry.logprob = -0.25f * static_cast<float>(position + 1);
    entry.num_top = static_cast<std::uint8_t>(num_top);
    entries.push_back(entry);
    for (std::uint32_t rank = 0; rank < num_top; ++rank)
      top.push_back({token + rank, entry.logprob - static_cast<float>(rank)});
    h.workers[0].generated += kind == EntryKind::token ? 1 : 0;
  }
  void publish() {
    h.publish(0, entries, top);
    entries.clear();
    top.clear();
  }
};

GenerationSpec scored_spec(std::uint32_t output_max, std::uint16_t num_top) {
  GenerationSpec spec = CoreHarness::spec(5, output_max, 1, 6);
  spec.sampling.wants_logprob = 1;
  spec.sampling.num_top_logprobs = num_top;
  spec.prompt_scores = PromptScores::wanted;
  return spec;
}

TEST(ServingCore, LogprobsOfPromptAndOutputReachTheClientOverTheEndOfAnEpoch) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const GenerationSpec spec = scored_spec(8, 2);
  const GenerationHandle handle = *h.submit(spec);
  h.slow.insert(handle.value);
  ScoredSteps steps{h, 2};
  EXPECT_EQ(h.workers[0].sequences[0].head.prompt_logprobs_from, 1u);
  for (std::uint32_t i = 1; i < 4; ++i) steps.add(EntryKind::prompt_token, i, spec.prompt[i]);
  steps.publish();
  EXPECT_TRUE(h.core.notices().empty()) << "they come with the first token";
  h.down(0, DownReason::killed, {});
  h.up(0);
  EXPECT_EQ(h.workers[0].sequences[0].head.prompt_logprobs_from, 4u) << "what is missing";
  for (std::uint32_t i = 4; i < 6; ++i) steps.add(EntryKind::prompt_token, i, spec.prompt[i]);
  steps.add(EntryKind::token, 0, 9);
  steps.add(EntryKind::token, 1, 10);
  steps.publish();
  const PromptResult result = h.core.prompt_result(handle, 0);
  ASSERT_EQ(result.logprobs.size(), 5u);
  for (std::uint32_t i = 1; i < 6; ++i)
    EXPECT_EQ(result.logprobs[i - 1], -0.25f * static_cast<float>(i + 1));
  ASSERT_EQ(result.top.size(), 10u);
  EXPECT_EQ(result.top[9], (TopLogprob{spec.prompt[5] + 1, -2.5f}));
  EXPECT_EQ(result.finish, FinishReason::none);
  ASSERT_EQ(h.core.pending_top(handle, 0).size(), 4u);
  h.take(handle, 0, 1);
  const auto top = h.core.pending_top(handle, 0);
  ASSERT_EQ(top.size(), 2u);
  EXPECT_EQ(top[0], (TopLogprob{10, -0.5f}));
  h.down(0, DownReason::killed, {});
  h.up(0);
  EXPECT_EQ(h.workers[0].sequences[0].head.prompt_logprobs_from, 0u) << "all are here";
  EXPECT_EQ(h.core.pending_top(handle, 0).size(), 2u);
  EXPECT_TRUE(h.reported_corrupt.empty());
}

TEST(ServingCore, APromptAloneIsBilledAndEndsWithoutATokenToAccept) {
  CoreHarness h(CoreHarness::params(1));
  WorkerFacts facts = test_facts();
  facts.embedding_size = 2;
  h.up(0, facts);
  GenerationSpec spec = CoreHarness::spec(5, 0, 1, 6);
  spec.task = SequenceTask::embed;
  const GenerationHandle handle = *h.submit(spec);
  EXPECT_EQ(h.workers[0].sequences[0].head.task, SequenceTask::embed);
  StepEntry entry{};
  entry.sequence = h.workers[0].sequences[0].head.sequence;
  entry.kind = EntryKind::prompt_finished;
  entry.finish = FinishReason::length;
  entry.num_values = 2;
  const float values[] = {0.6f, -0.8f};
  h.publish(0, std::span(&entry, 1), {}, values);
  h.workers[0].sequences.clear();
  EXPECT_TRUE(h.reported_corrupt.empty());
  ASSERT_EQ(h.core.notices().size(), 1u);
  const PromptResult result = h.core.prompt_result(handle, 0);
  EXPECT_EQ(result.finish, FinishReason::length);
  ASSERT_EQ(result.embedding.size(), 2u);
  EXPECT_EQ(result.embedding[1], -0.8f);
  h.take(handle, 0, 0);
  EXPECT_FALSE(h.core.is_live(handle));
  EXPECT_EQ(h.core.num_live_requests(), 0u);
  EXPECT_EQ(h.billed_prompt, 6u);
  EXPECT_EQ(h.billed(), 0u);
  EXPECT_EQ(h.core.counters(0).generated, 0u);
}

TEST(ServingCore, ScoresThatWereNotAskedForOrAreOutOfOrderAreCorrupt) {
  struct Case {
    const char* name;
    void (*make)(ScoredSteps&, const GenerationSpec&);
  };
  const Case cases[] = {
      {"a token before the prompt's",
       [](ScoredSteps& s, const GenerationSpec&) { s.add(EntryKind::token, 0, 9); }},
      {"a gap", [](ScoredSteps& s,
                   const GenerationSpec& g) { s.add(EntryKind::prompt_token, 2, g.prompt[2]); }},
      {"twice",
       [](ScoredSteps& s, const GenerationSpec& g) {
         for (int i = 0; i < 2; ++i) s.add(EntryKind::prompt_token, 1, g.prompt[1]);
       }},
      {"another token",
       [](ScoredSteps& s, const GenerationSpec& g) {
         s.add(EntryKind::prompt_token, 1, (g.prompt[1] + 1) % kTestVocab);
       }},
      {"too few alternatives",
       [](ScoredSteps& s, const GenerationSpec& g) {
         s.num_top = 1;
         s.add(EntryKind::prompt_token, 1, g.prompt[1]);
       }},
      {"an alternative outside the vocabulary",
       [](ScoredSteps& s, const GenerationSpec& g) {
         s.add(EntryKind::prompt_token, 1, g.prompt[1]);
         s.top[1].token = kTestVocab;
       }},
      {"more than the prompt",
       [](ScoredSteps& s, const GenerationSpec& g) {
         for (std::uint32_t i = 1; i < 6; ++i) s.add(EntryKind::prompt_token, i, g.prompt[i]);
         s.add(EntryKind::prompt_token, 6, 1);
       }},
      {"an end though output is wanted",
       [](ScoredSteps& s, const GenerationSpec& g) {
         for (std::uint32_t i = 1; i < 6; ++i) s.add(EntryKind::prompt_token, i, g.prompt[i]);
         s.num_top = 0;
         s.add(EntryKind::prompt_finished, 0, 0);
         s.entries.back().finish = FinishReason::length;
       }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    CoreHarness h(CoreHarness::params(1));
    h.up(0);
    const GenerationSpec spec = scored_spec(8, 2);
    ASSERT_TRUE(h.submit(spec));
    ScoredSteps steps{h, 2};
    c.make(steps, spec);
    steps.publish();
    EXPECT_EQ(h.reported_corrupt.size(), 1u);
  }
}

TEST(ServingCore, AnEmbeddingOfAnotherSizeIsCorrupt) {
  CoreHarness h(CoreHarness::params(1));
  WorkerFacts facts = test_facts();
  facts.embedding_size = 3;
  h.up(0, facts);
  GenerationSpec spec = CoreHarness::spec(5, 0, 1, 6);
  spec.task = SequenceTask::embed;
  ASSERT_TRUE(h.submit(spec));
  StepEntry entry{};
  entry.sequence = h.workers[0].sequences[0].head.sequence;
  entry.kind = EntryKind::prompt_finished;
  entry.finish = FinishReason::length;
  entry.num_values = 2;
  const float values[] = {0.6f, -0.8f};
  h.publish(0, std::span(&entry, 1), {}, values);
  EXPECT_EQ(h.reported_corrupt.size(), 1u);
}

TEST(ServingCore, AThousandStepsAllocateNothing) {
  CoreParams params = CoreHarness::params(1);
  CoreHarness h(std::move(params));
  h.up(0);
  std::vector<GenerationHandle> handles;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    handles.push_back(*h.submit(CoreHarness::spec(seed, 2000)));
  std::vector<StepEntry> entries(4);
  for (std::size_t s = 0; s < 4; ++s) {
    entries[s].sequence = h.workers[0].sequences[s].head.sequence;
    entries[s].kind = EntryKind::token;
  }
  const std::uint64_t before = allocation_count();
  for (std::uint32_t step = 0; step < 1000; ++step) {
    for (StepEntry& entry : entries) {
      entry.position = step;
      entry.token = step % kTestVocab;
    }
    h.workers[0].generated += 4;
    h.core.step(WorkerId{0}, {h.head(0, 4), entries}, h.now);
    for (const Notice& notice : h.core.notices()) {
      ASSERT_TRUE(h.core.take_token_notice(notice));
      h.core.accept(notice.handle, notice.choice, 1, h.now);
    }
    h.core.notices().clear();
    h.core.commands().clear();
  }
  EXPECT_EQ(allocation_count(), before);
  EXPECT_EQ(h.core.counters(0).accepted, 4000u);
}

// The store of shared limits, as far as the core sees it: grants what the test says.
LeaseAnswers exchange_with(CoreHarness& h, std::uint64_t granted) {
  LeaseAnswers answers;
  for (const LeaseAsk& ask : h.core.begin_exchange(64, h.now)) {
    LeaseAnswer& answer = answers.answers.emplace_back();
    answer.granted = std::min(granted, ask.want);
    answer.retry_after = std::chrono::seconds(30);
  }
  return answers;
}

class SharedLimits : public testing::Test {
 protected:
  static constexpr std::uint32_t kPrompt = 20;
  SharedLimits() : h(params()) {
    h.up(0);
    h.core.store_connected(Duration{0}, h.now);
    spec = CoreHarness::spec(5, 1000);
    spec.stop_ids.clear();
  }
  static CoreParams params() {
    CoreParams made = CoreHarness::params(1);
    made.limits.accounts[0].mode = ReservationMode::incremental;
    made.limits.accounts[0].limits[LimitKind::tokens_per_minute] = 100'000;
    made.leases.emplace();
    made.leases->block_permille = 0;
    return made;
  }
  Result<LeaseState> lease(std::uint64_t since) {
    return h.core.lease(spec, TenantId{0}, AccountId{0}, since, h.now);
  }
  // Leased and submitted; it runs up to its first border.
  Client& start() {
    const std::uint64_t since = h.core.leases()->next_exchange();
    EXPECT_EQ(lease(since).value(), LeaseState::pending);
    h.core.end_exchange(exchange_with(h, kPrompt + kGrantTokens), h.now);
    EXPECT_EQ(lease(since).value(), LeaseState::ready);
    handle = h.submit(spec).value();
    for (std::uint32_t i = 0; i < kGrantTokens; ++i) step();
    return h.clients.at(handle.value);
  }
  void step() {
    h.step(0);
    h.deliver();
  }
  CoreHarness h;
  GenerationSpec spec;
  GenerationHandle handle;
};

TEST_F(SharedLimits, NothingIsAdmittedThatIsNotLeased) {
  EXPECT_EQ(h.submit(spec).error().code, Errc::quota_store_unavailable);
  EXPECT_EQ(lease(1).value(), LeaseState::pending);
  h.core.end_exchange(exchange_with(h, kPrompt + kGrantTokens - 1), h.now);
  const auto refused = lease(1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::tokens_rate_limited);
  EXPECT_EQ(refused.error().retry_after, std::chrono::seconds(30));
  h.core.store_lost();
  EXPECT_EQ(lease(9).error().code, Errc::quota_store_unavailable);
  h.core.store_connected(std::chrono::seconds(2), h.now);
  EXPECT_EQ(lease(9).error().retry_after, std::chrono::seconds(2)) << "it settles";
}

TEST_F(SharedLimits, AStreamAtItsBorderWaitsForTheStoreAndGoesOn) {
  Client& client = start();
  EXPECT_EQ(client.taken[0].size(), kGrantTokens);
  for (int i = 0; i < 150; ++i) step();  // the engine goes on, the client gets nothing
  EXPECT_EQ(client.taken[0].size(), kGrantTokens);
  h.core.check_invariants();
  h.core.end_exchange(exchange_with(h, kGrantTokens), h.now);
  h.deliver();
  EXPECT_EQ(client.taken[0].size(), 2 * kGrantTokens);
  h.core.end_exchange(exchange_with(h, kGrantTokens), h.now);
  h.deliver();
  EXPECT_EQ(client.taken[0].size(), 3 * kGrantTokens);
  EXPECT_FALSE(client.failure);
  h.core.end_exchange(exchange_with(h, 0), h.now);
  h.deliver();
  ASSERT_TRUE(client.failure);
  EXPECT_EQ(client.failure->code, Errc::tokens_rate_limited);
  EXPECT_EQ(client.taken[0].size(), 3 * kGrantTokens) << "it ends at the border, not before";
  EXPECT_EQ(h.billed(), 3u * kGrantTokens);
  h.core.check_invariants();
}

TEST_F(SharedLimits, AStreamThatWaitsTooLongForTheStoreEnds) {
  Client& client = start();
  step();
  const auto due = h.core.next_due();
  ASSERT_TRUE(due);
  EXPECT_EQ(*due, h.now + CoreParams{}.lease_wait_max);
  h.now = *due;
  h.core.tick(h.now);
  h.deliver();
  ASSERT_TRUE(client.failure);
  EXPECT_EQ(client.failure->code, Errc::quota_store_unavailable);
  EXPECT_EQ(h.billed(), kGrantTokens);
  h.core.end_exchange(exchange_with(h, kGrantTokens), h.now);
  h.core.check_invariants();
}

}  // namespace
}  // namespace sluice::gw
