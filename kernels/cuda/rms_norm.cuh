// RMSNorm (Zhang, Sennrich: "Root Mean Square Layer Normalization", 2019), one block per row.
// The sum of squares has one order per row size: strided by thread, then a fixed tree. Compiled by
// nvcc and, through tests/support/simt_shim.h, for the CPU.
#pragma once

#include <cstddef>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

// Launch: grid (rows * pieces), block (row_threads(dim)).
static __global__ void rms_norm_kernel(RmsNormArgs args) {
  const std::size_t begin =
      blockIdx.x / args.pieces * args.stride + blockIdx.x % args.pieces * args.dim;
  const float* x = args.x + begin;
  float* y = args.y + begin;
  float sum = 0.0f;
  for (std::size_t i = threadIdx.x; i < args.dim; i += blockDim.x) sum += x[i] * x[i];
  sum = block_sum(sum);
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(args.dim) + args.epsilon);
  for (std::size_t i = threadIdx.x; i < args.dim; i += blockDim.x)
    y[i] = x[i] * scale * args.weight[i];
}

}  // namespace sluice::krn::cuda
