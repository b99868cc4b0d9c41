// Loading: headers first, then memory, then one pass over each file.
#include "worker/model/weights.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "kernels/half_float.h"
#include "kernels/kernel_table.h"
#include "kernels/pack.h"
#include "shared/gguf_file.h"
#include "worker/model/gguf_model.h"
#include "worker/model/safetensors.h"
#include "worker/model/weight_plan.h"

namespace sluice::eng {
namespace {

constexpr std::size_t kPieceBytes = 4u
                                    << 20;  // read, hashed and packed at a time; at least one row

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

krn::WeightType type_of(const TensorInfo& tensor) {
  return tensor.dtype == Dtype::f32    ? krn::WeightType::f32
         : tensor.dtype == Dtype::bf16 ? krn::WeightType::bf16
                                       : krn::WeightType::f16;
}

// Rows as the kernels can take them.
struct Rows {
  const std::uint8_t* data;
  krn::WeightType type;
};

// The binary16 scales of whole blocks: one or two at their beginning, or one at the end.
bool has_finite_scales(krn::BlockFormat format, std::span<const std::uint8_t> blocks) {
  const std::size_t bytes = krn::block_shape(format).bytes;
  const auto is_finite = [&](std::size_t at) { return (blocks[at + 1] & 0x7c) != 0x7c; };
  for (std::size_t at = 0; at < blocks.size(); at += bytes) {
    if (!is_finite(format == krn::BlockFormat::q6_k ? at + bytes - 2 : at)) return false;
    if (format == krn::BlockFormat::q4_k && !is_finite(at + 2)) return false;
  }
  return true;
}

// Turns blocks into F16 or F32, through buffers that live as long as it does.
class Dequantizer {
 public:
  // [num_blocks] of `blocks` become rows of `type`; nothing when a value is not finite. is_wide is
  // set when binary16 does not hold one of them: the rows are then of no use.
  std::optional<Rows> convert(krn::BlockFormat format, std::span<const std::uint8_t> blocks,
                              krn::WeightType type, bool& is_wide) {
    const krn::BlockShape shape = krn::block_shape(format);
    const std::size_t num_blocks = blocks.size() / shape.bytes;
    floats_.resize(num_blocks * shape.num_elements);
    krn::dequantize(format, blocks.data(), num_blocks, floats_.data());
    float largest = 0;
    bool is_finite = true;
    for (const float value : floats_) {
      is_finite = is_finite && std::isfinite(value);
      largest = std::max(largest, std::abs(value));
    }
    if (!is_finite) return std::nullopt;
    if (type == krn::WeightType::f32)
      return Rows{reinterpret_cast<const std::uint8_t*>(floats_.data()), type};
    constexpr float kHalfMax = 65504;
    is_wide = is_wide || largest > kHalfMax;
    halves_.resize(floats_.size());
    std::ranges::transform(floats_, halves_.begin(), krn::float_to_f16);
    return Rows{reinterpret_cast<const std::uint8_t*>(halves_.data()), krn::WeightType::f16};
  }

 private:
  std::vector<float> floats_;
  std::vector<std::uint16_t> halves_;
};

class Loader {
 public:
  Loader(const WeightPlan& plan, ModelWeights& weights)
      : plan_(plan), memory_(static_cast<std::uint8_t*>(weights.memory.data())) {}

  // The file stands at or before its first data byte; it is read to its end.
  Result<void> read_tensors(ModelFile& file, const Shard& shard) {
    for (const TensorInfo& tensor : shard.table.tensors) {
      if (auto skipped = file.skip_to(shard.table.data_begin + tensor.offset); !skipped)
        return skipped;
      const auto planned = plan_.tensors.find(tensor.name);
      const bool is_used = planned != plan_.tensors.end() && tensor.bytes != 0;
      if (!is_used) continue;  // skipped with what is before the next one
      if (auto read = read_tensor(file, tensor, planned->second); !read) return read;
    }
    return file.skip_to(file.bytes());
  }

  // Tensors that need F32 and did not have it: what was loaded is of no use.
  const std::set<std::string>& wide() const { return wide_; }

 private:
  Result<void> read_tensor(ModelFile& file, const TensorInfo& tensor,
                           const ExpectedTensor& planned) {
    const std::size_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
    const std::size_t row_bytes = tensor.bytes / rows;
    const std::size_t step = std::max<std::size_t>(kPieceBytes / row_bytes, 1) * row_bytes;
    const auto format = block_format(tensor.dtype);
    bool is_wide = false;
    for (std::uint64_t at = 0; at < tensor.bytes; at += step) {
      piece_.resize(std::min<std::uint64_t>(step, tensor.bytes - at));
      if (auto read = file.read(piece_); !read) return read;
      for (const Placement& placement : planned.placements) {
        const krn::WeightType wanted = plan_.regions[placement.region].type;
        std::optional<Rows> ready;
        if (krn::is_quantized(wanted)) {
          if (has_finite_scales(*format, piece_)) ready = Rows{piece_.data(), wanted};
        } else if (format) {
          ready = dequantizer_.convert(*format, piece_, wanted, is_wide);
        } else {
          ready = Rows{piece_.data(), type_of(tensor)};
        }
        if (!ready)
          return file.error("tensor '" + printable(tensor.name) +
                            "' holds values that are not finite");
        put(*ready, placement, at / row_bytes, piece_.size() / row_bytes, tensor.shape.back());
      }
    }
    if (is_wide) wide_.insert(tensor.name);
    return {};
  }

  void put(const Rows& from, const Placement& placement, std::size_t first_row,
           std::size_t num_rows, std::size_t num_cols) {
    const Region& region = plan_.regions[placement.region];
    std::uint8_t* to = memory_ + region.offset;
    switch (region.kind) {
      case Region::Kind::vector:
        krn::find_kernels("scalar")->widen(
            from.data, from.type, reinterpret_cast<float*>(to) + placement.first_row, num_cols);
        return;
      case Region::Kind::rows: {  // one tensor, so the types are equal
        const std::size_t row_bytes = region.cols * krn::weight_bytes(region.type);
        std::copy_n(from.data, num_rows * row_bytes,
                    to + (placement.first_row + first_row) * row_bytes);
        return;
      }
      case Region::Kind::packed:
        krn::pack_rows(from.data, from.type, num_rows, region.cols, placement.first_row + first_row,
                       to, region.type);
        return;
    }
  }

  const WeightPlan& plan_;
  std::uint8_t* memory_;
  std::vector<std::uint8_t> piece_;
  Dequantizer dequantizer_;
  std::set<std::string> wide_;
};

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
  weights.embedding = memory + plan.regions[plan.embedding].offset;
  weights.embedding_type = plan.regions[plan.embedding].type;
  weights.final_norm = floats(plan.final_norm);
  weights.head = packed(plan.head);
  for (const WeightPlan::Layer& layer : plan.layers) {
    weights.layers.push_back({.attention_norm = floats(layer.attention_norm),
                              .qkv = packed(layer.qkv),
                              .qkv_bias = layer.qkv_bias ? floats(*layer.qkv_bias) : nullptr,
                              .q_norm = layer.q_norm ? floats(*layer.q_norm) : nullptr,
                              .k_norm = layer.k_norm ? floats(*layer.k_norm) : nullptr,
                              .attention_out = packed(layer.attention_out),
                              .mlp_norm = floats(layer.mlp_norm),
                              .gate_up = packed(layer.gate_up),
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
Result<ModelWeights> try_load(const std::string& path, std::set<std::string>& wide) {
  Result<OpenedModel> opened = open_model(path);
  if (!opened) return opened.error();
  const Result<WeightPlan> plan =
      make_weight_plan(opened->config, opened->shards, {opened->naming, wide});
  if (!plan) return plan.error();
  ModelWeights weights;
  weights.memory = krn::AlignedBuffer::allocate(plan->bytes);
  if (weights.memory.empty()) {
    return make_error(Errc::over_capacity, "the system refuses " + std::to_string(plan->bytes) +
                                               " bytes for the weights");
  }
  describe(*opened, *plan, weights);
  Loader loader(*plan, weights);
  for (std::size_t i = 0; i < opened->files.size(); ++i) {
    ModelFile& file = opened->files[i];
    const Result<void> read = loader.read_tensors(file, opened->shards[i]);
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

Result<ModelWeights> load_weights(const std::string& path) {
  std::set<std::string> wide;
  Result<ModelWeights> weights = try_load(path, wide);
  if (!weights || wide.empty()) return weights;
  weights = make_error(Errc::bad_file, "");  // frees its memory first
  weights = try_load(path, wide);
  if (weights && !wide.empty())
    return make_error(Errc::bad_file, printable(path) + ": changes while it is read");
  return weights;
}

}  // namespace sluice::eng
