// The serving core with its circuit breakers: who is asked first, what an opening stops, and what
// it leaves alone.
#include <gtest/gtest.h>

#include "tests/unit/gateway_core/core_harness.h"

namespace sluice::gw {
namespace {

constexpr std::uint32_t kLongPrompt = 3000;  // of 4096

GenerationSpec spec_of(std::uint32_t tenant, std::uint64_t seed, std::uint32_t prompt_tokens = 20) {
  GenerationSpec spec = CoreHarness::spec(seed, 16, 1, prompt_tokens);
  spec.tenant = TenantId{tenant};
  return spec;
}

// Tenant 0 runs long prompts, tenant 1 waits behind them.
struct Flood {
  CoreParams params = CoreHarness::params(1);
  CoreHarness h{params};
  std::vector<GenerationHandle> admitted;
  GenerationHandle other;

  Flood() {
    h.up(0);
    h.publish(0, {});
    const std::uint32_t most = params.tenant_breaker.long_prompts_max;
    for (std::uint32_t i = 0; i < most; ++i) {
      const auto handle = h.submit(spec_of(0, i + 1, kLongPrompt));
      EXPECT_TRUE(handle);
      admitted.push_back(*handle);
    }
    other = *h.submit(spec_of(1, 100));
  }
  Error trip() {
    const auto refused = h.submit(spec_of(0, 99, kLongPrompt));
    EXPECT_FALSE(refused);
    h.deliver();
    return refused ? Error{} : refused.error();
  }
};

TEST(ServingCoreBreaker, AFloodIsRefusedAndWhatRunsOfItStopsWithItsOwnCode) {
  Flood f;
  ASSERT_GT(f.h.core.num_held(WorkerId{0}), 0u);
  const Error error = f.trip();
  EXPECT_EQ(error.code, Errc::tenant_circuit_open);
  EXPECT_EQ(error.retry_after, f.params.tenant_breaker.open_min);
  for (const GenerationHandle handle : f.admitted) {
    const Client& client = f.h.clients.at(handle.value);
    ASSERT_TRUE(client.failure) << "still runs or waits";
    EXPECT_EQ(client.failure->code, Errc::tenant_circuit_open);
    EXPECT_TRUE(client.failure->retry_after);
  }
  EXPECT_EQ(f.h.core.ledger().num_open(), 1u);
  // The next step takes the cancels, the one after it runs the other tenant.
  f.h.step(0);
  f.h.step(0);
  f.h.deliver();
  EXPECT_FALSE(f.h.clients.at(f.other.value).taken[0].empty());
  EXPECT_EQ(f.h.core.num_held(WorkerId{0}), 1u);
}

TEST(ServingCoreBreaker, ABurstBeforeAnybodyWaitsIsStoppedWhenSomebodyDoes) {
  CoreParams params = CoreHarness::params(1);
  CoreHarness h(params);
  h.up(0);
  h.publish(0, {});
  std::vector<GenerationHandle> admitted;
  for (std::uint32_t i = 0; i <= params.tenant_breaker.long_prompts_max; ++i) {
    const auto handle = h.submit(spec_of(0, i + 1, kLongPrompt));
    ASSERT_TRUE(handle) << "alone it may";
    admitted.push_back(*handle);
  }
  const auto other = h.submit(spec_of(1, 100));
  ASSERT_TRUE(other);
  h.deliver();
  EXPECT_EQ(h.core.tenant_breaker().view(TenantId{0}).reason, BreakerReason::long_prompts);
  for (const GenerationHandle handle : admitted) {
    ASSERT_TRUE(h.clients.at(handle.value).failure);
    EXPECT_EQ(h.clients.at(handle.value).failure->code, Errc::tenant_circuit_open);
  }
  for (int i = 0; i < 3; ++i) h.step(0);
  h.deliver();
  EXPECT_FALSE(h.clients.at(other->value).taken[0].empty());
  h.core.check_invariants();
}

TEST(ServingCoreBreaker, TheCheapCheckRefusesBeforeTokenizing) {
  Flood f;
  f.trip();
  const auto refused = f.h.core.precheck(TenantId{0}, AccountId{0}, 0, f.h.now);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::tenant_circuit_open);
  EXPECT_TRUE(f.h.core.precheck(TenantId{1}, AccountId{1}, 0, f.h.now));
  EXPECT_EQ(f.h.core.tenant_breaker().refused_in(BreakerState::open), 2u);
  f.h.now += f.params.tenant_breaker.open_min;
  EXPECT_TRUE(f.h.core.precheck(TenantId{0}, AccountId{0}, 0, f.h.now));
  EXPECT_TRUE(f.h.submit(spec_of(0, 50))) << "the probe";
}

TEST(ServingCoreBreaker, CancelsOpenItAndWhatRunsMayFinish) {
  CoreParams params = CoreHarness::params(1);
  CoreHarness h(params);
  h.up(0);
  h.publish(0, {});
  ASSERT_TRUE(h.submit(spec_of(1, 1)));
  const auto kept = h.submit(spec_of(0, 2));
  for (std::uint32_t i = 0; i < params.tenant_breaker.bad_ends_min; ++i) {
    const auto handle = h.submit(spec_of(0, 10 + i));
    ASSERT_TRUE(handle) << i;
    h.cancel(*handle);
    h.step(0);
  }
  EXPECT_EQ(h.core.tenant_breaker().view(TenantId{0}).reason, BreakerReason::bad_ends);
  EXPECT_FALSE(h.submit(spec_of(0, 3)));
  for (int i = 0; i < 40; ++i) {
    h.step(0);
    h.deliver();
  }
  EXPECT_FALSE(h.clients.at(kept->value).failure);
  EXPECT_TRUE(h.clients.at(kept->value).is_over());
}

TEST(ServingCoreBreaker, FailuresOfTheServerAreNotTheTenants) {
  CoreHarness h(CoreHarness::params(1));
  ASSERT_FALSE(h.submit(spec_of(0, 1))) << "no worker yet";
  h.up(0);
  h.publish(0, {});
  ASSERT_TRUE(h.submit(spec_of(1, 1)));
  for (std::uint32_t i = 0; i < 100; ++i) {
    const auto handle = h.submit(spec_of(0, 10 + i));
    ASSERT_TRUE(handle) << i;
    h.core.cancel(*handle, CancelCause::failed, h.now);
    h.clients.at(handle->value).is_gone = true;
    h.carry_out();
    h.step(0);
  }
  EXPECT_EQ(h.core.tenant_breaker().state(TenantId{0}), BreakerState::closed);
}

TEST(ServingCoreBreaker, AnOperatorOpensAndResets) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  h.publish(0, {});
  const auto running = h.submit(spec_of(0, 1));
  h.core.force_open(TenantId{0}, h.now);
  h.carry_out();
  h.deliver();
  EXPECT_EQ(h.clients.at(running->value).failure->code, Errc::tenant_circuit_open);
  h.now += std::chrono::hours(24);
  EXPECT_FALSE(h.submit(spec_of(0, 2)));
  h.core.reset_breaker(TenantId{0}, h.now);
  EXPECT_TRUE(h.submit(spec_of(0, 3)));
  ASSERT_EQ(h.core.breaker_events().size(), 2u);
  EXPECT_EQ(h.core.breaker_events().back().reason, BreakerReason::operator_reset);
}

TEST(ServingCoreBreaker, ADrainingWorkerFinishesAndTakesNothingNew) {
  CoreHarness h(CoreHarness::params(2));
  h.up(0);
  h.publish(0, {});
  const auto running = h.submit(spec_of(0, 1));
  ASSERT_EQ(h.core.num_held(WorkerId{0}), 1u);
  EXPECT_EQ(h.core.tenants_on(WorkerId{0}), std::vector{TenantId{0}});
  h.core.set_worker_mode(WorkerId{0}, WorkerMode::draining, Duration{}, h.now);
  const auto waiting = h.submit(spec_of(1, 2));
  for (int i = 0; i < 40; ++i) {
    h.step(0);
    h.deliver();
  }
  EXPECT_TRUE(h.clients.at(running->value).is_over());
  EXPECT_TRUE(h.clients.at(waiting->value).taken[0].empty());
  EXPECT_TRUE(h.recycled.empty());
  h.core.set_worker_mode(WorkerId{0}, WorkerMode::serving, Duration{}, h.now);
  h.carry_out();
  EXPECT_EQ(h.core.num_held(WorkerId{0}), 1u);
}

TEST(ServingCoreBreaker, ARecycledWorkerIsReplacedWhenItIsEmptyOrItsTimeIsUp) {
  CoreHarness h(CoreHarness::params(2));
  h.up(0);
  h.up(1);
  h.publish(0, {});
  h.publish(1, {});
  h.core.set_worker_mode(WorkerId{1}, WorkerMode::recycling, std::chrono::seconds(5), h.now);
  h.carry_out();
  EXPECT_EQ(h.recycled, std::vector{WorkerId{1}}) << "it runs nothing";
  const auto running = h.submit(spec_of(0, 1));
  ASSERT_EQ(h.core.num_held(WorkerId{0}), 1u);
  h.core.set_worker_mode(WorkerId{0}, WorkerMode::recycling, std::chrono::seconds(5), h.now);
  h.carry_out();
  EXPECT_EQ(h.recycled.size(), 1u);
  EXPECT_EQ(h.core.next_due(), h.now + std::chrono::seconds(5));
  h.now += std::chrono::seconds(5);
  h.core.tick(h.now);
  h.carry_out();
  ASSERT_EQ(h.recycled.size(), 2u);
  h.core.worker_down(WorkerId{0}, DownReason::recycled, {}, h.now);
  h.carry_out();
  EXPECT_EQ(h.core.worker_mode(WorkerId{0}), WorkerMode::serving);
  h.up(0);
  h.publish(0, {});
  for (int i = 0; i < 40; ++i) {
    h.step(0);
    h.deliver();
  }
  EXPECT_FALSE(h.clients.at(running->value).failure);
  EXPECT_EQ(h.clients.at(running->value).taken[0], undisturbed(spec_of(0, 1), 0));
}

// The worker gives up the sequence that it holds longest.
void give_up(CoreHarness& h, std::uint32_t worker) {
  StepEntry entry{};
  entry.sequence = h.workers[worker].sequences.front().head.sequence;
  entry.kind = EntryKind::finished;
  entry.finish = FinishReason::error;
  h.workers[worker].sequences.pop_front();
  h.publish(worker, std::span(&entry, 1));
  h.deliver();
}

TEST(ServingCoreBreaker, AWorkerWithBadLogitsGetsNoNewWorkButProbes) {
  CoreParams params = CoreHarness::params(2);
  CoreHarness h(params);
  for (std::uint32_t id = 0; id < 2; ++id) {
    h.up(id);
    h.publish(id, {});
  }
  for (std::uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(h.submit(spec_of(0, i + 1)));
  ASSERT_EQ(h.core.num_held(WorkerId{0}), 2u);
  for (int i = 0; i < 2; ++i) give_up(h, 0);
  EXPECT_EQ(h.core.worker_breaker().view(WorkerId{0}).reason, WorkerBreakerReason::bad_logits);
  for (std::uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(h.submit(spec_of(0, i + 20)));
  EXPECT_EQ(h.core.num_held(WorkerId{0}), 0u);
  EXPECT_EQ(h.core.num_held(WorkerId{1}), 6u);
  h.now += params.worker_breaker.open_min;
  ASSERT_TRUE(h.submit(spec_of(0, 30)));
  ASSERT_TRUE(h.submit(spec_of(0, 31)));
  EXPECT_EQ(h.core.num_held(WorkerId{0}), 1u) << "one probe";
  // The worker finds that it computes something else than it did: the other one runs the request.
  const SubmitRecord& probe = h.workers[0].sequences.front().head;
  EXPECT_EQ(probe.check_golden, 1u);
  EXPECT_EQ(h.workers[1].sequences.back().head.check_golden, 0u);
  const RejectRecord record{probe.sequence, static_cast<std::uint32_t>(Errc::no_healthy_worker), 1};
  h.workers[0].sequences.pop_front();
  h.core.reject(WorkerId{0}, record, h.now);
  h.carry_out();
  h.publish(0, {});
  h.deliver();
  EXPECT_EQ(h.core.num_held(WorkerId{0}), 0u);
  EXPECT_EQ(h.core.num_held(WorkerId{1}), 8u);
  EXPECT_EQ(h.workers[1].sequences.back().head.sequence, record.sequence);
  EXPECT_EQ(h.core.worker_breaker().view(WorkerId{0}).state, BreakerState::open);
  EXPECT_EQ(h.core.worker_breaker().view(WorkerId{0}).reason, WorkerBreakerReason::golden_digest);
}

TEST(ServingCoreBreaker, TheOnlyWorkerIsNeverEjected) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  h.publish(0, {});
  for (std::uint32_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(h.submit(spec_of(0, i + 1)));
    ASSERT_EQ(h.core.num_held(WorkerId{0}), 1u) << i;
    give_up(h, 0);
  }
  EXPECT_GT(
      h.core.worker_breaker().transitions(BreakerState::open, WorkerBreakerReason::bad_logits), 0u);
}

TEST(ServingCoreBreaker, ResubmissionsBeyondTheBudgetWaitAndAllAreServed) {
  CoreParams params = CoreHarness::params(2);
  params.worker_breaker.retries_burst = 1;
  params.worker_breaker.retry_permille = 0;
  CoreHarness h(params);
  h.up(0);
  h.publish(0, {});
  std::vector<GenerationHandle> handles;
  for (std::uint32_t i = 0; i < 4; ++i) handles.push_back(*h.submit(spec_of(0, i + 1)));
  ASSERT_EQ(h.core.num_held(WorkerId{0}), 4u);
  h.up(1);
  h.publish(1, {});
  h.down(0, DownReason::killed, {});
  EXPECT_EQ(h.core.num_held(WorkerId{1}), 1u);
  for (std::uint32_t i = 2; i <= 4; ++i) {
    const auto due = h.core.next_due();
    ASSERT_TRUE(due);
    EXPECT_LE(*due, h.now + params.worker_breaker.retry_interval);
    h.now = *due;
    h.core.tick(h.now);
    h.carry_out();
    EXPECT_EQ(h.core.num_held(WorkerId{1}), i);
  }
  for (int i = 0; i < 40; ++i) {
    h.step(1);
    h.deliver();
  }
  for (const GenerationHandle handle : handles) {
    const Client& client = h.clients.at(handle.value);
    EXPECT_EQ(client.taken[0], undisturbed(client.spec, 0));
  }
}

}  // namespace
}  // namespace sluice::gw
