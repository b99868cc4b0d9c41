// RowLoops compiled with the instruction set of its name (flags: worker/CMakeLists.txt).
#include "worker/core/row_loops.h"

namespace sluice::eng {
namespace row_baseline {
#include "worker/core/row_loops.inl.h"
}  // namespace row_baseline

const RowLoops& row_loops_baseline() {
  static constexpr RowLoops kLoops{"baseline", row_baseline::block_maxima,
                                   row_baseline::block_weights, row_baseline::keep_weights,
                                   row_baseline::scaled_exp};
  return kLoops;
}

}  // namespace sluice::eng
