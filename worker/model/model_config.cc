// Reading config.json: one range check per key.
#include "worker/model/model_config.h"

#include <simdjson.h>

#include <array>
#include <cmath>
#include <numbers>
#include <string>

#include "shared/limits.h"
#include "worker/model/json_document.h"
#include "worker/model/model_file.h"

namespace sluice::eng {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

Error bad_key(std::string_view key, std::string reason) {
  return make_error(Errc::bad_file, std::string(key) + " " + std::move(reason), std::string(key));
}

// The element of a key; nothing when it is missing or null.
bool find(object root, std::string_view key, element& value) {
  return root[key].get(value) == simdjson::SUCCESS && !value.is_null();
}

Result<void> read_count(object root, std::string_view key, std::uint64_t max, std::uint32_t& out) {
  element value;
  std::uint64_t number = 0;
  if (!find(root, key, value)) return bad_key(key, "is missing");
  if (value.get(number) != simdjson::SUCCESS || number < 1 || number > max) {
    return bad_key(key, "must be an integer from 1 to " + std::to_string(max));
  }
  out = static_cast<std::uint32_t>(number);
  return {};
}

Result<void> read_number(object root, std::string_view key, double min, double max, double& out) {
  element value;
  if (!find(root, key, value)) return {};
  double number = 0;
  if (value.get(number) != simdjson::SUCCESS || !(number >= min && number <= max)) {
    return bad_key(key,
                   "must be a number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  out = number;
  return {};
}

Result<void> read_flag(object root, std::string_view key, bool& out) {
  element value;
  if (find(root, key, value) && value.get(out) != simdjson::SUCCESS) {
    return bad_key(key, "must be true or false");
  }
  return {};
}

struct ArchitectureRow {
  Architecture architecture;
  std::string_view name;
  std::string_view class_name;
};
constexpr std::array<ArchitectureRow, 4> kArchitectures{{
    {Architecture::llama, "llama", "LlamaForCausalLM"},
    {Architecture::mistral, "mistral", "MistralForCausalLM"},
    {Architecture::qwen2, "qwen2", "Qwen2ForCausalLM"},
    {Architecture::qwen3, "qwen3", "Qwen3ForCausalLM"},
}};

const ArchitectureRow& row_of(Architecture architecture) {
  return kArchitectures[static_cast<std::size_t>(architecture)];
}

Result<void> read_architecture(object root, ModelConfig& config) {
  constexpr std::string_view kRead =
      "; read are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM";
  element value;
  std::string_view text;
  simdjson::dom::array list;
  if (find(root, "architectures", value)) {
    if (value.get(list) != simdjson::SUCCESS || list.size() != 1 ||
        list.at(0).get(text) != simdjson::SUCCESS)
      return bad_key("architectures", "must name one class" + std::string(kRead));
  } else if (!find(root, "model_type", value) || value.get(text) != simdjson::SUCCESS) {
    return bad_key("architectures", "is missing, and so is model_type");
  }
  const auto architecture = find_architecture(text);
  if (!architecture)
    return bad_key("architectures", "names '" + printable(text) + "'" + std::string(kRead));
  config.architecture = *architecture;
  return {};
}

Result<void> check_features(object root) {
  element value;
  std::string_view text;
  if (find(root, "hidden_act", value) && (value.get(text) != simdjson::SUCCESS || text != "silu")) {
    return bad_key("hidden_act", "must be \"silu\"");
  }
  for (const std::string_view key : {"attention_bias", "mlp_bias"}) {
    bool flag = false;
    Result<void> read = read_flag(root, key, flag);
    if (!read) return read;
    if (flag) return bad_key(key, "true is not supported");
  }
  if (find(root, "quantization_config", value))
    return bad_key("quantization_config", "is not supported");
  return {};
}

// layer_types, where it is given, must say the same as the other keys.
Result<void> check_layer_types(object root, const ModelConfig& config) {
  element value;
  simdjson::dom::array types;
  if (!find(root, "layer_types", value)) return {};
  if (value.get(types) != simdjson::SUCCESS || types.size() != config.num_layers)
    return bad_key("layer_types", "must be a list with an entry for each layer");
  std::size_t layer = 0;
  for (const element type : types) {
    std::string_view text;
    const bool is_windowed = config.window_of(layer++) != 0;
    if (type.get(text) != simdjson::SUCCESS ||
        text != (is_windowed ? "sliding_attention" : "full_attention"))
      return bad_key("layer_types", "does not agree with the sliding window of layer " +
                                        std::to_string(layer - 1));
  }
  return {};
}

// Where the keys are missing, the families' own defaults hold.
Result<void> read_window(object root, ModelConfig& config) {
  constexpr std::uint32_t kMistralWindow = 4096;
  element value;
  const bool is_qwen =
      config.architecture == Architecture::qwen2 || config.architecture == Architecture::qwen3;
  bool is_used = !is_qwen;
  if (is_qwen) {
    Result<void> read = read_flag(root, "use_sliding_window", is_used);
    if (!read) return read;
  }
  if (!is_used) return check_layer_types(root, config);
  if (find(root, "sliding_window", value)) {
    if (config.architecture == Architecture::llama)
      return bad_key("sliding_window", "is not supported in a model of this architecture");
    Result<void> read = read_count(root, "sliding_window", 1 << 24, config.sliding_window);
    if (!read) return read;
  } else if (config.architecture == Architecture::mistral &&
             root["sliding_window"].error() == simdjson::NO_SUCH_FIELD) {
    config.sliding_window = kMistralWindow;
  }
  if (is_qwen && find(root, "max_window_layers", value)) {
    std::uint64_t layers = 0;
    if (value.get(layers) != simdjson::SUCCESS || layers > config.num_layers)
      return bad_key("max_window_layers", "must be an integer from 0 to num_hidden_layers");
    config.first_windowed_layer = static_cast<std::uint32_t>(layers);
  }
  return check_layer_types(root, config);
}

Result<void> read_heads(object root, ModelConfig& config) {
  Result<void> read = read_count(root, "num_attention_heads", 512, config.num_heads);
  if (!read) return read;
  element value;
  config.num_kv_heads = config.num_heads;
  // Llama alone means as many as query heads where the key is missing.
  if (find(root, "num_key_value_heads", value) || config.architecture != Architecture::llama) {
    read = read_count(root, "num_key_value_heads", 512, config.num_kv_heads);
    if (!read) return read;
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    return bad_key("num_key_value_heads", "must divide num_attention_heads");
  }
  if (find(root, "head_dim", value) || config.architecture == Architecture::qwen3) {
    read = read_count(root, "head_dim", krn::kHeadDimMax, config.head_dim);
    if (!read) return read;
  } else if (config.hidden_size % config.num_heads == 0) {
    config.head_dim = config.hidden_size / config.num_heads;
  } else {
    return bad_key("num_attention_heads", "must divide hidden_size where head_dim is not given");
  }
  if (config.head_dim % 2 != 0 || config.head_dim > krn::kHeadDimMax) {
    return bad_key("head_dim", "must be even and at most 256");
  }
  return {};
}

Result<void> read_rope_scaling(object scaling, RopeScaling& out) {
  element value;
  std::string_view kind;
  if ((!find(scaling, "rope_type", value) && !find(scaling, "type", value)) ||
      value.get(kind) != simdjson::SUCCESS) {
    return bad_key("rope_scaling", "has no rope_type");
  }
  if (kind == "default") return {};
  if (kind != "linear" && kind != "llama3") {
    return bad_key("rope_scaling",
                   "of type '" + printable(kind) + "' is not supported (default, linear, llama3)");
  }
  out.kind = kind == "linear" ? RopeScalingKind::linear : RopeScalingKind::llama3;
  Result<void> read = read_number(scaling, "factor", 1, 1024, out.factor);
  if (read) read = read_number(scaling, "low_freq_factor", 1e-3, 1e3, out.low_frequency_factor);
  if (read) read = read_number(scaling, "high_freq_factor", 1e-3, 1e3, out.high_frequency_factor);
  if (read) {
    read =
        read_number(scaling, "original_max_position_embeddings", 1, 1 << 24, out.original_context);
  }
  if (!read) return read;
  if (out.kind == RopeScalingKind::llama3 &&
      !(out.low_frequency_factor < out.high_frequency_factor)) {
    return bad_key("rope_scaling", "low_freq_factor must be below high_freq_factor");
  }
  return {};
}

Result<void> read_rope(object root, ModelConfig& config) {
  Result<void> read = read_number(root, "rope_theta", 1, 1e12, config.rope_theta);
  if (!read) return read;
  // Newer files hold both in rope_parameters.
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    element value;
    object scaling;
    if (!find(root, key, value)) continue;
    if (value.get(scaling) != simdjson::SUCCESS) return bad_key(key, "must be an object");
    read = read_number(scaling, "rope_theta", 1, 1e12, config.rope_theta);
    if (read) read = read_rope_scaling(scaling, config.rope_scaling);
    if (!read) return read;
  }
  bool interleaved = false;
  read = read_flag(root, "rope_interleaved", interleaved);
  if (!read) return read;
  if (interleaved) config.rope_pairing = krn::RopePairing::interleaved;
  return {};
}

Result<void> read_eos(object root, ModelConfig& config) {
  element value;
  if (!find(root, "eos_token_id", value)) return {};
  simdjson::dom::array list;
  const auto take = [&](element item) {
    std::uint64_t id = 0;
    if (item.get(id) != simdjson::SUCCESS || id >= config.vocab_size) return false;
    config.eos_ids.push_back(static_cast<TokenId>(id));
    return true;
  };
  bool good = true;
  if (value.get(list) == simdjson::SUCCESS) {
    good = list.size() <= kStopIdsMax;
    for (auto item = list.begin(); good && item != list.end(); ++item) good = take(*item);
  } else {
    good = take(value);
  }
  if (!good) return bad_key("eos_token_id", "must be a token id or a list of at most 64");
  return {};
}

}  // namespace

std::string_view architecture_name(Architecture architecture) {
  return row_of(architecture).name;
}

std::string_view architecture_class(Architecture architecture) {
  return row_of(architecture).class_name;
}

std::optional<Architecture> find_architecture(std::string_view name_or_class) {
  for (const ArchitectureRow& row : kArchitectures)
    if (row.name == name_or_class || row.class_name == name_or_class) return row.architecture;
  return std::nullopt;
}

Result<ModelConfig> parse_model_config(std::string_view json) {
  JsonDocument document;
  const Result<object> root = document.parse_object(json, "the configuration");
  if (!root) return root.error();
  ModelConfig config;
  double eps = 1e-6;
  Result<void> read = read_architecture(*root, config);
  if (read) read = check_features(*root);
  if (read) read = read_count(*root, "vocab_size", kVocabularyMax, config.vocab_size);
  if (read) read = read_count(*root, "hidden_size", 65536, config.hidden_size);
  if (read) read = read_count(*root, "intermediate_size", 262144, config.intermediate_size);
  if (read) read = read_count(*root, "num_hidden_layers", 512, config.num_layers);
  if (read) read = read_count(*root, "max_position_embeddings", 1 << 24, config.context_tokens);
  if (read) read = read_heads(*root, config);
  if (read) read = read_number(*root, "rms_norm_eps", 0, 0.1, eps);
  if (read) read = read_rope(*root, config);
  if (read) read = read_window(*root, config);
  if (read) read = read_flag(*root, "tie_word_embeddings", config.tied_embeddings);
  if (read) read = read_eos(*root, config);
  if (!read) return read.error();
  config.norm_eps = static_cast<float>(eps);
  return config;
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
  std::vector<double> frequencies(config.head_dim / 2);
  const RopeScaling& scaling = config.rope_scaling;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / config.head_dim;
    double frequency = 1.0 / std::pow(config.rope_theta, exponent);
    if (scaling.kind == RopeScalingKind::linear) frequency /= scaling.factor;
    if (scaling.kind == RopeScalingKind::llama3) {
      // Waves that fit the original context often enough stay, long ones are stretched, between
      // the two bounds the stretch is blended (Llama 3.1 model card).
      const double waves = scaling.original_context * frequency / (2 * std::numbers::pi);
      const double blend = (waves - scaling.low_frequency_factor) /
                           (scaling.high_frequency_factor - scaling.low_frequency_factor);
      const double kept = std::fmin(1.0, std::fmax(0.0, blend));
      frequency = (1 - kept) * frequency / scaling.factor + kept * frequency;
    }
    if (!config.rope_divisors.empty()) frequency /= static_cast<double>(config.rope_divisors[i]);
    frequencies[i] = frequency;
  }
  return frequencies;
}

void fill_rope_table(const ModelConfig& config, std::size_t positions, float* cosine, float* sine) {
  const std::vector<double> frequencies = rope_frequencies(config);
  for (std::size_t p = 0; p < positions; ++p) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(p) * frequency;
      *cosine++ = static_cast<float>(std::cos(angle));
      *sine++ = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace sluice::eng
