// Shapes: the integers and plain structs that every kernel family shares. No STL and no functions
// with external linkage, because files compiled for one instruction set include this header: an
// inline function that the linker could share would carry that set's instructions everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::krn {

// One vector of the CPU kernels has 16 lanes on every instruction set; weights come in panels of as
// many rows, so that one output is one lane.
inline constexpr std::size_t kLanes = 16;
inline constexpr std::size_t kHeadDimMax = 256;
// Attention reduces over fixed groups of so many positions, whatever the KV block size.
inline constexpr std::size_t kAttentionGroup = 64;

enum class WeightType : std::uint8_t { f32, bf16, f16, q8_0, q4_0 };

// The quantized types (ggml's block formats of the same names): a block of so many columns of a row
// shares one F16 scale d. q8_0: weights d * q, q int8; q4_0: d * (q - 8), q four bits.
inline constexpr std::size_t kQuantBlock = 32;
static inline bool is_quantized(WeightType type) {
  return type == WeightType::q8_0 || type == WeightType::q4_0;
}

// Which pairs of a head RoPE turns: (i, i + head_dim / 2) or (2i, 2i + 1).
enum class RopePairing : std::uint8_t { half, interleaved };

// Of one weight. Not for quantized types.
static inline std::size_t weight_bytes(WeightType type) {
  return type == WeightType::f32 ? 4 : 2;
}

// Of one row-major row of `cols` columns as it lies in a file; whole blocks.
static inline std::size_t row_bytes(std::size_t cols, WeightType type) {
  if (!is_quantized(type)) return cols * weight_bytes(type);
  return cols / kQuantBlock * (type == WeightType::q8_0 ? 34 : 18);
}

static inline std::size_t num_panels(std::size_t rows) {
  return (rows + kLanes - 1) / kLanes;
}

// Of the quantized weights of one block of columns in a panel.
static inline std::size_t panel_block_bytes(WeightType type) {
  return type == WeightType::q8_0 ? kQuantBlock * kLanes : kQuantBlock * kLanes / 2;
}

// Two blocks of columns lie together, so that a panel is one stream of whole cache lines: the F16
// scales [2][16 rows] of both, then the weights of the first, then those of the second.
static inline std::size_t block_pair_bytes(WeightType type) {
  return 2 * (kLanes * 2 + panel_block_bytes(type));
}
// Where they lie in a panel.
static inline std::size_t block_scales_at(std::size_t block, WeightType type) {
  return block / 2 * block_pair_bytes(type) + block % 2 * kLanes * 2;
}
static inline std::size_t block_weights_at(std::size_t block, WeightType type) {
  return block / 2 * block_pair_bytes(type) + 2 * kLanes * 2 + block % 2 * panel_block_bytes(type);
}

static inline std::size_t panel_bytes(std::size_t cols, WeightType type) {
  if (!is_quantized(type)) return cols * kLanes * weight_bytes(type);
  return (cols / kQuantBlock + 1) / 2 * block_pair_bytes(type);
}

// A weight matrix [rows, cols] packed as [num_panels(rows), cols, 16]; missing rows are zero. The
// weights of a block of a quantized type:
//   q8_0  bytes [8][16 rows][4]: q + 128 of the columns 4g .. 4g + 3 of the block
//   q4_0  bytes [4][16 rows][4]: low halves as q8_0, high halves of the columns 16 later
struct PackedMatrix {
  const void* panels = nullptr;  // aligned to 64 bytes; owned by whoever packed it
  WeightType type = WeightType::f32;
  std::size_t rows = 0;
  std::size_t cols = 0;  // quantized: a multiple of kQuantBlock
};

// Row stride, in floats, of an activation buffer of `n` columns: whole cache lines and one more, so
// that the rows of a token tile never fall into the same cache sets.
static inline std::size_t activation_stride(std::size_t n) {
  return (n + kLanes - 1) / kLanes * kLanes + kLanes;
}

}  // namespace sluice::krn
