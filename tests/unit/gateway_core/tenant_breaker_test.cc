// TenantBreaker: what trips, what does not, how it comes back; then random events and every short
// interleaving of one tenant against a model that adds up by brute force.
#include "gateway/core/tenant_breaker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "shared/random.h"
#include "tests/support/seed.h"
#include "tests/unit/gateway_core/naive_breaker.h"

namespace sluice::gw {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr TenantId kHeavy{0}, kLight{1};
constexpr TenantArrival kSmallOne{SizeClass::small, 100, 4096, 8};
constexpr TenantArrival kLongOne{SizeClass::large, 4000, 4096, 8};

struct Fixture {
  TenantBreakerParams params;
  TenantBreaker breaker{params, 3};
  Tick now{seconds(1000)};

  bool arrive(TenantId tenant, const TenantArrival& arrival) {
    return !breaker.arrive(tenant, arrival, now);
  }
  // Admits and ends at once.
  bool run(TenantId tenant, const TenantArrival& arrival, TenantEnd end) {
    if (!arrive(tenant, arrival)) return false;
    const ProbeTicket ticket = breaker.admit(tenant, arrival.size, now);
    breaker.end(tenant, end, ticket, now);
    return true;
  }
  void have_light_wait() {
    breaker.admit(kLight, SizeClass::small, now);
    breaker.queued(kLight, now);
  }
  // One unit of heavy use each 100 ms.
  void use(Duration span, std::uint64_t prompt_tokens) {
    for (const Tick until = now + span; now < until; now += milliseconds(100)) {
      breaker.prefilled(kHeavy, prompt_tokens, now);
    }
  }
  void burst() {
    have_light_wait();
    for (std::uint32_t i = 0; i <= params.long_prompts_max; ++i) arrive(kHeavy, kLongOne);
  }
};

TEST(TenantBreaker, ATenantAloneNeverTrips) {
  Fixture f;
  f.breaker.admit(kHeavy, SizeClass::large, f.now);
  f.breaker.queued(kHeavy, f.now);
  f.breaker.took_kv(kHeavy, 1'000'000, f.now);
  for (int i = 0; i < 1000; ++i) {
    f.use(milliseconds(100), 100'000);
    EXPECT_TRUE(f.run(kHeavy, kLongOne, TenantEnd::bad));
  }
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::closed);
  EXPECT_TRUE(f.breaker.events().empty());
}

TEST(TenantBreaker, HeavyUseIsNoFaultWhileNobodyWaits) {
  Fixture f;
  f.breaker.admit(kLight, SizeClass::small, f.now);  // has work, but it runs
  f.breaker.admit(kHeavy, SizeClass::large, f.now);
  f.breaker.took_kv(kHeavy, 1'000'000, f.now);
  f.use(seconds(60), 100'000);
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::closed);
}

TEST(TenantBreaker, ThrottlesThenOpensWhoTakesMoreThanItsShareWhileOthersWait) {
  Fixture f;
  f.breaker.admit(kHeavy, SizeClass::large, f.now);
  f.have_light_wait();
  f.use(seconds(2), 1000);
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::throttled);
  EXPECT_EQ(f.breaker.view(kHeavy).reason, BreakerReason::prefill_share);
  EXPECT_FALSE(f.arrive(kHeavy, kSmallOne)) << "it had more than its share of the prefill";
  EXPECT_TRUE(f.arrive(kLight, kSmallOne));
  f.use(seconds(11), 1000);
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::open);
  EXPECT_EQ(f.breaker.take_to_stop(), std::vector{kHeavy});
  EXPECT_TRUE(f.breaker.take_to_stop().empty());
}

TEST(TenantBreaker, HeldMemoryCountsByTime) {
  Fixture f;
  f.breaker.admit(kHeavy, SizeClass::large, f.now);
  f.breaker.took_kv(kHeavy, 9000, f.now);
  f.have_light_wait();
  f.breaker.took_kv(kLight, 1000, f.now);
  for (int i = 0; i < 20; ++i) {
    f.now += milliseconds(100);
    f.breaker.took_kv(kHeavy, 1, f.now);
  }
  EXPECT_EQ(f.breaker.view(kHeavy).reason, BreakerReason::kv_share);
  EXPECT_EQ(f.breaker.state(kLight), BreakerState::closed);
}

TEST(TenantBreaker, AThrottledTenantThatBehavesAgainCloses) {
  Fixture f;
  f.breaker.admit(kHeavy, SizeClass::large, f.now);
  f.have_light_wait();
  f.use(seconds(2), 1000);
  ASSERT_EQ(f.breaker.state(kHeavy), BreakerState::throttled);
  f.now += seconds(20);
  EXPECT_TRUE(f.arrive(kHeavy, kSmallOne));
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::closed);
  EXPECT_EQ(f.breaker.view(kHeavy).reason, BreakerReason::calm);
}

TEST(TenantBreaker, TripsOnTheRateOfBadEndsOnlyFromAMinimumOn) {
  Fixture f;
  f.breaker.admit(kLight, SizeClass::small, f.now);
  for (std::uint32_t i = 1; i < f.params.bad_ends_min; ++i) {
    EXPECT_TRUE(f.run(kHeavy, kSmallOne, i % 10 == 0 ? TenantEnd::good : TenantEnd::bad));
    EXPECT_TRUE(f.run(kHeavy, kSmallOne, TenantEnd::neutral));
  }
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::closed);
  f.run(kHeavy, kSmallOne, TenantEnd::bad);
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::open);
  EXPECT_FALSE(f.breaker.has_to_stop()) << "what runs may finish";
}

TEST(TenantBreaker, ABurstOfLongPromptsOpensAndAFloodThatGoesOnGetsNoProbe) {
  Fixture f;
  f.burst();
  EXPECT_EQ(f.breaker.view(kHeavy).reason, BreakerReason::long_prompts);
  EXPECT_TRUE(f.breaker.has_to_stop());
  for (int i = 0; i < 3000; ++i) {
    f.now += milliseconds(100);
    EXPECT_FALSE(f.arrive(kHeavy, kLongOne)) << i;
  }
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::half_open);
  EXPECT_TRUE(f.arrive(kHeavy, kSmallOne)) << "a small one may probe meanwhile";
}

TEST(TenantBreaker, RequestsRefusedBeforeTheirSizeIsKnownCountAfterABurst) {
  Fixture f;
  f.burst();
  while (f.breaker.check(kHeavy, f.now)) {
    f.now += milliseconds(100);
    f.run(kLight, kSmallOne, TenantEnd::good);
    if (f.breaker.check(kHeavy, f.now)) f.breaker.count_refusal(kHeavy);
  }
  EXPECT_FALSE(f.arrive(kHeavy, kLongOne)) << "the flood goes on";
  EXPECT_TRUE(f.arrive(kHeavy, kSmallOne));
  f.now += f.params.window + f.params.window / 8;
  EXPECT_TRUE(f.arrive(kHeavy, kLongOne)) << "it is over";
}

TEST(TenantBreaker, RetryAfterIsWhenTheProbeIsDue) {
  Fixture f;
  f.burst();
  f.now += seconds(2);
  const auto after = f.breaker.check(kHeavy, f.now);
  ASSERT_TRUE(after);
  EXPECT_EQ(f.breaker.arrive(kHeavy, kSmallOne, f.now), after);
  f.now += *after - Duration{1};
  EXPECT_FALSE(f.arrive(kHeavy, kSmallOne));
  f.now += Duration{1};
  EXPECT_FALSE(f.breaker.check(kHeavy, f.now));
  EXPECT_TRUE(f.arrive(kHeavy, kSmallOne));
}

TEST(TenantBreaker, OneProbePerSizeClassAndEnoughGoodOnesClose) {
  Fixture f;
  f.burst();
  f.now += f.params.open_min + f.params.window;
  ASSERT_TRUE(f.arrive(kHeavy, kSmallOne));
  const ProbeTicket small = f.breaker.admit(kHeavy, SizeClass::small, f.now);
  EXPECT_FALSE(f.arrive(kHeavy, kSmallOne));
  ASSERT_TRUE(f.arrive(kHeavy, kLongOne));
  const ProbeTicket large = f.breaker.admit(kHeavy, SizeClass::large, f.now);
  f.breaker.end(kHeavy, TenantEnd::neutral, small, f.now);
  EXPECT_TRUE(f.run(kHeavy, kSmallOne, TenantEnd::good));
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::half_open);
  f.breaker.end(kHeavy, TenantEnd::good, large, f.now);
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::closed);
}

TEST(TenantBreaker, BackOffDoublesIsBoundedAndForgotten) {
  Fixture f;
  f.burst();
  std::vector<Duration> waits;
  for (int i = 0; i < 9; ++i) {
    waits.push_back(f.breaker.view(kHeavy).retry_at - f.now);
    f.now = f.breaker.view(kHeavy).retry_at + f.params.window;
    ASSERT_TRUE(f.run(kHeavy, kSmallOne, TenantEnd::bad));
    ASSERT_EQ(f.breaker.view(kHeavy).reason, BreakerReason::probe_failed);
  }
  for (std::size_t i = 1; i < waits.size(); ++i) {
    EXPECT_EQ(waits[i], std::min(2 * waits[i - 1], f.params.open_max));
  }
  EXPECT_EQ(waits.back(), f.params.open_max);
  f.now += f.params.open_max;
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(f.run(kHeavy, kSmallOne, TenantEnd::good));
  f.now += f.params.open_max;
  f.burst();
  EXPECT_EQ(f.breaker.view(kHeavy).retry_at - f.now, f.params.open_min);
}

TEST(TenantBreaker, AnOperatorsOpeningHoldsUntilItsReset) {
  Fixture f;
  f.breaker.force_open(kHeavy, f.now);
  EXPECT_TRUE(f.breaker.has_to_stop());
  f.now += seconds(100'000);
  EXPECT_FALSE(f.arrive(kHeavy, kSmallOne));
  EXPECT_TRUE(f.breaker.check(kHeavy, f.now));
  f.breaker.reset(kHeavy, f.now);
  EXPECT_TRUE(f.arrive(kHeavy, kSmallOne));
  EXPECT_EQ(f.breaker.view(kHeavy).history.size(), 2u);
}

TEST(TenantBreaker, HistoryAndEventsAreBounded) {
  Fixture f;
  for (int i = 0; i < 5000; ++i) {
    f.breaker.force_open(kHeavy, f.now);
    f.breaker.reset(kHeavy, f.now);
  }
  EXPECT_EQ(f.breaker.view(kHeavy).history.size(), kBreakerHistory);
  EXPECT_EQ(f.breaker.events().size(), kBreakerEventsMax);
  EXPECT_EQ(f.breaker.transitions(BreakerState::open, BreakerReason::operator_open), 5000u);
}

TEST(TenantBreaker, SwitchedOffItOnlyObeysTheOperator) {
  Fixture f;
  f.params.is_enabled = false;
  f.breaker.set_params(f.params);
  f.burst();
  EXPECT_EQ(f.breaker.state(kHeavy), BreakerState::closed);
  f.breaker.force_open(kHeavy, f.now);
  EXPECT_FALSE(f.arrive(kHeavy, kSmallOne));
}

TEST(SlotSum, KeepsTheCurrentSlotAndSevenBefore) {
  SlotSum sum;
  for (std::int64_t slot = 100; slot < 200; ++slot) {
    sum.add(slot, 3);
    EXPECT_EQ(sum.sum(slot), 3u * static_cast<std::uint64_t>(std::min<std::int64_t>(slot - 99, 8)));
  }
  EXPECT_EQ(sum.sum(50), 24u) << "time stands still";
  EXPECT_EQ(sum.sum(203), 12u);
  EXPECT_EQ(sum.sum(1'000'000), 0u);
  sum.add(1'000'000, ~0ull);
  sum.add(1'000'000, ~0ull);
  EXPECT_EQ(sum.sum(1'000'000), ~0ull / 4) << "saturates";
}

// Both at once; what differs is named.
class Pair {
 public:
  explicit Pair(const TenantBreakerParams& params) : breaker_(params, 3), naive_(params, 3) {}
  struct Live {
    std::uint32_t tenant;
    ProbeTicket ticket, naive;
  };

  void pass(Duration span) { now_ += span; }
  void arrive(std::uint32_t id, const TenantArrival& arrival) {
    const auto check = breaker_.check(TenantId{id}, now_);
    const auto refused = breaker_.arrive(TenantId{id}, arrival, now_);
    ASSERT_EQ(refused, naive_.arrive(id, arrival, now_));
    ASSERT_TRUE(!check || refused) << "the cheap check refused what may pass";
    if (refused) return;
    live.push_back({id, breaker_.admit(TenantId{id}, arrival.size, now_),
                    naive_.admit(id, arrival.size, now_)});
    ASSERT_EQ(live.back().ticket.opening, live.back().naive.opening);
  }
  void end(std::size_t at, TenantEnd end) {
    const Live gone = live[at];
    live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    breaker_.end(TenantId{gone.tenant}, end, gone.ticket, now_);
    naive_.end(gone.tenant, end, gone.naive, now_);
  }
  void queue(std::uint32_t id) {
    breaker_.queued(TenantId{id}, now_);
    naive_.queued(id, now_);
    ++waiting[id];
  }
  void leave_queue(std::uint32_t id) {
    if (waiting[id] == 0) return;
    --waiting[id];
    breaker_.left_queue(TenantId{id}, now_);
    naive_.left_queue(id, now_);
  }
  void prefill(std::uint32_t id, std::uint64_t tokens) {
    breaker_.prefilled(TenantId{id}, tokens, now_);
    naive_.prefilled(id, tokens, now_);
  }
  void take(std::uint32_t id, std::uint64_t tokens) {
    held[id] += tokens;
    breaker_.took_kv(TenantId{id}, tokens, now_);
    naive_.hold(id, static_cast<std::int64_t>(tokens), now_);
  }
  void give(std::uint32_t id) {
    breaker_.gave_kv(TenantId{id}, held[id], now_);
    naive_.hold(id, -static_cast<std::int64_t>(held[id]), now_);
    held[id] = 0;
  }
  void force(std::uint32_t id) {
    breaker_.force_open(TenantId{id}, now_);
    naive_.force_open(id, now_);
  }
  void weigh(std::uint32_t id, std::uint32_t weight) {
    breaker_.set_weight(TenantId{id}, weight);
    naive_.set_weight(id, weight);
  }
  void reset(std::uint32_t id) {
    breaker_.reset(TenantId{id}, now_);
    naive_.reset(id, now_);
  }
  void compare() {
    breaker_.check_invariants();
    for (std::uint32_t id = 0; id < 3; ++id) {
      ASSERT_EQ(breaker_.state(TenantId{id}), naive_.state(id)) << "tenant " << id;
      const TenantBreakerView view = breaker_.view(TenantId{id});
      ASSERT_EQ(view.reason, naive_.reason(id)) << "tenant " << id;
      ASSERT_EQ(view.retry_at, naive_.retry_at(id)) << "tenant " << id;
      const auto state = static_cast<std::size_t>(view.state);
      ++visits[state];
    }
    ASSERT_EQ(breaker_.take_to_stop(), naive_.to_stop);
    naive_.to_stop.clear();
  }

  std::vector<Live> live;
  std::array<std::uint32_t, 3> waiting{};
  std::array<std::uint64_t, 3> held{};
  std::array<std::uint64_t, kBreakerStates> visits{};
  TenantBreaker& breaker() { return breaker_; }

 private:
  TenantBreaker breaker_;
  NaiveBreaker naive_;
  Tick now_{seconds(500)};
};

TenantBreakerParams small_params() {
  TenantBreakerParams params;
  params.window = milliseconds(800);
  params.contended_min = milliseconds(50);
  params.bad_ends_min = 6;
  params.long_prompts_max = 3;
  params.open_min = milliseconds(100);
  params.open_max = milliseconds(700);
  return params;
}

TEST(TenantBreakerProperty, AgreesWithTheNaiveModel) {
  const std::uint64_t seed = test::test_seed(7);
  std::array<std::uint64_t, kBreakerStates> visits{};
  std::array<std::uint64_t, 11> reasons{};
  for (std::uint64_t round = 0; round < 60; ++round) {
    Pair pair(small_params());
    std::uint32_t rolls = 0;
    const auto dice = [&](std::uint64_t bound) {
      return random_bits({seed, static_cast<std::uint32_t>(round), 0}, rolls++) % bound;
    };
    if (round % 3 == 2) pair.weigh(0, static_cast<std::uint32_t>(1 + dice(4)));
    for (int i = 0; i < 600; ++i) {
      if (round % 3 == 2 && dice(50) == 0)
        pair.weigh(static_cast<std::uint32_t>(dice(3)), static_cast<std::uint32_t>(1 + dice(4)));
      // Tenant 0 does most.
      const auto id = static_cast<std::uint32_t>(dice(2) == 0 ? 0 : dice(3));
      const TenantArrival arrival{static_cast<SizeClass>(dice(3)),
                                  static_cast<std::uint32_t>(dice(4096)), 4096, 6};
      switch (dice(10)) {
        case 0:
          pair.pass(std::chrono::microseconds(dice(90'000)));
          break;
        case 1:
        case 2:
          pair.arrive(id, arrival);
          break;
        case 3:
        case 4:
          if (pair.live.empty()) break;
          pair.end(dice(pair.live.size()), static_cast<TenantEnd>(dice(round % 2 == 0 ? 3 : 2)));
          break;
        case 5:
          pair.queue(static_cast<std::uint32_t>(dice(3)));
          break;
        case 6:
          pair.leave_queue(static_cast<std::uint32_t>(dice(3)));
          break;
        case 7:
          pair.prefill(id, dice(3000));
          break;
        case 8:
          if (dice(4) == 0) pair.give(id);
          pair.take(id, dice(500));
          break;
        default:
          if (dice(40) == 0) pair.force(id);
          if (dice(20) == 0) pair.reset(id);
          break;
      }
      pair.compare();
      if (HasFatalFailure()) FAIL() << "TEST_SEED=" << seed << " round " << round << " event " << i;
    }
    for (std::size_t s = 0; s < kBreakerStates; ++s) visits[s] += pair.visits[s];
    for (const BreakerEvent& event : pair.breaker().events())
      ++reasons[static_cast<std::size_t>(event.reason)];
  }
  for (std::size_t s = 0; s < kBreakerStates; ++s) EXPECT_GT(visits[s], 100u) << s;
  for (std::size_t r = 1; r < reasons.size(); ++r) {
    EXPECT_GT(reasons[r], 0u) << breaker_reason_name(static_cast<BreakerReason>(r));
  }
}

// One tenant beside one that waits or not: every sequence of six steps out of eight kinds.
TEST(TenantBreakerProperty, EveryShortInterleavingOfOneTenantAgrees) {
  TenantBreakerParams params = small_params();
  params.bad_ends_min = 1;
  params.long_prompts_max = 1;
  params.probes = 1;
  params.open_max = milliseconds(200);
  constexpr int kSteps = 6;
  constexpr std::uint64_t kKinds = 8;
  std::uint64_t all = 1;
  for (int i = 0; i < kSteps; ++i) all *= kKinds;
  for (std::uint64_t code = 0; code < all; ++code) {
    Pair pair(params);
    pair.arrive(1, kSmallOne);
    pair.queue(1);
    std::uint64_t left = code;
    for (int i = 0; i < kSteps; ++i, left /= kKinds) {
      switch (left % kKinds) {
        case 0:
          pair.arrive(0, kSmallOne);
          break;
        case 1:
          pair.arrive(0, kLongOne);
          break;
        case 2:
        case 3:
          if (pair.live.back().tenant != 0) break;
          pair.end(pair.live.size() - 1, left % kKinds == 2 ? TenantEnd::good : TenantEnd::bad);
          break;
        case 4:
          pair.pass(milliseconds(60));
          break;
        case 5:
          pair.pass(milliseconds(210));
          break;
        case 6:
          pair.prefill(0, 500);
          break;
        default:
          if (pair.waiting[1] > 0) {
            pair.leave_queue(1);
          } else {
            pair.queue(1);
          }
          break;
      }
      pair.compare();
      if (HasFatalFailure()) FAIL() << "sequence " << code << " step " << i;
    }
  }
}

}  // namespace
}  // namespace sluice::gw
