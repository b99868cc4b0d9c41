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

// Launch: grid (rows * pieces), block (row_threads(dim)).
static __global__ void rms_norm_kernel(RmsNormArgs args) {
  const std::size_t begin =
      blockIdx.x / args.pieces * args.stride + blockIdx.x % args.pieces * args.dim;
  const float* x = args.x + begin;
  float* y = args.y + begin;
  float sum = 0.0f;
  for (std::size_t i = threadIdx.x; i < args.dim; i += blockDim.x) sum += x[i] * x[i];
  const float scale = norm_scale(block_sum(sum), args.dim, args.epsilon);
  for (std::size_t i = threadIdx.x; i < args.dim; i += blockDim.x)
    y[i] = x[i] * scale * args.weight[i];
}

// Launch: grid (rows), block (row_threads(dim)). A thread reads back only what it wrote itself.
static __global__ void add_rms_norm_kernel(AddRmsNormArgs args) {
  float* x = args.x + blockIdx.x * args.dim;
  const float* delta = args.delta + blockIdx.x * args.dim;
  float* y = args.y + blockIdx.x * args.dim;
  float sum = 0.0f;
  for (std::size_t i = threadIdx.x; i < args.dim; i += blockDim.x) {
    x[i] += delta[i];
    sum += x[i] * x[i];
  }
  const float scale = norm_scale(block_sum(sum), args.dim, args.epsilon);
  for (std::size_t i = threadIdx.x; i < args.dim; i += blockDim.x)
    y[i] = x[i] * scale * args.weight[i];
}

}  // namespace sluice::krn::cuda
