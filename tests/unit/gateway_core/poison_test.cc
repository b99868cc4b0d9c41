// PoisonLedger: the worked examples of its header, and a simulated world where one of many requests
// kills every step it is in: it is condemned after few crashes, and nobody else ever is.
#include "gateway/core/poison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "shared/random.h"

namespace sluice::gw {
namespace {

std::vector<RequestId> ids(std::initializer_list<std::uint64_t> values) {
  std::vector<RequestId> made;
  for (const std::uint64_t value : values) made.emplace_back(value);
  return made;
}

std::vector<RequestId> crash(PoisonLedger& ledger, std::initializer_list<std::uint64_t> values) {
  std::vector<RequestId> condemned;
  ledger.crashed(ids(values), condemned);
  ledger.check_invariants();
  return condemned;
}

TEST(PoisonLedger, CondemnsWhoCrashedAlone) {
  PoisonLedger ledger;
  EXPECT_EQ(crash(ledger, {7}), ids({7}));
  EXPECT_EQ(ledger.num_suspects(), 0u);
}

TEST(PoisonLedger, PutsHalfOnTrialAndHoldsTheRest) {
  PoisonLedger ledger;
  EXPECT_TRUE(crash(ledger, {1, 2, 3, 4, 5}).empty());
  EXPECT_TRUE(ledger.may_run(RequestId{3}));
  EXPECT_FALSE(ledger.may_run(RequestId{4}));
  EXPECT_TRUE(ledger.may_run(RequestId{99}));
  for (const std::uint64_t id : {1u, 2u, 3u}) ledger.cleared(RequestId{id});
  EXPECT_TRUE(ledger.may_run(RequestId{4}));
  EXPECT_FALSE(ledger.may_run(RequestId{5}));
}

TEST(PoisonLedger, CondemnsWhoIsAloneInTheIntersectionOfThreeCrashesAmongInnocents) {
  PoisonLedger ledger;
  EXPECT_TRUE(crash(ledger, {1, 2}).empty());
  EXPECT_TRUE(crash(ledger, {1, 50, 51}).empty()) << "alone in the intersection, but of two";
  EXPECT_FALSE(ledger.may_run(RequestId{50})) << "it was there, and has delivered nothing since";
  EXPECT_FALSE(ledger.may_run(RequestId{2})) << "nor has this one";
  EXPECT_EQ(crash(ledger, {1, 60}), ids({1}));
  // The others are tried and cleared.
  for (int i = 0; ledger.num_suspects() > 0; ++i) {
    ASSERT_LT(i, 10);
    for (const std::uint64_t id : {2u, 50u, 51u, 60u})
      if (ledger.is_suspect(RequestId{id}) && ledger.may_run(RequestId{id}))
        ledger.cleared(RequestId{id});
    ledger.check_invariants();
  }
}

TEST(PoisonLedger, OneTrialRunsAtATime) {
  PoisonLedger ledger;
  crash(ledger, {1, 2});
  crash(ledger, {10, 11});
  EXPECT_EQ(ledger.num_suspects(), 4u);
  EXPECT_TRUE(ledger.may_run(RequestId{1}));
  for (const std::uint64_t id : {2u, 10u, 11u}) EXPECT_FALSE(ledger.may_run(RequestId{id}));
  ledger.cleared(RequestId{1});
  EXPECT_TRUE(ledger.may_run(RequestId{2}));
  EXPECT_FALSE(ledger.may_run(RequestId{10}));
  ledger.cleared(RequestId{2});
  EXPECT_TRUE(ledger.may_run(RequestId{10}));
}

TEST(PoisonLedger, WhoLeavesReleasesTheNextHalf) {
  PoisonLedger ledger;
  crash(ledger, {1, 2});
  ledger.cleared(RequestId{1});
  EXPECT_TRUE(ledger.may_run(RequestId{2}));
  ledger.cleared(RequestId{2});
  EXPECT_EQ(ledger.num_suspects(), 0u);
  EXPECT_TRUE(crash(ledger, {}).empty());
}

// A world of `count` requests, of which `num_guilty` kill every step that they are in. All run in
// the first step; later each takes part at random.
void find_the_guilty(std::uint64_t seed, std::uint64_t num_guilty, std::uint32_t crashes_max) {
  SCOPED_TRACE("seed " + std::to_string(seed) + " guilty " + std::to_string(num_guilty));
  PoisonLedger ledger;
  const std::uint64_t count = num_guilty + 1 + mix64(seed) % 60;
  std::set<RequestId> guilty, alive;
  for (std::uint64_t i = 0; guilty.size() < num_guilty; ++i)
    guilty.insert(RequestId{1 + mix64(seed ^ mix64(i + 3)) % count});
  for (std::uint64_t id = 1; id <= count; ++id) alive.insert(RequestId{id});
  std::uint32_t crashes = 0;
  for (std::uint32_t round = 0; alive.size() > count - num_guilty; ++round) {
    ASSERT_LT(round, 2000u) << "never found";
    std::vector<RequestId> batch;
    for (const RequestId id : alive) {
      const bool takes_part =
          round == 0 ||
          random_bits({seed, 0, round}, static_cast<std::uint32_t>(id.value)) % 4 != 0;
      if (takes_part && ledger.may_run(id)) batch.push_back(id);
    }
    const bool is_crash =
        std::any_of(batch.begin(), batch.end(), [&](RequestId id) { return guilty.contains(id); });
    if (!is_crash) {
      for (const RequestId id : batch) ledger.cleared(id);
      ledger.check_invariants();
      continue;
    }
    ++crashes;
    std::vector<RequestId> condemned;
    ledger.crashed(batch, condemned);
    ledger.check_invariants();
    for (const RequestId id : condemned) {
      ASSERT_TRUE(guilty.contains(id)) << id.value << " is innocent";
      alive.erase(id);
    }
  }
  EXPECT_LE(crashes, crashes_max);
}

TEST(PoisonLedger, FindsTheGuiltyOneAmongManyAndNobodyElse) {
  // log2(64) halvings and the confirmations
  for (std::uint64_t seed = 1; seed <= 300; ++seed) find_the_guilty(seed, 1, 10);
}

TEST(PoisonLedger, FindsSeveralGuiltyOnesAtOnceAndNobodyElse) {
  for (std::uint64_t seed = 1; seed <= 300 && !testing::Test::HasFailure(); ++seed)
    for (const std::uint64_t num_guilty : {2u, 3u, 5u})
      find_the_guilty(seed, num_guilty, static_cast<std::uint32_t>(10 * num_guilty));
}

}  // namespace
}  // namespace sluice::gw
