// CpuFeatures: which of our instruction-set paths this CPU and its operating system can run, and
// whose CPU it is.
#pragma once

namespace sluice::krn {

struct CpuFeatures {
  bool avx2 = false;        // AVX2, FMA, F16C
  bool avx512 = false;      // and AVX-512 F, BW, DQ, VL
  bool avx512vnni = false;  // and VNNI
  bool is_intel = false;
};

CpuFeatures detect_cpu();

}  // namespace sluice::krn
