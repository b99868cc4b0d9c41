// GGUF: the header of a model file (ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian),
// read as hostile input: metadata and tensor infos, nothing of the tensors' data.
//
//   "GGUF" | u32 version | u64 num_tensors | u64 num_keys
//   | num_keys    x { string key, u32 type, value }        string: u64 bytes, text
//   | num_tensors x { string name, u32 num_dims, u64 dims[], u32 type, u64 offset }
//   | padding to the alignment | data
//
// Invariants of a parsed header: keys and tensor names unique; every value inside the bytes; a
// tensor's size is computed without overflow, whole blocks per row; sorted by offset, the tensors
// cover the data in order, with nothing but padding between and behind them, and lie in the file.
// Nothing is allocated by a count that the bytes have not paid for. Pure; views into the bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/result.h"

namespace sluice {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr std::uint64_t kGgufHeaderMax = 64u << 20;  // bytes; of a large vocabulary: 10 MB
inline constexpr std::uint64_t kGgufKeysMax = 4096;
inline constexpr std::size_t kGgufKeyBytesMax = 256;
inline constexpr std::uint64_t kGgufTensorsMax = 32768;
inline constexpr std::size_t kGgufTensorNameMax = 64;
inline constexpr std::uint32_t kGgufDimsMax = 4;
inline constexpr std::uint64_t kGgufAlignmentMax = 1u << 16;

// Numbers of the file format.
enum class GgufValueType : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

// A value as it lies in the file; the readers below give nothing when it is of another type.
struct GgufValue {
  GgufValueType type = GgufValueType::u8;
  GgufValueType element_type = GgufValueType::u8;  // of an array
  std::uint64_t num_elements = 0;                  // of an array
  std::string_view bytes;  // a string: its text; an array: its elements as the file has them

  std::optional<std::string_view> text() const;
  std::optional<bool> flag() const;
  // Any integer type that holds a value >= 0.
  std::optional<std::uint64_t> unsigned_number() const;
  // Any number.
  std::optional<double> number() const;
  // Arrays of strings, of floats, of any integers that fit 32 bits with sign.
  std::optional<std::vector<std::string_view>> texts() const;
  std::optional<std::vector<float>> floats() const;
  std::optional<std::vector<std::int32_t>> integers() const;
};

// How a tensor's elements are stored: num_elements of a row share a block of bytes.
struct GgufTensorType {
  std::uint32_t number;
  std::string_view name;
  std::uint32_t num_elements;
  std::uint32_t bytes;
};
// Nothing for a number that the format gives no meaning here.
const GgufTensorType* find_gguf_tensor_type(std::uint32_t number);

struct GgufTensor {
  std::string_view name;
  const GgufTensorType* type = nullptr;
  std::uint32_t num_dims = 0;
  std::array<std::uint64_t, kGgufDimsMax> dims{};  // the row's length first; unused ones are 1
  std::uint64_t offset = 0;                        // from data_begin
  std::uint64_t bytes = 0;
};

struct GgufHeader {
  struct Entry {
    std::string_view key;
    GgufValue value;
  };
  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  std::uint64_t data_begin = 0;     // from the start of the file
  std::vector<Entry> entries;       // by key
  std::vector<GgufTensor> tensors;  // by offset

  const GgufValue* find(std::string_view key) const;
};

// bytes: the first bytes of a file of file_bytes. Nothing: the header goes on behind them, call
// again with more. Errors (bad_file) name the key or tensor and the reason.
Result<std::optional<GgufHeader>> parse_gguf_header(std::string_view bytes,
                                                    std::uint64_t file_bytes);

}  // namespace sluice
