// The choice of a kernel path: what was compiled in, against what this CPU can do.
#include "kernels/kernel_table.h"

#include <cstring>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/targets.h"

namespace sluice::krn {
namespace {

struct Usable {
  const KernelTable* tables[5] = {};
  Usable() {
    std::size_t n = 0;
#if defined(__x86_64__) && !defined(SLUICE_SCALAR_KERNELS)
    const CpuFeatures cpu = detect_cpu();
    if (cpu.avx512vnni) tables[n++] = &kAvx512VnniKernels;
    if (cpu.avx512) tables[n++] = &kAvx512Kernels;
    if (cpu.avx2) tables[n++] = &kAvx2Kernels;
#endif
    tables[n] = &kScalarKernels;
  }
};

}  // namespace

const KernelTable* const* usable_kernels() {
  static const Usable usable;
  return usable.tables;
}

bool unpacking_costs() {
  static const bool costs = detect_cpu().is_intel;
  return costs;
}

const KernelTable* find_kernels(const char* name) {
  const KernelTable* const* tables = usable_kernels();
  if (std::strcmp(name, "auto") == 0) return tables[0];
  for (; *tables != nullptr; ++tables) {
    if (std::strcmp((*tables)->name, name) == 0) return *tables;
  }
  return nullptr;
}

}  // namespace sluice::krn
