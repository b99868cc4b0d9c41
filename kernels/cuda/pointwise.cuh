// The kernels that work element by element, one block per piece of a row: gather of rows
// (embedding, rows that want logits), SwiGLU (Shazeer: "GLU Variants Improve Transformer", 2020),
// and the residual sum. Threads write disjoint elements: no barrier, and one order of operations
// per element. A thread loads all that it needs before it stores anything: as the compiler has to
// assume that a store changes what is loaded after it, the loads would wait for each other
// otherwise.
#pragma once

#include <cmath>
#include <cstddef>

#include "kernels/cuda/args.h"
#include "kernels/cuda/reduce.cuh"

namespace sluice::krn::cuda {

// The n-th column of this thread; neighbours in a warp have neighbouring columns.
static __device__ inline std::size_t thread_column(unsigned n) {
  return (std::size_t{blockIdx.y} * kThreadColumns + n) * blockDim.x + threadIdx.x;
}

static __device__ inline void load_columns(const float* from, std::size_t cols,
                                           float (&values)[kThreadColumns]) {
  SLUICE_UNROLL(kThreadColumns)
  for (unsigned n = 0; n < kThreadColumns; ++n)
    values[n] = thread_column(n) < cols ? from[thread_column(n)] : 0.0f;
}

static __device__ inline void store_columns(const float (&values)[kThreadColumns], std::size_t cols,
                                            float* to) {
  SLUICE_UNROLL(kThreadColumns)
  for (unsigned n = 0; n < kThreadColumns; ++n)
    if (thread_column(n) < cols) to[thread_column(n)] = values[n];
}

// Launch, as of all that follow: grid (rows, num_pieces(cols)), block (piece_threads(cols)).
static __global__ void gather_kernel(GatherArgs args) {
  float values[kThreadColumns];
  load_columns(args.table + args.source[blockIdx.x] * args.cols, args.cols, values);
  store_columns(values, args.cols, args.out + blockIdx.x * args.cols);
}

// out = silu(gate) * up, silu(g) = g / (1 + e^-g). Relative error <= 16 u where |gate| < 87 (u =
// 2^-24), as the CPU paths.
static __global__ void swiglu_kernel(SwigluArgs args) {
  const float* from = args.gate_up + blockIdx.x * 2 * args.inner;
  float gate[kThreadColumns], up[kThreadColumns];
  load_columns(from, args.inner, gate);
  load_columns(from + args.inner, args.inner, up);
  SLUICE_UNROLL(kThreadColumns)
  for (unsigned n = 0; n < kThreadColumns; ++n) up[n] = gate[n] / (1.0f + expf(-gate[n])) * up[n];
  store_columns(up, args.inner, args.out + blockIdx.x * args.inner);
}

// x += delta.
static __global__ void add_kernel(AddArgs args) {
  float* const row = args.x + blockIdx.x * args.cols;
  float x[kThreadColumns], delta[kThreadColumns];
  load_columns(row, args.cols, x);
  load_columns(args.is_bias ? args.delta : args.delta + blockIdx.x * args.cols, args.cols, delta);
  SLUICE_UNROLL(kThreadColumns)
  for (unsigned n = 0; n < kThreadColumns; ++n) x[n] += delta[n];
  store_columns(x, args.cols, row);
}

}  // namespace sluice::krn::cuda
