// WorkerBreaker: what ejects a worker, what does not, the way back, the retry budget; then random
// events against what an outsider knows: never all workers are refused, retries stay in their
// budget, a worker comes back.
#include "gateway/core/worker_breaker.h"

#include <gtest/gtest.h>

#include <vector>

#include "shared/random.h"
#include "tests/support/seed.h"

namespace sluice::gw {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr WorkerId kFirst{0}, kSecond{1};

struct Fixture {
  WorkerBreakerParams params;
  WorkerBreaker breaker{params, 3, 2};
  Tick now{seconds(1000)};

  Fixture() {
    breaker.up(kFirst, 0, now);
    breaker.up(kSecond, 0, now);
  }
  void run(WorkerId worker, WorkerEnd end) {
    const bool is_probe = breaker.dispatched(worker, DispatchKind::first, now);
    breaker.ended(worker, end, is_probe, now);
  }
  void crash(WorkerId worker, DownReason reason) {
    breaker.down(worker, reason, now);
    breaker.up(worker, 0, now);
  }
  void slow_down(WorkerId worker, int steps) {
    for (int i = 0; i < 20; ++i) breaker.step(worker, milliseconds(20), 64, now);
    for (int i = 0; i < steps; ++i) breaker.step(worker, milliseconds(400), 64, now);
  }
};

TEST(WorkerBreaker, EjectsAfterFailuresInARowAndAGoodEndStartsAnew) {
  Fixture f;
  f.crash(kFirst, DownReason::crashed);
  f.crash(kFirst, DownReason::corrupt);
  f.run(kFirst, WorkerEnd::good);
  f.crash(kFirst, DownReason::crashed);
  f.crash(kFirst, DownReason::crashed);
  EXPECT_TRUE(f.breaker.can_take(kFirst, f.now));
  f.crash(kFirst, DownReason::crashed);
  EXPECT_FALSE(f.breaker.can_take(kFirst, f.now));
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::failures);
  EXPECT_TRUE(f.breaker.can_take(kSecond, f.now));
}

TEST(WorkerBreaker, AWrongGoldenDigestReopensAndSaysSo) {
  Fixture f;
  f.crash(kFirst, DownReason::stalled);
  f.now += f.params.open_min;
  ASSERT_TRUE(f.breaker.can_take(kFirst, f.now));
  f.run(kFirst, WorkerEnd::wrong_golden);
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::open);
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::golden_digest);
  EXPECT_EQ(f.breaker.transitions(BreakerState::open, WorkerBreakerReason::golden_digest), 1u);
  EXPECT_FALSE(f.breaker.can_take(kFirst, f.now + f.params.open_min));  // the back-off grows
  EXPECT_EQ(worker_breaker_reason_name(WorkerBreakerReason::golden_digest), "golden_digest");
}

TEST(WorkerBreaker, AKillFromOutsideIsNoFailure) {
  Fixture f;
  for (int i = 0; i < 20; ++i) {
    f.crash(kFirst, DownReason::killed);
    f.crash(kFirst, DownReason::recycled);
  }
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::closed);
}

TEST(WorkerBreaker, AStallEjectsAtOnce) {
  Fixture f;
  f.crash(kFirst, DownReason::stalled);
  EXPECT_FALSE(f.breaker.can_take(kFirst, f.now));
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::stall);
}

TEST(WorkerBreaker, BadLogitsEjectFromTheSecondInARow) {
  Fixture f;
  f.run(kFirst, WorkerEnd::bad_logits);
  f.run(kFirst, WorkerEnd::good);
  f.run(kFirst, WorkerEnd::bad_logits);
  f.run(kFirst, WorkerEnd::neutral);
  EXPECT_TRUE(f.breaker.can_take(kFirst, f.now));
  f.run(kFirst, WorkerEnd::bad_logits);
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::bad_logits);
}

TEST(WorkerBreaker, ManySlowStepsEjectAndAFewDoNot) {
  Fixture f;
  f.slow_down(kFirst, static_cast<int>(f.params.slow_steps_max) - 1);
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::closed);
  f.breaker.step(kFirst, seconds(1), 64, f.now);
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::slow_steps);
}

TEST(WorkerBreaker, LargerStepsMayTakeLongerAndShortOnesAreNeverSlow) {
  Fixture f;
  for (int i = 0; i < 100; ++i) {
    f.breaker.step(kFirst, milliseconds(1), 1, f.now);
    f.breaker.step(kFirst, milliseconds(600), 512, f.now);
    f.breaker.step(kSecond, milliseconds(i % 2 == 0 ? 1 : 90), 1, f.now);
  }
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::closed);
  EXPECT_EQ(f.breaker.view(kSecond).state, BreakerState::closed);
}

TEST(WorkerBreaker, ALastingChangeIsLearned) {
  Fixture f;
  f.slow_down(kFirst, 200);
  const auto openings = f.breaker.transitions(BreakerState::open, WorkerBreakerReason::slow_steps);
  EXPECT_EQ(openings, 1u);
  f.now += f.params.open_min;
  for (std::uint32_t i = 0; i < f.params.probes; ++i) f.run(kFirst, WorkerEnd::good);
  for (int i = 0; i < 100; ++i) f.breaker.step(kFirst, milliseconds(400), 64, f.now);
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::closed);
}

TEST(WorkerBreaker, ProbesOneAtATimeCloseItAndABadOneDoublesTheWait) {
  Fixture f;
  f.crash(kFirst, DownReason::stalled);
  f.now += f.params.open_min - Duration{1};
  EXPECT_FALSE(f.breaker.can_take(kFirst, f.now));
  f.now += Duration{1};
  ASSERT_TRUE(f.breaker.can_take(kFirst, f.now));
  EXPECT_TRUE(f.breaker.dispatched(kFirst, DispatchKind::first, f.now));
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::half_open);
  EXPECT_FALSE(f.breaker.can_take(kFirst, f.now)) << "one is under way";
  f.breaker.ended(kFirst, WorkerEnd::bad_logits, true, f.now);
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::probe_failed);
  EXPECT_EQ(f.breaker.view(kFirst).retry_at, f.now + 2 * f.params.open_min);
  EXPECT_EQ(f.breaker.next_retry(f.now), f.breaker.view(kFirst).retry_at);
  f.now += 2 * f.params.open_min;
  f.run(kFirst, WorkerEnd::neutral);
  for (std::uint32_t i = 0; i < f.params.probes; ++i) {
    EXPECT_EQ(f.breaker.view(kFirst).state,
              i == 0 ? BreakerState::half_open : f.breaker.view(kFirst).state);
    f.run(kFirst, WorkerEnd::good);
  }
  EXPECT_EQ(f.breaker.view(kFirst).state, BreakerState::closed);
}

TEST(WorkerBreaker, OpenedByForceItStaysOpenUntilReset) {
  Fixture f;
  const bool is_probe = f.breaker.dispatched(kFirst, DispatchKind::first, f.now);
  f.breaker.force_open(kFirst, f.now);
  f.breaker.force_open(kFirst, f.now);
  EXPECT_EQ(f.breaker.transitions(BreakerState::open, WorkerBreakerReason::operator_open), 1u);
  EXPECT_TRUE(f.breaker.view(kFirst).is_forced);
  f.now += f.params.open_max;
  EXPECT_FALSE(f.breaker.can_take(kFirst, f.now)) << "no probes";
  EXPECT_EQ(f.breaker.next_retry(f.now - f.params.open_max), std::nullopt);
  f.breaker.ended(kFirst, WorkerEnd::good, is_probe, f.now);
  f.crash(kFirst, DownReason::stalled);
  EXPECT_EQ(f.breaker.view(kFirst).reason, WorkerBreakerReason::operator_open);
  f.breaker.force_open(kSecond, f.now);
  EXPECT_TRUE(f.breaker.can_take(kFirst, f.now)) << "never all";
  f.breaker.reset(kSecond, f.now);
  f.breaker.reset(kFirst, f.now);
  EXPECT_TRUE(f.breaker.can_take(kFirst, f.now));
  const WorkerBreakerView view = f.breaker.view(kFirst);
  EXPECT_EQ(view.openings, 0u);
  ASSERT_EQ(view.history.size(), 2u);
  EXPECT_EQ(view.history[0].reason, WorkerBreakerReason::operator_open);
  EXPECT_EQ(view.history[1].reason, WorkerBreakerReason::operator_reset);
}

TEST(WorkerBreaker, NeverAllWorkersOfAModelAreEjected) {
  Fixture f;
  f.breaker.up(WorkerId{2}, 1, f.now);  // of another model: no help
  f.crash(kFirst, DownReason::stalled);
  f.crash(kSecond, DownReason::stalled);
  EXPECT_TRUE(f.breaker.can_take(kFirst, f.now));
  EXPECT_TRUE(f.breaker.can_take(kSecond, f.now));
  f.breaker.down(kSecond, DownReason::killed, f.now);
  EXPECT_TRUE(f.breaker.can_take(kFirst, f.now));
  EXPECT_FALSE(f.breaker.can_take(kSecond, f.now)) << "it is down";
}

TEST(WorkerBreaker, RetriesTakeFromABudgetThatDispatchesAndTimeFill) {
  Fixture f;
  for (std::uint32_t i = 0; i < f.params.retries_burst; ++i) {
    ASSERT_TRUE(f.breaker.may_retry(f.now)) << i;
    f.breaker.dispatched(kFirst, DispatchKind::retry, f.now);
  }
  EXPECT_FALSE(f.breaker.may_retry(f.now));
  for (int i = 0; i < 9; ++i) f.breaker.dispatched(kFirst, DispatchKind::first, f.now);
  EXPECT_FALSE(f.breaker.may_retry(f.now));
  f.breaker.dispatched(kFirst, DispatchKind::first, f.now);
  EXPECT_TRUE(f.breaker.may_retry(f.now)) << "a tenth of the dispatches";
  f.breaker.dispatched(kFirst, DispatchKind::retry, f.now);
  const Tick due = f.breaker.retry_due(f.now);
  EXPECT_EQ(due, f.now + f.params.retry_interval);
  EXPECT_FALSE(f.breaker.may_retry(due - Duration{1}));
  EXPECT_TRUE(f.breaker.may_retry(due));
}

TEST(WorkerBreakerProperty, KeepsItsPromisesUnderRandomEvents) {
  const std::uint64_t seed = test::test_seed(3);
  std::array<std::uint64_t, kWorkerBreakerReasons> reasons{};
  for (std::uint32_t round = 0; round < 100; ++round) {
    WorkerBreakerParams params;
    params.open_min = milliseconds(50);
    params.open_max = milliseconds(400);
    params.retries_burst = 4;
    WorkerBreaker breaker(params, 4, 2);
    std::uint32_t rolls = 0;
    const auto dice = [&](std::uint64_t bound) {
      return random_bits({seed, round, 0}, rolls++) % bound;
    };
    const Tick start{seconds(100)};
    Tick now = start;
    std::vector<bool> is_up(4, false);
    struct Held {
      WorkerId worker;
      bool is_probe;
    };
    std::vector<Held> held;
    std::uint64_t firsts = 0, retries = 0;
    for (int i = 0; i < 1500; ++i) {
      const WorkerId id{static_cast<std::uint32_t>(dice(4))};
      switch (dice(8)) {
        case 0:
          now += milliseconds(dice(30));
          break;
        case 1:
          if (!is_up[id.value]) {
            breaker.up(id, id.value % 2, now);
            is_up[id.value] = true;
          } else if (dice(6) == 0) {
            std::erase_if(held, [&](const Held& one) {
              if (one.worker != id) return false;
              breaker.ended(id, WorkerEnd::neutral, one.is_probe, now);
              return true;
            });
            breaker.down(id, static_cast<DownReason>(1 + dice(5)), now);
            is_up[id.value] = false;
          }
          break;
        case 2:
          // Half-way through, the workers of odd rounds get slow.
          if (is_up[id.value]) {
            breaker.step(id, milliseconds(round % 2 == 1 && i > 700 ? 900 : 2), 64, now);
          }
          break;
        case 3:
        case 4:
        case 5: {
          if (!is_up[id.value] || !breaker.can_take(id, now)) break;
          const bool is_retry = dice(3) == 0;
          if (is_retry && !breaker.may_retry(now)) break;
          ++(is_retry ? retries : firsts);
          const auto kind = is_retry ? DispatchKind::retry : DispatchKind::first;
          held.push_back({id, breaker.dispatched(id, kind, now)});
          break;
        }
        case 6:
          if (dice(8) == 0) breaker.force_open(id, now);
          if (dice(4) == 0) breaker.reset(id, now);
          break;
        default:
          if (held.empty()) break;
          const std::size_t at = dice(held.size());
          const bool is_wrong = held[at].is_probe && dice(6) == 0;
          const auto end = is_wrong       ? WorkerEnd::wrong_golden
                           : dice(4) == 0 ? WorkerEnd::bad_logits
                                          : WorkerEnd::good;
          breaker.ended(held[at].worker, end, held[at].is_probe, now);
          held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
      }
      breaker.check_invariants();
      for (std::uint32_t model = 0; model < 2; ++model) {
        bool any_up = false, any_takes = false;
        for (std::uint32_t w = model; w < 4; w += 2) {
          any_up |= is_up[w];
          any_takes |= breaker.can_take(WorkerId{w}, now);
        }
        ASSERT_EQ(any_up, any_takes) << "TEST_SEED=" << seed << " round " << round;
      }
      const auto by_time = static_cast<std::uint64_t>((now - start) / params.retry_interval);
      ASSERT_LE(retries, params.retries_burst + firsts / 10 + by_time + 1);
    }
    for (const WorkerBreakerEvent& event : breaker.events())
      ++reasons[static_cast<std::size_t>(event.reason)];
  }
  for (std::size_t r = 1; r < reasons.size(); ++r) {
    EXPECT_GT(reasons[r], 0u) << worker_breaker_reason_name(static_cast<WorkerBreakerReason>(r));
  }
}

}  // namespace
}  // namespace sluice::gw
