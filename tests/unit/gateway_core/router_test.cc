// Router: load, affinity, epochs.
#include "gateway/core/router.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice::gw {
namespace {

std::vector<TokenId> prompt(TokenId first) {
  std::vector<TokenId> ids(100, 5);
  ids[0] = first;
  return ids;
}

TEST(Router, PicksTheLeastLoadedThatCanTakeAndTheLowerIdOnTies) {
  const Router router;
  const std::vector<WorkerSnapshot> workers{{WorkerId{0}, Epoch{1}, false, 0},
                                            {WorkerId{1}, Epoch{1}, true, 3},
                                            {WorkerId{2}, Epoch{1}, true, 2},
                                            {WorkerId{3}, Epoch{1}, true, 2}};
  EXPECT_EQ(router.pick(workers, 0), WorkerId{2});
  EXPECT_FALSE(router.pick(std::span(workers).first(1), 0));
}

TEST(Router, FollowsThePrefixWhileThatCostsNoQueueAndItsEpochLives) {
  Router router(2);
  const std::uint64_t prefix = Router::prefix_hash(TenantId{1}, prompt(7));
  router.remember(prefix, WorkerId{1}, Epoch{4});
  std::vector<WorkerSnapshot> workers{{WorkerId{0}, Epoch{1}, true, 0},
                                      {WorkerId{1}, Epoch{4}, true, 2}};
  EXPECT_EQ(router.pick(workers, prefix), WorkerId{1});
  workers[1].load = 3;
  EXPECT_EQ(router.pick(workers, prefix), WorkerId{0});
  workers[1].load = 2;
  workers[1].epoch = Epoch{5};
  EXPECT_EQ(router.pick(workers, prefix), WorkerId{0});
}

TEST(Router, TenantsAndPromptsHaveDifferentPrefixesAndShortPromptsNone) {
  const auto ids = prompt(7);
  EXPECT_NE(Router::prefix_hash(TenantId{1}, ids), Router::prefix_hash(TenantId{2}, ids));
  EXPECT_NE(Router::prefix_hash(TenantId{1}, ids), Router::prefix_hash(TenantId{1}, prompt(8)));
  EXPECT_EQ(Router::prefix_hash(TenantId{1}, std::span(ids).first(Router::kPrefixTokens)),
            Router::prefix_hash(TenantId{1}, ids));
  EXPECT_EQ(Router::prefix_hash(TenantId{1}, std::span(ids).first(10)), 0u);
}

}  // namespace
}  // namespace sluice::gw
