// The simulator's model: a token is a hash of all ids so far, so that a wrong continuation shows at
// the first wrong token. One prompt id kills the worker that computes it.
#pragma once

#include <cstdint>
#include <span>

#include "shared/ids.h"
#include "shared/random.h"

namespace sluice::sim {

inline constexpr std::uint32_t kVocab = 211;
inline constexpr TokenId kPoisonId = kVocab - 1;  // as the first id of a prompt

inline TokenId next_token(std::span<const TokenId> ids, std::uint64_t seed, std::uint32_t choice) {
  std::uint64_t hash = mix64(seed ^ (std::uint64_t{choice} << 32));
  for (const TokenId id : ids) hash = mix64(hash ^ id);
  return static_cast<TokenId>(hash % kVocab);
}

// Of the last of `ids`, given those before it.
inline float logprob_of_last(std::span<const TokenId> ids) {
  std::uint64_t hash = 0;
  for (const TokenId id : ids) hash = mix64(hash ^ id);
  return -static_cast<float>(hash % 1000) / 16.0f;
}

}  // namespace sluice::sim
