// RowLoops compiled with the instruction set of its name (flags: worker/CMakeLists.txt).
#include "worker/core/row_loops.h"

namespace sluice::eng {
namespace row_avx2 {
#include "worker/core/row_loops.inl.h"
}  // namespace row_avx2

const RowLoops& row_loops_avx2() {
  static constexpr RowLoops kLoops{"avx2", row_avx2::block_maxima, row_avx2::block_weights,
                                   row_avx2::keep_weights, row_avx2::scaled_exp};
  return kLoops;
}

}  // namespace sluice::eng
