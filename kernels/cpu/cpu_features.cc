// CPU detection through the compiler's built-ins, which also ask the operating system for its part
// (saved registers); F16C has no built-in in clang 14 and is read from CPUID.
#include "kernels/cpu/cpu_features.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace sluice::krn {

CpuFeatures detect_cpu() {
  CpuFeatures features;
#ifdef __x86_64__
  __builtin_cpu_init();
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  features.avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  features.avx512 = features.avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
  features.is_intel = __builtin_cpu_is("intel");
  features.avx512vnni = features.avx512 && __builtin_cpu_supports("avx512vnni");
#endif
  return features;
}

}  // namespace sluice::krn
