// Block-wide reductions with a fixed order: a butterfly in each warp, then the warps in ascending
// order. Every thread gets the result.
#pragma once

#include <cmath>
#include <cstddef>

#ifdef __CUDACC__
// The shim defines these for the CPU; on the device it is plain shared memory, and a hint.
#define SLUICE_SHARED(type, name, count) __shared__ type name[count]
#define SLUICE_PRAGMA(text) _Pragma(#text)
#define SLUICE_UNROLL(count) SLUICE_PRAGMA(unroll count)
#endif

namespace sluice::krn::cuda {

inline constexpr unsigned kWarpLanes = 32;
inline constexpr unsigned kWarpsMax = 32;

static __device__ inline float warp_sum(float value) {
  for (unsigned step = kWarpLanes / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

static __device__ inline float warp_max(float value) {
  for (unsigned step = kWarpLanes / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

// REQUIRES: blockDim.x a multiple of 32; every thread of the block calls it.
static __device__ inline float block_sum(float value) {
  SLUICE_SHARED(float, partial, kWarpsMax);
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) partial[threadIdx.x / kWarpLanes] = value;
  __syncthreads();  // the partial sums of all warps are there
  float sum = 0.0f;
  for (unsigned warp = 0; warp < blockDim.x / kWarpLanes; ++warp) sum += partial[warp];
  __syncthreads();  // all have read: a further call may overwrite `partial`
  return sum;
}

}  // namespace sluice::krn::cuda
