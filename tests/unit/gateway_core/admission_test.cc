// Admission: each limit with its error, what returns when, and all short interleavings of a
// reservation's life against plain sums.
#include "gateway/core/admission.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice::gw {
namespace {

constexpr TenantId kTenant{0};
constexpr Duration kTypical = std::chrono::seconds(2);

Admission with(TenantQuota quota) {
  return Admission(std::span(&quota, 1));
}

Errc error_of(const Result<Reservation>& result) {
  return result ? Errc::internal_error : result.error().code;
}

TEST(Admission, ReservesPromptAndEveryChoicesOutput) {
  Admission admission = with({.tokens_per_minute = 100});
  const auto reservation = admission.reserve(kTenant, 10, 3, 20, Tick{}, kTypical);
  ASSERT_TRUE(reservation);
  EXPECT_EQ(admission.limits(kTenant, Tick{}).tokens_remaining, 30u);
}

TEST(Admission, SaysWhatIsWrongAndWhenToComeBack) {
  Admission tokens = with({.tokens_per_minute = 100});
  ASSERT_TRUE(tokens.reserve(kTenant, 50, 1, 30, Tick{}, kTypical));
  const auto limited = tokens.reserve(kTenant, 20, 1, 10, Tick{}, kTypical);
  EXPECT_EQ(error_of(limited), Errc::tokens_rate_limited);
  ASSERT_TRUE(limited.error().retry_after);
  const Tick then = Tick{} + *limited.error().retry_after;
  EXPECT_TRUE(tokens.reserve(kTenant, 20, 1, 10, then, kTypical));

  const auto never = tokens.reserve(kTenant, 50, 1, 51, then, kTypical);
  EXPECT_EQ(error_of(never), Errc::request_exceeds_quota_capacity);
  EXPECT_FALSE(never.error().retry_after);

  Admission requests = with({.requests_per_minute = 1});
  ASSERT_TRUE(requests.count_request(kTenant, Tick{}));
  EXPECT_EQ(error_of(requests.reserve(kTenant, 1, 1, 1, Tick{}, kTypical)),
            Errc::requests_rate_limited);
  EXPECT_FALSE(requests.count_request(kTenant, Tick{}));
  EXPECT_FALSE(requests.check_request(kTenant, Tick{}, kTypical));

  Admission capped = with({.output_tokens_max = 8});
  const auto too_long = capped.reserve(kTenant, 1, 1, 9, Tick{}, kTypical);
  EXPECT_EQ(error_of(too_long), Errc::invalid_value);
  EXPECT_EQ(too_long.error().param, "max_tokens");

  Admission concurrent = with({.concurrent_requests = 2});
  ASSERT_TRUE(concurrent.reserve(kTenant, 1, 1, 1, Tick{}, kTypical));
  ASSERT_TRUE(concurrent.reserve(kTenant, 1, 1, 1, Tick{}, kTypical));
  const auto third = concurrent.reserve(kTenant, 1, 1, 1, Tick{}, kTypical);
  EXPECT_EQ(error_of(third), Errc::concurrency_limit);
  EXPECT_EQ(third.error().retry_after, std::chrono::milliseconds(1000));
}

TEST(Admission, AnErrorChargesNothing) {
  Admission admission = with({.requests_per_minute = 5, .tokens_per_minute = 10});
  EXPECT_FALSE(admission.reserve(kTenant, 11, 1, 1, Tick{}, kTypical));
  ASSERT_TRUE(admission.reserve(kTenant, 5, 1, 5, Tick{}, kTypical));
  EXPECT_FALSE(admission.reserve(kTenant, 1, 1, 1, Tick{}, kTypical));
  EXPECT_EQ(admission.limits(kTenant, Tick{}).requests_remaining, 4u);
  EXPECT_EQ(admission.running(kTenant), 1u);
}

TEST(Admission, LimitsSwappedUnderWayActOnTheNextCall) {
  Admission admission = with({.tokens_per_minute = 1000});
  auto reservation = admission.reserve(kTenant, 100, 1, 500, Tick{}, kTypical);
  ASSERT_TRUE(reservation);
  const TenantQuota quotas[] = {{.tokens_per_minute = 200}, {}};
  admission.set_quotas(quotas);
  EXPECT_EQ(admission.num_tenants(), 2u);
  EXPECT_FALSE(admission.reserve(kTenant, 1, 1, 1, Tick{}, kTypical));
  admission.settle(*reservation, 500, 20);
  admission.release(*reservation, PromptUse::computed);
  EXPECT_EQ(admission.limits(kTenant, Tick{}).tokens_remaining, 80u);
}

// One request of two choices: its events in every order and with every amount that is legal.
struct Life {
  Admission admission;
  Reservation reservation;
  std::uint64_t held;  // what the naive sum says is charged
  int open_choices = 2;
  bool is_released = false;
};

void explore(const Life& life, std::uint64_t limit, int& paths) {
  ++paths;
  ASSERT_EQ(life.admission.limits(kTenant, Tick{}).tokens_remaining, limit - life.held);
  ASSERT_EQ(life.admission.running(kTenant), life.is_released ? 0u : 1u);
  if (life.is_released) return;
  if (life.open_choices > 0) {
    for (const std::uint64_t used : {0u, 3u, 7u}) {
      Life next = life;
      next.admission.settle(next.reservation, 7, used);
      next.held -= 7 - used;
      --next.open_choices;
      explore(next, limit, paths);
    }
  }
  for (const PromptUse prompt : {PromptUse::unused, PromptUse::computed}) {
    Life next = life;
    next.admission.release(next.reservation, prompt);
    next.held -= static_cast<std::uint64_t>(next.open_choices) * 7;
    if (prompt == PromptUse::unused) next.held -= 5;
    next.is_released = true;
    explore(next, limit, paths);
  }
}

TEST(Admission, AReservationHoldsExactlyWhatWasUsedInEveryOrderOfEvents) {
  Life life{with({.tokens_per_minute = 50}), {}, 19};
  auto reservation = life.admission.reserve(kTenant, 5, 2, 7, Tick{}, kTypical);
  ASSERT_TRUE(reservation);
  life.reservation = *reservation;
  int paths = 0;
  explore(life, 50, paths);
  EXPECT_EQ(paths, 1 + 3 + 2 + 3 * (3 + 2) + 9 * 2);
}

}  // namespace
}  // namespace sluice::gw
