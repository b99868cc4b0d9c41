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

}  // namespace

void pack_rows(const void* source, WeightType source_type, std::size_t rows, std::size_t cols,
               std::size_t first_row, void* panels, WeightType panel_type) {
  const char* from = static_cast<const char*>(source);
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
  }
}

}  // namespace sluice::krn
