// Transformer: the forward pass of a model of the Llama family over a ragged batch, on a
// KernelTable, a thread team and a paged KV cache. Owns its activation buffers, all allocated at
// construction: forward() allocates nothing. Not thread safe; the team works inside a call.
//
// Llama: Touvron et al. 2023; RMSNorm (Zhang, Sennrich 2019), rotary positions (Su et al. 2021),
// grouped-query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020). What its relatives add:
// model_config.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/kernel_table.h"
#include "shared/ids.h"
#include "worker/model/weights.h"

namespace sluice::eng {

// All new tokens of a step in one row order. Spans follow each other in rows.
struct TokenBatch {
  std::span<const TokenId> ids;               // [num_tokens], each below vocab_size
  std::span<const krn::AttentionSpan> spans;  // [num_sequences]
  // Rows whose final hidden states are read, ascending. Of the others the last layer makes K and V
  // alone.
  std::span<const std::uint32_t> read_rows;
  std::span<const std::uint32_t> logit_rows;     // places in read_rows: their logits are wanted
  std::span<const std::uint32_t> hidden_rows{};  // places in read_rows: the states are wanted
};

struct TransformerLimits {
  std::size_t tokens_max = 0;      // in one batch
  std::size_t logit_rows_max = 0;  // in one batch
  std::size_t spans_max = 0;       // in one batch
  std::size_t context_tokens = 0;  // positions
};

class Transformer {
 public:
  // The references must outlive it. Fails when memory is refused.
  static Result<Transformer> make(const ModelWeights& weights, const krn::KernelTable& kernels,
                                  krn::ThreadPool& team, const TransformerLimits& limits);

  // Stores K and V of all tokens into kv and returns the logits [logit_rows.size(), vocab_size],
  // valid until the next call. The batch is within the limits; kv has the model's shape.
  std::span<const float> forward(const TokenBatch& batch, const krn::PagedKv& kv);
  // Of the last forward(): row i is norm(x) of hidden_rows[i], [hidden_size], at
  // data + i * stride; valid until the next call.
  const float* hidden() const { return delta_.data; }
  std::size_t hidden_stride() const { return delta_.stride; }

 private:
  // An activation buffer [tokens_max, stride], stride >= cols.
  struct Rows {
    float* data = nullptr;
    std::size_t stride = 0;
    float* row(std::size_t t) const { return data + t * stride; }
  };

  // The tokens of a matmul in `count` pieces of at most `tokens`.
  struct MatmulPieces {
    std::size_t count;
    std::size_t tokens;
  };

  Transformer(const ModelWeights& weights, const krn::KernelTable& kernels, krn::ThreadPool& team,
              const TransformerLimits& limits);
  bool allocate();
  void embed(const TokenBatch& batch);
  void norm(const Rows& from, const float* weight, const Rows& to, std::size_t num_tokens);
  void matmul(const krn::PackedMatrix& w, const Rows& from, const Rows& to, std::size_t num_tokens);
  MatmulPieces split(const krn::PackedMatrix& w, std::size_t num_tokens) const;
  krn::MatmulJob piece_of(const krn::PackedMatrix& w, const Rows& from, const Rows& to,
                          std::size_t num_tokens, std::size_t first) const;
  void quantize(const krn::PackedMatrix& w, const Rows& from, std::size_t num_tokens);
  void multiply(const krn::PackedMatrix& w, const Rows& from, const Rows& to,
                std::size_t num_tokens);
  void matmul(const FusedMatrix& w, const Rows& from, const Rows& to, std::size_t num_tokens);
  void rotate_and_store(const TokenBatch& batch, std::size_t layer, const krn::PagedKv& kv);
  void attend(const TokenBatch& batch, std::size_t layer, const krn::PagedKv& kv,
              std::span<const krn::AttentionItem> items);
  std::size_t keep_read_rows(const TokenBatch& batch);
  void gate(std::size_t num_tokens);
  void add(const Rows& from, std::size_t num_tokens);
  void plan_attention(const TokenBatch& batch);
  void plan_items(std::vector<krn::AttentionItem>& items, std::size_t span, std::size_t first,
                  std::size_t end) const;

  const ModelWeights* weights_;
  const krn::KernelTable* kernels_;
  krn::ThreadPool* team_;
  TransformerLimits limits_;
  krn::AlignedBuffer memory_;
  Rows x_;                     // [tokens, hidden_size] residual stream
  Rows normed_;                // [tokens, hidden_size]
  Rows qkv_;                   // [tokens, q_width + 2 kv_width]: heads of q, of k, of v
  Rows heads_;                 // [tokens, q_width] attention's output
  Rows delta_;                 // [tokens, hidden_size] what a sub-layer adds; at last hidden()
  Rows gate_up_;               // [tokens, 2 intermediate_size]
  Rows logits_;                // [logit rows, vocab_size], stride = vocab_size
  char* quantized_ = nullptr;  // the input of the matmul under way
  float* cosine_ = nullptr;    // [context_tokens, head_dim / 2]
  float* sine_ = nullptr;
  std::vector<std::uint32_t> positions_;        // [tokens]
  std::vector<std::uint32_t> span_of_;          // [tokens]
  std::vector<krn::AttentionItem> items_;       // of this step
  std::vector<krn::AttentionItem> last_items_;  // of its last layer
};

}  // namespace sluice::eng
