// Paged decode attention: one query row against the KV cache of its sequence; rows of a prefill
// chunk are queries with a causal length each. One block per (row, query head, chunk of positions):
// Dao et al.: "Flash-Decoding", 2023. Online softmax (Milakov, Gimelshein: "Online normalizer
// calculation for softmax", 2018) over groups of kWarpPositions positions. Group g belongs to warp
// g % kAttentionWarps, whose groups follow in ascending order without a barrier; the results of
// warps, then of chunks are joined in ascending order. So the order of a sum is a function of the
// length and of chunk_tokens alone: batch mates and the choice of blocks do not matter.
//
// A short row is a matter of latency: what a warp needs of memory for a group is under way at once,
// the keys and the first values before anything is computed. Keys [head_dim, block_tokens]: eight
// lanes next to each other load the group's positions of one dimension, four each, and a warp has
// four dimensions at a time. Values [block_tokens, head_dim]: a lane has every 32nd dimension.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"
#include "kernels/cuda/four_floats.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

inline constexpr unsigned kAttentionThreads = kAttentionWarps * kWarpLanes;

inline constexpr unsigned kQuads = kWarpPositions / 4;        // lanes that share a dimension
inline constexpr unsigned kDimsAtOnce = kWarpLanes / kQuads;  // of a warp that reads keys

// What a warp knows of its groups; LaneDims: dimensions of the output that a lane holds.
template <unsigned LaneDims>
struct AttentionState {
  float maximum = -INFINITY;
  float normalizer = 0.0f;
  float sums[LaneDims] = {};  // unnormalized
};

// Values are loaded in batches of so many positions, two batches in registers.
template <unsigned LaneDims>
struct ValueBatch {
  // Positions of one load_values(): they lie in one KV block.
  static constexpr unsigned kPiece = LaneDims <= 4 ? 8 : 4;
  static constexpr unsigned kPieces = LaneDims <= 2 ? 2 : 1;
  static constexpr unsigned kPositions = kPiece * kPieces;
  static constexpr unsigned kCount = kWarpPositions / kPositions;  // of a group
  float at[kPositions][LaneDims];
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

// One row's view of the cache: a layer and a KV head, positions [first, length).
struct AttentionRow {
  const PagedKv& kv;
  const std::uint32_t* table;
  std::size_t layer, kv_head;
  std::uint32_t first, length;

  // The position itself where the row sees any of the `count` that begin with it; else the begin
  // of the nearest that it sees something of. `position` and the size of blocks are multiples of
  // `count`. So every load is one of memory that is there, and loads need no branches between them.
  __device__ std::uint32_t nearest(std::uint32_t position, std::uint32_t count) const {
    const std::uint32_t low = first / count * count, high = (length - 1) / count * count;
    return position < low ? low : position > high ? high : position;
  }
  __device__ std::uint32_t block_tokens() const {
    return static_cast<std::uint32_t>(kv.block_tokens);
  }
};

// The scores of four positions from begin + 4 * (lane % kQuads) on, in all lanes that share them.
// query: [LaneDims * kWarpLanes], 0 from head_dim on.
template <unsigned LaneDims>
static __device__ inline void score_group(const AttentionRow& row, const float* query,
                                          std::uint32_t begin, float (&scores)[4]) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  const std::uint32_t wanted = begin + 4 * (lane % kQuads), at = row.nearest(wanted, 4);
  const float* const keys =
      kv_keys(row.kv, row.table[at / row.block_tokens()], row.layer, row.kv_head) +
      at % row.block_tokens();
  const auto last = static_cast<unsigned>(row.kv.head_dim - 1);
  SLUICE_UNROLL(16)
  for (unsigned step = 0; step < LaneDims * kWarpLanes / kDimsAtOnce; ++step) {
    const unsigned d = step * kDimsAtOnce + lane / kQuads;
    const auto key =
        *reinterpret_cast<const FourFloats*>(keys + (d < last ? d : last) * row.block_tokens());
    for (unsigned i = 0; i < 4; ++i) scores[i] += query[d] * key.at[i];
  }
  for (unsigned apart = kQuads; apart < kWarpLanes; apart *= 2)
    for (float& score : scores) score += __shfl_xor_sync(0xffffffffu, score, apart);
  for (unsigned i = 0; i < 4; ++i)
    if (wanted + i < row.first || wanted + i >= row.length) scores[i] = -INFINITY;
}

template <unsigned LaneDims>
static __device__ inline void load_values(const AttentionRow& row, std::uint32_t begin,
                                          ValueBatch<LaneDims>& values) {
  constexpr unsigned kPiece = ValueBatch<LaneDims>::kPiece;
  const auto head_dim = static_cast<unsigned>(row.kv.head_dim);
  const unsigned lane = threadIdx.x % kWarpLanes;
  for (unsigned piece = 0; piece < ValueBatch<LaneDims>::kPieces; ++piece) {
    const std::uint32_t at = row.nearest(begin + piece * kPiece, kPiece);
    const float* const from =
        kv_values(row.kv, row.table[at / row.block_tokens()], row.layer, row.kv_head) +
        at % row.block_tokens() * head_dim;
    for (unsigned i = 0; i < kPiece; ++i) {
      const std::uint32_t offset = (row.nearest(at + i, 1) - at) * head_dim;
      for (unsigned j = 0; j < LaneDims; ++j) {
        const unsigned d = j * kWarpLanes + lane;  // the last one again where there is none
        values.at[piece * kPiece + i][j] = from[offset + (d < head_dim ? d : head_dim - 1)];
      }
    }
  }
}

// From scores to weights, in `weights` [kWarpPositions] of this warp; what it had is shrunk.
template <unsigned LaneDims>
static __device__ inline void weigh_group(const float (&scores)[4], FourFloats* weights,
                                          AttentionState<LaneDims>& state) {
  float group_max = state.maximum;
  for (const float score : scores) group_max = fmaxf(group_max, score);
  for (unsigned apart = 1; apart < kQuads; apart *= 2)
    group_max = fmaxf(group_max, __shfl_xor_sync(0xffffffffu, group_max, apart));
  FourFloats mine;
  float exponentials = 0.0f;
  for (unsigned i = 0; i < 4; ++i) {
    mine.at[i] = expf(scores[i] - group_max);  // 0 where nothing is to be seen
    exponentials += mine.at[i];
  }
  for (unsigned apart = 1; apart < kQuads; apart *= 2)
    exponentials += __shfl_xor_sync(0xffffffffu, exponentials, apart);
  const unsigned lane = threadIdx.x % kWarpLanes;
  if (lane < kQuads) weights[lane] = mine;
  const float shrink = expf(state.maximum - group_max);  // 0 for the first group
  state.maximum = group_max;
  state.normalizer = state.normalizer * shrink + exponentials;
  for (float& sum : state.sums) sum *= shrink;
}

// Adds one group, of which the row sees at least one position.
template <unsigned LaneDims>
static __device__ inline void attend_group(const AttentionRow& row, const float* query,
                                           FourFloats* weights, std::uint32_t begin,
                                           AttentionState<LaneDims>& state) {
  using Batch = ValueBatch<LaneDims>;
  Batch batches[2];
  load_values(row, begin, batches[0]);
  float scores[4] = {};
  score_group<LaneDims>(row, query, begin, scores);
  load_values(row, begin + Batch::kPositions, batches[1]);
  weigh_group(scores, weights, state);
  __syncwarp();  // the weights of all lanes are there
  SLUICE_UNROLL(8)
  for (unsigned b = 0; b < Batch::kCount; ++b) {
    for (unsigned i = 0; i < Batch::kPositions; ++i) {
      const unsigned place = b * Batch::kPositions + i;
      for (unsigned j = 0; j < LaneDims; ++j)
        state.sums[j] += weights[place / 4].at[place % 4] * batches[b % 2].at[i][j];
    }
    if (b + 2 < Batch::kCount)
      load_values(row, begin + (b + 2) * Batch::kPositions, batches[b % 2]);
  }
  __syncwarp();  // all lanes have read the weights
}

// Launch: grid (rows, num_heads, num_chunks), block (kAttentionThreads); head_dim is at most
// LaneDims * kWarpLanes. Two blocks of a multiprocessor's registers: a long row needs many warps.
template <unsigned LaneDims>
static __global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_decode_kernel(AttentionDecodeArgs args) {
  constexpr unsigned kDims = LaneDims * kWarpLanes;
  static_assert(kDims <= kAttentionThreads, "a thread takes one dimension");
  SLUICE_SHARED(float, query, kDims);
  SLUICE_SHARED(FourFloats, weights, kAttentionWarps * kQuads);
  SLUICE_SHARED(float, maxima, kAttentionWarps);
  SLUICE_SHARED(float, normalizers, kAttentionWarps);
  SLUICE_SHARED(float, outputs, kAttentionWarps* kDims);

  const std::size_t row = blockIdx.x, head = blockIdx.y, head_dim = args.kv.head_dim;
  const AttentionRange range = AttentionRange::of(args, row, blockIdx.z);
  if (range.is_empty()) return;
  const AttentionRow seen{args.kv,
                          args.block_tables + args.table_begins[row],
                          args.layer,
                          head / (args.num_heads / args.kv.num_kv_heads),
                          static_cast<std::uint32_t>(range.first),
                          static_cast<std::uint32_t>(range.length)};
  const unsigned warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;

  const unsigned own = threadIdx.x;  // dimension, where there are so many
  if (own < kDims)
    query[own] =
        own < head_dim ? args.q[row * args.q_stride + head * head_dim + own] * args.scale : 0.0f;
  __syncthreads();  // the query is there

  AttentionState<LaneDims> state;
  const std::size_t from = range.begin < range.first ? range.first : range.begin;
  const std::size_t start = from / kWarpPositions;
  const std::size_t turn = (warp + kAttentionWarps - start % kAttentionWarps) % kAttentionWarps;
  for (std::size_t group = start + turn; group * kWarpPositions < range.end;
       group += kAttentionWarps)
    attend_group(seen, query, weights + warp * kQuads,
                 static_cast<std::uint32_t>(group * kWarpPositions), state);

  if (lane == 0) {
    maxima[warp] = state.maximum;
    normalizers[warp] = state.normalizer;
  }
  for (unsigned j = 0; j < LaneDims; ++j)
    outputs[warp * kDims + j * kWarpLanes + lane] = state.sums[j];
  __syncthreads();  // the results of all warps are there
  if (own >= head_dim) return;
  float maximum = maxima[0];
  for (unsigned w = 1; w < kAttentionWarps; ++w) maximum = fmaxf(maximum, maxima[w]);
  float sum = 0.0f, normalizer = 0.0f;
  for (unsigned w = 0; w < kAttentionWarps; ++w) {  // a warp without a group adds 0
    const float share = expf(maxima[w] - maximum);
    normalizer += share * normalizers[w];
    sum += share * outputs[w * kDims + own];
  }
  if (range.is_whole()) {
    args.out[row * args.out_stride + head * head_dim + own] = sum / normalizer;
    return;
  }
  float* const partial = partial_of(args, row, head, blockIdx.z);
  partial[own] = sum;
  if (own > 0) return;
  partial[head_dim] = maximum;
  partial[head_dim + 1] = normalizer;
}

// REQUIRES: head_dim <= kHeadDimMax.
static inline auto attention_decode_kernel_of(std::size_t head_dim)
    -> void (*)(AttentionDecodeArgs) {
  static_assert(kHeadDimMax == 8 * kWarpLanes, "the last kernel takes the largest head");
  const std::size_t lane_dims = (head_dim + kWarpLanes - 1) / kWarpLanes;
  return lane_dims <= 1   ? attention_decode_kernel<1>
         : lane_dims <= 2 ? attention_decode_kernel<2>
         : lane_dims <= 3 ? attention_decode_kernel<3>
         : lane_dims <= 4 ? attention_decode_kernel<4>
                          : attention_decode_kernel<8>;
}

// After attention_decode_kernel, where there are several chunks. Launch: grid (rows, num_heads),
// block (whole_warps(head_dim, kHeadDimMax)): a thread takes one dimension.
static __global__ void attention_join_kernel(AttentionDecodeArgs args) {
  const std::size_t row = blockIdx.x, head = blockIdx.y, head_dim = args.kv.head_dim;
  const AttentionRange range = AttentionRange::of(args, row, 0);
  const std::size_t begin = range.first / args.chunk_tokens;
  const std::size_t end = (range.length - 1) / args.chunk_tokens + 1;
  const std::size_t d = threadIdx.x;
  if (end - begin == 1 || d >= head_dim) return;  // one chunk: the row is done
  const std::size_t stride = head_dim + 2;
  const float* const partials = partial_of(args, row, head, 0);
  float maximum = -INFINITY;
  SLUICE_UNROLL(4)
  for (std::size_t chunk = begin; chunk < end; ++chunk)
    maximum = fmaxf(maximum, partials[chunk * stride + head_dim]);
  float sum = 0.0f, normalizer = 0.0f;
  SLUICE_UNROLL(4)
  for (std::size_t chunk = begin; chunk < end; ++chunk) {
    const float* const partial = partials + chunk * stride;
    const float share = expf(partial[head_dim] - maximum);
    sum += share * partial[d];
    normalizer += share * partial[head_dim + 1];
  }
  args.out[row * args.out_stride + head * head_dim + d] = sum / normalizer;
}

}  // namespace sluice::krn::cuda
