// The kernel tables that are compiled in; which of them may run here decides kernel_table.cc.
#pragma once

#include "kernels/kernel_table.h"

namespace sluice::krn {

extern const KernelTable kScalarKernels;  // reference.cc
#ifdef __x86_64__
extern const KernelTable kAvx2Kernels;    // target_avx2.cc
extern const KernelTable kAvx512Kernels;  // target_avx512.cc
#endif

}  // namespace sluice::krn
