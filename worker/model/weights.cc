// Loading: headers first, then memory, then one pass over each file.
#include "worker/model/weights.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "shared/gguf_file.h"
#include "worker/model/gguf_model.h"
#include "worker/model/safetensors.h"
#include "worker/model/tensor_loader.h"
#include "worker/model/weight_plan.h"

namespace sluice::eng {
namespace {

bool exists(const std::string& directory, const char* name) {
  return ::access((directory + "/" + name).c_str(), F_OK) == 0;
}

// The shards' names in order; the index maps each tensor to its file.
Result<std::vector<std::string>> list_shards(const std::string& directory,
                                             std::map<std::string, std::string>& index) {
  constexpr char kIndex[] = "model.safetensors.index.json";
  if (!exists(directory, kIndex)) return std::vector<std::string>{"model.safetensors"};
  const Result<std::string> text =
      read_text_file(directory, kIndex, kSafetensorsHeaderMax, nullptr);
  if (!text) return text.error();
  auto parsed = parse_shard_index(*text);
  if (!parsed)
    return make_error(Errc::bad_file, std::string(kIndex) + ": " + parsed.error().detail);
  index = std::move(*parsed);
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  if (names.size() > kShardsMax) {
    return make_error(Errc::bad_file, std::string(kIndex) + ": more than 1024 files");
  }
  return std::vector<std::string>(names.begin(), names.end());
}

// Reads the header and leaves the file at the first data byte.
Result<TensorTable> read_header(ModelFile& file) {
  std::array<std::uint8_t, 8> prefix{};
  const Result<void> read = file.read(prefix);
  if (!read) return read.error();
  const Result<std::uint64_t> length = safetensors_header_length(prefix, file.bytes());
  if (!length) return file.error(length.error().detail);
  std::string json(*length, '\0');
  const Result<void> read_json =
      file.read({reinterpret_cast<std::uint8_t*>(json.data()), json.size()});
  if (!read_json) return read_json.error();
  Result<TensorTable> header = parse_safetensors_header(json, file.bytes());
  if (!header) return file.error(header.error().detail);
  return header;
}

// An index that disagrees with the shards is a damaged download.
Result<void> check_index(const std::map<std::string, std::string>& index,
                         const std::vector<Shard>& shards) {
  std::size_t found = 0;
  for (const Shard& shard : shards) {
    for (const TensorInfo& tensor : shard.table.tensors) {
      const auto entry = index.find(tensor.name);
      if (entry != index.end() && entry->second == shard.name) ++found;
    }
  }
  if (index.empty() || found == index.size()) return {};
  return make_error(Errc::bad_file, "model.safetensors.index.json: names " +
                                        std::to_string(index.size()) + " tensors, its files hold " +
                                        std::to_string(found) + " of them");
}

// Turns the plan's regions into pointers.
void point(const WeightPlan& plan, ModelWeights& weights) {
  const auto* memory = static_cast<const std::uint8_t*>(weights.memory.data());
  const auto floats = [&](std::size_t region) {
    return reinterpret_cast<const float*>(memory + plan.regions[region].offset);
  };
  const auto packed = [&](std::size_t index) {
    const Region& region = plan.regions[index];
    weights.matrix_bytes_per_token += region.bytes;
    return krn::PackedMatrix{memory + region.offset, region.type, region.rows, region.cols};
  };
  const auto fused = [&](const std::vector<std::size_t>& regions) {
    FusedMatrix matrix;
    for (const std::size_t region : regions) matrix.parts.push_back(packed(region));
    return matrix;
  };
  weights.embedding = memory + plan.regions[plan.embedding].offset;
  weights.embedding_type = plan.regions[plan.embedding].type;
  weights.final_norm = floats(plan.final_norm);
  weights.head = packed(plan.head);
  for (const WeightPlan::Layer& layer : plan.layers) {
    weights.layers.push_back({.attention_norm = floats(layer.attention_norm),
                              .qkv = fused(layer.qkv),
                              .qkv_bias = layer.qkv_bias ? floats(*layer.qkv_bias) : nullptr,
                              .q_norm = layer.q_norm ? floats(*layer.q_norm) : nullptr,
                              .k_norm = layer.k_norm ? floats(*layer.k_norm) : nullptr,
                              .attention_out = packed(layer.attention_out),
                              .mlp_norm = floats(layer.mlp_norm),
                              .gate_up = fused(layer.gate_up),
                              .down = packed(layer.down)});
  }
}

// A model's files with their headers read and checked, standing before their data.
struct OpenedModel {
  ModelConfig config;
  TensorNaming naming = TensorNaming::hugging_face;
  std::string format;
  std::vector<std::string> names;  // of all files, config.json first
  std::string digest_lines;        // of files that are read already
  std::vector<ModelFile> files;
  std::vector<Shard> shards;  // in the order of files
};

Result<void> open_shards(const std::string& directory, OpenedModel& opened) {
  std::map<std::string, std::string> index;
  const Result<std::vector<std::string>> names = list_shards(directory, index);
  if (!names) return names.error();
  for (const std::string& name : *names) {
    Result<ModelFile> file = ModelFile::open(directory, name);
    if (!file) return file.error();
    Result<TensorTable> table = read_header(*file);
    if (!table) return table.error();
    opened.names.push_back(name);
    opened.files.push_back(std::move(*file));
    opened.shards.push_back({name, std::move(*table)});
  }
  return check_index(index, opened.shards);
}

Result<OpenedModel> open_directory(const std::string& directory) {
  OpenedModel opened;
  Sha256 digest{};
  const Result<std::string> text =
      read_text_file(directory, "config.json", kModelConfigBytesMax, &digest);
  if (!text) return text.error();
  Result<ModelConfig> config = parse_model_config(*text);
  if (!config) {
    return make_error(Errc::bad_file, "config.json: " + config.error().detail,
                      config.error().param);
  }
  opened.config = std::move(*config);
  opened.format = "safetensors";
  opened.names = {"config.json"};
  opened.digest_lines = hex_of(digest) + "  config.json\n";
  if (auto shards = open_shards(directory, opened); !shards) return shards.error();
  return opened;
}

Result<OpenedModel> open_gguf(const std::filesystem::path& path) {
  const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
  Result<ModelFile> file = ModelFile::open(folder, path.filename().string());
  if (!file) return file.error();
  OpenedModel opened;
  for (std::uint64_t size = kGgufPrefixBytes; opened.shards.empty(); size *= 2) {
    const Result<std::string_view> prefix = file->peek(size);
    if (!prefix) return prefix.error();
    const auto header = parse_gguf_header(*prefix, file->bytes());
    if (!header) return file->error(header.error().detail);
    if (!*header) continue;
    Result<ModelConfig> config = read_gguf_config(**header);
    if (!config) return file->error(config.error().detail);
    opened.config = std::move(*config);
    opened.naming = TensorNaming::gguf;
    opened.format = "GGUF v" + std::to_string((*header)->version);
    opened.names = {file->name()};
    opened.shards.push_back({file->name(), gguf_tensor_table(**header)});
  }
  opened.files.push_back(std::move(*file));
  return opened;
}

Result<OpenedModel> open_model(const std::string& path) {
  std::error_code failed;
  if (std::filesystem::is_regular_file(path, failed)) return open_gguf(path);
  return open_directory(path);
}

// What the headers alone say.
void describe(const OpenedModel& opened, const WeightPlan& plan, ModelWeights& weights) {
  weights.config = opened.config;
  weights.format = opened.format;
  weights.files = opened.names;
  for (const ModelFile& file : opened.files) weights.file_bytes += file.bytes();
  for (const Shard& shard : opened.shards) {
    for (const TensorInfo& tensor : shard.table.tensors) {
      ++weights.num_tensors;
      ++weights.stored_types[std::string(tensor.type_name)];
    }
  }
  for (const auto& [name, tensor] : plan.tensors) {
    std::uint64_t elements = 1;
    for (const std::uint64_t size : tensor.shape) elements *= size;
    weights.num_parameters += elements;
    const bool is_widened = std::ranges::any_of(tensor.placements, [&](const Placement& placement) {
      return !krn::is_quantized(plan.regions[placement.region].type);
    });
    weights.num_dequantized += block_format(tensor.found->dtype) && is_widened ? 1 : 0;
  }
}

Result<void> take_rope_divisors(const OpenedModel& opened, const WeightPlan& plan,
                                ModelWeights& weights) {
  if (!plan.rope_divisors) return {};
  const Region& region = plan.regions[*plan.rope_divisors];
  const auto* divisors = reinterpret_cast<const float*>(
      static_cast<const std::uint8_t*>(weights.memory.data()) + region.offset);
  weights.config.rope_divisors.assign(divisors, divisors + region.cols);
  for (const float divisor : weights.config.rope_divisors) {
    if (!(divisor > 0) || !std::isfinite(divisor))
      return opened.files.front().error("tensor 'rope_freqs.weight' must hold numbers above 0");
  }
  return {};
}

// Fills `wide` with the tensors that need F32; when there are any, the weights are of no use.
Result<ModelWeights> try_load(const std::string& path, const LoadOptions& options,
                              std::set<std::string>& wide) {
  Result<OpenedModel> opened = open_model(path);
  if (!opened) return opened.error();
  const Result<WeightPlan> plan =
      make_weight_plan(opened->config, opened->shards, {opened->naming, options.matrices, wide});
  if (!plan) return plan.error();
  ModelWeights weights;
  weights.memory = krn::AlignedBuffer::allocate(plan->bytes);
  if (weights.memory.empty()) {
    return make_error(Errc::over_capacity, "the system refuses " + std::to_string(plan->bytes) +
                                               " bytes for the weights");
  }
  describe(*opened, *plan, weights);
  TensorLoader loader(*plan, static_cast<std::uint8_t*>(weights.memory.data()),
                      std::max<std::size_t>(options.threads, 1));
  std::uint64_t bytes_read = 0;
  const auto count = [&](std::uint64_t more) {
    bytes_read += more;
    if (options.on_progress) options.on_progress(bytes_read, weights.file_bytes);
  };
  for (std::size_t i = 0; i < opened->files.size(); ++i) {
    ModelFile& file = opened->files[i];
    const Result<void> read = loader.read_tensors(file, opened->shards[i], count);
    if (!read) return read.error();
    weights.digest = file.finish();
    opened->digest_lines += hex_of(weights.digest) + "  " + file.name() + "\n";
  }
  if (opened->naming == TensorNaming::hugging_face)
    weights.digest = sha256_of(opened->digest_lines);
  wide = loader.wide();
  if (auto taken = take_rope_divisors(*opened, *plan, weights); !taken) return taken.error();
  point(*plan, weights);
  return weights;
}

}  // namespace

Result<ModelWeights> load_weights(const std::string& path, const LoadOptions& options) {
  std::set<std::string> wide;
  Result<ModelWeights> weights = try_load(path, options, wide);
  if (!weights || wide.empty()) return weights;
  weights = make_error(Errc::bad_file, "");  // frees its memory first
  weights = try_load(path, options, wide);
  if (weights && !wide.empty())
    return make_error(Errc::bad_file, printable(path) + ": changes while it is read");
  return weights;
}

}  // namespace sluice::eng
