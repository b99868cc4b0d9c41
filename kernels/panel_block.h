// PanelBlock: one row's part of a block of quantized weights, read from a panel (shapes.h) as plain
// numbers. Weight c = scale * (q[c] * half_scales[c / 16]) - min; where a type has no half scales
// or minimum they are 1 and 0. For the scalar kernels and for reading matrices back: slow.
#pragma once

#include "kernels/shapes.h"

namespace sluice::krn {

struct PanelBlock {
  int q[kQuantBlock];
  int half_scales[2];
  float scale;  // q4_k, q5_k: d * scale, exact
  float min;    // q4_k, q5_k: dmin * minimum, exact
};

// `lane`: the row within the panel; `block`: of 32 columns.
PanelBlock read_panel_block(const void* panel, WeightType type, std::size_t lane,
                            std::size_t block);

}  // namespace sluice::krn
