// DeviceTransformer: the forward pass of a Llama model on a Device, the counterpart of Transformer
// (worker/model): the same batch, the same steps, the same KV layout, every buffer in device
// memory.
//
// Attention runs one row per new token with the causal length position + 1, in prefill as in
// decode, so one kernel and one order of sums serve both. All memory is allocated by make().
//
// A step of few tokens takes the device less time than it takes the host to queue its hundreds of
// launches. So the launches of a shape that comes up again are recorded and from then on replayed
// as one: the same launches, the same bits. Apart from making a recording, a step allocates nothing
// on either side. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "worker/cuda/device.h"
#include "worker/cuda/device_weights.h"
#include "worker/cuda/step_recordings.h"
#include "worker/model/transformer.h"

namespace sluice::eng {

struct DeviceTransformerLimits {
  TransformerLimits step;
  std::size_t table_blocks_max = 0;  // blocks in the tables of all spans of a step
  std::size_t recordings_max = 0;    // shapes of steps whose launches are kept; 0: none
};

class DeviceTransformer {
 public:
  // Device and KV memory outlive it; `config` is that of the weights. Errors: over_capacity,
  // io_error.
  static Result<DeviceTransformer> make(Device& device, const ModelConfig& config,
                                        DeviceWeights weights,
                                        const DeviceTransformerLimits& limits,
                                        const krn::PagedKv& kv);

  // As Transformer::forward; all rows that are read have logits, as no hidden states are given out.
  // After an error the device is of no further use.
  Result<std::span<const float>> forward(const TokenBatch& batch);

  std::uint64_t num_replays() const { return num_replays_; }  // steps
  // Why nothing is recorded any more; empty while all went well. Steps go on launch by launch.
  const std::string& recording_failure() const { return recording_failure_; }

 private:
  DeviceTransformer(Device& device, const ModelConfig& config, DeviceWeights weights,
                    const DeviceTransformerLimits& limits, const krn::PagedKv& kv);
  void allocate();
  void upload_rope_table();
  void upload_inputs(const TokenBatch& batch);
  void run_step(std::size_t read_rows);
  const Recording* recording_of(const StepShape& shape);
  void launch_step(std::size_t read_rows);
  // What is left of the rows of a step: their residual stream, and attention's output.
  struct Stream {
    float* x;
    const float* heads;
    std::size_t rows;
  };
  void launch_attention(std::size_t l);
  Stream gather_read_rows(std::size_t read_rows);
  void launch_mlp(std::size_t l, const Stream& stream);
  void norm(const float* from, const float* weight, std::size_t rows);
  void add_delta_and_norm(float* x, const float* weight, std::size_t rows);
  void norm_heads(float* heads, const float* weight, std::size_t num_heads);
  void matmul(const DeviceMatrix& w, const float* x, float* y, std::size_t tokens);
  void adjust_heads(const DeviceLayer& layer);
  void rotate_and_store(std::size_t layer);
  void attend(std::size_t layer);

  Device* device_;
  ModelConfig config_;
  DeviceWeights weights_;
  DeviceTransformerLimits limits_;
  krn::PagedKv kv_;
  std::size_t chunk_tokens_;    // positions that a block of attention takes
  std::size_t num_tokens_ = 0;  // of this step
  std::size_t num_chunks_ = 1;  // of its longest row
  StepRecordings recordings_;
  std::uint64_t num_replays_ = 0;
  std::string recording_failure_;

  // Device memory.
  DeviceBuffer x_;         // [tokens, hidden_size] residual stream
  DeviceBuffer read_x_;    // [logit rows, hidden_size] of the rows that are read
  DeviceBuffer normed_;    // [tokens, hidden_size]
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
  //   ids | positions | blocks | lengths | table begins | read rows | block tables
  //   [tokens] each of the first five, [read rows], [blocks of all spans]
  DeviceBuffer inputs_;

  struct Inputs {  // places within inputs_
    const std::uint32_t* ids;
    const std::uint32_t* positions;
    const std::uint32_t* blocks;
    const std::uint32_t* lengths;
    const std::uint32_t* table_begins;
    const std::uint32_t* read_rows;
    const std::uint32_t* tables;
  } at_{};

  HostBuffer host_inputs_;  // as inputs_
  HostBuffer host_logits_;  // as logits_
};

}  // namespace sluice::eng
