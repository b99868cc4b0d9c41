// RowLoops compiled with the instruction set of its name (flags: worker/CMakeLists.txt).
#include "worker/core/row_loops.h"

namespace sluice::eng {
namespace row_avx512 {
#include "worker/core/row_loops.inl.h"
}  // namespace row_avx512

const RowLoops& row_loops_avx512() {
  static constexpr RowLoops kLoops{"avx512", row_avx512::block_maxima, row_avx512::block_weights,
                                   row_avx512::keep_weights, row_avx512::scaled_exp};
  return kLoops;
}

}  // namespace sluice::eng
