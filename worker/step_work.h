// What a step of a transformer takes, from shapes and counts alone: the figures behind the shares
// of peak. Matrices and attention; norms, rotations and activations are left out (about one per
// cent of the operations). Each weight is read once per step, however many tokens share it. Pure.
#pragma once

#include <cstdint>

#include "worker/executor.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"

namespace sluice::eng {

enum class WeightStorage : std::uint8_t { as_loaded, float32 };

// Of one model as its device holds it; constant after loading.
struct StepCosts {
  std::uint64_t layer_elements = 0;  // weights of all layers' matrices
  std::uint64_t tail_elements = 0;   // those behind the last attention: for rows that are read
  std::uint64_t head_elements = 0;   // of the output matrix
  std::uint64_t layer_bytes = 0;     // the same as read from memory
  std::uint64_t tail_bytes = 0;
  std::uint64_t head_bytes = 0;
  std::uint64_t embedding_row_bytes = 0;   // per new token
  std::uint64_t layer_position_bytes = 0;  // K and V of one position in one layer
  std::uint64_t attention_width = 0;       // query heads x head_dim of one layer
  std::uint64_t full_layers = 0;           // that attend to all positions, the last one aside
  std::uint64_t windowed_layers = 0;       // to the last `window` ones, likewise
  std::uint64_t window = 0;
  bool last_is_windowed = false;
};

StepCosts step_costs(const ModelWeights& weights, WeightStorage storage, krn::KvType kv_type);
StepWork step_work(const StepCosts& costs, const TokenBatch& batch);

}  // namespace sluice::eng
