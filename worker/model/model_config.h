// ModelConfig: the hyperparameters of a Llama model from Hugging Face's config.json, each checked
// against its range, so that no product of two of them can overflow later. Unknown keys are ignored
// (the format has dozens that do not matter for inference); known features that this engine does
// not compute (biases, sliding windows, quantization, other activations) are refused, never
// ignored.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/shapes.h"
#include "shared/ids.h"
#include "shared/result.h"

namespace sluice::eng {

inline constexpr std::uint64_t kModelConfigBytesMax = 1u << 20;

enum class RopeScalingKind : std::uint8_t { none, linear, llama3 };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::none;
  double factor = 1;  // linear, llama3
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_context = 8192;  // tokens
};

struct ModelConfig {
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
  std::vector<TokenId> eos_ids;  // below vocab_size; may be empty

  std::uint32_t q_width() const { return num_heads * head_dim; }
  std::uint32_t kv_width() const { return num_kv_heads * head_dim; }
};

// Errors (bad_file) name the key and what is allowed.
Result<ModelConfig> parse_model_config(std::string_view json);

// Angle per position of each RoPE pair, [head_dim / 2], scaling applied.
std::vector<double> rope_frequencies(const ModelConfig& config);

// Cosine and sine of every angle, [positions, head_dim / 2] each, computed in double.
void fill_rope_table(const ModelConfig& config, std::size_t positions, float* cosine, float* sine);

}  // namespace sluice::eng
