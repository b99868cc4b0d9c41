// RoPE (Su et al.: "RoFormer", 2021) on queries and keys, and the store of keys and values into the
// paged KV cache, one block per token. The angle table is computed on the host in double precision,
// so that every kernel family turns by the same angles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"

namespace sluice::krn::cuda {

inline constexpr unsigned kRopeThreads = 128;

struct RopePair {
  std::size_t first, second;  // dimensions within a head
};

static __device__ inline RopePair rope_pair(RopePairing pairing, std::size_t i,
                                            std::size_t head_dim) {
  if (pairing == RopePairing::half) return {i, i + head_dim / 2};
  return {2 * i, 2 * i + 1};
}

// Launch: grid (tokens), block (kRopeThreads). Threads write disjoint elements: no barrier.
static __global__ void rope_store_kernel(RopeStoreArgs args) {
  const std::size_t token = blockIdx.x;
  const std::size_t head_dim = args.kv.head_dim;
  const std::size_t half = head_dim / 2;
  const std::size_t position = args.positions[token];
  const std::size_t slot = position % args.kv.block_tokens;
  const float* cosines = args.cos_table + position * half;
  const float* sines = args.sin_table + position * half;

  for (std::size_t i = threadIdx.x; i < args.num_heads * half; i += kRopeThreads) {
    float* head = args.q + token * args.q_stride + i / half * head_dim;
    const RopePair pair = rope_pair(args.pairing, i % half, head_dim);
    const float a = head[pair.first], b = head[pair.second];
    head[pair.first] = a * cosines[i % half] - b * sines[i % half];
    head[pair.second] = a * sines[i % half] + b * cosines[i % half];
  }
  for (std::size_t i = threadIdx.x; i < args.kv.num_kv_heads * half; i += kRopeThreads) {
    const float* head = args.k + token * args.kv_stride + i / half * head_dim;
    float* keys = kv_keys(args.kv, args.blocks[token], args.layer, i / half);
    const RopePair pair = rope_pair(args.pairing, i % half, head_dim);
    const float a = head[pair.first], b = head[pair.second];
    keys[pair.first * args.kv.block_tokens + slot] = a * cosines[i % half] - b * sines[i % half];
    keys[pair.second * args.kv.block_tokens + slot] = a * sines[i % half] + b * cosines[i % half];
  }
  for (std::size_t i = threadIdx.x; i < args.kv.num_kv_heads * head_dim; i += kRopeThreads) {
    float* values = kv_values(args.kv, args.blocks[token], args.layer, i / head_dim);
    values[slot * head_dim + i % head_dim] = args.v[token * args.kv_stride + i];
  }
}

}  // namespace sluice::krn::cuda
