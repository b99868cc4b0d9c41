// Packing of weight matrices into the panels that matmul reads: [num_panels(rows), cols, 16], and
// back into rows for those that read rows.
#pragma once

#include "kernels/shapes.h"

namespace sluice::krn {

// Size of the packed matrix in bytes.
static inline std::size_t packed_bytes(std::size_t rows, std::size_t cols, WeightType type) {
  return num_panels(rows) * panel_bytes(cols, type);
}

// Writes `rows` rows of a row-major source (unaligned, little-endian) as rows [first_row, first_row
// + rows) of the packed matrix of `cols` columns. Both types equal, or the target is f32 (exact)
// and the source not quantized.
void pack_rows(const void* source, WeightType source_type, std::size_t rows, std::size_t cols,
               std::size_t first_row, void* panels, WeightType panel_type);

// out [rows, cols] = rows [first_row, first_row + rows) as float, exact. Within the matrix.
void unpack_rows(const PackedMatrix& matrix, std::size_t first_row, std::size_t rows, float* out);

}  // namespace sluice::krn
