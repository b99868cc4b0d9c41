// The block hash: SipHash-2-4-128 as OpenSSL computes it, and every input matters.
#include "worker/core/block_hash.h"

#include <gtest/gtest.h>

#include <set>

namespace sluice::eng {
namespace {

constexpr HashKey kKey{0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};

// Expected values from `openssl mac -macopt size:16 SIPHASH`.
TEST(BlockHash, MatchesOpenSsl) {
  EXPECT_EQ(siphash128(kKey, {}), (BlockHash{0xe6a825ba047f81a3ull, 0x930255c71472f66dull}));
  const std::uint64_t one[] = {0x0706050403020100ull};
  EXPECT_EQ(siphash128(kKey, one), (BlockHash{0x61f55862baa9623bull, 0xb49714f364e2830full}));
  const std::uint64_t two[] = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};
  EXPECT_EQ(siphash128(kKey, two), (BlockHash{0xbb54b067caa4e26eull, 0x77052385bf1533fdull}));
}

TEST(BlockHash, EqualsTheHashOfItsWords) {
  const TokenId ids[] = {1, 2, 3, 4};
  const std::uint64_t words[] = {5, 6, 7, 8, 1 | (2ull << 32), 3 | (4ull << 32)};
  EXPECT_EQ(block_hash(kKey, {5, 6}, {7, 8}, ids), siphash128(kKey, words));
}

TEST(BlockHash, EveryInputChangesIt) {
  std::set<BlockHash> seen;
  const TokenId ids[] = {1, 2};
  const TokenId others[] = {2, 1};
  seen.insert(block_hash(kKey, {}, {}, ids));
  seen.insert(block_hash(kKey, {}, {}, others));
  seen.insert(block_hash(kKey, {0, 1}, {}, ids));
  seen.insert(block_hash(kKey, {}, {0, 1}, ids));
  seen.insert(block_hash({kKey[0], kKey[1] ^ 1}, {}, {}, ids));
  EXPECT_EQ(seen.size(), 5u);
}

}  // namespace
}  // namespace sluice::eng
