// Validation of safetensors headers and shard indexes with simdjson's DOM, every count bounded.
#include "worker/model/safetensors.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <utility>

#include "worker/model/json_document.h"
#include "worker/model/model_file.h"

namespace sluice::eng {
namespace {

struct DtypeRow {
  std::string_view name;
  Dtype dtype;
  std::uint64_t bytes;
};
constexpr std::array<DtypeRow, 15> kDtypes = {{{"F32", Dtype::f32, 4},
                                               {"F16", Dtype::f16, 2},
                                               {"BF16", Dtype::bf16, 2},
                                               {"F64", Dtype::other, 8},
                                               {"F8_E4M3", Dtype::other, 1},
                                               {"F8_E5M2", Dtype::other, 1},
                                               {"BOOL", Dtype::other, 1},
                                               {"U8", Dtype::other, 1},
                                               {"I8", Dtype::other, 1},
                                               {"U16", Dtype::other, 2},
                                               {"I16", Dtype::other, 2},
                                               {"U32", Dtype::other, 4},
                                               {"I32", Dtype::other, 4},
                                               {"U64", Dtype::other, 8},
                                               {"I64", Dtype::other, 8}}};

Error bad(std::string detail) {
  return make_error(Errc::bad_file, std::move(detail));
}

Error bad_tensor(std::string_view name, std::string reason) {
  return bad("tensor '" + printable(name) + "': " + std::move(reason));
}

// data_offsets, checked against the data's size.
Result<void> read_offsets(simdjson::dom::object fields, std::uint64_t data_bytes,
                          TensorInfo& tensor) {
  simdjson::dom::array offsets;
  std::array<std::uint64_t, 2> bounds{};
  if (fields["data_offsets"].get(offsets) != simdjson::SUCCESS || offsets.size() != 2 ||
      offsets.at(0).get(bounds[0]) != simdjson::SUCCESS ||
      offsets.at(1).get(bounds[1]) != simdjson::SUCCESS) {
    return bad_tensor(tensor.name, "data_offsets is not a pair of unsigned integers");
  }
  if (bounds[0] > bounds[1] || bounds[1] > data_bytes) {
    return bad_tensor(tensor.name, "data_offsets [" + std::to_string(bounds[0]) + ", " +
                                       std::to_string(bounds[1]) + "] are not within the " +
                                       std::to_string(data_bytes) + " data bytes of the file");
  }
  tensor.offset = bounds[0];
  tensor.bytes = bounds[1] - bounds[0];
  return {};
}

Result<TensorInfo> read_tensor(std::string_view name, simdjson::dom::element value,
                               std::uint64_t data_bytes) {
  TensorInfo tensor;
  tensor.name = std::string(name);
  if (name.empty() || name.size() > kTensorNameMax) {
    return bad_tensor(name, "the name must have 1 to 512 bytes");
  }
  simdjson::dom::object fields;
  if (value.get(fields) != simdjson::SUCCESS) return bad_tensor(name, "is not an object");
  if (fields.size() != 3) return bad_tensor(name, "must have dtype, shape and data_offsets alone");
  std::string_view dtype;
  if (fields["dtype"].get(dtype) != simdjson::SUCCESS) return bad_tensor(name, "has no dtype");
  const auto row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                [&](const DtypeRow& r) { return r.name == dtype; });
  if (row == kDtypes.end()) return bad_tensor(name, "unknown dtype '" + printable(dtype) + "'");
  tensor.dtype = row->dtype;
  tensor.type_name = row->name;
  simdjson::dom::array shape;
  if (fields["shape"].get(shape) != simdjson::SUCCESS || shape.size() > kTensorDimsMax) {
    return bad_tensor(name, "shape is not an array of at most 8 numbers");
  }
  std::uint64_t bytes = row->bytes;
  for (const simdjson::dom::element dimension : shape) {
    std::uint64_t size = 0;
    if (dimension.get(size) != simdjson::SUCCESS) {
      return bad_tensor(name, "shape holds something else than unsigned integers");
    }
    if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return bad_tensor(name, "the size of its shape overflows 64 bits");
    }
    tensor.shape.push_back(size);
  }
  Result<void> offsets = read_offsets(fields, data_bytes, tensor);
  if (!offsets) return offsets.error();
  if (bytes != tensor.bytes) {
    return bad_tensor(name, "shape " + shape_text(tensor.shape) + " needs " +
                                std::to_string(bytes) + " bytes, data_offsets hold " +
                                std::to_string(tensor.bytes));
  }
  return tensor;
}

// Names unique, data covered exactly.
Result<void> check_layout(const TensorTable& header, std::uint64_t data_bytes) {
  std::vector<std::string_view> names;
  names.reserve(header.tensors.size());
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.offset != end) {
      return bad_tensor(tensor.name,
                        tensor.offset < end ? "overlaps another tensor" : "has a hole before it");
    }
    end += tensor.bytes;
    names.push_back(tensor.name);
  }
  if (end != data_bytes) {
    return bad("the tensors hold " + std::to_string(end) + " bytes, the file has " +
               std::to_string(data_bytes) + " data bytes");
  }
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) return bad_tensor(*twin, "appears twice");
  return {};
}

bool is_shard_name(std::string_view name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return name.size() <= 255 && !name.starts_with('.') && name.ends_with(".safetensors") &&
         name.find_first_not_of(kAllowed) == std::string_view::npos;
}

}  // namespace

Result<std::uint64_t> safetensors_header_length(std::span<const std::uint8_t, 8> prefix,
                                                std::uint64_t file_bytes) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = (length << 8) | prefix[i];
  if (length < 2 || length > kSafetensorsHeaderMax) {
    return bad("header length " + std::to_string(length) + " is not within 2 and " +
               std::to_string(kSafetensorsHeaderMax));
  }
  if (file_bytes < 8 || length > file_bytes - 8) {
    return bad("header length " + std::to_string(length) + " exceeds the file of " +
               std::to_string(file_bytes) + " bytes");
  }
  return length;
}

Result<TensorTable> parse_safetensors_header(std::string_view json, std::uint64_t file_bytes) {
  if (json.size() + 8 > file_bytes) return bad("the header exceeds the file");
  JsonDocument document;
  Result<simdjson::dom::object> root = document.parse_object(json, "header");
  if (!root) return root.error();
  TensorTable header;
  header.data_begin = 8 + json.size();
  const std::uint64_t data_bytes = file_bytes - header.data_begin;
  for (const simdjson::dom::key_value_pair field : *root) {
    if (field.key == "__metadata__") {
      if (!field.value.is_object()) return bad("__metadata__ is not an object");
      continue;
    }
    if (header.tensors.size() == kTensorsMax) {
      return bad("more than " + std::to_string(kTensorsMax) + " tensors");
    }
    Result<TensorInfo> tensor = read_tensor(field.key, field.value, data_bytes);
    if (!tensor) return tensor.error();
    header.tensors.push_back(std::move(*tensor));
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
            });
  Result<void> layout = check_layout(header, data_bytes);
  if (!layout) return layout.error();
  return header;
}

Result<std::map<std::string, std::string>> parse_shard_index(std::string_view json) {
  JsonDocument document;
  Result<simdjson::dom::object> root = document.parse_object(json, "index");
  if (!root) return root.error();
  simdjson::dom::object weight_map;
  if ((*root)["weight_map"].get(weight_map) != simdjson::SUCCESS) {
    return bad("weight_map is missing or not an object");
  }
  std::map<std::string, std::string> index;
  for (const simdjson::dom::key_value_pair field : weight_map) {
    std::string_view file;
    if (field.value.get(file) != simdjson::SUCCESS || !is_shard_name(file)) {
      return bad_tensor(field.key, "its file is not a plain name that ends in .safetensors");
    }
    if (index.size() == kTensorsMax)
      return bad("more than " + std::to_string(kTensorsMax) + " tensors");
    if (!index.emplace(field.key, file).second) return bad_tensor(field.key, "appears twice");
  }
  if (index.empty()) return bad("weight_map is empty");
  return index;
}

}  // namespace sluice::eng
