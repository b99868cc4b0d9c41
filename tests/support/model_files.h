// Model directories made by tests and benches: a safetensors writer, seeded random Llama weights,
// and a temporary directory that removes itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::test {

class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void write_file(const std::string& path, const std::string& bytes);
std::string read_file(const std::string& path);

// Length prefix, header text, data.
std::string safetensors_bytes(const std::string& header_json, const std::string& data);

struct RandomModel {
  std::uint32_t vocab_size = 1000;
  std::uint32_t hidden_size = 256;
  std::uint32_t intermediate_size = 704;
  std::uint32_t num_layers = 2;
  std::uint32_t num_heads = 8;
  std::uint32_t num_kv_heads = 4;
  std::uint32_t context_tokens = 2048;
  std::string dtype = "BF16";  // F32, F16 or BF16
  std::uint64_t seed = 1;
};

// Writes config.json and model.safetensors; tensors are drawn uniformly at the usual scale.
void write_random_model(const std::string& directory, const RandomModel& model);

}  // namespace sluice::test
