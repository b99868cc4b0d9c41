// RateWindow against a naive list of charges: no interval of 60 s ever holds more than the limit,
// and what it promises (retry_after, reset_in) comes true. Seeds are printed; TEST_SEED
// picks one.
#include "gateway/core/rate_limit.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "shared/random.h"

namespace sluice::gw {
namespace {

constexpr Duration kWindow = std::chrono::seconds(60);

struct Charge {
  Tick at;
  RateWindow::Slot slot;
  std::uint64_t amount;
};

bool fits(const RateWindow& window, std::uint64_t amount, std::uint64_t limit, Tick now) {
  return window.used(now) + amount <= limit;
}

std::uint64_t most_in_any_minute(const std::vector<Charge>& charges) {
  std::uint64_t most = 0;
  for (const Charge& first : charges) {
    std::uint64_t sum = 0;
    for (const Charge& other : charges) {
      if (other.at >= first.at && other.at < first.at + kWindow) sum += other.amount;
    }
    most = std::max(most, sum);
  }
  return most;
}

TEST(RateWindow, NoMinuteEverHoldsMoreThanTheLimit) {
  const char* fixed = std::getenv("TEST_SEED");
  const std::uint64_t first = fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : 1;
  for (std::uint64_t seed = first; seed < first + (fixed != nullptr ? 1 : 200); ++seed) {
    SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
    const std::uint64_t limit = 5 + mix64(seed) % 200;
    RateWindow window;
    std::vector<Charge> charges;
    Tick now{std::chrono::milliseconds(mix64(seed ^ 7) % 100'000)};
    std::uint64_t admitted = 0;
    for (std::uint32_t i = 0; i < 300; ++i) {
      const std::uint64_t dice = random_bits({seed, 0, i}, 0);
      now += std::chrono::milliseconds(dice % 9 == 0 ? dice % 40'000 : dice % 900);
      const std::uint64_t amount = 1 + (dice >> 20) % 12;
      if (dice % 4 == 0 && !charges.empty()) {
        Charge& charge = charges[(dice >> 8) % charges.size()];
        const std::uint64_t back = charge.amount / 2;
        window.give_back(charge.slot, back);
        charge.amount -= back;
        continue;
      }
      if (fits(window, amount, limit, now)) {
        EXPECT_EQ(window.retry_after(amount, limit, now), Duration{0});
        charges.push_back({now, window.charge(amount, now), amount});
        ++admitted;
      } else if (amount <= limit) {
        const Duration wait = window.retry_after(amount, limit, now);
        ASSERT_GT(wait, Duration{0});
        EXPECT_TRUE(fits(window, amount, limit, now + wait)) << "the promise was not kept";
        EXPECT_FALSE(fits(window, amount, limit, now + wait - Duration{1}))
            << "could have been sooner";
      }
      ASSERT_LE(window.used(now), limit);
      window.check_invariants();
      EXPECT_EQ(window.used(now + window.reset_in(now)), 0u);
    }
    EXPECT_GT(admitted, 10u);
    EXPECT_LE(most_in_any_minute(charges), limit);
  }
}

TEST(RateWindow, AFullWindowIsEmptyAgainAfterSixtyOneSeconds) {
  RateWindow window;
  const Tick start{std::chrono::milliseconds(999)};
  window.charge(10, start);
  EXPECT_EQ(window.used(start + kWindow), 10u);
  EXPECT_EQ(window.used(Tick{std::chrono::seconds(61)}), 0u);
}

TEST(RateWindow, ReturnsOfAnExpiredSlotOpenNoRoom) {
  RateWindow window;
  const auto slot = window.charge(10, Tick{});
  const Tick later{std::chrono::seconds(100)};
  window.charge(10, later);
  EXPECT_FALSE(window.is_live(slot, later));
  window.give_back(slot, 10);
  EXPECT_EQ(window.used(later), 10u);
}

TEST(RateWindow, TimeThatRunsBackwardsStandsStill) {
  RateWindow window;
  window.charge(10, Tick{std::chrono::seconds(1000)});
  EXPECT_EQ(window.used(Tick{std::chrono::seconds(10)}), 10u);
  EXPECT_EQ(window.charge(1, Tick{std::chrono::seconds(10)}), 1000);
}

TEST(RateWindow, ChargesPutBackAfterARestartKeepTheirSlots) {
  RateWindow window;
  window.charge_at(100, 3);
  window.charge_at(130, 4);
  window.charge_at(110, 5);
  EXPECT_EQ(window.used(Tick{std::chrono::seconds(160)}), 12u);
  EXPECT_EQ(window.used(Tick{std::chrono::seconds(161)}), 9u);
  EXPECT_EQ(window.in_slot(110), 5u);
  window.charge_at(60, 7);  // left the window already
  EXPECT_EQ(window.used(Tick{std::chrono::seconds(130)}), 12u);
}

}  // namespace
}  // namespace sluice::gw
