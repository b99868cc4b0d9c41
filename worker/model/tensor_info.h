// TensorInfo: one tensor of a weights file as its header describes it, and the table of a file's
// tensors, alike for safetensors and GGUF. Values only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quantized_blocks.h"

namespace sluice::eng {

// How elements are stored, as far as loading can read them.
enum class Dtype : std::uint8_t { f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k, other };

struct TensorInfo {
  std::string name;
  Dtype dtype;
  std::string_view type_name;        // as the format spells it; of static storage
  std::vector<std::uint64_t> shape;  // rows first
  std::uint64_t offset;              // from the start of the data
  std::uint64_t bytes;
};

struct TensorTable {
  std::uint64_t data_begin = 0;     // from the start of the file
  std::vector<TensorInfo> tensors;  // by offset, without overlap
};

std::string shape_text(std::span<const std::uint64_t> shape);  // [2, 3]
// Nothing for types whose elements stand alone.
std::optional<krn::BlockFormat> block_format(Dtype dtype);

}  // namespace sluice::eng
