// Paged decode attention: one query row against the KV cache of its sequence; rows of a prefill
// chunk are queries with a causal length each. One block per (row, query head, chunk of positions):
// Dao et al.: "Flash-Decoding", 2023. Online softmax (Milakov, Gimelshein: "Online normalizer
// calculation for softmax", 2018) over groups of kAttentionGroup positions. Group g belongs to warp
// g % kAttentionWarps, whose groups follow in ascending order without a barrier; the results of
// warps, then of chunks are joined in ascending order. So the order of a sum is a function of the
// length and of chunk_tokens alone: batch mates and the choice of blocks do not matter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

inline constexpr unsigned kAttentionThreads = kAttentionWarps * kWarpLanes;

// What a warp knows of its groups; each lane holds every 32nd dimension of the output.
struct AttentionState {
  float maximum = -INFINITY;
  float normalizer = 0.0f;
  float sums[kHeadDimMax / kWarpLanes] = {};  // unnormalized
};

// Which positions a row sees, [first, length), and what of that a chunk has.
struct AttentionRange {
  std::size_t first, length, begin, end;
  static __device__ AttentionRange of(const AttentionDecodeArgs& args, std::size_t row,
                                      std::size_t chunk) {
    const std::size_t length = args.lengths[row];
    const std::size_t first = args.window != 0 && length > args.window ? length - args.window : 0;
    if (args.num_chunks == 1) return {first, length, 0, length};
    const std::size_t begin = chunk * args.chunk_tokens, end = begin + args.chunk_tokens;
    return {first, length, begin, end < length ? end : length};
  }
  __device__ bool is_empty() const { return begin >= end || end <= first; }
  __device__ bool is_whole() const { return begin <= first && end == length; }
};

// [head_dim] sums, the maximum, the normalizer.
static __device__ inline float* partial_of(const AttentionDecodeArgs& args, std::size_t row,
                                           std::size_t head, std::size_t chunk) {
  const std::size_t place = (row * args.num_heads + head) * args.num_chunks + chunk;
  return args.partials + place * (args.kv.head_dim + 2);
}

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

// Launch: grid (rows, num_heads, num_chunks), block (kAttentionThreads).
static __global__ void attention_decode_kernel(AttentionDecodeArgs args) {
  SLUICE_SHARED(float, query, kHeadDimMax);
  SLUICE_SHARED(float, weights, kAttentionWarps* kAttentionGroup);
  SLUICE_SHARED(float, maxima, kAttentionWarps);
  SLUICE_SHARED(float, normalizers, kAttentionWarps);
  SLUICE_SHARED(float, outputs, kAttentionWarps* kHeadDimMax);

  const std::size_t row = blockIdx.x, head = blockIdx.y, head_dim = args.kv.head_dim;
  const AttentionRange range = AttentionRange::of(args, row, blockIdx.z);
  if (range.is_empty()) return;
  const std::size_t kv_head = head / (args.num_heads / args.kv.num_kv_heads);
  const std::uint32_t* table = args.block_tables + args.table_begins[row];
  const unsigned warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;

  for (std::size_t d = threadIdx.x; d < head_dim; d += kAttentionThreads)
    query[d] = args.q[row * args.q_stride + head * head_dim + d] * args.scale;
  __syncthreads();  // the query is there

  AttentionState state;
  const std::size_t from = range.begin < range.first ? range.first : range.begin;
  for (std::size_t group = from / kAttentionGroup; group * kAttentionGroup < range.end; ++group)
    if (group % kAttentionWarps == warp)
      attend_group(args, query, weights + warp * kAttentionGroup, table, kv_head,
                   group * kAttentionGroup, range.first, range.length, state);

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
  float normalizer = 0.0f;
  for (unsigned w = 0; w < kAttentionWarps; ++w)  // a warp without a group adds 0
    normalizer += expf(maxima[w] - maximum) * normalizers[w];
  float* const partial = range.is_whole() ? nullptr : partial_of(args, row, head, blockIdx.z);
  for (std::size_t d = threadIdx.x; d < head_dim; d += kAttentionThreads) {
    float sum = 0.0f;
    for (unsigned w = 0; w < kAttentionWarps; ++w)
      sum += expf(maxima[w] - maximum) * outputs[w * kHeadDimMax + d];
    if (partial == nullptr)
      args.out[row * args.out_stride + head * head_dim + d] = sum / normalizer;
    else
      partial[d] = sum;
  }
  if (partial != nullptr && threadIdx.x == 0) {
    partial[head_dim] = maximum;
    partial[head_dim + 1] = normalizer;
  }
}

// After attention_decode_kernel, where there are several chunks. Launch: grid (rows, num_heads),
// block (row_threads(head_dim)).
static __global__ void attention_join_kernel(AttentionDecodeArgs args) {
  const std::size_t row = blockIdx.x, head = blockIdx.y, head_dim = args.kv.head_dim;
  float maximum = -INFINITY;
  for (std::size_t chunk = 0; chunk < args.num_chunks; ++chunk) {
    const AttentionRange range = AttentionRange::of(args, row, chunk);
    if (range.is_empty()) continue;
    if (range.is_whole()) return;  // the row is done
    maximum = fmaxf(maximum, partial_of(args, row, head, chunk)[head_dim]);
  }
  for (std::size_t d = threadIdx.x; d < head_dim; d += blockDim.x) {
    float sum = 0.0f, normalizer = 0.0f;
    for (std::size_t chunk = 0; chunk < args.num_chunks; ++chunk) {
      if (AttentionRange::of(args, row, chunk).is_empty()) continue;
      const float* const partial = partial_of(args, row, head, chunk);
      const float share = expf(partial[head_dim] - maximum);
      sum += share * partial[d];
      normalizer += share * partial[head_dim + 1];
    }
    args.out[row * args.out_stride + head * head_dim + d] = sum / normalizer;
  }
}

}  // namespace sluice::krn::cuda
