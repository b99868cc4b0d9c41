// Texts and tables of tensor_info.h.
#include "worker/model/tensor_info.h"

namespace sluice::eng {

std::string shape_text(std::span<const std::uint64_t> shape) {
  std::string text = "[";
  for (const std::uint64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

std::optional<krn::BlockFormat> block_format(Dtype dtype) {
  switch (dtype) {
    case Dtype::q8_0:
      return krn::BlockFormat::q8_0;
    case Dtype::q4_0:
      return krn::BlockFormat::q4_0;
    case Dtype::q4_k:
      return krn::BlockFormat::q4_k;
    case Dtype::q5_k:
      return krn::BlockFormat::q5_k;
    case Dtype::q6_k:
      return krn::BlockFormat::q6_k;
    case Dtype::f32:
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::other:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace sluice::eng
