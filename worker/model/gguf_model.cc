// One range check per key; see gguf_model.h.
#include "worker/model/gguf_model.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/shapes.h"
#include "shared/limits.h"
#include "worker/model/model_file.h"

namespace sluice::eng {
namespace {

constexpr std::uint64_t kQuantizationVersion = 2;

struct TypeRow {
  std::string_view name;
  Dtype dtype;
};
constexpr std::array<TypeRow, 8> kTypes{{{"F32", Dtype::f32},
                                         {"F16", Dtype::f16},
                                         {"BF16", Dtype::bf16},
                                         {"Q8_0", Dtype::q8_0},
                                         {"Q4_0", Dtype::q4_0},
                                         {"Q4_K", Dtype::q4_k},
                                         {"Q5_K", Dtype::q5_k},
                                         {"Q6_K", Dtype::q6_k}}};

Error bad_key(std::string_view key, const std::string& reason) {
  return make_error(Errc::bad_file, "key '" + std::string(key) + "' " + reason, std::string(key));
}

Dtype dtype_of(const GgufTensorType& type) {
  const auto row = std::ranges::find(kTypes, type.name, &TypeRow::name);
  return row == kTypes.end() ? Dtype::other : row->dtype;
}

// Keys of the architecture, written without its name.
class Keys {
 public:
  Keys(const GgufHeader& header, Architecture architecture)
      : header_(header), prefix_(std::string(architecture_name(architecture)) + ".") {}

  std::string full(std::string_view key) const { return prefix_ + std::string(key); }
  bool has(std::string_view key) const { return header_.find(full(key)) != nullptr; }

  Result<void> count(std::string_view key, std::uint64_t max, std::uint32_t& out) const {
    const GgufValue* value = header_.find(full(key));
    if (value == nullptr) return bad_key(full(key), "is missing");
    const auto number = value->unsigned_number();
    if (!number || *number < 1 || *number > max)
      return bad_key(full(key), "must be an integer from 1 to " + std::to_string(max));
    out = static_cast<std::uint32_t>(*number);
    return {};
  }
  // A missing key leaves `out` as it is.
  Result<void> number(std::string_view key, double min, double max, double& out) const {
    const GgufValue* value = header_.find(full(key));
    if (value == nullptr) return {};
    const auto number = value->number();
    if (!number || !(*number >= min && *number <= max))
      return bad_key(full(key),
                     "must be a number from " + std::to_string(min) + " to " + std::to_string(max));
    out = *number;
    return {};
  }
  // A feature that is there when its number is not 0.
  Result<void> without(std::string_view key) const {
    const GgufValue* value = header_.find(full(key));
    if (value == nullptr || value->unsigned_number() == 0u) return {};
    return bad_key(full(key), "is not supported");
  }

 private:
  const GgufHeader& header_;
  std::string prefix_;
};

// Mistral's files say llama.
Result<Architecture> read_architecture(const GgufHeader& header) {
  const GgufValue* value = header.find("general.architecture");
  const auto name = value == nullptr ? std::nullopt : value->text();
  if (!name) return bad_key("general.architecture", "is missing or not a text");
  for (const Architecture known : {Architecture::llama, Architecture::qwen2, Architecture::qwen3})
    if (*name == architecture_name(known)) return known;
  return bad_key("general.architecture",
                 "names '" + printable(*name) + "'; 'llama', 'qwen2' and 'qwen3' can be served");
}

Result<void> check_file(const GgufHeader& header) {
  if (const GgufValue* split = header.find("split.count"); split != nullptr) {
    const auto count = split->unsigned_number();
    if (!count || *count > 1)
      return bad_key("split.count", "says that the model lies in several files; one is read");
  }
  const bool is_quantized = std::ranges::any_of(header.tensors, [](const GgufTensor& tensor) {
    return block_format(dtype_of(*tensor.type)).has_value();
  });
  const GgufValue* version = header.find("general.quantization_version");
  if (is_quantized && version != nullptr && version->unsigned_number() != kQuantizationVersion)
    return bad_key("general.quantization_version", "must be 2");
  return {};
}

Result<void> check_features(const GgufHeader& header, const Keys& keys) {
  for (const std::string_view key : {"expert_count", "expert_used_count"})
    if (auto checked = keys.without(key); !checked) return checked;
  const GgufValue* causal = header.find(keys.full("attention.causal"));
  if (causal != nullptr && causal->flag() != true)
    return bad_key(keys.full("attention.causal"), "must be true");
  return {};
}

Result<void> read_heads(const Keys& keys, ModelConfig& config) {
  constexpr std::uint64_t kHeadsMax = 512;
  Result<void> read = keys.count("attention.head_count", kHeadsMax, config.num_heads);
  if (!read) return read;
  config.num_kv_heads = config.num_heads;
  if (keys.has("attention.head_count_kv"))
    read = keys.count("attention.head_count_kv", kHeadsMax, config.num_kv_heads);
  if (!read) return read;
  if (config.num_heads % config.num_kv_heads != 0)
    return bad_key(keys.full("attention.head_count_kv"), "must divide attention.head_count");
  if (keys.has("attention.key_length")) {
    read = keys.count("attention.key_length", krn::kHeadDimMax, config.head_dim);
    if (!read) return read;
  } else if (config.hidden_size % config.num_heads == 0) {
    config.head_dim = config.hidden_size / config.num_heads;
  } else {
    return bad_key(keys.full("attention.head_count"),
                   "must divide embedding_length where attention.key_length is not given");
  }
  if (config.head_dim % 2 != 0 || config.head_dim > krn::kHeadDimMax)
    return bad_key(keys.full("attention.key_length"), "must be even and at most 256");
  for (const std::string_view key : {"attention.value_length", "rope.dimension_count"}) {
    std::uint32_t length = config.head_dim;
    if (keys.has(key)) read = keys.count(key, krn::kHeadDimMax, length);
    if (!read) return read;
    if (length != config.head_dim)
      return bad_key(keys.full(key),
                     "must be the length of a head, " + std::to_string(config.head_dim));
  }
  return {};
}

// Positions that each one sees; 0 means all, as a missing key does. The pattern, where there is
// one, has a flag for each layer.
Result<void> read_window(const GgufHeader& header, const Keys& keys, ModelConfig& config) {
  constexpr std::string_view kWindow = "attention.sliding_window";
  double window = 0;
  if (auto read = keys.number(kWindow, 0, 1 << 24, window); !read) return read;
  config.sliding_window = static_cast<std::uint32_t>(window);
  if (config.sliding_window != window) return bad_key(keys.full(kWindow), "must be an integer");
  const std::string pattern = keys.full("attention.sliding_window_pattern");
  const GgufValue* flags = header.find(pattern);
  if (flags == nullptr || window == 0) return {};
  const std::string_view layers = flags->bytes;
  const bool is_read = flags->type == GgufValueType::array &&
                       flags->element_type == GgufValueType::boolean &&
                       flags->num_elements == config.num_layers && std::ranges::is_sorted(layers) &&
                       static_cast<std::uint8_t>(layers.back()) <= 1;
  if (!is_read)
    return bad_key(pattern, "must be a list with false for some layers, then true for the others");
  config.first_windowed_layer = static_cast<std::uint32_t>(std::ranges::count(layers, '\0'));
  return {};
}

Result<void> read_rope(const GgufHeader& header, const Keys& keys, ModelConfig& config) {
  // The llama architecture has its Q and K rows reordered for this.
  if (config.architecture == Architecture::llama)
    config.rope_pairing = krn::RopePairing::interleaved;
  Result<void> read = keys.number("rope.freq_base", 1, 1e12, config.rope_theta);
  double factor = 0;  // 0: none
  if (read) read = keys.number("rope.scale_linear", 0, 1024, factor);
  if (read) read = keys.number("rope.scaling.factor", 0, 1024, factor);
  if (!read) return read;
  const std::string key = keys.full("rope.scaling.type");
  const GgufValue* type = header.find(key);
  const auto kind = type == nullptr ? std::optional<std::string_view>("linear") : type->text();
  if (kind != "none" && kind != "linear")
    return bad_key(key, "must be 'none' or 'linear'" +
                            (kind ? ", not '" + printable(*kind) + "'" : std::string()));
  if (kind == "none" || factor == 0 || factor == 1) return {};
  if (factor < 1) return bad_key(keys.full("rope.scaling.factor"), "must be at least 1");
  config.rope_scaling.kind = RopeScalingKind::linear;
  config.rope_scaling.factor = factor;
  return {};
}

Result<void> read_end_ids(const GgufHeader& header, ModelConfig& config) {
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    const GgufValue* value = header.find(key);
    if (value == nullptr) continue;
    const auto id = value->unsigned_number();
    if (!id || *id >= config.vocab_size)
      return bad_key(key, "must be a token id below " + std::to_string(config.vocab_size));
    const auto token = static_cast<TokenId>(*id);
    if (std::ranges::find(config.eos_ids, token) == config.eos_ids.end())
      config.eos_ids.push_back(token);
  }
  return {};
}

// The embedding has a row for each token; without a matrix for the logits it serves them, too.
Result<void> read_ends(const GgufHeader& header, ModelConfig& config) {
  config.tied_embeddings = true;
  for (const GgufTensor& tensor : header.tensors) {
    if (tensor.name == "output.weight") config.tied_embeddings = false;
    if (tensor.name != "token_embd.weight") continue;
    if (tensor.num_dims != 2 || tensor.dims[1] > kVocabularyMax)
      return make_error(Errc::bad_file, "tensor 'token_embd.weight' must have 1 to " +
                                            std::to_string(kVocabularyMax) + " rows");
    config.vocab_size = static_cast<std::uint32_t>(tensor.dims[1]);
  }
  if (config.vocab_size == 0)
    return make_error(Errc::bad_file, "tensor 'token_embd.weight' is missing");
  return {};
}

}  // namespace

Result<ModelConfig> read_gguf_config(const GgufHeader& header) {
  const Result<Architecture> architecture = read_architecture(header);
  if (!architecture) return architecture.error();
  ModelConfig config;
  config.architecture = *architecture;
  const Keys keys(header, *architecture);
  double eps = 0;
  Result<void> read = check_file(header);
  if (read) read = check_features(header, keys);
  if (read) read = keys.count("embedding_length", 65536, config.hidden_size);
  if (read) read = keys.count("feed_forward_length", 262144, config.intermediate_size);
  if (read) read = keys.count("block_count", 512, config.num_layers);
  if (read) read = keys.count("context_length", 1 << 24, config.context_tokens);
  if (read) read = read_heads(keys, config);
  if (read && !keys.has("attention.layer_norm_rms_epsilon"))
    return bad_key(keys.full("attention.layer_norm_rms_epsilon"), "is missing");
  if (read) read = keys.number("attention.layer_norm_rms_epsilon", 0, 0.1, eps);
  if (read) read = read_window(header, keys, config);
  if (read) read = read_rope(header, keys, config);
  if (read) read = read_ends(header, config);
  if (read) read = read_end_ids(header, config);
  if (!read) return read.error();
  config.norm_eps = static_cast<float>(eps);
  return config;
}

TensorTable gguf_tensor_table(const GgufHeader& header) {
  TensorTable table;
  table.data_begin = header.data_begin;
  for (const GgufTensor& tensor : header.tensors) {
    std::vector<std::uint64_t> shape(tensor.dims.begin(), tensor.dims.begin() + tensor.num_dims);
    std::ranges::reverse(shape);
    table.tensors.push_back({std::string(tensor.name), dtype_of(*tensor.type), tensor.type->name,
                             std::move(shape), tensor.offset, tensor.bytes});
  }
  return table;
}

}  // namespace sluice::eng
