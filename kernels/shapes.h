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

enum class WeightType : std::uint8_t { f32, bf16, f16 };

// Which pairs of a head RoPE turns: (i, i + head_dim / 2) or (2i, 2i + 1).
enum class RopePairing : std::uint8_t { half, interleaved };

static inline std::size_t weight_bytes(WeightType type) {
  return type == WeightType::f32 ? 4 : 2;
}

static inline std::size_t num_panels(std::size_t rows) {
  return (rows + kLanes - 1) / kLanes;
}

// A weight matrix [rows, cols] packed as [num_panels(rows), cols, 16]; missing rows are zero.
struct PackedMatrix {
  const void* panels = nullptr;  // aligned to 64 bytes; owned by whoever packed it
  WeightType type = WeightType::f32;
  std::size_t rows = 0;
  std::size_t cols = 0;
};

// Row stride, in floats, of an activation buffer of `n` columns: whole cache lines and one more, so
// that the rows of a token tile never fall into the same cache sets.
static inline std::size_t activation_stride(std::size_t n) {
  return (n + kLanes - 1) / kLanes * kLanes + kLanes;
}

}  // namespace sluice::krn
