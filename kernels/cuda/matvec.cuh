// y = W x for few tokens: weights stream from memory once, each used for all tokens of the launch.
// A block takes kMatvecRows rows of W, so that what it loads of x serves all of them; its threads
// take turns at the vectors of four columns, a butterfly adds up each warp, and the warps follow in
// ascending order. The order of a sum is a function of `cols` alone: a token's bits are the same
// with and without others.
#pragma once

#include <cstddef>

#include "kernels/cuda/args.h"
#include "kernels/cuda/four_floats.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

inline constexpr std::size_t kMatvecRows = 4;    // of a block
inline constexpr std::size_t kMatvecWarps = 4;   // of a block
inline constexpr std::size_t kMatvecTokens = 8;  // the most that one launch takes
inline constexpr unsigned kMatvecThreads = kMatvecWarps * kWarpLanes;

// Of a multiprocessor at a time: leaves a thread the registers for what it has under way.
inline constexpr unsigned kMatvecBlocks = 5;

// Columns in vectors of four, so that each row is aligned as the first is.
inline bool is_matvec(const MatmulArgs& args) {
  return args.tokens <= kMatvecTokens && args.cols % 4 == 0;
}

// Vectors of each row that a thread loads before it uses any. Tokens need registers, too.
template <unsigned Tokens>
inline constexpr unsigned kMatvecVectors = Tokens == 1 ? 4 : 2;

// The vectors from `from` on, a block's threads apart, all loaded before any is used. IsWhole: all
// of them are in the row; else those past it are zeros, which change no sum.
template <unsigned Tokens, bool IsWhole>
static __device__ inline void add_vectors(const MatmulArgs& args,
                                          const FourFloats* const (&w)[kMatvecRows],
                                          std::size_t from, float (&sums)[Tokens][kMatvecRows]) {
  constexpr unsigned kVectors = kMatvecVectors<Tokens>;
  const std::size_t vectors = args.cols / 4;
  const auto* const x = reinterpret_cast<const FourFloats*>(args.x);
  FourFloats weights[kVectors][kMatvecRows];
  SLUICE_UNROLL(4)
  for (unsigned n = 0; n < kVectors; ++n) {
    const std::size_t v = from + n * kMatvecThreads;
    for (unsigned r = 0; r < kMatvecRows; ++r)
      weights[n][r] = IsWhole || v < vectors ? w[r][v] : FourFloats{};
  }
  SLUICE_UNROLL(8)
  for (unsigned t = 0; t < Tokens; ++t) {
    if (Tokens > 1 && t >= args.tokens) break;
    SLUICE_UNROLL(4)
    for (unsigned n = 0; n < kVectors; ++n) {
      const std::size_t v = from + n * kMatvecThreads;
      const FourFloats values = IsWhole || v < vectors ? x[t * vectors + v] : FourFloats{};
      for (unsigned r = 0; r < kMatvecRows; ++r)
        for (unsigned i = 0; i < 4; ++i) sums[t][r] += weights[n][r].at[i] * values.at[i];
    }
  }
}

// REQUIRES: is_matvec(), args.tokens <= Tokens, w and x aligned to 16 bytes. Launch: grid
// (ceil(rows / kMatvecRows)), block (kMatvecThreads).
template <unsigned Tokens>
static __global__ void __launch_bounds__(kMatvecThreads, kMatvecBlocks)
    matvec_kernel(MatmulArgs args) {
  SLUICE_SHARED(float, warp_sums, kMatvecWarps* Tokens* kMatvecRows);
  const unsigned warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const std::size_t row = blockIdx.x * kMatvecRows;
  const std::size_t vectors = args.cols / 4;
  const FourFloats* w[kMatvecRows];
  for (unsigned r = 0; r < kMatvecRows; ++r) {  // rows past the last are computed as the last
    const std::size_t real = row + r < args.rows ? row + r : args.rows - 1;
    w[r] = reinterpret_cast<const FourFloats*>(args.w + real * args.cols);
  }
  float sums[Tokens][kMatvecRows] = {};
  constexpr unsigned kTurn = kMatvecVectors<Tokens> * kMatvecThreads;
  std::size_t v = threadIdx.x;
  for (; v + (kTurn - kMatvecThreads) < vectors; v += kTurn)
    add_vectors<Tokens, true>(args, w, v, sums);
  if (v < vectors) add_vectors<Tokens, false>(args, w, v, sums);
  for (unsigned t = 0; t < Tokens; ++t)
    for (unsigned r = 0; r < kMatvecRows; ++r) {
      const float sum = warp_sum(sums[t][r]);
      if (lane == 0) warp_sums[(warp * Tokens + t) * kMatvecRows + r] = sum;
    }
  __syncthreads();  // the sums of all warps are there
  const unsigned t = threadIdx.x / kMatvecRows, r = threadIdx.x % kMatvecRows;
  if (t >= args.tokens || row + r >= args.rows) return;
  float sum = 0.0f;
  for (unsigned from = 0; from < kMatvecWarps; ++from)
    sum += warp_sums[(from * Tokens + t) * kMatvecRows + r];
  args.y[t * args.rows + row + r] = sum;
}

}  // namespace sluice::krn::cuda
