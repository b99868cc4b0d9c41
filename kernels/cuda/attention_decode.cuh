// Paged decode attention: one query row against the KV cache of its sequence, one block per (row,
// query head); rows of a prefill chunk are queries with a causal length each. Online softmax
// (Milakov, Gimelshein: "Online normalizer calculation for softmax", 2018) over fixed groups of
// kAttentionGroup positions in ascending order, so that the result does not depend on batch mates
// or on which blocks hold the sequence.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

// One thread per position of a group for the scores, one per dimension for the values.
inline constexpr unsigned kAttentionThreads = 128;
static_assert(kAttentionThreads >= kAttentionGroup);

// Launch: grid (rows, num_heads), block (kAttentionThreads).
static __global__ void attention_decode_kernel(AttentionDecodeArgs args) {
  SLUICE_SHARED(float, query, kHeadDimMax);
  SLUICE_SHARED(float, scores, kAttentionGroup);
  constexpr std::size_t kDimsPerThread = kHeadDimMax / kAttentionThreads;

  const std::size_t row = blockIdx.x, head = blockIdx.y, head_dim = args.kv.head_dim;
  const std::size_t kv_head = head / (args.num_heads / args.kv.num_kv_heads);
  const std::uint32_t* table = args.block_tables + args.table_begins[row];
  const std::size_t length = args.lengths[row];
  const std::size_t first = args.window != 0 && length > args.window ? length - args.window : 0;
  const std::size_t block_tokens = args.kv.block_tokens;

  for (std::size_t d = threadIdx.x; d < head_dim; d += kAttentionThreads)
    query[d] = args.q[row * args.q_stride + head * head_dim + d] * args.scale;

  float sums[kDimsPerThread] = {};  // this thread's output dimensions, unnormalized
  float running_max = -INFINITY, normalizer = 0.0f;
  for (std::size_t begin = first / kAttentionGroup * kAttentionGroup; begin < length;
       begin += kAttentionGroup) {
    const std::size_t count = length - begin < kAttentionGroup ? length - begin : kAttentionGroup;
    __syncthreads();  // the query is there; nobody reads the scores of the group before
    if (threadIdx.x < count) {
      const std::size_t position = begin + threadIdx.x;
      const float* keys = kv_keys(args.kv, table[position / block_tokens], args.layer, kv_head) +
                          position % block_tokens;
      float score = 0.0f;
      for (std::size_t d = 0; d < head_dim; ++d) score += query[d] * keys[d * block_tokens];
      scores[threadIdx.x] = position < first ? -INFINITY : score;
    }
    __syncthreads();  // all scores of the group are there
    float group_max = running_max;
    for (std::size_t i = 0; i < count; ++i) group_max = fmaxf(group_max, scores[i]);
    const float shrink = expf(running_max - group_max);  // 0 for the first group
    normalizer *= shrink;
    for (std::size_t j = 0; j < kDimsPerThread; ++j) sums[j] *= shrink;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t position = begin + i;
      const float weight = expf(scores[i] - group_max);
      normalizer += weight;
      const float* values =
          kv_values(args.kv, table[position / block_tokens], args.layer, kv_head) +
          position % block_tokens * head_dim;
      for (std::size_t j = 0; j < kDimsPerThread; ++j) {
        const std::size_t d = j * kAttentionThreads + threadIdx.x;
        if (d < head_dim) sums[j] += weight * values[d];
      }
    }
    running_max = group_max;
  }
  for (std::size_t j = 0; j < kDimsPerThread; ++j) {
    const std::size_t d = j * kAttentionThreads + threadIdx.x;
    if (d < head_dim) args.out[row * args.out_stride + head * head_dim + d] = sums[j] / normalizer;
  }
}

}  // namespace sluice::krn::cuda
