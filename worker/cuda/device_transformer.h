// DeviceTransformer: the forward pass of a Llama model on a Device, the counterpart of Transformer
// (worker/model): the same batch, the same steps, the same KV layout, every buffer in device
// memory.
//
// Attention runs one row per new token with the causal length position + 1, in prefill as in
// decode, so one kernel and one order of sums serve both. All memory is allocated by make(): a step
// allocates nothing on either side. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/cuda/device.h"
#include "worker/cuda/device_weights.h"
#include "worker/model/transformer.h"

namespace sluice::eng {

class DeviceTransformer {
 public:
  // The device outlives it; `config` is that of the weights. Errors: over_capacity, io_error.
  static Result<DeviceTransformer> make(Device& device, const ModelConfig& config,
                                        DeviceWeights weights, const TransformerLimits& limits,
                                        std::size_t table_blocks_max);

  // As Transformer::forward. After an error the device is of no further use.
  Result<std::span<const float>> forward(const TokenBatch& batch, const krn::PagedKv& kv);

 private:
  DeviceTransformer(Device& device, const ModelConfig& config, DeviceWeights weights,
                    const TransformerLimits& limits, std::size_t table_blocks_max);
  void allocate();
  void upload_rope_table();
  void upload_inputs(const TokenBatch& batch, std::size_t block_tokens);
  void norm(const float* from, const float* weight, std::size_t rows);
  void norm_heads(float* heads, const float* weight, std::size_t num_heads);
  void matmul(const DeviceMatrix& w, const float* x, float* y, std::size_t tokens);
  void adjust_heads(const DeviceLayer& layer);
  void rotate_and_store(std::size_t layer, const krn::PagedKv& kv);
  void attend(std::size_t layer, const krn::PagedKv& kv);

  Device* device_;
  ModelConfig config_;
  DeviceWeights weights_;
  TransformerLimits limits_;
  std::size_t table_blocks_max_;  // blocks in the tables of all spans of a step
  std::size_t chunk_tokens_;      // positions that a block of attention takes
  std::size_t num_tokens_ = 0;    // of this step
  std::size_t num_chunks_ = 1;    // of its longest row

  // Device memory.
  DeviceBuffer x_;         // [tokens, hidden_size] residual stream
  DeviceBuffer normed_;    // [max(tokens, logit rows), hidden_size]
  DeviceBuffer qkv_;       // [tokens, q_width + 2 kv_width]: heads of q, of k, of v
  DeviceBuffer heads_;     // [tokens, q_width] attention's output
  DeviceBuffer partials_;  // of attention: [tokens, num_heads, chunks, head_dim + 2]
  DeviceBuffer delta_;     // [tokens, hidden_size] what a sub-layer adds
  DeviceBuffer gate_up_;   // [tokens, 2 intermediate_size]
  DeviceBuffer gated_;     // [tokens, intermediate_size]
  DeviceBuffer logits_;    // [logit rows, vocab_size]
  DeviceBuffer cosine_;    // [context_tokens, head_dim / 2]
  DeviceBuffer sine_;
  // What a step is about, in one copy:
  //   ids | positions | blocks | lengths | table begins | logit rows | block tables
  //   [tokens] each of the first five, [logit rows], [blocks of all spans]
  DeviceBuffer inputs_;

  struct Inputs {  // places within inputs_
    const std::uint32_t* ids;
    const std::uint32_t* positions;
    const std::uint32_t* blocks;
    const std::uint32_t* lengths;
    const std::uint32_t* table_begins;
    const std::uint32_t* logit_rows;
    const std::uint32_t* tables;
  } at_{};

  // Host memory.
  std::vector<std::uint32_t> host_inputs_;
  std::vector<float> host_logits_;
};

}  // namespace sluice::eng
