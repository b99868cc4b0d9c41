// The name of a full KV block: a keyed 128-bit hash of (parent's hash, salt, ids), so that equal
// prefixes of one salt meet in the prefix cache and nobody without the key can construct a
// collision (P7). SipHash-2-4 with 128-bit output (Aumasson, Bernstein: "SipHash: a fast
// short-input PRF", 2012).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "shared/ids.h"

namespace sluice::eng {

using BlockHash = std::array<std::uint64_t, 2>;
using BlockSalt = std::array<std::uint64_t, 2>;  // of the tenant; 0,0 is the public salt
using HashKey = std::array<std::uint64_t, 2>;    // secret, drawn once per worker process

// ids: one full block; an even number of them.
BlockHash block_hash(const HashKey& key, const BlockHash& parent, const BlockSalt& salt,
                     std::span<const TokenId> ids);

// The function underneath, over 64-bit little-endian words.
BlockHash siphash128(const HashKey& key, std::span<const std::uint64_t> words);

}  // namespace sluice::eng
