// The names of a Llama's tensors in each format, their shapes, and where each tensor goes.
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

struct TensorNames {
  std::string_view embedding, head, final_norm, rope_divisors;  // rope_divisors: empty, none
  std::string_view layer;                                       // before the layer's number
  std::string_view attention_norm, q, k, v, attention_out, mlp_norm, gate, up, down;  // behind it
  std::string_view q_bias, k_bias, v_bias, q_norm, k_norm;
  // By their ends: what follows from the configuration and is stored all the same by old exports.
  std::string_view ignored;
  std::string_view types;  // for messages: what tensors may be stored as
};

constexpr TensorNames kHuggingFaceNames{.embedding = "model.embed_tokens.weight",
                                        .head = "lm_head.weight",
                                        .final_norm = "model.norm.weight",
                                        .rope_divisors = "",
                                        .layer = "model.layers.",
                                        .attention_norm = ".input_layernorm.weight",
                                        .q = ".self_attn.q_proj.weight",
                                        .k = ".self_attn.k_proj.weight",
                                        .v = ".self_attn.v_proj.weight",
                                        .attention_out = ".self_attn.o_proj.weight",
                                        .mlp_norm = ".post_attention_layernorm.weight",
                                        .gate = ".mlp.gate_proj.weight",
                                        .up = ".mlp.up_proj.weight",
                                        .down = ".mlp.down_proj.weight",
                                        .q_bias = ".self_attn.q_proj.bias",
                                        .k_bias = ".self_attn.k_proj.bias",
                                        .v_bias = ".self_attn.v_proj.bias",
                                        .q_norm = ".self_attn.q_norm.weight",
                                        .k_norm = ".self_attn.k_norm.weight",
                                        .ignored = ".rotary_emb.inv_freq",
                                        .types = "F32, F16 and BF16"};

constexpr TensorNames kGgufNames{.embedding = "token_embd.weight",
                                 .head = "output.weight",
                                 .final_norm = "output_norm.weight",
                                 .rope_divisors = "rope_freqs.weight",
                                 .layer = "blk.",
                                 .attention_norm = ".attn_norm.weight",
                                 .q = ".attn_q.weight",
                                 .k = ".attn_k.weight",
                                 .v = ".attn_v.weight",
                                 .attention_out = ".attn_output.weight",
                                 .mlp_norm = ".ffn_norm.weight",
                                 .gate = ".ffn_gate.weight",
                                 .up = ".ffn_up.weight",
                                 .down = ".ffn_down.weight",
                                 .q_bias = ".attn_q.bias",
                                 .k_bias = ".attn_k.bias",
                                 .v_bias = ".attn_v.bias",
                                 .q_norm = ".attn_q_norm.weight",
                                 .k_norm = ".attn_k_norm.weight",
                                 .ignored = ".attn_rot_embd.weight",
                                 .types = "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K"};

const TensorNames& names_of(TensorNaming naming) {
  return naming == TensorNaming::gguf ? kGgufNames : kHuggingFaceNames;
}

krn::WeightType weight_type(const TensorInfo& tensor, const std::set<std::string>& wide) {
  switch (tensor.dtype) {
    case Dtype::f32:
    case Dtype::other:
      return krn::WeightType::f32;
    case Dtype::bf16:
      return krn::WeightType::bf16;
    case Dtype::f16:
      return krn::WeightType::f16;
    case Dtype::q8_0:
    case Dtype::q4_0:
    case Dtype::q4_k:
    case Dtype::q5_k:
    case Dtype::q6_k:
      return wide.contains(tensor.name) ? krn::WeightType::f32 : krn::WeightType::f16;
  }
  return krn::WeightType::f32;
}

// Of a packed matrix: every quantized type is multiplied as it is stored.
krn::WeightType packed_type(const TensorInfo& tensor, const PlanOptions& options, bool is_head) {
  switch (tensor.dtype) {
    case Dtype::q8_0:
      return krn::WeightType::q8_0;
    case Dtype::q4_0:
      return krn::WeightType::q4_0;
    case Dtype::q4_k:
      return krn::WeightType::q4_k;
    case Dtype::q5_k:
      return krn::WeightType::q5_k;
    case Dtype::q6_k:
      return krn::WeightType::q6_k;
    case Dtype::f32:
    case Dtype::f16:
    case Dtype::bf16:
    case Dtype::other:
      break;
  }
  const bool is_whole = !tensor.shape.empty() && tensor.shape.back() % krn::kQuantBlock == 0;
  if (options.matrices == MatrixForm::stored || !is_whole) return weight_type(tensor, options.wide);
  return options.matrices == MatrixForm::int4 && !is_head ? krn::WeightType::q4_0
                                                          : krn::WeightType::q8_0;
}

// The tensors of all shards by name; of two of one name the first, match() refuses the other.
using TensorIndex = std::map<std::string_view, const TensorInfo*>;

TensorIndex index_of(const std::vector<Shard>& shards) {
  TensorIndex index;
  for (const Shard& shard : shards)
    for (const TensorInfo& tensor : shard.table.tensors) index.emplace(tensor.name, &tensor);
  return index;
}

// Adds the regions and the expected tensors of a configuration; types and offsets come later.
class PlanBuilder {
 public:
  PlanBuilder(const ModelConfig& config, const TensorNames& names, const PlanOptions& options,
              const TensorIndex& stored, WeightPlan& plan)
      : config_(config), names_(names), options_(options), stored_(stored), plan_(plan) {}

  std::size_t vector(const std::string& name, std::size_t size) { return vectors({{name, size}}); }

  // One vector of several tensors, one behind the other.
  std::size_t vectors(const std::vector<std::pair<std::string, std::size_t>>& parts) {
    const std::size_t region = add_region(Region::Kind::vector, 1, 0);
    for (const auto& [name, size] : parts) {
      plan_.tensors[name] = {{size}, {{region, plan_.regions[region].cols}}, nullptr, {}};
      plan_.regions[region].cols += size;
    }
    return region;
  }

  std::size_t packed(const std::string& name, std::size_t rows, std::size_t cols) {
    const std::size_t region = add_region(Region::Kind::packed, rows, cols);
    plan_.tensors[name] = {{rows, cols}, {{region, 0}}, nullptr, {}};
    return region;
  }

  // The rows of several tensors: one packed matrix, or one for each run of equal types.
  std::vector<std::size_t> fused(const std::vector<std::pair<std::string, std::size_t>>& parts,
                                 std::size_t cols) {
    std::vector<krn::WeightType> types;
    for (const auto& [name, rows] : parts) {
      const auto tensor = stored_.find(name);  // a missing one is refused later
      types.push_back(tensor == stored_.end() ? krn::WeightType::f32
                                              : packed_type(*tensor->second, options_, false));
    }
    const bool is_split = std::ranges::any_of(types, krn::is_quantized);
    std::vector<std::size_t> regions;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto& [name, rows] = parts[i];
      if (i == 0 || (is_split && types[i] != types[i - 1]))
        regions.push_back(add_region(Region::Kind::packed, 0, cols));
      Region& region = plan_.regions[regions.back()];
      plan_.tensors[name] = {{rows, cols}, {{regions.back(), region.rows}}, nullptr, {}};
      region.rows += rows;
    }
    return regions;
  }

  void layer(std::size_t index) {
    const auto full = [&](std::string_view name) {
      return std::string(names_.layer) + std::to_string(index) + std::string(name);
    };
    const std::size_t hidden = config_.hidden_size;
    const std::size_t inner = config_.intermediate_size;
    const std::size_t q = config_.q_width();
    const std::size_t kv = config_.kv_width();
    WeightPlan::Layer layer{};
    layer.attention_norm = vector(full(names_.attention_norm), hidden);
    layer.qkv = fused({{full(names_.q), q}, {full(names_.k), kv}, {full(names_.v), kv}}, hidden);
    if (config_.has_qkv_bias())
      layer.qkv_bias =
          vectors({{full(names_.q_bias), q}, {full(names_.k_bias), kv}, {full(names_.v_bias), kv}});
    if (config_.has_head_norms()) {
      layer.q_norm = vector(full(names_.q_norm), config_.head_dim);
      layer.k_norm = vector(full(names_.k_norm), config_.head_dim);
    }
    layer.attention_out = packed(full(names_.attention_out), hidden, q);
    layer.mlp_norm = vector(full(names_.mlp_norm), hidden);
    layer.gate_up = fused({{full(names_.gate), inner}, {full(names_.up), inner}}, hidden);
    layer.down = packed(full(names_.down), hidden, inner);
    plan_.layers.push_back(layer);
  }

  // Embedding and head: two tensors, or one for both uses, under either name.
  void ends(bool has_embedding) {
    const std::size_t vocab = config_.vocab_size;
    const std::size_t hidden = config_.hidden_size;
    const std::string embedding(names_.embedding);
    const std::string head(names_.head);
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
  const TensorNames& names_;
  const PlanOptions& options_;
  const TensorIndex& stored_;
  WeightPlan& plan_;
  std::string spare_;
};

// Finds each tensor of the shards among the expected ones.
Result<void> match(const std::vector<Shard>& shards, const std::string& spare,
                   const TensorNames& names, WeightPlan& plan) {
  for (const Shard& shard : shards) {
    for (const TensorInfo& tensor : shard.table.tensors) {
      if (tensor.name == spare || tensor.name.ends_with(names.ignored)) continue;
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
      if (tensor.dtype == Dtype::other) {
        return bad_tensor(shard.name, tensor.name,
                          "is of type " + std::string(tensor.type_name) + "; read are " +
                              std::string(names.types));
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

// A region has the type of its tensors; where they differ (floats alone do) it becomes float, which
// is exact.
void choose_types(const PlanOptions& options, WeightPlan& plan) {
  std::vector<std::optional<krn::WeightType>> types(plan.regions.size());
  for (const auto& [name, slot] : plan.tensors) {
    for (const Placement& placement : slot.placements) {
      const Region& region = plan.regions[placement.region];
      if (region.kind == Region::Kind::vector) continue;
      const krn::WeightType type =
          region.kind == Region::Kind::packed
              ? packed_type(*slot.found, options, placement.region == plan.head)
              : weight_type(*slot.found, options.wide);
      std::optional<krn::WeightType>& common = types[placement.region];
      common = !common || *common == type ? type : krn::WeightType::f32;
    }
  }
  for (std::size_t i = 0; i < plan.regions.size(); ++i)
    plan.regions[i].type = types[i].value_or(krn::WeightType::f32);
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

Result<WeightPlan> make_weight_plan(const ModelConfig& config, const std::vector<Shard>& shards,
                                    const PlanOptions& options) {
  WeightPlan plan;
  const TensorNames& names = names_of(options.naming);
  const TensorIndex stored = index_of(shards);
  PlanBuilder builder(config, names, options, stored, plan);
  const auto has = [&](std::string_view name) { return !name.empty() && stored.contains(name); };
  builder.ends(has(names.embedding));
  for (std::size_t i = 0; i < config.num_layers; ++i) builder.layer(i);
  plan.final_norm = builder.vector(std::string(names.final_norm), config.hidden_size);
  if (has(names.rope_divisors))
    plan.rope_divisors = builder.vector(std::string(names.rope_divisors), config.head_dim / 2);
  Result<void> matched = match(shards, builder.spare(), names, plan);
  if (!matched) return matched.error();
  choose_types(options, plan);
  place(plan);
  return plan;
}

}  // namespace sluice::eng
