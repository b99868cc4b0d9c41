// GGUF files in memory for tests: honest ones by default, and every count, type and offset can be
// made to lie.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/gguf.h"

namespace sluice::test {

template <class T>
void append_number(T value, std::string& out) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

inline void append_gguf_text(std::string_view text, std::string& out) {
  append_number<std::uint64_t>(text.size(), out);
  out += text;
}

struct GgufBytes {
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;  // the row's length first
    std::uint32_t type = 0;           // its number in the format
    std::string data;
    std::optional<std::uint64_t> offset;  // in place of the honest one
  };

  std::uint32_t version = 3;
  std::uint64_t alignment = 32;  // of the data; a file that differs from 32 needs the key, too
  std::optional<std::uint64_t> num_tensors;  // in place of the honest one
  std::optional<std::uint64_t> num_keys;     // the same
  std::vector<std::string> entries;          // as they lie in the file
  std::vector<Tensor> tensors;

  GgufBytes& raw(std::string_view key, GgufValueType type, std::string_view value) {
    std::string entry;
    append_gguf_text(key, entry);
    append_number(type, entry);
    entry += value;
    entries.push_back(std::move(entry));
    return *this;
  }
  GgufBytes& text(std::string_view key, std::string_view value) {
    std::string bytes;
    append_gguf_text(value, bytes);
    return raw(key, GgufValueType::string, bytes);
  }
  GgufBytes& flag(std::string_view key, bool value) {
    return raw(key, GgufValueType::boolean, std::string(1, static_cast<char>(value)));
  }
  GgufBytes& u32(std::string_view key, std::uint32_t value) {
    return number(key, GgufValueType::u32, value);
  }
  GgufBytes& i32(std::string_view key, std::int32_t value) {
    return number(key, GgufValueType::i32, value);
  }
  GgufBytes& u64(std::string_view key, std::uint64_t value) {
    return number(key, GgufValueType::u64, value);
  }
  GgufBytes& f32(std::string_view key, float value) {
    return number(key, GgufValueType::f32, value);
  }
  template <class T>
  GgufBytes& number(std::string_view key, GgufValueType type, T value) {
    std::string bytes;
    append_number(value, bytes);
    return raw(key, type, bytes);
  }
  GgufBytes& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = array_head(GgufValueType::string, values.size());
    for (const std::string& value : values) append_gguf_text(value, bytes);
    return raw(key, GgufValueType::array, bytes);
  }
  template <class T>
  GgufBytes& numbers(std::string_view key, GgufValueType type, const std::vector<T>& values) {
    std::string bytes = array_head(type, values.size());
    for (const T value : values) append_number(value, bytes);
    return raw(key, GgufValueType::array, bytes);
  }
  GgufBytes& floats(std::string_view key, const std::vector<float>& values) {
    return numbers(key, GgufValueType::f32, values);
  }
  GgufBytes& integers(std::string_view key, const std::vector<std::int32_t>& values) {
    return numbers(key, GgufValueType::i32, values);
  }

  static std::string array_head(GgufValueType type, std::uint64_t count) {
    std::string bytes;
    append_number(type, bytes);
    append_number(count, bytes);
    return bytes;
  }

  std::string bytes() const {
    std::string out = "GGUF";
    append_number(version, out);
    append_number<std::uint64_t>(num_tensors.value_or(tensors.size()), out);
    append_number<std::uint64_t>(num_keys.value_or(entries.size()), out);
    for (const std::string& entry : entries) out += entry;
    std::string data;
    for (const Tensor& tensor : tensors) {
      data.resize((data.size() + alignment - 1) / alignment * alignment);
      append_gguf_text(tensor.name, out);
      append_number(static_cast<std::uint32_t>(tensor.dims.size()), out);
      for (const std::uint64_t size : tensor.dims) append_number(size, out);
      append_number(tensor.type, out);
      append_number<std::uint64_t>(tensor.offset.value_or(data.size()), out);
      data += tensor.data;
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

// What must hold of any header that was read; stops the process where it does not.
inline void check_gguf_header(const GgufHeader& header, std::uint64_t header_bytes_max,
                              std::uint64_t file_bytes) {
  CHECK(header.version == 2 || header.version == 3);
  CHECK(header.entries.size() <= kGgufKeysMax && header.tensors.size() <= kGgufTensorsMax);
  for (const GgufHeader::Entry& entry : header.entries) {
    CHECK(header.find(entry.key) == &entry.value);
    const GgufValue& value = entry.value;
    CHECK(value.bytes.size() <= header_bytes_max);
    if (const auto texts = value.texts()) CHECK(texts->size() == value.num_elements);
    if (const auto floats = value.floats()) CHECK(floats->size() == value.num_elements);
    if (const auto integers = value.integers()) CHECK(integers->size() == value.num_elements);
    CHECK(!value.unsigned_number() || value.number());
  }
  std::uint64_t end = 0;
  for (const GgufTensor& tensor : header.tensors) {
    CHECK(tensor.type != nullptr && tensor.num_dims >= 1 && tensor.num_dims <= kGgufDimsMax);
    unsigned __int128 elements = 1;
    for (const std::uint64_t size : tensor.dims) elements *= size;
    CHECK(elements % tensor.type->num_elements == 0);
    CHECK(elements / tensor.type->num_elements * tensor.type->bytes == tensor.bytes);
    CHECK(tensor.offset >= end && tensor.offset % header.alignment == 0);
    end = tensor.offset + tensor.bytes;
    CHECK(header.data_begin + end <= file_bytes);
  }
}

}  // namespace sluice::test
