// The forward pass. Work is split over outputs only (tokens, panels of rows, KV heads), never over
// a sum, so the number of threads changes no bit.
#include "worker/model/transformer.h"

#include <algorithm>
#include <cmath>

#include "kernels/kv_store.h"

namespace sluice::eng {
namespace {

// A chunk below so many multiply-adds or elements is not worth handing to another thread.
constexpr std::size_t kGrainProducts = 128 * 1024;
constexpr std::size_t kGrainElements = 16 * 1024;
constexpr std::size_t kPanelGroup = 8;  // panels of one piece of a matmul, as tiles take them
// Tokens of one piece of a long matmul. Quantized weights gain 1 to 2 % where the panels are met by
// more of them, which leaves fewer pieces to share: for few threads only.
constexpr std::size_t kTokenPiece = 96;
constexpr std::size_t kTokenPieceLong = 264;
constexpr std::size_t kThreadsOfLongPieces = 4;
constexpr std::size_t kTokenTile = 12;     // a multiple of the token tiles of all kernels
constexpr std::size_t kColumnPiece = 512;  // of one piece of quantizing
// Of one piece of attention: tokens, and as many more as bring it to so many rows of queries.
constexpr std::size_t kItemTokensMin = 16;
constexpr std::size_t kItemTokensMax = 64;
constexpr std::size_t kItemRows = 128;

std::size_t pieces(std::size_t n, std::size_t piece) {
  return (n + piece - 1) / piece;
}
std::size_t grain(std::size_t wanted, std::size_t cost) {
  return pieces(wanted, std::max<std::size_t>(cost, 1));
}

std::size_t tokens_per_item(const ModelConfig& c) {
  return std::clamp(kItemRows / (c.num_heads / c.num_kv_heads), kItemTokensMin, kItemTokensMax);
}

}  // namespace

Result<Transformer> Transformer::make(const ModelWeights& weights, const krn::KernelTable& kernels,
                                      krn::ThreadPool& team, const TransformerLimits& limits) {
  Transformer transformer(weights, kernels, team, limits);
  if (!transformer.allocate()) {
    return make_error(Errc::over_capacity, "the system refuses the memory for activations");
  }
  fill_rope_table(weights.config, limits.context_tokens, transformer.cosine_, transformer.sine_);
  return transformer;
}

Transformer::Transformer(const ModelWeights& weights, const krn::KernelTable& kernels,
                         krn::ThreadPool& team, const TransformerLimits& limits)
    : weights_(&weights), kernels_(&kernels), team_(&team), limits_(limits) {}

bool Transformer::allocate() {
  const ModelConfig& c = weights_->config;
  struct Wanted {
    Rows* rows;
    std::size_t count;
    std::size_t stride;
  };
  const std::size_t tokens = limits_.tokens_max;
  const Wanted wanted[] = {
      {&x_, tokens, krn::activation_stride(c.hidden_size)},
      {&normed_, std::max(tokens, limits_.logit_rows_max), krn::activation_stride(c.hidden_size)},
      {&qkv_, tokens, krn::activation_stride(c.q_width() + 2 * c.kv_width())},
      {&heads_, tokens, krn::activation_stride(c.q_width())},
      {&delta_, tokens, krn::activation_stride(c.hidden_size)},
      {&gate_up_, tokens, krn::activation_stride(2 * c.intermediate_size)},
      {&logits_, limits_.logit_rows_max, c.vocab_size},
  };
  const std::size_t rows = std::max(tokens, limits_.logit_rows_max);
  const std::size_t cols = std::max({c.hidden_size, c.q_width(), c.intermediate_size});
  const std::size_t quantized = krn::quantized_bytes(rows, cols) / sizeof(float) + krn::kLanes;
  const std::size_t table = limits_.context_tokens * (c.head_dim / 2);
  std::size_t floats = 2 * table + quantized;
  for (const Wanted& w : wanted) floats += w.count * w.stride + krn::kLanes;
  memory_ = krn::AlignedBuffer::allocate(floats * sizeof(float));
  if (memory_.empty()) return false;
  float* next = memory_.floats();
  for (const Wanted& w : wanted) {
    *w.rows = {next, w.stride};
    // To the next cache line: the logits' stride is not a multiple of one.
    next += (w.count * w.stride + krn::kLanes - 1) / krn::kLanes * krn::kLanes;
  }
  quantized_ = reinterpret_cast<char*>(next);
  next += quantized / krn::kLanes * krn::kLanes;
  cosine_ = next;
  sine_ = next + table;
  positions_.resize(tokens);
  span_of_.resize(tokens);
  items_.reserve((pieces(tokens, tokens_per_item(c)) + limits_.spans_max) * c.num_kv_heads);
  last_items_.reserve(items_.capacity());
  return true;
}

std::span<const float> Transformer::forward(const TokenBatch& batch, const krn::PagedKv& kv) {
  std::size_t n = batch.ids.size();
  CHECK(n <= limits_.tokens_max && batch.logit_rows.size() <= limits_.logit_rows_max);
  plan_attention(batch);
  embed(batch);  // x = E[ids]
  for (std::size_t l = 0; l < weights_->layers.size(); ++l) {
    const LayerWeights& layer = weights_->layers[l];
    const bool is_last = l + 1 == weights_->layers.size();
    norm(x_, layer.attention_norm, normed_, n);
    matmul(layer.qkv, normed_, qkv_, n);  // q, k, v = W_qkv norm(x)
    rotate_and_store(batch, l, kv);       // biases, norms, RoPE(q, k); k, v into the cache
    attend(batch, l, kv, is_last ? last_items_ : items_);  // softmax(q K^T / sqrt(d)) V
    if (is_last) n = keep_read_rows(batch);
    matmul(layer.attention_out, heads_, delta_, n);
    add(delta_, n);  // x += W_o heads
    norm(x_, layer.mlp_norm, normed_, n);
    matmul(layer.gate_up, normed_, gate_up_, n);
    gate(n);  // silu(W_gate h) * (W_up h)
    matmul(layer.down, gate_up_, delta_, n);
    add(delta_, n);  // x += W_down ...
  }
  const std::size_t rows = batch.logit_rows.size();
  const std::size_t hidden = weights_->config.hidden_size;
  for (std::size_t i = 0; i < rows; ++i) {
    kernels_->rms_norm(x_.row(batch.logit_rows[i]), weights_->final_norm, normed_.row(i), hidden,
                       weights_->config.norm_eps);
  }
  for (std::size_t i = 0; i < batch.hidden_rows.size(); ++i) {
    kernels_->rms_norm(x_.row(batch.hidden_rows[i]), weights_->final_norm, delta_.row(i), hidden,
                       weights_->config.norm_eps);
  }
  matmul(weights_->head, normed_, logits_, rows);  // logits = W_head norm(x)
  return {logits_.data, rows * weights_->config.vocab_size};
}

// Positions of the rows, and the pieces of attention; in the last layer from the first row of a
// span that is read.
void Transformer::plan_attention(const TokenBatch& batch) {
  items_.clear();
  last_items_.clear();
  CHECK(batch.spans.size() <= limits_.spans_max);
  auto read = batch.read_rows.begin();
  for (std::size_t s = 0; s < batch.spans.size(); ++s) {
    const krn::AttentionSpan& span = batch.spans[s];
    CHECK(span.start + span.num_tokens <= limits_.context_tokens);
    for (std::size_t t = 0; t < span.num_tokens; ++t) {
      positions_[span.row + t] = static_cast<std::uint32_t>(span.start + t);
      span_of_[span.row + t] = static_cast<std::uint32_t>(s);
    }
    plan_items(items_, s, 0, span.num_tokens);
    const auto read_end = std::lower_bound(read, batch.read_rows.end(), span.row + span.num_tokens);
    if (read != read_end) plan_items(last_items_, s, *read - span.row, span.num_tokens);
    read = read_end;
  }
}

// Whole KV heads, some tokens of [first, end) of the span at a time.
void Transformer::plan_items(std::vector<krn::AttentionItem>& items, std::size_t span,
                             std::size_t first, std::size_t end) const {
  const std::size_t item_tokens = tokens_per_item(weights_->config);
  for (std::size_t t = first; t < end; t += item_tokens) {
    for (std::uint32_t h = 0; h < weights_->config.num_kv_heads; ++h) {
      items.push_back({static_cast<std::uint32_t>(span), h, static_cast<std::uint32_t>(t),
                       static_cast<std::uint32_t>(std::min(t + item_tokens, end))});
    }
  }
}

// Moves the rows that are read to the front of x and of attention's output, and returns how many.
std::size_t Transformer::keep_read_rows(const TokenBatch& batch) {
  const std::size_t count = batch.read_rows.size();
  if (count == batch.ids.size()) return count;
  const ModelConfig& c = weights_->config;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t row = batch.read_rows[i];  // at least i: they ascend
    if (row == i) continue;
    std::copy_n(x_.row(row), c.hidden_size, x_.row(i));
    std::copy_n(heads_.row(row), c.q_width(), heads_.row(i));
  }
  return count;
}

void Transformer::embed(const TokenBatch& batch) {
  const std::size_t hidden = weights_->config.hidden_size;
  const std::size_t row_bytes = hidden * krn::weight_bytes(weights_->embedding_type);
  const auto* table = static_cast<const char*>(weights_->embedding);
  team_->parallel_for(batch.ids.size(), grain(kGrainElements, hidden),
                      [&](std::size_t begin, std::size_t end) {
                        for (std::size_t t = begin; t < end; ++t) {
                          kernels_->widen(table + batch.ids[t] * row_bytes,
                                          weights_->embedding_type, x_.row(t), hidden);
                        }
                      });
}

void Transformer::norm(const Rows& from, const float* weight, const Rows& to,
                       std::size_t num_tokens) {
  const std::size_t hidden = weights_->config.hidden_size;
  team_->parallel_for(
      num_tokens, grain(kGrainElements, hidden), [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          kernels_->rms_norm(from.row(t), weight, to.row(t), hidden, weights_->config.norm_eps);
        }
      });
}

Transformer::MatmulPieces Transformer::split(const krn::PackedMatrix& w,
                                             std::size_t num_tokens) const {
  const bool is_long = krn::is_quantized(w.type) && team_->num_threads() <= kThreadsOfLongPieces;
  const std::size_t most = is_long ? kTokenPieceLong : kTokenPiece;
  const std::size_t equal = pieces(num_tokens, pieces(num_tokens, most));
  const std::size_t tokens = pieces(equal, kTokenTile) * kTokenTile;
  return {pieces(num_tokens, tokens), tokens};
}

krn::MatmulJob Transformer::piece_of(const krn::PackedMatrix& w, const Rows& from, const Rows& to,
                                     std::size_t num_tokens, std::size_t first) const {
  const std::size_t tokens = std::min(split(w, num_tokens).tokens, num_tokens - first);
  return {w,
          from.row(first),
          from.stride,
          tokens,
          to.row(first),
          to.stride,
          krn::is_quantized(w.type) ? quantized_ + krn::quantized_bytes(first, w.cols) : nullptr,
          krn::unpacking_costs()};
}

// Once for all panels: every group of them would quantize the same rows again.
void Transformer::quantize(const krn::PackedMatrix& w, const Rows& from, std::size_t num_tokens) {
  const MatmulPieces split_tokens = split(w, num_tokens);
  const std::size_t parts = pieces(w.cols, kColumnPiece);
  team_->parallel_for(
      parts * split_tokens.count,
      grain(kGrainElements,
            std::min(kColumnPiece, w.cols) * std::min(split_tokens.tokens, num_tokens)),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t piece = begin; piece < end; ++piece) {
          const std::size_t column = piece % parts * kColumnPiece;
          const krn::MatmulJob job =
              piece_of(w, from, from, num_tokens, piece / parts * split_tokens.tokens);
          kernels_->quantize(
              job, column, std::min(column + kColumnPiece, w.cols),
              quantized_ + krn::quantized_bytes(piece / parts * split_tokens.tokens, w.cols));
        }
      });
}

void Transformer::matmul(const krn::PackedMatrix& w, const Rows& from, const Rows& to,
                         std::size_t num_tokens) {
  if (num_tokens == 0) return;
  if (krn::is_quantized(w.type)) quantize(w, from, num_tokens);
  multiply(w, from, to, num_tokens);
}

// Pieces are (token piece, panel group) with the group running fastest; neighbouring groups of one
// token piece go in one call, which shares what they read.
void Transformer::multiply(const krn::PackedMatrix& w, const Rows& from, const Rows& to,
                           std::size_t num_tokens) {
  const std::size_t panels = krn::num_panels(w.rows);
  // One token's quantized products go panel by panel anyway.
  const std::size_t size = num_tokens == 1 && krn::is_quantized(w.type) ? 1 : kPanelGroup;
  const std::size_t groups = pieces(panels, size);
  const MatmulPieces split_tokens = split(w, num_tokens);
  const std::size_t cost = size * krn::kLanes * w.cols * std::min(split_tokens.tokens, num_tokens);
  team_->parallel_for(
      groups * split_tokens.count, grain(kGrainProducts, cost),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t piece = begin; piece < end;) {
          const std::size_t group = piece % groups;
          const std::size_t together = std::min(groups - group, end - piece);
          const krn::MatmulJob job =
              piece_of(w, from, to, num_tokens, piece / groups * split_tokens.tokens);
          kernels_->matmul(job, group * size, std::min((group + together) * size, panels));
          piece += together;
        }
      });
}

void Transformer::matmul(const FusedMatrix& w, const Rows& from, const Rows& to,
                         std::size_t num_tokens) {
  std::size_t column = 0;
  for (const krn::PackedMatrix& part : w.parts) {
    matmul(part, from, {to.data + column, to.stride}, num_tokens);
    column += part.rows;
  }
}

void Transformer::rotate_and_store(const TokenBatch& batch, std::size_t layer,
                                   const krn::PagedKv& kv) {
  const ModelConfig& c = weights_->config;
  const LayerWeights& w = weights_->layers[layer];
  const std::size_t half = c.head_dim / 2;
  const auto norm_heads = [&](float* heads, std::size_t num_heads, const float* weight) {
    for (std::size_t h = 0; h < num_heads; ++h, heads += c.head_dim)
      kernels_->rms_norm(heads, weight, heads, c.head_dim, c.norm_eps);
  };
  const auto store = [&](const float* k, const float* v, const krn::AttentionSpan& span,
                         std::size_t position) {
    krn::store_kv(kv, {span.blocks[position / kv.block_tokens], position % kv.block_tokens, layer},
                  k, v);
  };
  team_->parallel_for(batch.ids.size(), grain(kGrainElements, c.q_width() + 4 * c.kv_width()),
                      [&](std::size_t begin, std::size_t end) {
                        for (std::size_t t = begin; t < end; ++t) {
                          float* q = qkv_.row(t);
                          float* k = q + c.q_width();
                          if (w.qkv_bias != nullptr)
                            kernels_->add(q, w.qkv_bias, c.q_width() + 2 * c.kv_width());
                          if (w.q_norm != nullptr) norm_heads(q, c.num_heads, w.q_norm);
                          if (w.k_norm != nullptr) norm_heads(k, c.num_kv_heads, w.k_norm);
                          const float* cosine = cosine_ + positions_[t] * half;
                          const float* sine = sine_ + positions_[t] * half;
                          // q and k lie side by side: one call turns the heads of both.
                          kernels_->rope(q, c.num_heads + c.num_kv_heads, c.head_dim, cosine, sine,
                                         c.rope_pairing);
                          store(k, k + c.kv_width(), batch.spans[span_of_[t]], positions_[t]);
                        }
                      });
}

void Transformer::attend(const TokenBatch& batch, std::size_t layer, const krn::PagedKv& kv,
                         std::span<const krn::AttentionItem> items) {
  const ModelConfig& c = weights_->config;
  const krn::AttentionJob job{kv,
                              layer,
                              c.num_heads,
                              1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                              qkv_.data,
                              qkv_.stride,
                              heads_.data,
                              heads_.stride,
                              batch.spans.data(),
                              c.window_of(layer)};
  std::size_t products = 0;  // of the whole step, to see whether it is worth sharing
  for (const krn::AttentionSpan& span : batch.spans) {
    std::size_t seen = span.start + span.num_tokens;
    if (job.window != 0) seen = std::min(seen, job.window);
    products += 2 * c.q_width() * span.num_tokens * seen;
  }
  const std::size_t cost = products / std::max<std::size_t>(items_.size(), 1);
  team_->parallel_for(items.size(), grain(kGrainProducts, cost),
                      [&](std::size_t begin, std::size_t end) {
                        for (std::size_t i = begin; i < end; ++i) kernels_->attend(job, items[i]);
                      });
}

void Transformer::gate(std::size_t num_tokens) {
  const std::size_t inner = weights_->config.intermediate_size;
  team_->parallel_for(num_tokens, grain(kGrainElements, 2 * inner),
                      [&](std::size_t begin, std::size_t end) {
                        for (std::size_t t = begin; t < end; ++t) {
                          float* row = gate_up_.row(t);
                          kernels_->swiglu(row, row + inner, row, inner);
                        }
                      });
}

void Transformer::add(const Rows& from, std::size_t num_tokens) {
  const std::size_t hidden = weights_->config.hidden_size;
  team_->parallel_for(num_tokens, grain(kGrainElements, hidden),
                      [&](std::size_t begin, std::size_t end) {
                        for (std::size_t t = begin; t < end; ++t) {
                          kernels_->add(x_.row(t), from.row(t), hidden);
                        }
                      });
}

}  // namespace sluice::eng
