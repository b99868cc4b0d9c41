// RMSNorm (Zhang, Sennrich: "Root Mean Square Layer Normalization", 2019), one block per row.
// The sum of squares has one order per row size: strided by thread, then a fixed tree. Compiled by
// nvcc and, through tests/support/simt_shim.h, for the CPU.
#pragma once

#include <cstddef>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

static __device__ inline float norm_scale(float sum_of_squares, std::size_t dim, float epsilon) {
  return 1.0f / sqrtf(sum_of_squares / static_cast<float>(dim) + epsilon);
}

// The first kKeptColumns columns of a thread stay in its registers, loaded together; a longer row's
// others are loaded one by one, and again for the second pass.
inline constexpr unsigned kKeptColumns = 2 * kThreadColumns;

static __device__ inline void load_kept(const float* from, std::size_t dim,
                                        float (&values)[kKeptColumns]) {
  for (unsigned n = 0; n < kKeptColumns; ++n) {
    const std::size_t i = std::size_t{n} * blockDim.x + threadIdx.x;
    values[n] = i < dim ? from[i] : 0.0f;
  }
}

static __device__ inline void store_kept(const float (&values)[kKeptColumns], std::size_t dim,
                                         float* to) {
  for (unsigned n = 0; n < kKeptColumns; ++n) {
    const std::size_t i = std::size_t{n} * blockDim.x + threadIdx.x;
    if (i < dim) to[i] = values[n];
  }
}

static __device__ inline std::size_t first_not_kept() {
  return std::size_t{kKeptColumns} * blockDim.x + threadIdx.x;
}

// y = norm(x): `kept` of x in registers, the rest in memory.
static __device__ inline void norm_row(const float (&kept)[kKeptColumns],
                                       const float (&weights)[kKeptColumns], const float* x,
                                       const float* weight, float* y, std::size_t dim,
                                       float epsilon) {
  float sum = 0.0f;
  for (unsigned n = 0; n < kKeptColumns; ++n) sum += kept[n] * kept[n];  // past the row: + 0
  for (std::size_t i = first_not_kept(); i < dim; i += blockDim.x) sum += x[i] * x[i];
  const float scale = norm_scale(block_sum(sum), dim, epsilon);
  float normed[kKeptColumns];
  for (unsigned n = 0; n < kKeptColumns; ++n) normed[n] = kept[n] * scale * weights[n];
  store_kept(normed, dim, y);
  for (std::size_t i = first_not_kept(); i < dim; i += blockDim.x) y[i] = x[i] * scale * weight[i];
}

// Launch: grid (rows * pieces), block (row_threads(dim)).
static __global__ void __launch_bounds__(kRowThreadsMax) rms_norm_kernel(RmsNormArgs args) {
  const std::size_t begin =
      blockIdx.x / args.pieces * args.stride + blockIdx.x % args.pieces * args.dim;
  const float* const x = args.x + begin;
  float kept[kKeptColumns], weights[kKeptColumns];
  load_kept(x, args.dim, kept);
  load_kept(args.weight, args.dim, weights);
  norm_row(kept, weights, x, args.weight, args.y + begin, args.dim, args.epsilon);
}

// Launch: grid (rows), block (row_threads(dim)). A thread reads back only what it wrote itself.
static __global__ void __launch_bounds__(kRowThreadsMax) add_rms_norm_kernel(AddRmsNormArgs args) {
  float* const x = args.x + blockIdx.x * args.dim;
  const float* const delta = args.delta + blockIdx.x * args.dim;
  float kept[kKeptColumns], deltas[kKeptColumns], weights[kKeptColumns];
  load_kept(x, args.dim, kept);
  load_kept(delta, args.dim, deltas);
  load_kept(args.weight, args.dim, weights);
  for (unsigned n = 0; n < kKeptColumns; ++n) kept[n] += deltas[n];
  store_kept(kept, args.dim, x);
  for (std::size_t i = first_not_kept(); i < args.dim; i += blockDim.x) x[i] += delta[i];
  norm_row(kept, weights, x, args.weight, args.y + blockIdx.x * args.dim, args.dim, args.epsilon);
}

}  // namespace sluice::krn::cuda
