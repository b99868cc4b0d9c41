// PrefixCache against a naive model (a list of contents and a deque of parked blocks), also with
// hashes that all collide; and what a hit compares.
#include "worker/core/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace sluice::eng {
namespace {

using test::test_seed;

constexpr std::uint32_t kBlocks = 24;
constexpr std::uint32_t kTokens = 4;

struct Stored {
  BlockHash hash;
  BlockHash parent;
  BlockSalt salt;
  std::vector<TokenId> ids;
  friend bool operator==(const Stored&, const Stored&) = default;
  PrefixCache::Content content() const { return {hash, parent, salt, ids}; }
};

struct NaiveCache {
  std::vector<std::optional<Stored>> entries{kBlocks};
  std::deque<std::uint32_t> parked;  // the oldest first

  std::optional<BlockId> find(const Stored& wanted) const {
    for (std::uint32_t i = 0; i < kBlocks; ++i)
      if (entries[i] == wanted) return BlockId{i};
    return std::nullopt;
  }
  bool is_parked(std::uint32_t block) const {
    return std::ranges::find(parked, block) != parked.end();
  }
};

// `num_hashes` small: many different contents share a hash, and many hashes a home.
Stored random_content(std::mt19937_64& random, std::uint64_t num_hashes) {
  Stored stored{{random() % num_hashes, 0}, {random() % 2, 0}, {random() % 2, 0}, {}};
  for (std::uint32_t i = 0; i < kTokens; ++i)
    stored.ids.push_back(static_cast<TokenId>(random() % 2));
  return stored;
}

void run_against_naive(std::uint64_t seed, std::uint64_t num_hashes) {
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  PrefixCache cache(kBlocks, kTokens);
  NaiveCache naive;
  for (int round = 0; round < 10'000; ++round) {
    const auto block = static_cast<std::uint32_t>(random() % kBlocks);
    const bool is_present = naive.entries[block].has_value();
    ASSERT_EQ(cache.contains(BlockId{block}), is_present);
    const Stored content = random_content(random, num_hashes);
    ASSERT_EQ(cache.find(content.content()), naive.find(content));
    if (!is_present) {
      const bool is_new = !naive.find(content);
      ASSERT_EQ(cache.insert(BlockId{block}, content.content()), is_new);
      if (is_new) naive.entries[block] = content;
    } else if (random() % 4 == 0) {
      cache.erase(BlockId{block});
      naive.entries[block].reset();
      std::erase(naive.parked, block);
    } else if (naive.is_parked(block)) {
      cache.unpark(BlockId{block});
      std::erase(naive.parked, block);
    } else {
      cache.park(BlockId{block});
      naive.parked.push_back(block);
    }
    ASSERT_EQ(cache.oldest_parked(),
              naive.parked.empty() ? std::nullopt : std::optional(BlockId{naive.parked.front()}));
    ASSERT_EQ(cache.num_parked(), naive.parked.size());
    cache.check_invariants();
  }
}

TEST(PrefixCache, BehavesAsTheNaiveModelUnderRandomCalls) {
  run_against_naive(test_seed(1), ~0ull);
}

TEST(PrefixCache, BehavesAsTheNaiveModelWhenHashesCollide) {
  run_against_naive(test_seed(2), 3);
}

TEST(PrefixCache, BehavesAsTheNaiveModelWhenHomesCollideAtTheTablesEnd) {
  // 64 places in the table: homes 61..63 run over its end.
  const std::uint64_t seed = test_seed(3);
  std::mt19937_64 random(seed);
  PrefixCache cache(kBlocks, kTokens);
  for (int round = 0; round < 2'000; ++round) {
    const BlockId block{static_cast<std::uint32_t>(random() % kBlocks)};
    Stored content = random_content(random, 1);
    content.hash = {61 + random() % 3, random() % 8};
    if (cache.contains(block))
      cache.erase(block);
    else
      cache.insert(block, content.content());
    cache.check_invariants();
  }
}

TEST(PrefixCache, AHitComparesParentSaltAndIdsBesideTheHash) {
  PrefixCache cache(kBlocks, kTokens);
  const Stored stored{{1, 2}, {3, 4}, {5, 6}, {7, 8, 9, 10}};
  ASSERT_TRUE(cache.insert(BlockId{3}, stored.content()));
  EXPECT_EQ(cache.find(stored.content()), BlockId{3});
  Stored other = stored;
  other.parent[1] = 0;
  EXPECT_FALSE(cache.find(other.content()));
  other = stored;
  other.salt[0] = 0;
  EXPECT_FALSE(cache.find(other.content()));
  other = stored;
  other.ids[3] = 11;
  EXPECT_FALSE(cache.find(other.content()));
}

}  // namespace
}  // namespace sluice::eng
