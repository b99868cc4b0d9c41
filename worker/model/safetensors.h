// Safetensors: the header of a weights file, validated as hostile input before anything is
// allocated for its contents. Format (huggingface/safetensors, "Format"):
//
//   u64 little-endian n | n bytes JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]},
//                                        "__metadata__": {string: string}} | data
//
// Invariants of a parsed header: names unique; dtype known; product(shape) * element size = end -
// begin without overflow; tensors cover the data exactly, in order, without hole or overlap.
// Offsets need no alignment: readers copy. Pure functions over bytes.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "shared/result.h"
#include "worker/model/tensor_info.h"

namespace sluice::eng {

inline constexpr std::uint64_t kSafetensorsHeaderMax = 16u << 20;
inline constexpr std::size_t kTensorsMax = 32768;
inline constexpr std::size_t kTensorDimsMax = 8;
inline constexpr std::size_t kTensorNameMax = 512;
inline constexpr std::size_t kShardsMax = 1024;

// The length of the JSON text from the first 8 bytes of a file of file_bytes.
Result<std::uint64_t> safetensors_header_length(std::span<const std::uint8_t, 8> prefix,
                                                std::uint64_t file_bytes);
// json: the header text. Errors (bad_file) name the tensor and the reason.
Result<TensorTable> parse_safetensors_header(std::string_view json, std::uint64_t file_bytes);

// model.safetensors.index.json: {"weight_map": {tensor: file}}. File names are plain names that end
// in .safetensors, so that an index can't point out of its directory.
Result<std::map<std::string, std::string>> parse_shard_index(std::string_view json);

}  // namespace sluice::eng
