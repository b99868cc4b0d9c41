// Loading: headers first, then memory, then one pass over each file.
#include "worker/model/weights.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "kernels/kernel_table.h"
#include "kernels/pack.h"
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
Result<SafetensorsHeader> read_header(ModelFile& file) {
  std::array<std::uint8_t, 8> prefix{};
  const Result<void> read = file.read(prefix);
  if (!read) return read.error();
  const Result<std::uint64_t> length = safetensors_header_length(prefix, file.bytes());
  if (!length) return file.error(length.error().detail);
  std::string json(*length, '\0');
  const Result<void> read_json =
      file.read({reinterpret_cast<std::uint8_t*>(json.data()), json.size()});
  if (!read_json) return read_json.error();
  Result<SafetensorsHeader> header = parse_safetensors_header(json, file.bytes());
  if (!header) return file.error(header.error().detail);
  return header;
}

// An index that disagrees with the shards is a damaged download.
Result<void> check_index(const std::map<std::string, std::string>& index,
                         const std::vector<Shard>& shards) {
  std::size_t found = 0;
  for (const Shard& shard : shards) {
    for (const TensorInfo& tensor : shard.header.tensors) {
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

class Loader {
 public:
  Loader(const WeightPlan& plan, ModelWeights& weights)
      : plan_(plan), memory_(static_cast<std::uint8_t*>(weights.memory.data())) {}

  // The file stands at its first data byte; tensors follow each other without holes.
  Result<void> read_tensors(ModelFile& file, const Shard& shard) {
    for (const TensorInfo& tensor : shard.header.tensors) {
      const auto planned = plan_.tensors.find(tensor.name);
      const std::size_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
      const std::size_t row_bytes = tensor.bytes / std::max<std::size_t>(rows, 1);
      const std::size_t step = planned == plan_.tensors.end() || row_bytes == 0
                                   ? kPieceBytes
                                   : std::max<std::size_t>(kPieceBytes / row_bytes, 1) * row_bytes;
      for (std::uint64_t at = 0; at < tensor.bytes; at += step) {
        piece_.resize(std::min<std::uint64_t>(step, tensor.bytes - at));
        const Result<void> read = file.read(piece_);
        if (!read) return read;
        if (planned == plan_.tensors.end()) continue;
        const std::size_t first_row = at / row_bytes;
        const std::size_t num_rows = piece_.size() / row_bytes;
        for (const Placement& placement : planned->second.placements) {
          put(tensor, placement, first_row, num_rows);
        }
      }
    }
    return {};
  }

 private:
  void put(const TensorInfo& tensor, const Placement& placement, std::size_t first_row,
           std::size_t num_rows) {
    const Region& region = plan_.regions[placement.region];
    std::uint8_t* to = memory_ + region.offset;
    switch (region.kind) {
      case Region::Kind::vector:
        krn::find_kernels("scalar")->widen(piece_.data(), type_of(tensor),
                                           reinterpret_cast<float*>(to), region.cols);
        return;
      case Region::Kind::rows: {  // one tensor, so the types are equal
        const std::size_t row_bytes = region.cols * krn::weight_bytes(region.type);
        std::copy(piece_.begin(), piece_.end(), to + (placement.first_row + first_row) * row_bytes);
        return;
      }
      case Region::Kind::packed:
        krn::pack_rows(piece_.data(), type_of(tensor), num_rows, region.cols,
                       placement.first_row + first_row, to, region.type);
        return;
    }
  }

  const WeightPlan& plan_;
  std::uint8_t* memory_;
  std::vector<std::uint8_t> piece_;
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
    weights.layers.push_back({floats(layer.attention_norm), packed(layer.qkv),
                              packed(layer.attention_out), floats(layer.mlp_norm),
                              packed(layer.gate_up), packed(layer.down)});
  }
}

struct OpenedShards {
  std::vector<ModelFile> files;
  std::vector<Shard> shards;  // in the order of files
};

Result<OpenedShards> open_shards(const std::string& directory) {
  std::map<std::string, std::string> index;
  const Result<std::vector<std::string>> names = list_shards(directory, index);
  if (!names) return names.error();
  OpenedShards opened;
  for (const std::string& name : *names) {
    Result<ModelFile> file = ModelFile::open(directory, name);
    if (!file) return file.error();
    Result<SafetensorsHeader> header = read_header(*file);
    if (!header) return header.error();
    opened.files.push_back(std::move(*file));
    opened.shards.push_back({name, std::move(*header)});
  }
  const Result<void> agrees = check_index(index, opened.shards);
  if (!agrees) return agrees.error();
  return opened;
}

}  // namespace

Result<ModelWeights> load_weights(const std::string& directory) {
  ModelWeights weights;
  Sha256 digest{};
  const Result<std::string> text =
      read_text_file(directory, "config.json", kModelConfigBytesMax, &digest);
  if (!text) return text.error();
  Result<ModelConfig> config = parse_model_config(*text);
  if (!config) {
    return make_error(Errc::bad_file, "config.json: " + config.error().detail,
                      config.error().param);
  }
  weights.config = std::move(*config);
  weights.files = {"config.json"};
  std::string lines = hex_of(digest) + "  config.json\n";

  Result<OpenedShards> opened = open_shards(directory);
  if (!opened) return opened.error();
  const Result<WeightPlan> plan = make_weight_plan(weights.config, opened->shards);
  if (!plan) return plan.error();
  weights.memory = krn::AlignedBuffer::allocate(plan->bytes);
  if (weights.memory.empty()) {
    return make_error(Errc::over_capacity, "the system refuses " + std::to_string(plan->bytes) +
                                               " bytes for the weights");
  }
  Loader loader(*plan, weights);
  for (std::size_t i = 0; i < opened->files.size(); ++i) {
    ModelFile& file = opened->files[i];
    const Shard& shard = opened->shards[i];
    const Result<void> read = loader.read_tensors(file, shard);
    if (!read) return read.error();
    weights.files.push_back(file.name());
    weights.file_bytes += file.bytes();
    weights.num_tensors += shard.header.tensors.size();
    lines += hex_of(file.finish()) + "  " + file.name() + "\n";
  }
  for (const auto& [name, tensor] : plan->tensors) {
    std::uint64_t elements = 1;
    for (const std::uint64_t size : tensor.shape) elements *= size;
    weights.num_parameters += elements;
  }
  weights.digest = sha256_of(lines);
  point(*plan, weights);
  return weights;
}

}  // namespace sluice::eng
