// Ledger: each limit with its error, what returns when, clocks, hostile states, and every short
// interleaving of one reservation's life against plain sums.
#include "gateway/core/ledger.h"

#include <gtest/gtest.h>

#include <type_traits>

#include "tests/support/allocation_count.h"

namespace sluice::gw {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr AccountId kTenant{0};
constexpr AccountId kKey{1};
constexpr Duration kTypical = seconds(2);
constexpr std::int64_t kNoon = 1'700'049'600'000;  // 2023-11-15 12:00:00 UTC

static_assert(!std::is_copy_constructible_v<Reservation> && !std::is_copy_assignable_v<Reservation>,
              "whoever closes a reservation gives it up");

struct World {
  explicit World(const LimitSet& limits, ReservationMode mode = ReservationMode::exact)
      : ledger({2, 16}) {
    AccountSpec spec;
    spec.limits = limits;
    spec.mode = mode;
    set(kTenant, spec);
    ledger.set_wall(now, kNoon);
  }
  void set(AccountId id, const AccountSpec& spec) {
    const Result<void> done = ledger.set_account(id, spec);
    ASSERT_TRUE(done) << done.error().detail;
  }
  Result<Reservation> open(std::uint32_t prompt, std::uint32_t output, std::uint32_t choices = 1,
                           AccountId account = kTenant, std::uint32_t model = 0) {
    return ledger.open({account, model, choices, prompt, output, 0, 7}, now, kTypical);
  }
  Errc refused(std::uint32_t prompt, std::uint32_t output, AccountId account = kTenant,
               std::uint32_t model = 0) {
    const auto opened = open(prompt, output, 1, account, model);
    EXPECT_FALSE(opened);
    return opened ? Errc::internal_error : opened.error().code;
  }
  std::uint64_t used(LimitKind kind, AccountId account = kTenant) {
    return ledger.used(account, kind, now);
  }
  Ledger ledger;
  Tick now{seconds(1000)};
};

LimitSet only(LimitKind kind, std::uint64_t limit) {
  LimitSet limits;
  limits[kind] = limit;
  return limits;
}

TEST(Ledger, ReservesPromptAndEveryChoicesOutput) {
  World w(only(LimitKind::tokens_per_minute, 100));
  ASSERT_TRUE(w.open(10, 20, 3));
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 70u);
  EXPECT_EQ(w.used(LimitKind::concurrent_kv_tokens), 90u);
  EXPECT_EQ(w.ledger.limits(kTenant, w.now).tokens_remaining, 30u);
}

TEST(Ledger, EachKindRefusesWithItsCode) {
  const std::pair<LimitKind, Errc> kCases[] = {
      {LimitKind::requests_per_minute, Errc::requests_rate_limited},
      {LimitKind::tokens_per_minute, Errc::tokens_rate_limited},
      {LimitKind::input_tokens_per_minute, Errc::tokens_rate_limited},
      {LimitKind::output_tokens_per_minute, Errc::tokens_rate_limited},
      {LimitKind::tokens_per_day, Errc::tokens_rate_limited},
      {LimitKind::monthly_budget, Errc::insufficient_quota},
      {LimitKind::concurrent_requests, Errc::concurrency_limit},
      {LimitKind::concurrent_kv_tokens, Errc::concurrency_limit}};
  const Amounts one{1, 15, 10, 5, 15, 35, 1, 15};
  for (const auto& [kind, code] : kCases) {
    SCOPED_TRACE(limit_kind_name(kind));
    World w(only(kind, one[index_of(kind)] * 2 - 1));
    ASSERT_TRUE(w.ledger.set_prices(0, {2, 1, 3}));
    ASSERT_TRUE(w.open(10, 5)) << "the first request that a limit covers is never refused";
    const auto second = w.open(10, 5);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, code);
    EXPECT_EQ(second.error().retry_after.has_value(), code != Errc::insufficient_quota);
    EXPECT_EQ(w.used(kind), one[index_of(kind)]) << "a refusal charged something";
    World tight(only(kind, one[index_of(kind)] - 1));
    ASSERT_TRUE(tight.ledger.set_prices(0, {2, 1, 3}));
    const auto never = tight.open(10, 5);
    ASSERT_FALSE(never);
    EXPECT_EQ(never.error().code, Errc::request_exceeds_quota_capacity);
    EXPECT_FALSE(never.error().retry_after);
  }
  World capped(only(LimitKind::output_tokens_max, 8));
  const auto too_long = capped.open(1, 9);
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code, Errc::invalid_value);
  EXPECT_EQ(too_long.error().param, "max_tokens");
}

TEST(Ledger, RetryAfterIsWhenItFits) {
  World w(only(LimitKind::tokens_per_minute, 100));
  ASSERT_TRUE(w.open(50, 30));
  const auto limited = w.open(20, 10);
  ASSERT_FALSE(limited);
  w.now += *limited.error().retry_after;
  EXPECT_TRUE(w.open(20, 10));

  World day(only(LimitKind::tokens_per_day, 100));
  ASSERT_TRUE(day.open(50, 30));
  const auto tomorrow = day.open(20, 10);
  ASSERT_FALSE(tomorrow);
  EXPECT_EQ(*tomorrow.error().retry_after, hours(12));
  day.now += hours(12);
  EXPECT_TRUE(day.open(20, 10));

  World concurrent(only(LimitKind::concurrent_requests, 2));
  ASSERT_TRUE(concurrent.open(1, 1));
  ASSERT_TRUE(concurrent.open(1, 1));
  EXPECT_EQ(concurrent.open(1, 1).error().retry_after, milliseconds(1000));
}

TEST(Ledger, AnExplicitZeroAdmitsNothing) {
  for (std::size_t i = 0; i < kCounterKinds; ++i) {
    World w(only(static_cast<LimitKind>(i), 0));
    ASSERT_TRUE(w.ledger.set_prices(0, {1, 1, 1}));
    EXPECT_EQ(w.refused(1, 1), Errc::request_exceeds_quota_capacity) << i;
  }
}

TEST(Ledger, EveryLevelMustPassAndAllAreChargedOrNone) {
  World w(only(LimitKind::tokens_per_minute, 100));
  AccountSpec key;
  key.parent = kTenant;
  key.limits = only(LimitKind::tokens_per_minute, 60);
  w.set(kKey, key);
  auto first = w.open(30, 20, 1, kKey);
  ASSERT_TRUE(first);
  EXPECT_EQ(w.refused(10, 10, kKey), Errc::tokens_rate_limited) << "its own limit";
  ASSERT_TRUE(w.open(20, 20)) << "of another key, as it were";
  EXPECT_EQ(w.refused(9, 2, kKey), Errc::tokens_rate_limited) << "its tenant's limit";
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 90u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute, kKey), 50u);
  EXPECT_EQ(w.ledger.limits(kKey, w.now).tokens_remaining, 10u);
  w.ledger.settle(*first, 4, w.now);
  w.ledger.close(std::move(*first), PromptUse::computed);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 74u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute, kKey), 34u);
}

TEST(Ledger, ViewsTellSpentFromReservedAndWhatBindsMost) {
  World w(only(LimitKind::tokens_per_minute, 100));
  AccountSpec key;
  key.parent = kTenant;
  key.limits = only(LimitKind::tokens_per_day, 500);
  key.models.push_back({1, only(LimitKind::concurrent_requests, 0)});
  w.set(kKey, key);
  auto first = w.open(30, 20, 1, kKey);
  ASSERT_TRUE(first);
  w.ledger.settle(*first, 4, w.now);
  const QuotaView quota = w.ledger.quota(kKey, w.now);
  const CounterView& minute = quota[index_of(LimitKind::tokens_per_minute)];
  EXPECT_EQ(minute.limit, 100u) << "the tenant's";
  EXPECT_EQ(minute.spent, 34u);
  EXPECT_EQ(minute.reserved, 16u);
  EXPECT_EQ(minute.remaining(), 50u);
  EXPECT_EQ(minute.reset, seconds(61));
  const CounterView& day = quota[index_of(LimitKind::tokens_per_day)];
  EXPECT_EQ(day.limit, 500u);
  EXPECT_EQ(day.spent + day.reserved, 50u);
  EXPECT_EQ(day.reset, hours(12));
  EXPECT_EQ(quota[index_of(LimitKind::monthly_budget)].reset, hours(12) + 15 * hours(24));
  const CounterView& kv = quota[index_of(LimitKind::concurrent_kv_tokens)];
  EXPECT_EQ(kv.spent, 34u);
  EXPECT_EQ(kv.reserved, 16u);
  EXPECT_FALSE(kv.reset);
  EXPECT_EQ(quota[index_of(LimitKind::concurrent_requests)].spent, 1u);
  const std::vector<ModelQuotaView> models = w.ledger.model_quotas(kKey, w.now);
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0].model, 1u);
  EXPECT_EQ(models[0].counters[index_of(LimitKind::concurrent_requests)]->limit, 0u);
  EXPECT_FALSE(models[0].counters[index_of(LimitKind::tokens_per_day)]);
  EXPECT_TRUE(w.ledger.model_quotas(kTenant, w.now).empty());
  w.ledger.close(std::move(*first), PromptUse::computed);
  EXPECT_EQ(w.ledger.own_quota(kTenant, w.now)[index_of(LimitKind::tokens_per_minute)].reserved,
            0u);
}

TEST(Ledger, AModelsOverrideIsCountedForThatModelAlone) {
  World w(LimitSet{});
  AccountSpec spec;
  spec.limits = only(LimitKind::tokens_per_minute, 50);
  spec.models.push_back({1, only(LimitKind::tokens_per_minute, 200)});
  w.set(kTenant, spec);
  ASSERT_TRUE(w.open(100, 90, 1, kTenant, 1));
  EXPECT_EQ(w.refused(10, 10, kTenant, 1), Errc::tokens_rate_limited);
  EXPECT_TRUE(w.open(30, 20)) << "other models have the account's own limit";
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 240u);
}

TEST(Ledger, ATemporaryLimitEndsByItself) {
  World w(LimitSet{});
  AccountSpec spec;
  spec.limits = only(LimitKind::tokens_per_minute, 50);
  spec.temporary.push_back(
      {std::nullopt, only(LimitKind::tokens_per_minute, 500), kNoon / 1000 + 10});
  w.set(kTenant, spec);
  auto large = w.open(200, 100);
  ASSERT_TRUE(large);
  const Reservation::Key key = large->key();
  w.ledger.take_affected_newest_first();
  ASSERT_EQ(w.ledger.next_change(), w.now + seconds(10));
  w.now += seconds(10);
  w.ledger.advance(w.now);
  EXPECT_TRUE(w.ledger.have_limits_changed());
  ASSERT_TRUE(w.ledger.fault(key, w.now)) << "what runs holds more than is allowed now";
  w.ledger.close(std::move(*large), PromptUse::computed);
  EXPECT_EQ(w.refused(200, 100), Errc::request_exceeds_quota_capacity);

  // A refusal looks behind the end of a lowered limit.
  spec.limits = only(LimitKind::tokens_per_minute, 500);
  spec.temporary = {{std::nullopt, only(LimitKind::tokens_per_minute, 5), kNoon / 1000 + 300}};
  w.set(kTenant, spec);
  const auto later = w.open(20, 10);
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().code, Errc::tokens_rate_limited);
  EXPECT_EQ(*later.error().retry_after, seconds(290));
}

TEST(Ledger, AShadowAccountCountsAndNeverRefuses) {
  World w(LimitSet{});
  AccountSpec spec;
  spec.limits = only(LimitKind::tokens_per_minute, 10);
  spec.is_shadow = true;
  w.set(kTenant, spec);
  ASSERT_TRUE(w.open(20, 20));
  ASSERT_TRUE(w.open(2, 2));
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 44u);
  EXPECT_EQ(w.ledger.shadow_refusals(kTenant), 2u);
}

TEST(Ledger, ABlockedTenantStopsWhatIsBelowIt) {
  World w(LimitSet{});
  AccountSpec key;
  key.parent = kTenant;
  w.set(kKey, key);
  auto running = w.open(1, 1, 1, kKey);
  ASSERT_TRUE(running);
  EXPECT_FALSE(w.ledger.fault(running->key(), w.now));
  AccountSpec blocked;
  blocked.standing = Standing::blocked;
  w.set(kTenant, blocked);
  ASSERT_TRUE(w.ledger.fault(running->key(), w.now));
  EXPECT_EQ(w.ledger.fault(running->key(), w.now)->code, Errc::invalid_api_key);
  EXPECT_EQ(w.refused(1, 1, kKey), Errc::invalid_api_key);
}

TEST(Ledger, IncrementalGrantsSixtyFourAtATimeAndStopsAtABorder) {
  World w(only(LimitKind::tokens_per_minute, 150), ReservationMode::incremental);
  auto stream = w.open(10, 500);
  ASSERT_TRUE(stream);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 74u);
  w.ledger.settle(*stream, 64, w.now);
  w.now += seconds(5);
  ASSERT_TRUE(w.ledger.extend(*stream, 64, w.now, kTypical));
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 138u);
  w.ledger.settle(*stream, 60, w.now);
  const auto refused = w.ledger.extend(*stream, 64, w.now, kTypical);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::tokens_rate_limited);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 138u);
  w.now += *refused.error().retry_after;
  EXPECT_TRUE(w.ledger.extend(*stream, 64, w.now, kTypical)) << "the promise was not kept";
}

TEST(Ledger, QuantileOvershootsByNoMoreThanItSays) {
  World w(only(LimitKind::tokens_per_minute, 100), ReservationMode::quantile);
  Ask ask{kTenant, 0, 1, 10, 300, 40, 1};
  auto a = w.ledger.open(ask, w.now, kTypical);
  auto b = w.ledger.open(ask, w.now, kTypical);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 100u);
  w.ledger.settle(*a, 300, w.now);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 360u);
  EXPECT_EQ(w.ledger.mode_counters(ReservationMode::quantile).overshoot, 260u);
  EXPECT_EQ(w.refused(1, 1), Errc::tokens_rate_limited);
  w.ledger.close(std::move(*b), PromptUse::unused);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 310u);
}

TEST(Ledger, CachedPromptTokensCostLess) {
  World w(only(LimitKind::monthly_budget, 1000));
  ASSERT_TRUE(w.ledger.set_prices(0, {10, 1, 20}));
  EXPECT_FALSE(w.ledger.set_prices(0, {1, 2, 0})) << "a dearer cached token would overshoot";
  EXPECT_FALSE(w.ledger.set_prices(0, {kPriceMax + 1, 0, 0}));
  auto r = w.open(20, 10);
  ASSERT_TRUE(r);
  EXPECT_EQ(w.used(LimitKind::monthly_budget), 400u);
  ASSERT_TRUE(w.ledger.set_prices(0, {50, 50, 50})) << "of later reservations only";
  w.ledger.settle(*r, 4, w.now);
  w.ledger.settle_prompt(*r, 16);
  w.ledger.close(std::move(*r), PromptUse::computed);
  EXPECT_EQ(w.used(LimitKind::monthly_budget), 4u * 10 + 16 * 1 + 4 * 20);
}

TEST(Ledger, DaysAndMonthsTurnInUtc) {
  World w(only(LimitKind::tokens_per_day, 100));
  ASSERT_TRUE(w.ledger.set_prices(0, {1, 1, 1}));
  auto over_midnight = w.open(40, 40);
  ASSERT_TRUE(over_midnight);
  w.now += hours(12) - milliseconds(1);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 80u);
  w.now += milliseconds(1);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 0u);
  ASSERT_TRUE(w.open(60, 40));
  w.ledger.close(std::move(*over_midnight), PromptUse::computed);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 100u) << "yesterday's rest opened room today";
  EXPECT_EQ(w.used(LimitKind::monthly_budget), 140u);
  w.now += hours(24 * 15) - milliseconds(1);
  EXPECT_EQ(w.used(LimitKind::monthly_budget), 140u);
  w.now += milliseconds(1);
  EXPECT_EQ(w.used(LimitKind::monthly_budget), 0u) << "the first of December";
  for (const auto& [month, first_day] :
       {std::pair{1970 * 12, 0}, {1970 * 12 + 11, 334}, {2024 * 12 + 2, 19783}}) {
    EXPECT_EQ(month_start(month), first_day);
    EXPECT_EQ(month_number(first_day), month);
    EXPECT_EQ(month_number(first_day + 27), month);
  }
}

TEST(Ledger, AWallClockThatJumpsGrantsNothingTwice) {
  World w(only(LimitKind::tokens_per_day, 100));
  ASSERT_TRUE(w.open(50, 40));
  w.ledger.set_wall(w.now, kNoon + 13 * 3'600'000);  // the next day
  ASSERT_TRUE(w.open(50, 45));
  w.ledger.set_wall(w.now, kNoon);  // and back
  EXPECT_EQ(w.refused(5, 5), Errc::tokens_rate_limited) << "the later day holds";
  w.ledger.set_wall(w.now, kNoon + 13 * 3'600'000);
  EXPECT_EQ(w.refused(5, 5), Errc::tokens_rate_limited) << "the day was granted again";
  auto future = Result<Reservation>(make_error(Errc::io_error, ""));
  w.ledger.set_wall(w.now, kNoon + 400 * 86'400'000ll);  // far away, then corrected
  future = w.open(30, 30);
  ASSERT_TRUE(future);
  w.ledger.set_wall(w.now, kNoon + 2 * 86'400'000ll);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 60u);
  EXPECT_EQ(w.refused(30, 30), Errc::tokens_rate_limited);
  w.ledger.close(std::move(*future), PromptUse::unused);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 0u);
  w.ledger.check_invariants();
  w.ledger.set_wall(w.now, kNoon + 3 * 86'400'000ll);
  EXPECT_TRUE(w.open(50, 50));
  for (const std::int64_t absurd : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1},
                                    std::numeric_limits<std::int64_t>::max(), kNoon}) {
    w.ledger.set_wall(w.now, absurd);
    w.ledger.check_invariants();
  }
}

TEST(Ledger, ALoweredLimitNamesTheNewestUntilTheRestFits) {
  World w(only(LimitKind::tokens_per_minute, 1000));
  std::vector<Reservation> open;
  for (int i = 0; i < 4; ++i) open.push_back(std::move(*w.open(50, 150)));
  AccountSpec lower;
  lower.limits = only(LimitKind::tokens_per_minute, 500);
  w.set(kTenant, lower);
  std::size_t stopped = 0;
  for (const Reservation::Key key : w.ledger.take_affected_newest_first()) {
    if (!w.ledger.fault(key, w.now)) continue;
    EXPECT_EQ(key.index, open[3 - stopped].key().index);
    EXPECT_EQ(w.ledger.fault(key, w.now)->code, Errc::tokens_rate_limited);
    w.ledger.close(std::move(open[3 - stopped]), PromptUse::computed);
    ++stopped;
  }
  EXPECT_EQ(stopped, 2u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 500u);
}

TEST(Ledger, AReservationGivesUpWhatALoweredLimitTakes) {
  World w(only(LimitKind::tokens_per_minute, 1000));
  Reservation first = std::move(*w.open(50, 150));
  Reservation second = std::move(*w.open(50, 150));
  w.ledger.settle(second, 30, w.now);
  AccountSpec lower;
  lower.limits = only(LimitKind::tokens_per_minute, 350);
  w.set(kTenant, lower);
  EXPECT_EQ(w.ledger.try_shrink(second.key(), w.now), 50u);
  EXPECT_FALSE(w.ledger.fault(second.key(), w.now));
  EXPECT_EQ(w.ledger.unspent(second), 70u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 350u);
  EXPECT_EQ(w.ledger.try_shrink(first.key(), w.now), 0u) << "it has no fault";
  EXPECT_EQ(w.ledger.extend(second, 1, w.now, kTypical).error().code, Errc::tokens_rate_limited);
  lower.limits[LimitKind::tokens_per_minute] = 370;
  w.set(kTenant, lower);
  EXPECT_TRUE(w.ledger.extend(second, 20, w.now, kTypical)) << "it may have it back";
  // Not for a limit that output does not lower, nor where nothing would be left.
  lower.limits[LimitKind::concurrent_requests] = 1;
  w.set(kTenant, lower);
  EXPECT_EQ(w.ledger.try_shrink(second.key(), w.now), 0u);
  lower.limits = only(LimitKind::tokens_per_minute, 280);
  w.set(kTenant, lower);
  EXPECT_EQ(w.ledger.try_shrink(second.key(), w.now), 0u) << "all its 90 would go";
  EXPECT_TRUE(w.ledger.fault(second.key(), w.now));
  lower.limits = only(LimitKind::tokens_per_minute, 281);
  lower.standing = Standing::revoked;
  w.set(kTenant, lower);
  EXPECT_EQ(w.ledger.try_shrink(second.key(), w.now), 0u) << "no right to go on";
  w.ledger.check_invariants();
  for (Reservation* open : {&first, &second}) w.ledger.close(std::move(*open), PromptUse::computed);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 50u + 50 + 30);
}

TEST(Ledger, AChangeConcernsWhatIsOpenBelowTheAccountAndNothingElse) {
  World w(only(LimitKind::tokens_per_minute, 1000));
  AccountSpec key;
  key.parent = kTenant;
  w.set(kKey, key);
  const AccountId other{2};
  w.set(other, {});
  const Reservation below = std::move(*w.open(10, 10, 1, kKey));
  const Reservation beside = std::move(*w.open(10, 10, 1, other));
  w.ledger.take_affected_newest_first();
  EXPECT_FALSE(w.ledger.have_limits_changed());
  AccountSpec lower;
  lower.limits = only(LimitKind::tokens_per_minute, 500);
  w.set(kTenant, lower);
  const auto affected = w.ledger.take_affected_newest_first();
  ASSERT_EQ(affected.size(), 1u);
  EXPECT_EQ(affected[0].index, below.key().index);
  EXPECT_TRUE(w.ledger.take_affected_newest_first().empty());
  AccountSpec blocked;
  blocked.standing = Standing::blocked;
  w.set(other, blocked);
  EXPECT_EQ(w.ledger.take_affected_newest_first().at(0).index, beside.key().index);
  w.ledger.check_invariants();
}

TEST(Ledger, BadSpecsChangeNothing) {
  World w(LimitSet{});
  AccountSpec spec;
  spec.parent = AccountId{5};
  EXPECT_FALSE(w.ledger.set_account(kKey, spec)) << "no such parent";
  spec.parent = kTenant;
  EXPECT_FALSE(w.ledger.set_account(AccountId{2}, spec)) << "a number too many";
  for (std::uint32_t i = 1; i < kAccountDepthMax; ++i) {
    spec.parent = AccountId{i - 1};
    ASSERT_TRUE(w.ledger.set_account(AccountId{i}, spec));
  }
  spec.parent = AccountId{kAccountDepthMax - 1};
  EXPECT_FALSE(w.ledger.set_account(AccountId{kAccountDepthMax}, spec)) << "too deep";
  EXPECT_FALSE(w.ledger.set_account(kTenant, spec)) << "a cycle";
  spec.parent = kTenant;
  EXPECT_FALSE(w.ledger.set_account(kTenant, spec)) << "its own parent";
  AccountSpec root;
  ASSERT_TRUE(w.ledger.set_account(AccountId{kAccountDepthMax}, root));
  AccountSpec moved;
  moved.parent = AccountId{kAccountDepthMax};
  EXPECT_FALSE(w.ledger.set_account(kTenant, moved)) << "what hangs below would be too deep";
  AccountSpec twice;
  twice.models = {{0, {}}, {0, {}}};
  EXPECT_FALSE(w.ledger.set_account(kTenant, twice));
  twice.models = {{2, {}}};
  EXPECT_FALSE(w.ledger.set_account(kTenant, twice));
  EXPECT_EQ(w.ledger.num_accounts(), kAccountDepthMax + 1);
  EXPECT_EQ(w.ledger.spec(kTenant), AccountSpec{});
}

TEST(Ledger, AStateThatLiesIsRefusedOrHarmless) {
  World w(only(LimitKind::tokens_per_minute, 1000));
  auto open = w.open(10, 20);
  ASSERT_TRUE(open);
  const LedgerState state = w.ledger.export_state(w.now);
  const auto refused = [&](auto change) {
    LedgerState bad = state;
    change(bad);
    World fresh(only(LimitKind::tokens_per_minute, 1000));
    auto kept = fresh.open(1, 1);
    EXPECT_FALSE(fresh.ledger.import_state(bad, fresh.now));
    EXPECT_EQ(fresh.ledger.num_open(), 1u) << "half of it was taken in";
  };
  refused([](LedgerState& s) { s.balances[0].account = AccountId{9}; });
  refused([](LedgerState& s) { s.balances[0].day_tokens = ~std::uint64_t{0}; });
  refused([](LedgerState& s) { s.balances[0].minute[0].amount = kAmountMax + 1; });
  refused([](LedgerState& s) { s.balances[0].minute[0].kind = LimitKind::concurrent_requests; });
  refused([](LedgerState& s) { s.balances[0].model = 99; });
  refused([](LedgerState& s) { s.balances[0].day = s.day + 1; });
  refused([](LedgerState& s) { s.open[0].path.clear(); });
  refused([](LedgerState& s) { s.open[0].path.resize(kAccountDepthMax + 1); });
  refused([](LedgerState& s) { s.open[0].path[0].in_model = ~0u; });
  refused([](LedgerState& s) { s.open[0].unspent = ~std::uint64_t{0}; });
  refused([](LedgerState& s) { s.open[0].prices.cached = 1; });
  refused([](LedgerState& s) { s.open.resize(17, s.open[0]); });
  refused([](LedgerState& s) { s.day = -5; });
  // Named twice: its sums could overflow, and what is returned twice was charged once.
  refused([](LedgerState& s) { s.balances.push_back(s.balances[0]); });
  refused([](LedgerState& s) { s.open[0].path.push_back(s.open[0].path[0]); });
  // Reservations without the balances that they claim: they end, and open no room.
  for (const std::size_t copies : {1u, 2u}) {
    LedgerState bad = state;
    if (copies == 1) bad.balances.clear();
    bad.open.resize(copies, bad.open[0]);
    World fresh(only(LimitKind::tokens_per_minute, 1000));
    auto restored = fresh.ledger.import_state(bad, fresh.now);
    ASSERT_TRUE(restored);
    const std::uint64_t before = fresh.used(LimitKind::tokens_per_minute);
    for (Reservation& r : *restored) fresh.ledger.close(std::move(r), PromptUse::unused);
    EXPECT_EQ(fresh.used(LimitKind::tokens_per_minute), copies == 1 ? 0 : before - 30);
    fresh.ledger.check_invariants();
  }
}

TEST(Ledger, TheMinuteOfAnIdleAccountServesAnother) {
  World w(LimitSet{});
  for (std::uint32_t i = 1; i < 300; ++i) w.set(AccountId{i}, AccountSpec{});
  for (std::uint32_t i = 0; i < 300; ++i) {
    auto r = w.open(1, 1, 1, AccountId{i});
    ASSERT_TRUE(r);
    w.ledger.close(std::move(*r), PromptUse::computed);
    w.now += seconds(10);
    w.ledger.check_invariants();
  }
  EXPECT_LE(w.ledger.num_minutes(), 12u) << "memory grows with what was ever used";
}

TEST(Ledger, RequestsAllocateNothing) {
  World w(only(LimitKind::tokens_per_minute, 100'000'000));
  AccountSpec key;
  key.parent = kTenant;
  w.set(kKey, key);
  for (int round = 0; round < 2; ++round) {
    const std::uint64_t before = allocation_count();
    for (int i = 0; i < 1000; ++i) {
      auto r = w.open(10, 20, 1, kKey);
      CHECK(r.has_value());
      w.ledger.settle(*r, 5, w.now);
      w.ledger.close_choice(*r, 20, 5);
      w.ledger.close(std::move(*r), PromptUse::computed);
      w.now += milliseconds(50);
    }
    if (round > 0) {
      EXPECT_EQ(allocation_count(), before);
    }
  }
}

// ---- every short interleaving of one request with two choices

enum class Step : std::uint8_t { settle, extend, close_choice, close_unused, close_computed, wait };
constexpr std::size_t kSteps = 6;

struct Life {
  World world{only(LimitKind::tokens_per_minute, 400), ReservationMode::incremental};
  Reservation ticket;
  std::uint64_t charged = 0;  // naive: what the minute holds
  std::uint64_t unspent = 0, spent = 0;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> choices;  // granted, used
  bool is_extended = false, is_over = false;
};

bool apply(Life& life, Step step) {
  Ledger& ledger = life.world.ledger;
  switch (step) {
    case Step::settle: {
      if (life.is_over || life.choices.empty() || life.unspent < 3) return false;
      auto& [granted, used] = life.choices.back();
      if (granted - used < 3) return false;
      ledger.settle(life.ticket, 3, life.world.now);
      used += 3;
      life.unspent -= 3;
      life.spent += 3;
      return true;
    }
    case Step::extend: {
      if (life.is_over || life.choices.empty()) return false;
      if (life.choices.back().first + kGrantTokens > 200) return false;
      const bool fits = life.charged + kGrantTokens <= 400;
      EXPECT_EQ(ledger.extend(life.ticket, kGrantTokens, life.world.now, kTypical).has_value(),
                fits);
      if (!fits) return true;
      life.choices.back().first += kGrantTokens;
      life.unspent += kGrantTokens;
      life.charged += kGrantTokens;
      life.is_extended = true;
      return true;
    }
    case Step::close_choice: {
      if (life.is_over || life.choices.empty()) return false;
      const auto [granted, used] = life.choices.back();
      life.choices.pop_back();
      ledger.close_choice(life.ticket, granted, used);
      life.unspent -= granted - used;
      life.charged -= granted - used;
      return true;
    }
    case Step::close_unused:
    case Step::close_computed:
      // A prompt that gave tokens was computed.
      if (life.is_over || (step == Step::close_unused && life.spent > 0)) return false;
      ledger.close(std::move(life.ticket),
                   step == Step::close_unused ? PromptUse::unused : PromptUse::computed);
      life.charged -= life.unspent + (step == Step::close_unused ? 5 : 0);
      life.unspent = 0;
      life.is_over = true;
      return true;
    case Step::wait:
      life.world.now += seconds(7);  // another second, the same minute
      return true;
  }
  return false;
}

TEST(Ledger, EveryShortInterleavingHoldsExactlyWhatIsSpentAndReserved) {
  std::uint64_t lives = 0, ended = 0;
  for (std::uint32_t word = 0; word < kSteps * kSteps * kSteps * kSteps * kSteps * kSteps; ++word) {
    Life life;
    auto opened = life.world.open(5, 200, 2);
    ASSERT_TRUE(opened);
    life.ticket = std::move(*opened);
    life.unspent = 2 * kGrantTokens;
    life.charged = 5 + life.unspent;
    life.choices = {{kGrantTokens, 0}, {kGrantTokens, 0}};
    std::uint32_t left = word;
    for (int i = 0; i < 6; ++i, left /= kSteps) {
      if (!apply(life, static_cast<Step>(left % kSteps))) break;
      ASSERT_EQ(life.world.used(LimitKind::tokens_per_minute), life.charged) << word;
      ASSERT_EQ(life.world.used(LimitKind::concurrent_requests), life.is_over ? 0u : 1u);
      ASSERT_EQ(life.world.ledger.num_open(), life.is_over ? 0u : 1u);
      ASSERT_EQ(static_cast<bool>(life.ticket), !life.is_over) << "closed twice is not possible";
      life.world.ledger.check_invariants();
    }
    ++lives;
    ended += life.is_over ? 1 : 0;
  }
  EXPECT_EQ(lives, 46656u);
  EXPECT_GT(ended, 10000u);
}

TEST(Ledger, WhatAFormerProcessSettledIsChargedInItsOwnTime) {
  World w(only(LimitKind::tokens_per_minute, 100));
  AccountSpec key;
  key.parent = kTenant;
  w.set(kKey, key);
  Ledger::SettledCharge charge{kKey, 0, kNoon - 30'000, {}};
  charge.amounts[index_of(LimitKind::tokens_per_minute)] = 60;
  charge.amounts[index_of(LimitKind::requests_per_minute)] = 1;
  charge.amounts[index_of(LimitKind::tokens_per_day)] = 60;
  charge.amounts[index_of(LimitKind::monthly_budget)] = 600;
  ASSERT_TRUE(w.ledger.charge_settled(charge, w.now));
  for (const AccountId account : {kTenant, kKey}) {
    EXPECT_EQ(w.used(LimitKind::tokens_per_minute, account), 60u);
    EXPECT_EQ(w.used(LimitKind::requests_per_minute, account), 1u);
    EXPECT_EQ(w.used(LimitKind::tokens_per_day, account), 60u);
    EXPECT_EQ(w.used(LimitKind::monthly_budget, account), 600u);
  }
  EXPECT_EQ(w.refused(20, 21), Errc::tokens_rate_limited);
  w.now += seconds(30);  // 60 s after the charge
  EXPECT_EQ(w.refused(20, 21), Errc::tokens_rate_limited);
  w.now += seconds(1);
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 0u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 60u);
  w.ledger.check_invariants();
  charge.unix_ms = kNoon - 24 * 3'600'000;  // yesterday, this month
  ASSERT_TRUE(w.ledger.charge_settled(charge, w.now));
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 0u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 60u);
  EXPECT_EQ(w.used(LimitKind::monthly_budget), 1200u);
  charge.unix_ms = kNoon + 48 * 3'600'000;  // the clock went back: it counts now
  ASSERT_TRUE(w.ledger.charge_settled(charge, w.now));
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 60u);
  EXPECT_EQ(w.used(LimitKind::tokens_per_day), 120u);
  w.ledger.check_invariants();
}

TEST(Ledger, UnusableSettledChargesChangeNothing) {
  World w(only(LimitKind::tokens_per_minute, 100));
  Ledger::SettledCharge good{kTenant, 0, kNoon, {}};
  good.amounts[index_of(LimitKind::tokens_per_minute)] = 1;
  std::vector<Ledger::SettledCharge> bad(5, good);
  bad[0].account = AccountId{7};
  bad[1].model = 2;
  bad[2].unix_ms = -1;
  bad[3].amounts[index_of(LimitKind::tokens_per_day)] = kAmountMax + 1;
  bad[4].amounts[index_of(LimitKind::concurrent_requests)] = 1;
  for (const Ledger::SettledCharge& charge : bad) {
    EXPECT_EQ(w.ledger.charge_settled(charge, w.now).error().code, Errc::invalid_value);
  }
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 0u);
  EXPECT_TRUE(w.ledger.charge_settled(good, w.now));
  EXPECT_EQ(w.used(LimitKind::tokens_per_minute), 1u);
}

TEST(Ledger, LimitedIsWhoCanBeRefusedAtAnyLevel) {
  World w(LimitSet{});
  AccountSpec key;
  key.parent = kTenant;
  w.set(kKey, key);
  EXPECT_FALSE(w.ledger.is_limited(kKey));
  AccountSpec tenant;
  tenant.limits[LimitKind::monthly_budget] = 0;
  w.set(kTenant, tenant);
  EXPECT_TRUE(w.ledger.is_limited(kKey));
  tenant.is_shadow = true;
  w.set(kTenant, tenant);
  EXPECT_FALSE(w.ledger.is_limited(kKey));
  key.models.push_back({1, only(LimitKind::tokens_per_day, 5)});
  w.set(kKey, key);
  EXPECT_TRUE(w.ledger.is_limited(kKey));
  EXPECT_FALSE(w.ledger.is_limited(kTenant));
}

}  // namespace
}  // namespace sluice::gw
