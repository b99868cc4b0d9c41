// A DeviceTable whose device is this CPU: the kernel sources that ship for CUDA run through the
// SIMT shim, the GEMM is a plain sum in ascending order. It is strict where a GPU is silent:
// - where the script hides memory, it can be touched inside a call only: host code that reads it
// dies
//   at once (slow: two system calls per allocation and call);
// - memory starts as NaN and ends at a page that nobody may touch;
// - copies must lie within one allocation; what is copied to the host arrives at synchronize(), and
// page-locked memory that changes between its copy to the device and synchronize() fails that;
// - a recording takes launches alone.
// Any call can be made to fail by its number. One OS thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"

namespace sluice::test {

struct SimtDeviceScript {
  std::uint64_t order_seed = 0;  // of the threads' interleavings
  bool hides_memory = false;
  int num_devices = 1;
  std::size_t bytes_max = 256u << 20;   // of device memory in all
  std::size_t failing_call = SIZE_MAX;  // number of the call that fails, counted from 0
  // Counted by the device.
  std::size_t num_calls = 0;
  std::size_t num_allocations = 0;  // live, of either memory
  std::size_t num_recordings = 0;   // live
  std::size_t num_recorded = 0;     // in all
  std::size_t num_replays = 0;
  std::size_t num_contexts = 0;  // live
  std::size_t num_bytes = 0;     // live
};

// The one device; a test resets it by assigning {}.
SimtDeviceScript& simt_script();
const krn::cuda::DeviceTable& simt_device_table();

}  // namespace sluice::test
