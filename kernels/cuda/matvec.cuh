// y = W x for few tokens: weights stream from memory once, each used for all tokens of the launch.
// A block takes kMatvecRows rows of W, so that what it loads of x serves all of them; its threads
// take turns at the vectors of four columns, a butterfly adds up each warp, and the warps follow in
// ascending order. The order of a sum is a function of `cols` alone: a token's bits are the same
// with and without others.
#pragma once

#include <cstddef>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

inline constexpr std::size_t kMatvecRows = 4;    // of a block
inline constexpr std::size_t kMatvecWarps = 4;   // of a block
inline constexpr std::size_t kMatvecTokens = 8;  // the most that one launch takes
inline constexpr unsigned kMatvecThreads = kMatvecWarps * kWarpLanes;

struct alignas(16) FourFloats {
  float at[4];
};

// Columns in vectors of four, so that each row is aligned as the first is.
inline bool is_matvec(const MatmulArgs& args) {
  return args.tokens <= kMatvecTokens && args.cols % 4 == 0;
}

// REQUIRES: is_matvec(), args.tokens <= Tokens, w and x aligned to 16 bytes. Launch: grid
// (ceil(rows / kMatvecRows)), block (kMatvecThreads).
template <unsigned Tokens>
static __global__ void matvec_kernel(MatmulArgs args) {
  SLUICE_SHARED(float, warp_sums, kMatvecWarps* Tokens* kMatvecRows);
  const unsigned warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;
  const std::size_t row = blockIdx.x * kMatvecRows;
  const std::size_t vectors = args.cols / 4;
  const FourFloats* w[kMatvecRows];
  for (unsigned r = 0; r < kMatvecRows; ++r) {  // rows past the last are computed as the last
    const std::size_t real = row + r < args.rows ? row + r : args.rows - 1;
    w[r] = reinterpret_cast<const FourFloats*>(args.w + real * args.cols);
  }
  const auto* const x = reinterpret_cast<const FourFloats*>(args.x);
  float sums[Tokens][kMatvecRows] = {};
  SLUICE_UNROLL(2)
  for (std::size_t v = threadIdx.x; v < vectors; v += kMatvecThreads) {
    FourFloats weights[kMatvecRows];
    for (unsigned r = 0; r < kMatvecRows; ++r) weights[r] = w[r][v];
    for (unsigned t = 0; t < Tokens; ++t) {
      if (t >= args.tokens) break;
      const FourFloats values = x[t * vectors + v];
      for (unsigned r = 0; r < kMatvecRows; ++r)
        for (unsigned i = 0; i < 4; ++i) sums[t][r] += weights[r].at[i] * values.at[i];
    }
  }
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
