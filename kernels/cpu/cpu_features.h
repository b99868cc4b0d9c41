// CpuFeatures: which of our instruction-set paths this CPU and its operating system can run.
#pragma once

namespace sluice::krn {

struct CpuFeatures {
  bool avx2 = false;        // AVX2, FMA, F16C
  bool avx512 = false;      // and AVX-512 F, BW, DQ, VL
  bool avx512vnni = false;  // and VNNI
};

CpuFeatures detect_cpu();

}  // namespace sluice::krn
