// Products and sums over the shapes of the weights and the spans of the batch.
#include "worker/step_work.h"

#include "kernels/pack.h"

namespace sluice::eng {

StepCosts step_costs(const ModelWeights& weights, WeightStorage storage) {
  const ModelConfig& c = weights.config;
  const auto elements = [](const krn::PackedMatrix& w) { return std::uint64_t{w.rows} * w.cols; };
  const LayerWeights& layer = weights.layers.front();  // all layers have one shape
  StepCosts costs;
  costs.layer_elements = c.num_layers * (elements(layer.qkv) + elements(layer.attention_out) +
                                         elements(layer.gate_up) + elements(layer.down));
  costs.head_elements = elements(weights.head);
  costs.attention_width = std::uint64_t{c.num_layers} * c.q_width();
  costs.position_bytes = std::uint64_t{c.num_layers} * 2 * c.kv_width() * sizeof(float);
  if (storage == WeightStorage::float32) {
    costs.layer_bytes = costs.layer_elements * sizeof(float);
    costs.head_bytes = costs.head_elements * sizeof(float);
    costs.embedding_row_bytes = c.hidden_size * sizeof(float);
  } else {
    costs.head_bytes = krn::packed_bytes(weights.head.rows, weights.head.cols, weights.head.type);
    costs.layer_bytes = weights.matrix_bytes_per_token - costs.head_bytes;
    costs.embedding_row_bytes = c.hidden_size * krn::weight_bytes(weights.embedding_type);
  }
  return costs;
}

StepWork step_work(const StepCosts& costs, const TokenBatch& batch) {
  std::uint64_t attended = 0;   // pairs of a new token and a position that it sees
  std::uint64_t positions = 0;  // of KV, read or written
  for (const krn::AttentionSpan& span : batch.spans) {
    attended += span.num_tokens * span.start + span.num_tokens * (span.num_tokens + 1) / 2;
    positions += span.start + span.num_tokens;
  }
  StepWork work;
  work.operations = 2 * costs.layer_elements * batch.ids.size() +
                    4 * costs.attention_width * attended +
                    2 * costs.head_elements * batch.logit_rows.size();
  work.bytes_moved =
      costs.position_bytes * positions + costs.embedding_row_bytes * batch.ids.size();
  if (!batch.ids.empty()) work.bytes_moved += costs.layer_bytes;
  if (!batch.logit_rows.empty()) work.bytes_moved += costs.head_bytes;
  return work;
}

}  // namespace sluice::eng
