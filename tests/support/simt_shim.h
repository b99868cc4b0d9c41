// SIMT shim: runs a CUDA kernel source on the CPU, one fiber per thread of a block, so that the
// kernels that ship for the GPU are checked against the oracle on machines without one.
//
// What it keeps of the GPU's meaning: block shared memory (filled with NaN bytes before each
// block),
// __syncthreads() that is released only when every live thread of the block has arrived, warp
// shuffles and __syncwarp() among the 32 lanes of a warp, and NO order between threads otherwise:
// the next thread to run is drawn from a seed, so that 100 seeds are 100 interleavings. A barrier
// that can never be released (some threads wait at it, the others at a shuffle) is reported as a
// deadlock. What it does not keep: speed, memory coalescing, bank conflicts, rounding of special
// functions.
//
// Include this file before a kernel's .cuh. One OS thread at a time may run a launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>

namespace sluice::simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline constexpr unsigned kWarpSize = 32;

// The running fiber's coordinates.
struct Coordinates {
  Dim3 thread, block, block_dim, grid_dim;
};
const Coordinates& current();

void sync_threads();
// Places `value` where the other lanes of the warp can read it, waits for all its live lanes and
// returns the value of `source_lane` (its own when that lane is not live).
std::uint64_t shuffle(std::uint64_t value, unsigned source_lane);
unsigned lane();

// The n-th call in each thread of a block returns the same memory.
void* shared_memory(std::size_t bytes, std::size_t alignment);

struct LaunchOutcome {
  bool ok = true;
  std::string error;  // "deadlock: ..." when a barrier cannot be released
};
// Runs body() once per thread of every block; blocks one after the other in a seeded order.
LaunchOutcome launch(Dim3 grid, Dim3 block, std::uint64_t seed, const std::function<void()>& body);

template <class T>
T shuffle_value(T value, unsigned source_lane) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  word = shuffle(word, source_lane);
  std::memcpy(&value, &word, sizeof value);
  return value;
}

}  // namespace sluice::simt

// CUDA's own spelling, for the kernel sources.
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define threadIdx (::sluice::simt::current().thread)
#define blockIdx (::sluice::simt::current().block)
#define blockDim (::sluice::simt::current().block_dim)
#define gridDim (::sluice::simt::current().grid_dim)
#define __syncthreads() ::sluice::simt::sync_threads()
#define __shfl_xor_sync(mask, value, lane_mask) \
  ::sluice::simt::shuffle_value((value), ::sluice::simt::lane() ^ static_cast<unsigned>(lane_mask))
#define SLUICE_UNROLL(count)
#define __syncwarp() static_cast<void>(::sluice::simt::shuffle(0, ::sluice::simt::lane()))
#define SLUICE_SHARED(type, name, count) \
  type* const name =                     \
      static_cast<type*>(::sluice::simt::shared_memory(sizeof(type) * (count), alignof(type)))
