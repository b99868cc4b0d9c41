// The forward pass as a list of launches. What is checked per step: sizes, on the host, before
// anything is queued; failures of the device, once, at the end.
#include "worker/cuda/device_transformer.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sluice::eng {
namespace {

constexpr std::size_t kRowInputs = 5;  // arrays [tokens] in the inputs
// Positions of a chunk of attention, at least, and the most chunks that a row may have: their
// results need memory.
constexpr std::size_t kChunkTokensMin = 2 * krn::cuda::kAttentionChunk;
constexpr std::size_t kChunksMax = 16;
// Steps of more tokens keep the device busy for longer than the host needs to queue them.
constexpr std::size_t kRecordedTokensMax = 32;

std::size_t rounded_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

DeviceTransformer::DeviceTransformer(Device& device, const ModelConfig& config,
                                     DeviceWeights weights, const DeviceTransformerLimits& limits,
                                     const krn::PagedKv& kv)
    : device_(&device),
      config_(config),
      weights_(std::move(weights)),
      limits_(limits),
      kv_(kv),
      chunk_tokens_(std::max(kChunkTokensMin,
                             rounded_up((limits.step.context_tokens + kChunksMax - 1) / kChunksMax,
                                        krn::cuda::kAttentionChunk))),
      recordings_(limits.recordings_max) {}

Result<DeviceTransformer> DeviceTransformer::make(Device& device, const ModelConfig& config,
                                                  DeviceWeights weights,
                                                  const DeviceTransformerLimits& limits,
                                                  const krn::PagedKv& kv) {
  DeviceTransformer transformer(device, config, std::move(weights), limits, kv);
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
  const TransformerLimits& limits = limits_.step;
  const std::size_t tokens = limits.tokens_max;
  const auto floats = [&](std::size_t rows, std::size_t cols) {
    return device_->allocate(rows, cols * sizeof(float), "activations");
  };
  x_ = floats(tokens, c.hidden_size);
  read_x_ = floats(limits.logit_rows_max, c.hidden_size);
  normed_ = floats(tokens, c.hidden_size);
  qkv_ = floats(tokens, c.q_width() + 2 * c.kv_width());
  heads_ = floats(tokens, c.q_width());
  const std::size_t chunks = (limits.context_tokens + chunk_tokens_ - 1) / chunk_tokens_;
  if (chunks > 1) partials_ = floats(tokens * c.num_heads * chunks, c.head_dim + 2);
  delta_ = floats(tokens, c.hidden_size);
  gate_up_ = floats(tokens, 2 * c.intermediate_size);
  gated_ = floats(tokens, c.intermediate_size);
  logits_ = floats(limits.logit_rows_max, c.vocab_size);
  cosine_ = floats(limits.context_tokens, c.head_dim / 2);
  sine_ = floats(limits.context_tokens, c.head_dim / 2);
  const std::size_t words = kRowInputs * tokens + limits.logit_rows_max + limits_.table_blocks_max;
  inputs_ = device_->allocate(words, sizeof(std::uint32_t), "inputs of a step");
  host_inputs_ = device_->allocate_host(words, sizeof(std::uint32_t), "inputs of a step");
  host_logits_ =
      device_->allocate_host(limits.logit_rows_max, c.vocab_size * sizeof(float), "logits");
}

void DeviceTransformer::upload_rope_table() {
  const std::size_t half = config_.head_dim / 2;
  std::vector<float> cosine(limits_.step.context_tokens * half), sine(cosine.size());
  fill_rope_table(config_, limits_.step.context_tokens, cosine.data(), sine.data());
  const std::size_t bytes = cosine.size() * sizeof(float);
  device_->run(device_->table().copy_to_device, "RoPE table", cosine_.data(), cosine.data(), bytes);
  device_->run(device_->table().copy_to_device, "RoPE table", sine_.data(), sine.data(), bytes);
}

Result<std::span<const float>> DeviceTransformer::forward(const TokenBatch& batch) {
  num_tokens_ = batch.ids.size();
  const std::size_t rows = batch.read_rows.size();
  CHECK(batch.logit_rows.size() == rows && batch.hidden_rows.empty());
  CHECK(num_tokens_ <= limits_.step.tokens_max && rows <= limits_.step.logit_rows_max);
  if (num_tokens_ == 0) return std::span<const float>{};
  upload_inputs(batch);
  run_step(rows);
  if (rows > 0) {
    device_->run(device_->table().copy_to_host, "logits", host_logits_.data(), logits_.data(),
                 rows * config_.vocab_size * sizeof(float));
  }
  const Result<void> done = device_->synchronize();
  if (!done) return done.error();
  return std::span<const float>(host_logits_.floats(), rows * config_.vocab_size);
}

void DeviceTransformer::upload_inputs(const TokenBatch& batch) {
  const std::size_t n = batch.ids.size(), rows = batch.read_rows.size();
  CHECK(batch.spans.size() <= limits_.step.spans_max);
  std::uint32_t* const ids = host_inputs_.words();
  std::uint32_t* const positions = ids + n;
  std::uint32_t* const blocks = positions + n;
  std::uint32_t* const lengths = blocks + n;
  std::uint32_t* const table_begins = lengths + n;
  std::uint32_t* const read_rows = table_begins + n;
  std::uint32_t* const tables = read_rows + rows;
  std::copy(batch.ids.begin(), batch.ids.end(), ids);
  std::fill(positions, read_rows, 0);
  std::copy(batch.read_rows.begin(), batch.read_rows.end(), read_rows);
  std::uint32_t table_begin = 0;
  num_chunks_ = 1;
  for (const krn::AttentionSpan& span : batch.spans) {
    const std::size_t end = span.start + span.num_tokens;
    CHECK(end <= limits_.step.context_tokens);
    num_chunks_ = std::max(num_chunks_, (end + chunk_tokens_ - 1) / chunk_tokens_);
    const std::size_t num_blocks = (end + kv_.block_tokens - 1) / kv_.block_tokens;
    CHECK(table_begin + num_blocks <= limits_.table_blocks_max);
    for (std::size_t t = 0; t < span.num_tokens; ++t) {
      const std::size_t row = span.row + t, position = span.start + t;
      positions[row] = static_cast<std::uint32_t>(position);
      blocks[row] = span.blocks[position / kv_.block_tokens];
      lengths[row] = static_cast<std::uint32_t>(position + 1);
      table_begins[row] = table_begin;
    }
    std::copy(span.blocks, span.blocks + num_blocks, tables + table_begin);
    table_begin += static_cast<std::uint32_t>(num_blocks);
  }
  const std::uint32_t* const at = inputs_.words();
  at_ = {at, at + n, at + 2 * n, at + 3 * n, at + 4 * n, at + 5 * n, at + 5 * n + rows};
  device_->run(device_->table().copy_to_device, "inputs of a step", inputs_.data(),
               host_inputs_.data(), (kRowInputs * n + rows + table_begin) * sizeof(std::uint32_t));
}

void DeviceTransformer::run_step(std::size_t read_rows) {
  const Recording* recording = nullptr;
  if (num_tokens_ <= kRecordedTokensMax)
    recording = recording_of({num_tokens_, read_rows, num_chunks_});
  if (recording == nullptr) {
    launch_step(read_rows);
  } else {
    device_->replay(*recording);
    ++num_replays_;
  }
}

// A shape that comes up for the first time is only noted: its launches, done one by one, also load
// the kernels that it needs. The second time it is recorded.
const Recording* DeviceTransformer::recording_of(const StepShape& shape) {
  Recording* const known = recordings_.find(shape);
  if (known == nullptr) {
    recordings_.note(shape);
    return nullptr;
  }
  if (known->data() != nullptr) return known;
  if (!device_->check()) return nullptr;  // nothing is done any more, so nothing is to be told
  Result<Recording> recording = device_->record([&] { launch_step(shape.num_read_rows); });
  if (recording) {
    *known = std::move(*recording);
    return known;
  }
  recording_failure_ = recording.error().detail;
  recordings_.forget();
  return nullptr;
}

// Everything between the inputs and the logits in device memory.
void DeviceTransformer::launch_step(std::size_t read_rows) {
  // x = E[ids]
  device_->run(
      device_->table().gather, "embedding",
      krn::cuda::GatherArgs{weights_.embedding.data, at_.ids, x_.floats(), config_.hidden_size},
      num_tokens_);
  norm(x_.floats(), weights_.layers.front().attention_norm, num_tokens_);
  Stream stream{x_.floats(), heads_.floats(), num_tokens_};
  for (std::size_t l = 0; l < weights_.layers.size(); ++l) {
    launch_attention(l);
    if (l + 1 == weights_.layers.size()) stream = gather_read_rows(read_rows);
    if (stream.rows == 0) return;
    launch_mlp(l, stream);
  }
  matmul(weights_.head, normed_.floats(), logits_.floats(), stream.rows);  // W_head norm(x)
}

// From the normed residual stream to attention's output.
void DeviceTransformer::launch_attention(std::size_t l) {
  const DeviceLayer& layer = weights_.layers[l];
  matmul(layer.qkv, normed_.floats(), qkv_.floats(), num_tokens_);  // q, k, v = W_qkv norm(x)
  adjust_heads(layer);                                              // biases and norms of q, k, v
  rotate_and_store(l);                                              // RoPE(q, k); k, v to the cache
  attend(l);                                                        // softmax(q K^T / sqrt(d)) V
}

// Behind the last attention, which goes over all rows still; qkv_ is free then.
DeviceTransformer::Stream DeviceTransformer::gather_read_rows(std::size_t read_rows) {
  if (read_rows == num_tokens_ || read_rows == 0) return {x_.floats(), heads_.floats(), read_rows};
  const auto gather = [&](const DeviceBuffer& from, const DeviceBuffer& to, std::size_t cols) {
    device_->run(device_->table().gather, "rows that are read",
                 krn::cuda::GatherArgs{from.floats(), at_.read_rows, to.floats(), cols}, read_rows);
  };
  gather(x_, read_x_, config_.hidden_size);
  gather(heads_, qkv_, config_.q_width());
  return {read_x_.floats(), qkv_.floats(), read_rows};
}

// From attention's output to the normed residual stream of the next layer, or of the head.
void DeviceTransformer::launch_mlp(std::size_t l, const Stream& stream) {
  const DeviceLayer& layer = weights_.layers[l];
  const bool is_last = l + 1 == weights_.layers.size();
  const std::size_t n = stream.rows, inner = config_.intermediate_size;
  matmul(layer.attention_out, stream.heads, delta_.floats(), n);
  add_delta_and_norm(stream.x, layer.mlp_norm, n);  // x += W_o heads
  matmul(layer.gate_up, normed_.floats(), gate_up_.floats(), n);
  device_->run(device_->table().swiglu, "swiglu",  // silu(W_gate h) * (W_up h)
               krn::cuda::SwigluArgs{gate_up_.floats(), gated_.floats(), inner}, n);
  matmul(layer.down, gated_.floats(), delta_.floats(), n);
  add_delta_and_norm(stream.x,  // x += W_down ...
                     is_last ? weights_.final_norm : weights_.layers[l + 1].attention_norm, n);
}

void DeviceTransformer::norm(const float* from, const float* weight, std::size_t rows) {
  const std::size_t hidden = config_.hidden_size;
  device_->run(
      device_->table().rms_norm, "rms_norm",
      krn::cuda::RmsNormArgs{from, weight, normed_.floats(), hidden, hidden, config_.norm_eps},
      rows);
}

void DeviceTransformer::add_delta_and_norm(float* x, const float* weight, std::size_t rows) {
  device_->run(device_->table().add_rms_norm, "residual and rms_norm",
               krn::cuda::AddRmsNormArgs{x, delta_.floats(), weight, normed_.floats(),
                                         config_.hidden_size, config_.norm_eps},
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

void DeviceTransformer::rotate_and_store(std::size_t layer) {
  const ModelConfig& c = config_;
  float* const q = qkv_.floats();
  const float* const k = q + c.q_width();
  const float* const v = k + c.kv_width();
  const std::size_t stride = c.q_width() + 2 * c.kv_width();
  device_->run(
      device_->table().rope_store, "rope_store",
      krn::cuda::RopeStoreArgs{q, k, v, cosine_.floats(), sine_.floats(), at_.positions, at_.blocks,
                               kv_, layer, c.num_heads, stride, stride, c.rope_pairing},
      num_tokens_);
}

void DeviceTransformer::attend(std::size_t layer) {
  const ModelConfig& c = config_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  const std::size_t q_stride = c.q_width() + 2 * c.kv_width();
  device_->run(device_->table().attention_decode, "attention",
               krn::cuda::AttentionDecodeArgs{
                   qkv_.floats(), heads_.floats(), at_.tables, at_.table_begins, at_.lengths, kv_,
                   layer, c.num_heads, q_stride, c.q_width(), scale, c.window_of(layer),
                   chunk_tokens_, num_chunks_, partials_.floats()},
               num_tokens_);
}

}  // namespace sluice::eng
