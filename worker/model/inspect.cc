// Prints configuration, files, sizes and digest of a loaded model.
#include "worker/model/inspect.h"

#include <filesystem>
#include <ostream>

#include "kernels/kernel_table.h"
#include "shared/gguf_file.h"
#include "shared/model_directory.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "worker/model/weights.h"

namespace sluice::eng {
namespace {

const char* type_name(krn::WeightType type) {
  switch (type) {
    case krn::WeightType::f32:
      return "F32";
    case krn::WeightType::bf16:
      return "BF16";
    case krn::WeightType::f16:
      return "F16";
    case krn::WeightType::q8_0:
      return "Q8_0";
    case krn::WeightType::q4_0:
      return "Q4_0";
    case krn::WeightType::q4_k:
      return "Q4_K";
    case krn::WeightType::q5_k:
      return "Q5_K";
    case krn::WeightType::q6_k:
      return "Q6_K";
  }
  return "";
}

const char* scaling_name(RopeScalingKind kind) {
  switch (kind) {
    case RopeScalingKind::none:
      return "none";
    case RopeScalingKind::linear:
      return "linear";
    case RopeScalingKind::llama3:
      return "llama3";
  }
  return "";
}

// As its format names it.
std::string_view architecture_of(const ModelWeights& weights) {
  const Architecture architecture = weights.config.architecture;
  return weights.format.starts_with("GGUF") ? architecture_name(architecture)
                                            : architecture_class(architecture);
}

std::string window_text(const ModelConfig& config) {
  if (config.sliding_window == 0) return "none";
  std::string text = std::to_string(config.sliding_window) + " positions";
  if (config.first_windowed_layer > 0)
    text += " from layer " + std::to_string(config.first_windowed_layer) + " on";
  return text;
}

// How many tensors are stored in which type.
std::string stored_types_of(const ModelWeights& weights) {
  std::string text;
  for (const auto& [type, count] : weights.stored_types) {
    if (!text.empty()) text += ", ";
    text += std::to_string(count) + " " + type;
  }
  return text;
}

std::string dequantized_of(const ModelWeights& weights) {
  if (weights.num_dequantized == 0) return {};
  return ", " + std::to_string(weights.num_dequantized) + " quantized tensors dequantized on load";
}

struct TokenizerText {
  std::string tokenizer;      // in words
  std::string chat_template;  // empty without a tokenizer
};

// Printable ASCII: a template may name itself what it likes in its errors.
std::string printable_line(std::string_view text) {
  std::string out;
  for (const char c : text) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

// The template that would be served, and whether it works.
std::string describe_template(const tok::Tokenizer& tokenizer) {
  const std::size_t bytes = tokenizer.chat_template_source().size();
  if (bytes == 0)
    return std::string(tok::template_family_name(tok::recognise_family(tokenizer))) +
           " (the model has none)";
  const auto published = tok::ChatTemplate::make_published(tokenizer);
  return "jinja, " + std::to_string(bytes) + " bytes, " +
         (published ? "renders" : "unusable: " + printable_line(published.error().detail));
}

// Of an existing vocabulary; an error when it cannot serve this model.
Result<TokenizerText> describe_vocabulary(const std::string& path, const std::string& name,
                                          std::uint32_t vocab_size) {
  const auto tokenizer = tok::Tokenizer::load(path);
  if (!tokenizer) return tokenizer.error();
  const std::uint32_t num_pieces = tokenizer->vocabulary().size;
  if (num_pieces != vocab_size)
    return make_error(Errc::bad_file, name + ": has " + std::to_string(num_pieces) +
                                          " pieces, the model " + std::to_string(vocab_size) +
                                          " token rows");
  return TokenizerText{name + ", " + std::to_string(num_pieces) + " pieces",
                       describe_template(*tokenizer)};
}

Result<TokenizerText> describe_tokenizer(const std::string& model, std::uint32_t vocab_size) {
  if (is_gguf_file(model)) {
    const auto file = GgufFile::read(model);
    if (!file) return file.error();
    if (file->header().find("tokenizer.ggml.model") == nullptr)
      return TokenizerText{"none: to be served, the model needs a vocabulary in the file", {}};
    return describe_vocabulary(model, "in the file", vocab_size);
  }
  const std::filesystem::path path = vocabulary_path(model);
  std::error_code failed;
  const auto status = std::filesystem::symlink_status(path, failed);
  if (status.type() == std::filesystem::file_type::not_found)
    return TokenizerText{"none: to be served, the model needs tokenizer.model or tokenizer.json",
                         {}};
  return describe_vocabulary(path.string(), path.filename().string(), vocab_size);
}

}  // namespace

int inspect_model(const std::string& model, std::ostream& out, std::ostream& errors) {
  const Result<ModelWeights> loaded = load_weights(model);
  if (!loaded) {
    errors << "error: " << loaded.error().detail << "\n";
    return 1;
  }
  const ModelWeights& w = *loaded;
  const ModelConfig& c = w.config;
  const auto tokenizer = describe_tokenizer(model, c.vocab_size);
  if (!tokenizer) {
    errors << "error: " << tokenizer.error().detail << "\n";
    return 1;
  }
  const std::size_t kv_bytes = std::size_t{2} * c.num_layers * c.kv_width() * sizeof(float);
  out << "architecture         " << architecture_of(w) << "\n"
      << "format               " << w.format << "\n"
      << "vocabulary           " << c.vocab_size << "\n"
      << "tokenizer            " << tokenizer->tokenizer << "\n";
  if (!tokenizer->chat_template.empty())
    out << "chat_template        " << tokenizer->chat_template << "\n";
  out << "context_tokens       " << c.context_tokens << "\n"
      << "layers               " << c.num_layers << "\n"
      << "hidden_size          " << c.hidden_size << "\n"
      << "intermediate_size    " << c.intermediate_size << "\n"
      << "heads                " << c.num_heads << " (" << c.num_kv_heads
      << " of K and V), head_dim " << c.head_dim << "\n"
      << "rope                 theta " << c.rope_theta << ", pairs "
      << (c.rope_pairing == krn::RopePairing::half ? "half" : "interleaved") << ", scaling "
      << scaling_name(c.rope_scaling.kind)
      << (c.rope_divisors.empty() ? "" : ", frequencies divided by rope_freqs.weight") << "\n"
      << "sliding_window       " << window_text(c) << "\n"
      << "embeddings           " << (c.tied_embeddings ? "tied" : "separate") << ", "
      << type_name(w.embedding_type) << "\n"
      << "matrices             " << type_name(w.layers.front().gate_up.parts.front().type)
      << dequantized_of(w) << "\n"
      << "end_ids             ";
  for (const TokenId id : c.eos_ids) out << " " << id;
  out << "\nfiles               ";
  for (const std::string& file : w.files) out << " " << file;
  out << "\nfile_bytes           " << w.file_bytes << "\n"
      << "tensors              " << w.num_tensors << " (" << stored_types_of(w) << ")\n"
      << "parameters           " << w.num_parameters << "\n"
      << "memory_bytes         " << w.memory.bytes() << "\n"
      << "kv_bytes_per_token   " << kv_bytes << "\n"
      << "sha256               " << hex_of(w.digest) << "\n"
      << "kernel_paths        ";
  for (const krn::KernelTable* const* t = krn::usable_kernels(); *t != nullptr; ++t) {
    out << " " << (*t)->name;
  }
  out << "\n";
  return 0;
}

}  // namespace sluice::eng
