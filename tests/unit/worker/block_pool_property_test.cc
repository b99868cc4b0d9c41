// BlockPool against a naive model: random calls, the same answers, invariants after each.
#include "worker/core/block_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "tests/support/seed.h"

namespace sluice::eng {
namespace {

using test::test_seed;

struct NaivePool {
  std::map<std::uint32_t, std::uint32_t> refs;  // used blocks
  std::set<std::uint32_t> parked;
  std::set<std::uint32_t> free;
};

template <class Set>
std::uint32_t any_of(const Set& set, std::mt19937_64& random) {
  auto at = set.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(random() % set.size()));
  if constexpr (requires { at->first; })
    return at->first;
  else
    return *at;
}

void expect_equal(const BlockPool& pool, const NaivePool& naive) {
  ASSERT_EQ(pool.num_free(), naive.free.size());
  ASSERT_EQ(pool.num_used(), naive.refs.size());
  ASSERT_EQ(pool.num_parked(), naive.parked.size());
  for (const auto& [block, refs] : naive.refs) ASSERT_EQ(pool.num_refs(BlockId{block}), refs);
  for (const std::uint32_t block : naive.parked) ASSERT_TRUE(pool.is_parked(BlockId{block}));
  pool.check_invariants();
}

TEST(BlockPool, BehavesAsTheNaiveModelUnderRandomCalls) {
  const std::uint64_t seed = test_seed(20);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  BlockPool pool(13);
  NaivePool naive;
  for (std::uint32_t i = 0; i < 13; ++i) naive.free.insert(i);
  for (int round = 0; round < 20'000; ++round) {
    switch (random() % 4) {
      case 0:
        ASSERT_EQ(pool.has_free(), !naive.free.empty());
        if (pool.has_free()) {
          const BlockId block = pool.take();
          ASSERT_EQ(naive.free.erase(block.value), 1u);
          naive.refs[block.value] = 1;
        }
        break;
      case 1:
        if (random() % 2 == 0 && !naive.parked.empty()) {
          const std::uint32_t block = any_of(naive.parked, random);
          pool.retain(BlockId{block});
          naive.parked.erase(block);
          naive.refs[block] = 1;
        } else if (!naive.refs.empty()) {
          const std::uint32_t block = any_of(naive.refs, random);
          pool.retain(BlockId{block});
          ++naive.refs[block];
        }
        break;
      case 2:
        if (!naive.refs.empty()) {
          const std::uint32_t block = any_of(naive.refs, random);
          const bool parks = random() % 2 == 0;
          const bool was_last = pool.release(
              BlockId{block}, parks ? BlockPool::Keep::content : BlockPool::Keep::nothing);
          ASSERT_EQ(was_last, --naive.refs[block] == 0);
          if (was_last) {
            naive.refs.erase(block);
            (parks ? naive.parked : naive.free).insert(block);
          }
        }
        break;
      default:
        if (!naive.parked.empty()) {
          const std::uint32_t block = any_of(naive.parked, random);
          pool.reclaim(BlockId{block});
          naive.parked.erase(block);
          naive.free.insert(block);
        }
    }
    expect_equal(pool, naive);
  }
}

TEST(BlockPoolDeathTest, ReleasingAFreeBlockStopsTheProcess) {
  BlockPool pool(2);
  EXPECT_DEATH(pool.release(BlockId{0}, BlockPool::Keep::nothing), "CHECK|check|state_");
}

TEST(BlockPoolDeathTest, RetainingAFreeBlockStopsTheProcess) {
  BlockPool pool(2);
  EXPECT_DEATH(pool.retain(BlockId{1}), "CHECK|check|state_");
}

}  // namespace
}  // namespace sluice::eng
