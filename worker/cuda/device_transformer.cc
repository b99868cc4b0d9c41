// The forward pass as a list of launches. What is checked per step: sizes, on the host, before
// anything is queued; failures of the device, once, at the end.
#include "worker/cuda/device_transformer.h"

#include <algorithm>
#include <cmath>

namespace sluice::eng {
namespace {

constexpr std::size_t kRowInputs = 5;  // arrays [tokens] in the inputs
// Positions of a chunk of attention, at least, and the most chunks that a row may have: their
// results need memory.
constexpr std::size_t kChunkTokensMin = 2 * krn::cuda::kAttentionChunk;
constexpr std::size_t kChunksMax = 16;

std::size_t rounded_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

DeviceTransformer::DeviceTransformer(Device& device, const ModelConfig& config,
                                     DeviceWeights weights, const TransformerLimits& limits,
                                     std::size_t table_blocks_max)
    : device_(&device),
      config_(config),
      weights_(std::move(weights)),
      limits_(limits),
      table_blocks_max_(table_blocks_max),
      chunk_tokens_(std::max(kChunkTokensMin,
                             rounded_up((limits.context_tokens + kChunksMax - 1) / kChunksMax,
                                        krn::cuda::kAttentionChunk))) {}

Result<DeviceTransformer> DeviceTransformer::make(Device& device, const ModelConfig& config,
                                                  DeviceWeights weights,
                                                  const TransformerLimits& limits,
                                                  std::size_t table_blocks_max) {
  DeviceTransformer transformer(device, config, std::move(weights), limits, table_blocks_max);
  transformer.allocate();
  const Result<void> allocated = device.check();
  if (!allocated) return allocated.error();
  transformer.upload_rope_table();
  const Result<void> done = device.synchronize();
  if (!done) return done.error();
  return transformer;
}

void DeviceTransformer::allocate() {
  const ModelConfig& c = config_;
  const std::size_t tokens = limits_.tokens_max;
  const auto floats = [&](std::size_t rows, std::size_t cols) {
    return device_->allocate(rows, cols * sizeof(float), "activations");
  };
  x_ = floats(tokens, c.hidden_size);
  normed_ = floats(std::max(tokens, limits_.logit_rows_max), c.hidden_size);
  qkv_ = floats(tokens, c.q_width() + 2 * c.kv_width());
  heads_ = floats(tokens, c.q_width());
  const std::size_t chunks = (limits_.context_tokens + chunk_tokens_ - 1) / chunk_tokens_;
  if (chunks > 1) partials_ = floats(tokens * c.num_heads * chunks, c.head_dim + 2);
  delta_ = floats(tokens, c.hidden_size);
  gate_up_ = floats(tokens, 2 * c.intermediate_size);
  gated_ = floats(tokens, c.intermediate_size);
  logits_ = floats(limits_.logit_rows_max, c.vocab_size);
  cosine_ = floats(limits_.context_tokens, c.head_dim / 2);
  sine_ = floats(limits_.context_tokens, c.head_dim / 2);
  const std::size_t words = kRowInputs * tokens + limits_.logit_rows_max + table_blocks_max_;
  inputs_ = device_->allocate(words, sizeof(std::uint32_t), "inputs of a step");
  host_inputs_.reserve(words);
  host_logits_.resize(limits_.logit_rows_max * c.vocab_size);
}

void DeviceTransformer::upload_rope_table() {
  const std::size_t half = config_.head_dim / 2;
  std::vector<float> cosine(limits_.context_tokens * half), sine(cosine.size());
  fill_rope_table(config_, limits_.context_tokens, cosine.data(), sine.data());
  const std::size_t bytes = cosine.size() * sizeof(float);
  device_->run(device_->table().copy_to_device, "RoPE table", cosine_.data(), cosine.data(), bytes);
  device_->run(device_->table().copy_to_device, "RoPE table", sine_.data(), sine.data(), bytes);
}

Result<std::span<const float>> DeviceTransformer::forward(const TokenBatch& batch,
                                                          const krn::PagedKv& kv) {
  num_tokens_ = batch.ids.size();
  const std::size_t n = num_tokens_;
  CHECK(n <= limits_.tokens_max && batch.logit_rows.size() <= limits_.logit_rows_max);
  if (n == 0) return std::span<const float>{};
  const krn::cuda::DeviceTable& table = device_->table();
  const std::size_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const krn::cuda::AddArgs residual{x_.floats(), delta_.floats(), hidden};

  upload_inputs(batch, kv.block_tokens);
  // x = E[ids]
  device_->run(table.gather, "embedding",
               krn::cuda::GatherArgs{weights_.embedding.data, at_.ids, x_.floats(), hidden}, n);
  for (std::size_t l = 0; l < weights_.layers.size(); ++l) {
    const DeviceLayer& layer = weights_.layers[l];
    norm(x_.floats(), layer.attention_norm, n);
    matmul(layer.qkv, normed_.floats(), qkv_.floats(), n);  // q, k, v = W_qkv norm(x)
    adjust_heads(layer);                                    // biases and norms of q, k, v
    rotate_and_store(l, kv);                                // RoPE(q, k); k, v into the cache
    attend(l, kv);                                          // softmax(q K^T / sqrt(d)) V
    matmul(layer.attention_out, heads_.floats(), delta_.floats(), n);
    device_->run(table.add, "residual", residual, n);  // x += W_o heads
    norm(x_.floats(), layer.mlp_norm, n);
    matmul(layer.gate_up, normed_.floats(), gate_up_.floats(), n);
    device_->run(table.swiglu, "swiglu",  // silu(W_gate h) * (W_up h)
                 krn::cuda::SwigluArgs{gate_up_.floats(), gated_.floats(), inner}, n);
    matmul(layer.down, gated_.floats(), delta_.floats(), n);
    device_->run(table.add, "residual", residual, n);  // x += W_down ...
  }
  const std::size_t rows = batch.logit_rows.size();
  if (rows > 0) {
    device_->run(table.gather, "logit rows",
                 krn::cuda::GatherArgs{x_.floats(), at_.logit_rows, normed_.floats(), hidden},
                 rows);
    norm(normed_.floats(), weights_.final_norm, rows);
    matmul(weights_.head, normed_.floats(), logits_.floats(), rows);  // W_head norm(x)
    device_->run(table.copy_to_host, "logits", host_logits_.data(), logits_.data(),
                 rows * config_.vocab_size * sizeof(float));
  }
  const Result<void> done = device_->synchronize();
  if (!done) return done.error();
  return std::span<const float>(host_logits_).first(rows * config_.vocab_size);
}

void DeviceTransformer::upload_inputs(const TokenBatch& batch, std::size_t block_tokens) {
  const std::size_t n = batch.ids.size(), rows = batch.logit_rows.size();
  CHECK(batch.spans.size() <= limits_.spans_max);
  host_inputs_.assign(kRowInputs * n + rows, 0);
  std::uint32_t* const ids = host_inputs_.data();
  std::uint32_t* const positions = ids + n;
  std::uint32_t* const blocks = positions + n;
  std::uint32_t* const lengths = blocks + n;
  std::uint32_t* const table_begins = lengths + n;
  std::copy(batch.ids.begin(), batch.ids.end(), ids);
  std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), table_begins + n);
  std::uint32_t table_begin = 0;
  num_chunks_ = 1;
  for (const krn::AttentionSpan& span : batch.spans) {
    const std::size_t end = span.start + span.num_tokens;
    CHECK(end <= limits_.context_tokens);
    num_chunks_ = std::max(num_chunks_, (end + chunk_tokens_ - 1) / chunk_tokens_);
    const std::size_t num_blocks = (end + block_tokens - 1) / block_tokens;
    CHECK(table_begin + num_blocks <= table_blocks_max_);
    for (std::size_t t = 0; t < span.num_tokens; ++t) {
      const std::size_t row = span.row + t, position = span.start + t;
      positions[row] = static_cast<std::uint32_t>(position);
      blocks[row] = span.blocks[position / block_tokens];
      lengths[row] = static_cast<std::uint32_t>(position + 1);
      table_begins[row] = table_begin;
    }
    // Within the reserved size: the pointers above stay.
    host_inputs_.insert(host_inputs_.end(), span.blocks, span.blocks + num_blocks);
    table_begin += static_cast<std::uint32_t>(num_blocks);
  }
  const std::uint32_t* const at = inputs_.words();
  at_ = {at, at + n, at + 2 * n, at + 3 * n, at + 4 * n, at + 5 * n, at + 5 * n + rows};
  device_->run(device_->table().copy_to_device, "inputs of a step", inputs_.data(),
               host_inputs_.data(), host_inputs_.size() * sizeof(std::uint32_t));
}

void DeviceTransformer::norm(const float* from, const float* weight, std::size_t rows) {
  const std::size_t hidden = config_.hidden_size;
  device_->run(
      device_->table().rms_norm, "rms_norm",
      krn::cuda::RmsNormArgs{from, weight, normed_.floats(), hidden, hidden, config_.norm_eps},
      rows);
}

void DeviceTransformer::matmul(const DeviceMatrix& w, const float* x, float* y,
                               std::size_t tokens) {
  device_->run(device_->table().matmul, "matmul",
               krn::cuda::MatmulArgs{w.data, x, y, tokens, w.rows, w.cols});
}

// Of a row of qkv_, `heads` on.
void DeviceTransformer::norm_heads(float* heads, const float* weight, std::size_t num_heads) {
  const std::size_t stride = config_.q_width() + 2 * config_.kv_width();
  device_->run(device_->table().rms_norm, "rms_norm of heads",
               krn::cuda::RmsNormArgs{heads, weight, heads, config_.head_dim, stride,
                                      config_.norm_eps, num_heads},
               num_tokens_ * num_heads);
}

void DeviceTransformer::adjust_heads(const DeviceLayer& layer) {
  const ModelConfig& c = config_;
  if (layer.qkv_bias != nullptr)
    device_->run(
        device_->table().add, "bias",
        krn::cuda::AddArgs{qkv_.floats(), layer.qkv_bias, c.q_width() + 2 * c.kv_width(), true},
        num_tokens_);
  if (layer.q_norm != nullptr) norm_heads(qkv_.floats(), layer.q_norm, c.num_heads);
  if (layer.k_norm != nullptr)
    norm_heads(qkv_.floats() + c.q_width(), layer.k_norm, c.num_kv_heads);
}

void DeviceTransformer::rotate_and_store(std::size_t layer, const krn::PagedKv& kv) {
  const ModelConfig& c = config_;
  float* const q = qkv_.floats();
  const float* const k = q + c.q_width();
  const float* const v = k + c.kv_width();
  const std::size_t stride = c.q_width() + 2 * c.kv_width();
  device_->run(
      device_->table().rope_store, "rope_store",
      krn::cuda::RopeStoreArgs{q, k, v, cosine_.floats(), sine_.floats(), at_.positions, at_.blocks,
                               kv, layer, c.num_heads, stride, stride, c.rope_pairing},
      num_tokens_);
}

void DeviceTransformer::attend(std::size_t layer, const krn::PagedKv& kv) {
  const ModelConfig& c = config_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  const std::size_t q_stride = c.q_width() + 2 * c.kv_width();
  device_->run(device_->table().attention_decode, "attention",
               krn::cuda::AttentionDecodeArgs{qkv_.floats(), heads_.floats(), at_.tables,
                                              at_.table_begins, at_.lengths, kv, layer, c.num_heads,
                                              q_stride, c.q_width(), scale, c.window_of(layer),
                                              chunk_tokens_, num_chunks_, partials_.floats()},
               num_tokens_);
}

}  // namespace sluice::eng
