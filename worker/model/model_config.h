// ModelConfig: the hyperparameters of a model of the Llama family, from Hugging Face's config.json
// (gguf_model.h reads those of a GGUF file), each checked against its range, so that no product of
// two of them can overflow later. Unknown keys are ignored (the format has dozens that do not
// matter for inference); an architecture or a feature that this engine does not compute (other
// biases, quantization, other activations) is refused by name, never ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "kernels/shapes.h"
#include "shared/ids.h"
#include "shared/result.h"

namespace sluice::eng {

inline constexpr std::uint64_t kModelConfigBytesMax = 1u << 20;

// What sets the members of the family apart: Mistral may see a sliding window of positions (Jiang
// et al. 2023), Qwen2 adds biases to q, k and v (Yang et al. 2024), Qwen3 normalizes each head of q
// and k (Yang et al. 2025). A window can stand in a file of each.
enum class Architecture : std::uint8_t { llama, mistral, qwen2, qwen3 };

enum class RopeScalingKind : std::uint8_t { none, linear, llama3 };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::none;
  double factor = 1;  // linear, llama3
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_context = 8192;  // tokens
};

struct ModelConfig {
  Architecture architecture = Architecture::llama;
  std::uint32_t vocab_size = 0;         // 1..kVocabularyMax
  std::uint32_t hidden_size = 0;        // 1..65536
  std::uint32_t intermediate_size = 0;  // 1..262144
  std::uint32_t num_layers = 0;         // 1..512
  std::uint32_t num_heads = 0;          // 1..512
  std::uint32_t num_kv_heads = 0;       // divides num_heads
  std::uint32_t head_dim = 0;           // even, 2..256
  std::uint32_t context_tokens = 0;     // 1..2^24: max_position_embeddings
  float norm_eps = 1e-6f;               // 0..0.1
  double rope_theta = 10000;            // 1..1e12
  RopeScaling rope_scaling;
  std::vector<float> rope_divisors;  // of the frequencies, [head_dim / 2] above 0; empty: none
  krn::RopePairing rope_pairing = krn::RopePairing::half;  // "rope_interleaved": true for the other
  bool tied_embeddings = false;
  // A position sees itself and this many less one before it; 0: all. In the layers from
  // first_windowed_layer on.
  std::uint32_t sliding_window = 0;
  std::uint32_t first_windowed_layer = 0;
  std::vector<TokenId> eos_ids;  // below vocab_size; may be empty

  std::uint32_t q_width() const { return num_heads * head_dim; }
  std::uint32_t kv_width() const { return num_kv_heads * head_dim; }
  bool has_qkv_bias() const { return architecture == Architecture::qwen2; }
  bool has_head_norms() const { return architecture == Architecture::qwen3; }
  std::uint32_t window_of(std::size_t layer) const {
    return layer < first_windowed_layer ? 0 : sliding_window;
  }
};

// "qwen2": as GGUF files and model_type of config.json write it.
std::string_view architecture_name(Architecture architecture);
// "Qwen2ForCausalLM"
std::string_view architecture_class(Architecture architecture);
std::optional<Architecture> find_architecture(std::string_view name_or_class);

// Errors (bad_file) name the key and what is allowed.
Result<ModelConfig> parse_model_config(std::string_view json);

// Angle per position of each RoPE pair, [head_dim / 2], scaling applied.
std::vector<double> rope_frequencies(const ModelConfig& config);

// Cosine and sine of every angle, [positions, head_dim / 2] each, computed in double.
void fill_rope_table(const ModelConfig& config, std::size_t positions, float* cosine, float* sine);

}  // namespace sluice::eng
