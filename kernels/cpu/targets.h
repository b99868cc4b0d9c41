// What is compiled in per instruction set; which of it may run here decides kernel_table.cc. Plain
// headers only: the files of the instruction sets include this one.
#pragma once

#include "kernels/kernel_table.h"

namespace sluice::krn {

// What quantized kernels make of activations (kernel_table.h): those below the floor are zero,
// those from the ceiling on no numbers, and the largest of a block is 64 to 127 steps.
inline constexpr float kQuantFloor = 0x1p-100f;
inline constexpr float kQuantCeiling = 0x1p100f;
inline constexpr float kQuantSteps = 64.0f;
inline constexpr int kQuantMax = 127;

// Loops that reach for the machine's limits (machine_limits.h); probe.inl.h says what they do.
struct LimitProbe {
  std::size_t operations_per_round;  // of fma_chains
  float (*fma_chains)(std::size_t rounds);
  float (*read_sum)(const float* data, std::size_t floats);
  std::size_t int8_operations_per_round;  // of int8_chains
  std::int32_t (*int8_chains)(std::size_t rounds);
};

extern const KernelTable kScalarKernels;  // reference.cc
#ifdef __x86_64__
extern const KernelTable kAvx2Kernels;        // target_avx2.cc
extern const KernelTable kAvx512Kernels;      // target_avx512.cc
extern const KernelTable kAvx512VnniKernels;  // target_avx512vnni.cc
extern const LimitProbe kAvx2Probe;
extern const LimitProbe kAvx512Probe;
extern const LimitProbe kAvx512VnniProbe;
#endif

}  // namespace sluice::krn
