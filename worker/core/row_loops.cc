// Picks the loops. The choice changes speed alone, so it is no hidden input of the core.
#include "worker/core/row_loops.h"

namespace sluice::eng {

const RowLoops& row_loops() {
  static const RowLoops& picked = []() -> const RowLoops& {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      return row_loops_avx512();
    if (__builtin_cpu_supports("avx2")) return row_loops_avx2();
    return row_loops_baseline();
  }();
  return picked;
}

}  // namespace sluice::eng
