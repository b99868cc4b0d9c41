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
  EXPECT_FALSE(ledger.is_suspect(RequestId{50}));
  EXPECT_FALSE(ledger.is_suspect(RequestId{2})) << "it was not in the second crash";
  EXPECT_EQ(crash(ledger, {1, 60}), ids({1}));
}

TEST(PoisonLedger, ACrashWithoutMembersOfAGroupMakesAGroupOfItsOwn) {
  PoisonLedger ledger;
  crash(ledger, {1, 2});
  crash(ledger, {10, 11});
  EXPECT_EQ(ledger.num_suspects(), 4u);
  EXPECT_TRUE(ledger.may_run(RequestId{1}));
  EXPECT_TRUE(ledger.may_run(RequestId{10}));
  EXPECT_FALSE(ledger.may_run(RequestId{11}));
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

TEST(PoisonLedger, FindsTheGuiltyOneAmongManyAndNobodyElse) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    PoisonLedger ledger;
    const std::uint64_t count = 2 + mix64(seed) % 63;
    const RequestId guilty{1 + mix64(seed ^ 3) % count};
    std::set<RequestId> alive;
    for (std::uint64_t id = 1; id <= count; ++id) alive.insert(RequestId{id});
    std::uint32_t crashes = 0;
    for (std::uint32_t round = 0; alive.contains(guilty); ++round) {
      ASSERT_LT(round, 200u) << "never found";
      std::vector<RequestId> batch;
      for (const RequestId id : alive) {
        const bool takes_part =
            random_bits({seed, 0, round}, static_cast<std::uint32_t>(id.value)) % 4 != 0;
        if (takes_part && ledger.may_run(id)) batch.push_back(id);
      }
      if (std::find(batch.begin(), batch.end(), guilty) == batch.end()) {
        for (const RequestId id : batch) ledger.cleared(id);
        continue;
      }
      ++crashes;
      std::vector<RequestId> condemned;
      ledger.crashed(batch, condemned);
      ledger.check_invariants();
      for (const RequestId id : condemned) {
        ASSERT_EQ(id, guilty);
        alive.erase(id);
      }
    }
    EXPECT_LE(crashes, 10u);  // log2(64) halvings and the confirmations
  }
}

}  // namespace
}  // namespace sluice::gw
