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

enum class WeightType : std::uint8_t { f32, bf16, f16, q8_0, q4_0, q4_k, q5_k, q6_k };

// The quantized types are ggml's block formats of the same names (quantized_blocks.h). A block of
// so many columns of a row is multiplied in integers; super-blocks of the k types share further
// scales.
inline constexpr std::size_t kQuantBlock = 32;
inline constexpr std::size_t kSuperBlock = 256;
static inline bool is_quantized(WeightType type) {
  return type != WeightType::f32 && type != WeightType::bf16 && type != WeightType::f16;
}
static constexpr bool has_super_blocks(WeightType type) {
  return type == WeightType::q4_k || type == WeightType::q5_k || type == WeightType::q6_k;
}
// Of each block, beside its scale.
static constexpr bool has_minima(WeightType type) {
  return type == WeightType::q4_k || type == WeightType::q5_k;
}

// Each half of a block has a scale of its own.
static constexpr bool has_halves(WeightType type) {
  return type == WeightType::q6_k;
}

// Which pairs of a head RoPE turns: (i, i + head_dim / 2) or (2i, 2i + 1).
enum class RopePairing : std::uint8_t { half, interleaved };

// Of one weight. Not for quantized types.
static inline std::size_t weight_bytes(WeightType type) {
  return type == WeightType::f32 ? 4 : 2;
}

// Of one row-major row of `cols` columns as it lies in a file; whole blocks.
static inline std::size_t row_bytes(std::size_t cols, WeightType type) {
  switch (type) {
    case WeightType::q8_0:
      return cols / kQuantBlock * 34;
    case WeightType::q4_0:
      return cols / kQuantBlock * 18;
    case WeightType::q4_k:
      return cols / kSuperBlock * 144;
    case WeightType::q5_k:
      return cols / kSuperBlock * 176;
    case WeightType::q6_k:
      return cols / kSuperBlock * 210;
    default:
      return cols * weight_bytes(type);
  }
}

static inline std::size_t num_panels(std::size_t rows) {
  return (rows + kLanes - 1) / kLanes;
}

// Of the quantized weights of one block of columns in a panel.
static inline std::size_t panel_block_bytes(WeightType type) {
  switch (type) {
    case WeightType::q8_0:
      return kQuantBlock * kLanes;
    case WeightType::q5_k:
      return kQuantBlock * kLanes * 5 / 8;
    case WeightType::q6_k:
      return kQuantBlock * kLanes * 3 / 4;
    default:
      return kQuantBlock * kLanes / 2;
  }
}

// So many blocks of columns lie together behind their scales, so that a panel is one stream of
// whole cache lines.
static inline std::size_t blocks_together(WeightType type) {
  return has_super_blocks(type) ? kSuperBlock / kQuantBlock : 2;
}
// Scales, 16 rows side by side:
//   q8_0, q4_0  F16 d of each block [2][16]
//   q4_k, q5_k  F16 d [16], F16 dmin [16], u8 scales [8][16], u8 minima [8][16]
//   q6_k        F16 d [16], 32 bytes of zeros, i8 scales of half blocks [16][16]
static inline std::size_t scales_bytes(WeightType type) {
  return has_super_blocks(type) ? 64 + kSuperBlock : 64;
}
static inline std::size_t together_bytes(WeightType type) {
  return scales_bytes(type) + blocks_together(type) * panel_block_bytes(type);
}
static inline std::size_t panel_bytes(std::size_t cols, WeightType type) {
  if (!is_quantized(type)) return cols * kLanes * weight_bytes(type);
  const std::size_t columns = blocks_together(type) * kQuantBlock;
  return (cols + columns - 1) / columns * together_bytes(type);
}
// Where the scales and the weights of a block lie in a panel.
static inline std::size_t scales_at(std::size_t block, WeightType type) {
  return block / blocks_together(type) * together_bytes(type);
}
static inline std::size_t weights_at(std::size_t block, WeightType type) {
  return scales_at(block, type) + scales_bytes(type) +
         block % blocks_together(type) * panel_block_bytes(type);
}

// A weight matrix [rows, cols] packed as [num_panels(rows), cols, 16]; missing rows are zero. The
// weights of a block of a quantized type:
//   q8_0        bytes [8][16 rows][4]: q + 128 of the columns 4g .. 4g + 3 of the block
//   q4_0, q4_k  bytes [4][16 rows][4]: low halves of the columns 4g .. 4g + 3, high halves 16 later
//   q5_k        the low four of five bits as q4_0, then bytes [16 rows][4]: byte j of them has the
//               fifth of the columns 4g + j at bit g
//   q6_k        the low four of six bits as q4_0, then bytes [2][16 rows][4]: byte j of them has
//               the upper two of the columns 16 j + 4s .. 16 j + 4s + 3 at bit 2s
struct PackedMatrix {
  const void* panels = nullptr;  // aligned to 64 bytes; owned by whoever packed it
  WeightType type = WeightType::f32;
  std::size_t rows = 0;
  std::size_t cols = 0;  // quantized: a multiple of kQuantBlock or kSuperBlock
};

// What KernelTable::quantize() writes for so many tokens; cols: whole blocks. Of each block the
// values, a scale and two sums.
static constexpr std::size_t quantized_bytes(std::size_t tokens, std::size_t cols) {
  return tokens * (cols / kQuantBlock) * (kQuantBlock + 12);
}

// Row stride, in floats, of an activation buffer of `n` columns: whole cache lines and one more, so
// that the rows of a token tile never fall into the same cache sets.
static inline std::size_t activation_stride(std::size_t n) {
  return (n + kLanes - 1) / kLanes * kLanes + kLanes;
}

}  // namespace sluice::krn
