// Packing is a transposition of 16 rows at a time; it runs once, while a model is loaded.
#include "kernels/pack.h"

#include <cstdint>
#include <cstring>

#include "kernels/half_float.h"

namespace sluice::krn {
namespace {

template <class Element, class Convert>
void pack(const char* source, std::size_t source_bytes, std::size_t rows, std::size_t cols,
          std::size_t first_row, Element* panels, Convert convert) {
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t row = first_row + r;
    Element* to = panels + row / kLanes * cols * kLanes + row % kLanes;
    const char* from = source + r * cols * source_bytes;
    for (std::size_t c = 0; c < cols; ++c) to[c * kLanes] = convert(from + c * source_bytes);
  }
}

std::uint16_t read_u16(const char* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

float read_f32(const char* p) {
  float value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class Element, class Convert>
void unpack(const PackedMatrix& matrix, std::size_t first_row, std::size_t rows, float* out,
            Convert convert) {
  const auto* panels = static_cast<const Element*>(matrix.panels);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t row = first_row + r;
    const Element* from = panels + row / kLanes * matrix.cols * kLanes + row % kLanes;
    for (std::size_t c = 0; c < matrix.cols; ++c) *out++ = convert(from[c * kLanes]);
  }
}

// One row of blocks: F16 scale, then 32 int8 or 16 pairs of four bits.
void pack_quantized_row(const char* from, WeightType type, std::size_t cols, char* panel,
                        std::size_t lane) {
  const std::size_t blocks = cols / kQuantBlock;
  const std::size_t groups = panel_block_bytes(type) / (kLanes * 4);
  // int8 + 128 is the same bits with the sign turned.
  const int flip = type == WeightType::q8_0 ? 0x80 : 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    std::memcpy(panel + block_scales_at(b, type) + lane * 2, from, 2);
    from += 2;
    for (std::size_t g = 0; g < groups; ++g) {
      char* to = panel + block_weights_at(b, type) + (g * kLanes + lane) * 4;
      for (std::size_t i = 0; i < 4; ++i) to[i] = static_cast<char>(*from++ ^ flip);
    }
  }
}

void unpack_quantized_row(const char* panel, WeightType type, std::size_t cols, std::size_t lane,
                          float* out) {
  const std::size_t blocks = cols / kQuantBlock;
  for (std::size_t b = 0; b < blocks; ++b) {
    const float scale = f16_to_float(read_u16(panel + block_scales_at(b, type) + lane * 2));
    for (std::size_t c = 0; c < kQuantBlock; ++c) {
      const bool is_low = type == WeightType::q8_0 || c < kQuantBlock / 2;
      const std::size_t at = is_low ? c : c - kQuantBlock / 2;
      const auto byte = static_cast<std::uint8_t>(
          panel[block_weights_at(b, type) + (at / 4 * kLanes + lane) * 4 + at % 4]);
      const int q = type == WeightType::q8_0 ? byte - 128 : (is_low ? byte & 15 : byte >> 4) - 8;
      *out++ = scale * static_cast<float>(q);
    }
  }
}

}  // namespace

void pack_rows(const void* source, WeightType source_type, std::size_t rows, std::size_t cols,
               std::size_t first_row, void* panels, WeightType panel_type) {
  const char* from = static_cast<const char*>(source);
  if (is_quantized(panel_type)) {
    for (std::size_t r = 0; r < rows; ++r) {
      char* panel =
          static_cast<char*>(panels) + (first_row + r) / kLanes * panel_bytes(cols, panel_type);
      pack_quantized_row(from + r * row_bytes(cols, panel_type), panel_type, cols, panel,
                         (first_row + r) % kLanes);
    }
    return;
  }
  const std::size_t bytes = weight_bytes(source_type);
  if (panel_type != WeightType::f32) {
    pack(from, bytes, rows, cols, first_row, static_cast<std::uint16_t*>(panels), read_u16);
    return;
  }
  float* to = static_cast<float*>(panels);
  switch (source_type) {
    case WeightType::f32:
      return pack(from, bytes, rows, cols, first_row, to, read_f32);
    case WeightType::bf16:
      return pack(from, bytes, rows, cols, first_row, to,
                  [](const char* p) { return bf16_to_float(read_u16(p)); });
    case WeightType::f16:
      return pack(from, bytes, rows, cols, first_row, to,
                  [](const char* p) { return f16_to_float(read_u16(p)); });
    case WeightType::q8_0:
    case WeightType::q4_0:
      return;  // excluded by the contract
  }
}

void unpack_rows(const PackedMatrix& matrix, std::size_t first_row, std::size_t rows, float* out) {
  switch (matrix.type) {
    case WeightType::f32:
      return unpack<float>(matrix, first_row, rows, out, [](float value) { return value; });
    case WeightType::bf16:
      return unpack<std::uint16_t>(matrix, first_row, rows, out, bf16_to_float);
    case WeightType::f16:
      return unpack<std::uint16_t>(matrix, first_row, rows, out, f16_to_float);
    case WeightType::q8_0:
    case WeightType::q4_0:
      break;
  }
  for (std::size_t r = first_row; r < first_row + rows; ++r, out += matrix.cols) {
    const char* panel = static_cast<const char*>(matrix.panels) +
                        r / kLanes * panel_bytes(matrix.cols, matrix.type);
    unpack_quantized_row(panel, matrix.type, matrix.cols, r % kLanes, out);
  }
}

}  // namespace sluice::krn
