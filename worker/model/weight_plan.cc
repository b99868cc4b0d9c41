// The names of Hugging Face's Llama, their shapes, and where each tensor goes.
#include "worker/model/weight_plan.h"

#include <algorithm>

#include "kernels/pack.h"
#include "worker/model/model_file.h"

namespace sluice::eng {
namespace {

Error bad_tensor(std::string_view file, std::string_view name, std::string reason) {
  return make_error(Errc::bad_file,
                    std::string(file) + ": tensor '" + printable(name) + "' " + std::move(reason));
}

// Adds the regions and the expected tensors of a configuration; types and offsets come later.
class PlanBuilder {
 public:
  PlanBuilder(const ModelConfig& config, WeightPlan& plan) : config_(config), plan_(plan) {}

  std::size_t vector(const std::string& name, std::size_t size) {
    const std::size_t region = add_region(Region::Kind::vector, 1, size);
    plan_.tensors[name] = {{size}, {{region, 0}}, nullptr, {}};
    return region;
  }

  // A packed matrix whose rows are those of several tensors.
  std::size_t packed(const std::vector<std::pair<std::string, std::size_t>>& parts,
                     std::size_t cols) {
    const std::size_t region = add_region(Region::Kind::packed, 0, cols);
    for (const auto& [name, rows] : parts) {
      plan_.tensors[name] = {{rows, cols}, {{region, plan_.regions[region].rows}}, nullptr, {}};
      plan_.regions[region].rows += rows;
    }
    return region;
  }

  void layer(std::size_t index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const std::size_t hidden = config_.hidden_size;
    const std::size_t inner = config_.intermediate_size;
    const std::size_t q = config_.q_width();
    const std::size_t kv = config_.kv_width();
    WeightPlan::Layer layer{};
    layer.attention_norm = vector(prefix + "input_layernorm.weight", hidden);
    layer.qkv = packed({{prefix + "self_attn.q_proj.weight", q},
                        {prefix + "self_attn.k_proj.weight", kv},
                        {prefix + "self_attn.v_proj.weight", kv}},
                       hidden);
    layer.attention_out = packed({{prefix + "self_attn.o_proj.weight", hidden}}, q);
    layer.mlp_norm = vector(prefix + "post_attention_layernorm.weight", hidden);
    layer.gate_up = packed(
        {{prefix + "mlp.gate_proj.weight", inner}, {prefix + "mlp.up_proj.weight", inner}}, hidden);
    layer.down = packed({{prefix + "mlp.down_proj.weight", hidden}}, inner);
    plan_.layers.push_back(layer);
  }

  // Embedding and head: two tensors, or one for both uses, under either name.
  void ends(bool has_embedding) {
    const std::size_t vocab = config_.vocab_size;
    const std::size_t hidden = config_.hidden_size;
    const std::string embedding = "model.embed_tokens.weight";
    const std::string head = "lm_head.weight";
    plan_.embedding = add_region(Region::Kind::rows, vocab, hidden);
    plan_.head = add_region(Region::Kind::packed, vocab, hidden);
    if (!config_.tied_embeddings) {
      plan_.tensors[embedding] = {{vocab, hidden}, {{plan_.embedding, 0}}, nullptr, {}};
      plan_.tensors[head] = {{vocab, hidden}, {{plan_.head, 0}}, nullptr, {}};
      return;
    }
    plan_.tensors[has_embedding ? embedding : head] = {
        {vocab, hidden}, {{plan_.embedding, 0}, {plan_.head, 0}}, nullptr, {}};
    spare_ = has_embedding ? head : std::string();  // may be stored all the same
  }

  const std::string& spare() const { return spare_; }

 private:
  std::size_t add_region(Region::Kind kind, std::size_t rows, std::size_t cols) {
    plan_.regions.push_back({kind, krn::WeightType::f32, rows, cols, 0, 0});
    return plan_.regions.size() - 1;
  }

  const ModelConfig& config_;
  WeightPlan& plan_;
  std::string spare_;
};

// Finds each tensor of the shards among the expected ones.
Result<void> match(const std::vector<Shard>& shards, const std::string& spare, WeightPlan& plan) {
  for (const Shard& shard : shards) {
    for (const TensorInfo& tensor : shard.header.tensors) {
      if (tensor.name == spare || tensor.name.ends_with(".rotary_emb.inv_freq")) continue;
      const auto expected = plan.tensors.find(tensor.name);
      if (expected == plan.tensors.end()) {
        return bad_tensor(shard.name, tensor.name, "does not belong to this architecture");
      }
      ExpectedTensor& slot = expected->second;
      if (slot.found != nullptr) {
        return bad_tensor(shard.name, tensor.name, "is in " + slot.file + " too");
      }
      if (tensor.shape != slot.shape) {
        return bad_tensor(shard.name, tensor.name,
                          "has shape " + shape_text(tensor.shape) + ", the configuration needs " +
                              shape_text(slot.shape));
      }
      if (tensor.dtype > Dtype::bf16) {
        return bad_tensor(shard.name, tensor.name, "must be of dtype F32, F16 or BF16");
      }
      slot.found = &tensor;
      slot.file = shard.name;
    }
  }
  // Of a sharded model no single file is to blame: its index says what is where.
  const std::string where = shards.size() == 1 ? shards[0].name : "model.safetensors.index.json";
  for (const auto& [name, slot] : plan.tensors) {
    if (slot.found == nullptr) return bad_tensor(where, name, "is missing");
  }
  return {};
}

krn::WeightType weight_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return krn::WeightType::f16;
    case Dtype::bf16:
      return krn::WeightType::bf16;
    default:
      return krn::WeightType::f32;
  }
}

// A matrix keeps the type of its tensors; where they differ it becomes float, which is exact.
void choose_types(WeightPlan& plan) {
  std::vector<std::vector<krn::WeightType>> types(plan.regions.size());
  for (const auto& [name, slot] : plan.tensors) {
    for (const Placement& placement : slot.placements) {
      types[placement.region].push_back(weight_type(slot.found->dtype));
    }
  }
  for (std::size_t i = 0; i < plan.regions.size(); ++i) {
    const bool uniform = std::all_of(types[i].begin(), types[i].end(),
                                     [&](auto type) { return type == types[i][0]; });
    const bool narrow = uniform && plan.regions[i].kind != Region::Kind::vector;
    plan.regions[i].type = narrow ? types[i][0] : krn::WeightType::f32;
  }
}

// Offsets one after another, on cache lines. Sizes can't overflow: every tensor fits its file, and
// packing adds less than 16 rows.
void place(WeightPlan& plan) {
  constexpr std::size_t kAlignment = 64;
  for (Region& region : plan.regions) {
    region.bytes = region.kind == Region::Kind::packed
                       ? krn::packed_bytes(region.rows, region.cols, region.type)
                       : region.rows * region.cols * krn::weight_bytes(region.type);
    region.offset = plan.bytes;
    plan.bytes += (region.bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
}

}  // namespace

Result<WeightPlan> make_weight_plan(const ModelConfig& config, const std::vector<Shard>& shards) {
  WeightPlan plan;
  PlanBuilder builder(config, plan);
  bool has_embedding = false;
  for (const Shard& shard : shards) {
    for (const TensorInfo& tensor : shard.header.tensors) {
      has_embedding = has_embedding || tensor.name == "model.embed_tokens.weight";
    }
  }
  builder.ends(has_embedding);
  for (std::size_t i = 0; i < config.num_layers; ++i) builder.layer(i);
  plan.final_norm = builder.vector("model.norm.weight", config.hidden_size);
  Result<void> matched = match(shards, builder.spare(), plan);
  if (!matched) return matched.error();
  choose_types(plan);
  place(plan);
  return plan;
}

}  // namespace sluice::eng
