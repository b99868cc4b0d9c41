// Reads the few keys that matter in either format, with the ranges that requests have.
#include "gateway/api/generation_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "gateway/api/field_reader.h"
#include "gateway/api/json_document.h"
#include "shared/gguf_file.h"

namespace sluice::gw {
namespace {

namespace dom = simdjson::dom;
using Element = dom::element;

constexpr float kTiny = std::numeric_limits<float>::min();

bool read_number(FieldReader& reader, Element value, std::string_view key, double low, double high,
                 std::string_view allowed, std::optional<float>& out) {
  float number = 0;
  if (!reader.number(value, key, low, high, allowed, number)) return false;
  out = number;
  return true;
}

bool read_eos(FieldReader& reader, Element value, std::uint32_t vocab_size,
              std::vector<TokenId>& out) {
  constexpr std::string_view kKey = "eos_token_id";
  dom::array array;
  if (value.get(array) == simdjson::SUCCESS) {
    if (!reader.token_ids(array, kKey, kEosIdsMax, out)) return false;
  } else if (!reader.integer(value, kKey, 0, std::numeric_limits<std::int32_t>::max(),
                             out.emplace_back())) {
    return false;
  }
  for (const TokenId id : out)
    if (id >= vocab_size) return reader.wrong(kKey, "ids below " + std::to_string(vocab_size));
  return true;
}

bool read_key(FieldReader& reader, std::string_view key, Element value, std::uint32_t vocab_size,
              GenerationConfig& config) {
  if (key == "temperature")
    return read_number(reader, value, key, 0, 2, "a number from 0 to 2", config.temperature);
  if (key == "top_p")
    return read_number(reader, value, key, kTiny, 1, "a number above 0, at most 1", config.top_p);
  if (key == "min_p")
    return read_number(reader, value, key, 0, 1, "a number from 0 to 1", config.min_p);
  if (key == "repetition_penalty")
    return read_number(reader, value, key, kTiny, 2, "a number above 0, at most 2",
                       config.repetition_penalty);
  if (key == "top_k")
    return reader.integer(value, key, 0, std::numeric_limits<std::int32_t>::max(),
                          config.top_k.emplace());
  if (key == "eos_token_id") return read_eos(reader, value, vocab_size, config.eos_ids);
  return true;
}

Error bad_file(const std::string& detail) {
  return make_error(Errc::bad_file, detail);
}

Error bad_key(std::string_view key, const std::string& allowed) {
  return bad_file("key '" + std::string(key) + "' must be " + allowed);
}

Result<void> read_gguf_number(const GgufHeader& header, std::string_view key, double low,
                              double high, const char* allowed, std::optional<float>& out) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return {};
  const auto number = value->number();
  if (!number || !(*number >= low && *number <= high)) return bad_key(key, allowed);
  out = static_cast<float>(*number);
  return {};
}

Result<void> read_gguf_top_k(const GgufHeader& header, std::optional<std::uint32_t>& out) {
  constexpr std::string_view kKey = "general.sampling.top_k";
  const GgufValue* value = header.find(kKey);
  if (value == nullptr) return {};
  const auto number = value->number();
  if (!number || !(*number >= -1 && *number <= std::numeric_limits<std::int32_t>::max()) ||
      *number != std::floor(*number))
    return bad_key(kKey, "an integer from -1");
  out = *number < 0 ? 0 : static_cast<std::uint32_t>(*number);
  return {};
}

Result<void> read_gguf_end_ids(const GgufHeader& header, std::uint32_t vocab_size,
                               std::vector<TokenId>& out) {
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    const GgufValue* value = header.find(key);
    if (value == nullptr) continue;
    const auto id = value->unsigned_number();
    if (!id || *id >= vocab_size) return bad_key(key, "an id below " + std::to_string(vocab_size));
    const auto token = static_cast<TokenId>(*id);
    if (std::ranges::find(out, token) == out.end()) out.push_back(token);
  }
  return {};
}

}  // namespace

void GenerationConfig::apply_to(GenerationRequest& request) const {
  SamplingParams& sampling = request.sampling;
  const auto fill = [&](SamplingField field, const auto& ours, auto& theirs) {
    if (ours && !request.given.has(field)) theirs = *ours;
  };
  fill(SamplingField::temperature, temperature, sampling.temperature);
  fill(SamplingField::top_p, top_p, sampling.top_p);
  fill(SamplingField::min_p, min_p, sampling.min_p);
  fill(SamplingField::top_k, top_k, sampling.top_k);
  fill(SamplingField::repetition_penalty, repetition_penalty, sampling.repetition_penalty);
}

Result<GenerationConfig> parse_generation_config(std::string text, std::uint32_t vocab_size) {
  JsonDocument document(0);  // an operator's file: no client chooses its keys
  const Result<Element> root = document.parse(text);
  if (!root) return bad_file(root.error().detail);
  dom::object object;
  if (root->get(object) != simdjson::SUCCESS) return bad_file("it must hold a JSON object");
  GenerationConfig config;
  FieldReader reader;
  for (const dom::key_value_pair entry : object)
    if (!entry.value.is_null() && !read_key(reader, entry.key, entry.value, vocab_size, config))
      return bad_file(reader.take_error().detail);
  return config;
}

Result<GenerationConfig> read_gguf_generation(const GgufHeader& header, std::uint32_t vocab_size) {
  GenerationConfig config;
  Result<void> read = read_gguf_number(header, "general.sampling.temp", 0, 2,
                                       "a number from 0 to 2", config.temperature);
  if (read)
    read = read_gguf_number(header, "general.sampling.top_p", kTiny, 1,
                            "a number above 0, at most 1", config.top_p);
  if (read)
    read = read_gguf_number(header, "general.sampling.min_p", 0, 1, "a number from 0 to 1",
                            config.min_p);
  if (read)
    read = read_gguf_number(header, "general.sampling.penalty_repeat", kTiny, 2,
                            "a number above 0, at most 2", config.repetition_penalty);
  if (read) read = read_gguf_top_k(header, config.top_k);
  if (read) read = read_gguf_end_ids(header, vocab_size, config.eos_ids);
  if (!read) return read.error();
  return config;
}

Result<GenerationConfig> load_generation_config(const std::string& model,
                                                std::uint32_t vocab_size) {
  if (is_gguf_file(model)) {
    const Result<GgufFile> file = GgufFile::read(model);
    if (!file) return file.error();
    Result<GenerationConfig> config = read_gguf_generation(file->header(), vocab_size);
    if (!config) return bad_file(model + ": " + config.error().detail);
    return config;
  }
  const std::filesystem::path path = std::filesystem::path(model) / "generation_config.json";
  std::error_code failed;
  if (!std::filesystem::exists(path, failed)) return GenerationConfig{};
  std::string text(kGenerationConfigBytesMax + 1, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  const std::size_t size = static_cast<std::size_t>(file.gcount());
  if (!file.is_open() || file.bad()) return bad_file(path.string() + ": cannot be read");
  if (size > kGenerationConfigBytesMax)
    return bad_file(path.string() + ": larger than " + std::to_string(kGenerationConfigBytesMax) +
                    " bytes");
  text.resize(size);
  Result<GenerationConfig> config = parse_generation_config(std::move(text), vocab_size);
  if (!config) return bad_file(path.string() + ": " + config.error().detail);
  return config;
}

}  // namespace sluice::gw
