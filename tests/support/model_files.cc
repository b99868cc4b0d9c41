// Writing model directories for tests and benches.
#include "tests/support/model_files.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>
#include <vector>

#include "kernels/half_float.h"
#include "shared/check.h"
#include "shared/random.h"

namespace sluice::test {
namespace {

// Positive and negative normal halves of magnitude scale * [1/2, 1): enough for random weights.
std::uint16_t to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t exponent = (bits >> 23) & 0xffu;
  if (exponent < 113) return static_cast<std::uint16_t>((bits >> 16) & 0x8000u);  // flushed to zero
  return static_cast<std::uint16_t>(((bits >> 16) & 0x8000u) | ((exponent - 112) << 10) |
                                    ((bits >> 13) & 0x3ffu));
}

class Writer {
 public:
  explicit Writer(const RandomModel& model)
      : model_(model), element_(model.dtype == "F32" ? 4 : 2) {}

  void tensor(const std::string& name, std::size_t rows, std::size_t cols) {
    const std::size_t begin = data_.size();
    const float scale = rows == 1 ? 0.2f : 1.7f / std::sqrt(static_cast<float>(cols));
    const float center = rows == 1 ? 1.0f : 0.0f;
    data_.resize(begin + rows * cols * element_);
    in_parts(rows * cols, [&](std::size_t first, std::size_t end) {
      for (std::size_t i = first; i < end; ++i) {
        const RandomKey key{model_.seed, 0, static_cast<std::uint32_t>(index_ * 0x9e3779b9u + i)};
        const auto unit = static_cast<float>(random_unit(key, static_cast<std::uint32_t>(i >> 32)));
        put(center + scale * (2 * unit - 1), data_.data() + begin + i * element_);
      }
    });
    ++index_;
    std::ostringstream entry;
    entry << (header_.empty() ? "{" : ",") << '"' << name << "\":{\"dtype\":\"" << model_.dtype
          << "\",\"shape\":[";
    if (rows > 1) entry << rows << ',';
    entry << cols << "],\"data_offsets\":[" << begin << ',' << data_.size() << "]}";
    header_ += entry.str();
  }

  std::string bytes() const { return safetensors_bytes(header_ + "}", data_); }

 private:
  // Over all cores where there is much to do: elements do not depend on each other.
  template <class Part>
  static void in_parts(std::size_t count, const Part& part) {
    constexpr std::size_t kMuch = std::size_t{1} << 20;
    const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
    const std::size_t share = count < kMuch ? count : (count + cores - 1) / cores;
    std::vector<std::jthread> threads;
    for (std::size_t first = share; first < count; first += share)
      threads.emplace_back([=, &part] { part(first, std::min(first + share, count)); });
    part(0, std::min(share, count));
  }

  void put(float value, char* to) const {
    if (element_ == 4) {
      std::memcpy(to, &value, 4);
      return;
    }
    const std::uint16_t bits = model_.dtype == "BF16" ? krn::float_to_bf16(value) : to_f16(value);
    std::memcpy(to, &bits, 2);
  }

  const RandomModel& model_;
  std::size_t element_;
  std::size_t index_ = 0;
  std::string header_;
  std::string data_;
};

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  // In memory where that exists: tests rewrite small files thousands of times.
  std::error_code none;
  const bool memory = std::filesystem::is_directory("/dev/shm", none);
  path_ = memory ? "/dev/shm/sluice-XXXXXX"
                 : (std::filesystem::temp_directory_path() / "sluice-XXXXXX").string();
  CHECK(::mkdtemp(path_.data()) != nullptr);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // a left-over directory fails no test
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  CHECK(out.good());
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string safetensors_bytes(const std::string& header_json, const std::string& data) {
  std::string bytes;
  for (std::size_t i = 0; i < 8; ++i)
    bytes += static_cast<char>((header_json.size() >> (8 * i)) & 0xffu);
  return bytes + header_json + data;
}

void write_random_model(const std::string& directory, const RandomModel& m) {
  const std::size_t kv_width = std::size_t{m.hidden_size} / m.num_heads * m.num_kv_heads;
  Writer writer(m);
  for (std::uint32_t layer = 0; layer < m.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    writer.tensor(prefix + "input_layernorm.weight", 1, m.hidden_size);
    writer.tensor(prefix + "self_attn.q_proj.weight", m.hidden_size, m.hidden_size);
    writer.tensor(prefix + "self_attn.k_proj.weight", kv_width, m.hidden_size);
    writer.tensor(prefix + "self_attn.v_proj.weight", kv_width, m.hidden_size);
    writer.tensor(prefix + "self_attn.o_proj.weight", m.hidden_size, m.hidden_size);
    writer.tensor(prefix + "post_attention_layernorm.weight", 1, m.hidden_size);
    writer.tensor(prefix + "mlp.gate_proj.weight", m.intermediate_size, m.hidden_size);
    writer.tensor(prefix + "mlp.up_proj.weight", m.intermediate_size, m.hidden_size);
    writer.tensor(prefix + "mlp.down_proj.weight", m.hidden_size, m.intermediate_size);
  }
  writer.tensor("model.norm.weight", 1, m.hidden_size);
  writer.tensor("model.embed_tokens.weight", m.vocab_size, m.hidden_size);
  write_file(directory + "/model.safetensors", writer.bytes());
  std::ostringstream config;
  config << "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":" << m.vocab_size
         << ",\"hidden_size\":" << m.hidden_size << ",\"intermediate_size\":" << m.intermediate_size
         << ",\"num_hidden_layers\":" << m.num_layers << ",\"num_attention_heads\":" << m.num_heads
         << ",\"num_key_value_heads\":" << m.num_kv_heads
         << ",\"max_position_embeddings\":" << m.context_tokens
         << ",\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true}";
  write_file(directory + "/config.json", config.str());
}

}  // namespace sluice::test
