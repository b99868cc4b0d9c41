// Products and sums over the shapes of the weights and the spans of the batch.
#include "worker/step_work.h"

#include <algorithm>

#include "kernels/pack.h"

namespace sluice::eng {

StepCosts step_costs(const ModelWeights& weights, WeightStorage storage, krn::KvType kv_type) {
  const ModelConfig& c = weights.config;
  const auto elements = [](const krn::PackedMatrix& w) { return std::uint64_t{w.rows} * w.cols; };
  const LayerWeights& layer = weights.layers.back();  // all layers have one shape
  StepCosts costs;
  const auto fused = [](const FusedMatrix& w) { return std::uint64_t{w.rows()} * w.cols(); };
  costs.layer_elements = c.num_layers * (fused(layer.qkv) + elements(layer.attention_out) +
                                         fused(layer.gate_up) + elements(layer.down));
  costs.tail_elements = elements(layer.attention_out) + fused(layer.gate_up) + elements(layer.down);
  costs.head_elements = elements(weights.head);
  costs.attention_width = c.q_width();
  const krn::PagedKv one{nullptr, 1, 1, c.num_kv_heads, c.head_dim, 1, kv_type};
  costs.layer_position_bytes = krn::kv_block_bytes(one);
  costs.window = c.sliding_window;
  for (std::uint32_t l = 0; l + 1 < c.num_layers; ++l)
    ++(c.window_of(l) == 0 ? costs.full_layers : costs.windowed_layers);
  costs.last_is_windowed = c.window_of(c.num_layers - 1) != 0;
  if (storage == WeightStorage::float32) {
    costs.layer_bytes = costs.layer_elements * sizeof(float);
    costs.tail_bytes = costs.tail_elements * sizeof(float);
    costs.head_bytes = costs.head_elements * sizeof(float);
    costs.embedding_row_bytes = c.hidden_size * sizeof(float);
  } else {
    const auto bytes = [](const krn::PackedMatrix& w) {
      return std::uint64_t{krn::packed_bytes(w.rows, w.cols, w.type)};
    };
    costs.head_bytes = bytes(weights.head);
    costs.tail_bytes = bytes(layer.attention_out) + bytes(layer.down);
    for (const krn::PackedMatrix& part : layer.gate_up.parts) costs.tail_bytes += bytes(part);
    costs.layer_bytes = weights.matrix_bytes_per_token - costs.head_bytes;
    costs.embedding_row_bytes = c.hidden_size * krn::weight_bytes(weights.embedding_type);
  }
  return costs;
}

namespace {

struct Attended {
  std::uint64_t pairs = 0;      // of a new token and a position that it sees
  std::uint64_t positions = 0;  // of KV, read or written
};

// In one layer where a token sees `window` positions at most; in the last one, from the first row
// of a span that is read.
Attended attended(const TokenBatch& batch, std::uint64_t window, bool is_last) {
  const auto up_to = [&](std::uint64_t end) {  // pairs of the tokens at positions 0 .. end - 1
    const std::uint64_t growing = std::min(end, window);
    return growing * (growing + 1) / 2 + (end - growing) * window;
  };
  Attended sum;
  for (const krn::AttentionSpan& span : batch.spans) {
    const std::uint64_t end = span.start + span.num_tokens;
    std::uint64_t first = span.start;
    if (is_last) {
      const auto read = std::ranges::lower_bound(batch.read_rows, span.row);
      const std::size_t row = read == batch.read_rows.end() ? SIZE_MAX : *read;
      first += std::min(row - span.row, span.num_tokens);
    }
    sum.pairs += up_to(end) - up_to(first);
    // Written from the start on; read as far back as the first sees.
    const std::uint64_t lowest = first + 1 - std::min(first + 1, window);
    sum.positions +=
        end - (first == end ? span.start : std::min<std::uint64_t>(lowest, span.start));
  }
  return sum;
}

}  // namespace

StepWork step_work(const StepCosts& costs, const TokenBatch& batch) {
  constexpr std::uint64_t kAll = std::uint64_t{1} << 31;  // above every context
  const Attended full = attended(batch, kAll, false);
  const Attended windowed =
      costs.windowed_layers == 0 ? full : attended(batch, costs.window, false);
  const Attended last = attended(batch, costs.last_is_windowed ? costs.window : kAll, true);
  StepWork work;
  work.operations =
      2 * (costs.layer_elements - costs.tail_elements) * batch.ids.size() +
      2 * costs.tail_elements * batch.read_rows.size() +
      4 * costs.attention_width *
          (costs.full_layers * full.pairs + costs.windowed_layers * windowed.pairs + last.pairs) +
      2 * costs.head_elements * batch.logit_rows.size();
  work.bytes_moved =
      costs.layer_position_bytes * (costs.full_layers * full.positions +
                                    costs.windowed_layers * windowed.positions + last.positions) +
      costs.embedding_row_bytes * batch.ids.size();
  if (!batch.ids.empty()) work.bytes_moved += costs.layer_bytes - costs.tail_bytes;
  if (!batch.read_rows.empty()) work.bytes_moved += costs.tail_bytes;
  if (!batch.logit_rows.empty()) work.bytes_moved += costs.head_bytes;
  return work;
}

}  // namespace sluice::eng
