// Paged decode attention: one query row against the KV cache of its sequence, one block per (row,
// query head); rows of a prefill chunk are queries with a causal length each. Online softmax
// (Milakov, Gimelshein: "Online normalizer calculation for softmax", 2018) over groups of
// kAttentionGroup positions. Group g belongs to warp g % kAttentionWarps, whose groups follow in
// ascending order without a barrier; the warps' results are joined in ascending order (Dao et al.:
// "Flash-Decoding", 2023, within one block). So the order of a sum is a function of the length
// alone: batch mates and the choice of blocks do not matter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

inline constexpr unsigned kAttentionWarps = 4;
inline constexpr unsigned kAttentionThreads = kAttentionWarps * kWarpLanes;

// What a warp knows of its groups; each lane holds every 32nd dimension of the output.
struct AttentionState {
  float maximum = -INFINITY;
  float normalizer = 0.0f;
  float sums[kHeadDimMax / kWarpLanes] = {};  // unnormalized
};

// One group of at most kAttentionGroup positions: scores, exponentials in `weights` (of this warp
// alone), values.
static __device__ inline void attend_group(const AttentionDecodeArgs& args, const float* query,
                                           float* weights, const std::uint32_t* table,
                                           std::size_t kv_head, std::size_t begin,
                                           std::size_t first, std::size_t length,
                                           AttentionState& state) {
  constexpr unsigned kScores = kAttentionGroup / kWarpLanes;  // of a lane
  const std::size_t head_dim = args.kv.head_dim, block_tokens = args.kv.block_tokens;
  const unsigned lane = threadIdx.x % kWarpLanes;
  // A position that is not there is computed as the last one that is, and hidden afterwards: loads
  // without branches between them are under way together.
  const float* keys[kScores];
  float score[kScores] = {};
  for (unsigned s = 0; s < kScores; ++s) {
    const std::size_t wanted = begin + s * kWarpLanes + lane;
    const auto position = static_cast<std::uint32_t>(wanted < length ? wanted : length - 1);
    const auto per_block = static_cast<std::uint32_t>(block_tokens);
    keys[s] =
        kv_keys(args.kv, table[position / per_block], args.layer, kv_head) + position % per_block;
  }
  SLUICE_UNROLL(16)
  for (std::size_t d = 0; d < head_dim; ++d)
    for (unsigned s = 0; s < kScores; ++s) score[s] += query[d] * keys[s][d * block_tokens];
  float group_max = state.maximum;
  for (unsigned s = 0; s < kScores; ++s) {
    const std::size_t position = begin + s * kWarpLanes + lane;
    if (position < first || position >= length) score[s] = -INFINITY;
    group_max = fmaxf(group_max, score[s]);
  }
  group_max = warp_max(group_max);
  float exponentials = 0.0f;
  for (unsigned s = 0; s < kScores; ++s) {
    const float weight = expf(score[s] - group_max);  // 0 where nothing is to be seen
    weights[s * kWarpLanes + lane] = weight;
    exponentials += weight;
  }
  const float shrink = expf(state.maximum - group_max);  // 0 for the first group
  state.maximum = group_max;
  state.normalizer = state.normalizer * shrink + warp_sum(exponentials);
  for (float& sum : state.sums) sum *= shrink;
  __syncwarp();  // the weights of all lanes are there
  const std::size_t end = begin + kAttentionGroup < length ? begin + kAttentionGroup : length;
  for (std::size_t at = begin; at < end; at += block_tokens) {
    const float* values = kv_values(args.kv, table[at / block_tokens], args.layer, kv_head);
    const std::size_t count = end - at < block_tokens ? end - at : block_tokens;
    SLUICE_UNROLL(8)
    for (unsigned j = 0; j < kHeadDimMax / kWarpLanes; ++j) {
      const std::size_t d = j * kWarpLanes + lane;
      if (d >= head_dim) break;
      SLUICE_UNROLL(16)
      for (std::size_t i = 0; i < count; ++i)
        state.sums[j] += weights[at - begin + i] * values[i * head_dim + d];
    }
  }
  __syncwarp();  // all lanes have read the weights
}

// Launch: grid (rows, num_heads), block (kAttentionThreads).
static __global__ void attention_decode_kernel(AttentionDecodeArgs args) {
  SLUICE_SHARED(float, query, kHeadDimMax);
  SLUICE_SHARED(float, weights, kAttentionWarps* kAttentionGroup);
  SLUICE_SHARED(float, maxima, kAttentionWarps);
  SLUICE_SHARED(float, normalizers, kAttentionWarps);
  SLUICE_SHARED(float, outputs, kAttentionWarps* kHeadDimMax);

  const std::size_t row = blockIdx.x, head = blockIdx.y, head_dim = args.kv.head_dim;
  const std::size_t kv_head = head / (args.num_heads / args.kv.num_kv_heads);
  const std::uint32_t* table = args.block_tables + args.table_begins[row];
  const std::size_t length = args.lengths[row];
  const std::size_t first = args.window != 0 && length > args.window ? length - args.window : 0;
  const unsigned warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;

  for (std::size_t d = threadIdx.x; d < head_dim; d += kAttentionThreads)
    query[d] = args.q[row * args.q_stride + head * head_dim + d] * args.scale;
  __syncthreads();  // the query is there

  AttentionState state;
  for (std::size_t group = first / kAttentionGroup; group * kAttentionGroup < length; ++group)
    if (group % kAttentionWarps == warp)
      attend_group(args, query, weights + warp * kAttentionGroup, table, kv_head,
                   group * kAttentionGroup, first, length, state);

  if (lane == 0) {
    maxima[warp] = state.maximum;
    normalizers[warp] = state.normalizer;
  }
  SLUICE_UNROLL(8)
  for (unsigned j = 0; j < kHeadDimMax / kWarpLanes; ++j) {
    const std::size_t d = j * kWarpLanes + lane;
    if (d < head_dim) outputs[warp * kHeadDimMax + d] = state.sums[j];
  }
  __syncthreads();  // the results of all warps are there
  float maximum = maxima[0];
  for (unsigned w = 1; w < kAttentionWarps; ++w) maximum = fmaxf(maximum, maxima[w]);
  for (std::size_t d = threadIdx.x; d < head_dim; d += kAttentionThreads) {
    float sum = 0.0f, normalizer = 0.0f;
    for (unsigned w = 0; w < kAttentionWarps; ++w) {
      const float share = expf(maxima[w] - maximum);  // 0 for a warp without a group
      sum += share * outputs[w * kHeadDimMax + d];
      normalizer += share * normalizers[w];
    }
    args.out[row * args.out_stride + head * head_dim + d] = sum / normalizer;
  }
}

}  // namespace sluice::krn::cuda
