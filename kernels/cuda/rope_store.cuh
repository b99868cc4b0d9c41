// RoPE (Su et al.: "RoFormer", 2021) on queries and keys, and the store of keys and values into the
// paged KV cache. The angle table is computed on the host in double precision,
// so that every kernel family turns by the same angles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"

namespace sluice::krn::cuda {

struct RopePair {
  std::size_t first, second;  // dimensions within a head
};

static __device__ inline RopePair rope_pair(RopePairing pairing, std::size_t i,
                                            std::size_t head_dim) {
  if (pairing == RopePairing::half) return {i, i + head_dim / 2};
  return {2 * i, 2 * i + 1};
}

static __device__ inline void turn_query(const RopeStoreArgs& args, std::size_t token,
                                         std::size_t head, std::size_t i, float cosine,
                                         float sine) {
  const std::size_t head_dim = args.kv.head_dim;
  float* const query = args.q + token * args.q_stride + head * head_dim;
  const RopePair pair = rope_pair(args.pairing, i, head_dim);
  const float a = query[pair.first], b = query[pair.second];
  query[pair.first] = a * cosine - b * sine;
  query[pair.second] = a * sine + b * cosine;
}

static __device__ inline void store_key(const RopeStoreArgs& args, std::size_t token,
                                        std::size_t head, std::size_t i, float cosine, float sine,
                                        std::size_t slot) {
  const std::size_t head_dim = args.kv.head_dim, block_tokens = args.kv.block_tokens;
  const float* const key = args.k + token * args.kv_stride + head * head_dim;
  float* const keys = kv_keys(args.kv, args.blocks[token], args.layer, head) + slot;
  const RopePair pair = rope_pair(args.pairing, i, head_dim);
  const float a = key[pair.first], b = key[pair.second];
  keys[pair.first * block_tokens] = a * cosine - b * sine;
  keys[pair.second * block_tokens] = a * sine + b * cosine;
}

// Launch: grid (tokens, num_rope_pieces(args)), block (kRopeThreads): the pairs of all queries,
// then those of all keys, then the elements of all values, a thread each. Threads write disjoint
// elements: no barrier.
static __global__ void rope_store_kernel(RopeStoreArgs args) {
  const std::size_t token = blockIdx.x;
  const auto head_dim = static_cast<std::uint32_t>(args.kv.head_dim), half = head_dim / 2;
  const auto num_heads = static_cast<std::uint32_t>(args.num_heads);
  const auto num_kv_heads = static_cast<std::uint32_t>(args.kv.num_kv_heads);
  const std::size_t position = args.positions[token];
  const std::size_t slot = position % args.kv.block_tokens;

  std::uint32_t item = blockIdx.y * kRopeThreads + threadIdx.x;
  if (item < (num_heads + num_kv_heads) * half) {
    const std::uint32_t head = item / half, i = item % half;
    const float cosine = args.cos_table[position * half + i];
    const float sine = args.sin_table[position * half + i];
    if (head < num_heads)
      turn_query(args, token, head, i, cosine, sine);
    else
      store_key(args, token, head - num_heads, i, cosine, sine, slot);
    return;
  }
  item -= (num_heads + num_kv_heads) * half;
  if (item >= num_kv_heads * head_dim) return;
  float* const values = kv_values(args.kv, args.blocks[token], args.layer, item / head_dim);
  values[slot * head_dim + item % head_dim] = args.v[token * args.kv_stride + item];
}

}  // namespace sluice::krn::cuda
