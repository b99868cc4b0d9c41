// SipHash-2-4-128 over words; a block is hashed without copying its ids.
#include "worker/core/block_hash.h"

#include <bit>

#include "shared/check.h"

namespace sluice::eng {
namespace {

class SipState {
 public:
  explicit SipState(const HashKey& key)
      : v0_(key[0] ^ 0x736f6d6570736575ull),
        v1_(key[1] ^ 0x646f72616e646f6dull ^ 0xee),  // 0xee marks the 128-bit variant
        v2_(key[0] ^ 0x6c7967656e657261ull),
        v3_(key[1] ^ 0x7465646279746573ull) {}

  void absorb(std::uint64_t word) {
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
  }

  // `num_words`: all that was absorbed; the last word of SipHash carries the length in bytes.
  BlockHash finish(std::uint64_t num_words) {
    absorb((num_words * 8) << 56);
    v2_ ^= 0xee;
    BlockHash hash{};
    hash[0] = drain();
    v1_ ^= 0xdd;
    hash[1] = drain();
    return hash;
  }

 private:
  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  std::uint64_t drain() {
    for (int i = 0; i < 4; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

  std::uint64_t v0_, v1_, v2_, v3_;
};

}  // namespace

BlockHash block_hash(const HashKey& key, const BlockHash& parent, const BlockSalt& salt,
                     std::span<const TokenId> ids) {
  CHECK(ids.size() % 2 == 0);
  SipState state(key);
  state.absorb(parent[0]);
  state.absorb(parent[1]);
  state.absorb(salt[0]);
  state.absorb(salt[1]);
  for (std::size_t i = 0; i < ids.size(); i += 2)
    state.absorb(ids[i] | (std::uint64_t{ids[i + 1]} << 32));
  return state.finish(4 + ids.size() / 2);
}

BlockHash siphash128(const HashKey& key, std::span<const std::uint64_t> words) {
  SipState state(key);
  for (const std::uint64_t word : words) state.absorb(word);
  return state.finish(words.size());
}

}  // namespace sluice::eng
