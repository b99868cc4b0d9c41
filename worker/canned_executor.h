// CannedExecutor: an Executor without a model. Logits are a hash of all ids so far, read back
// through a paged "KV cache" as attention would: a wrong block table, a freed block or a wrong
// prefix hit shows at the first wrong token. For tests, benches and the foundation until a model is
// there.
//
//   slot of position p:  h(p) = mix(h(p - 1), id(p), fold over the first slots of all earlier
//   blocks) logits after p:      table noise at an offset taken from h(p), far below four
//   candidates among
//                        the readable ids; with probability 1 / eos_period the end-of-sequence id
//                        wins
//   hidden state at p:   kCannedEmbedding numbers from h(p), in [-1, 1)
//
// Bitwise independent of batch, chunks and block numbers. About 0.15 us per row at 1,000 entries.
// A prompt whose text contains the crash marker aborts the process inside forward(): its matching
// state lives in the slots too, so that chunks and prefix hits do not hide it.
// Thread rule: one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "shared/clock.h"
#include "worker/executor.h"

namespace sluice::eng {

inline constexpr std::uint32_t kCannedEmbedding = 32;

struct CannedModel {
  WorkerFacts facts;                  // sizes; digest and kernel path are filled by the executor
  std::vector<TokenId> readable_ids;  // the candidates; not empty, all < vocab_size
  std::optional<TokenId> eos;
  std::uint32_t eos_period = 128;   // mean length of a stream that nothing else ends; 0: never
  Duration step_duration{};         // a step takes at least so long
  std::string crash_marker;         // empty: none
  std::vector<std::string> pieces;  // [vocab_size] bytes of each token; only with a crash marker
};

class CannedExecutor final : public Executor {
 public:
  explicit CannedExecutor(CannedModel model);

  WorkerFacts facts() const override { return model_.facts; }
  std::string description() const override { return "canned"; }
  std::span<const float> forward(std::span<const SequenceSpan> spans) override;
  HiddenRows hidden() const override {
    return {hidden_.data(), kCannedEmbedding, hidden_.size() / kCannedEmbedding};
  }
  void zero_blocks(std::span<const BlockId> blocks) override;
  // True when no slot of these blocks holds anything.
  bool is_zero_for_test(std::span<const BlockId> blocks) const;

 private:
  struct Slot {
    std::uint64_t hash = 0;     // of all ids up to here; never 0 once computed
    std::uint32_t matched = 0;  // bytes of the crash marker that end here
    std::uint32_t reserved = 0;
  };

  Slot& slot(const SequenceSpan& span, std::uint32_t position);
  void compute(const SequenceSpan& span);
  void write_logits(std::uint64_t hash, float* row) const;
  void add_hidden(std::uint64_t hash);
  std::uint32_t match_marker(std::uint32_t matched, TokenId id) const;

  CannedModel model_;
  std::vector<Slot> kv_;                    // [num_blocks, block_tokens]
  std::vector<float> logits_;               // [logit_rows_max(), vocab_size]
  std::vector<float> hidden_;               // [ids of spans with wants_hidden, kCannedEmbedding]
  std::vector<float> noise_;                // a row starts anywhere in its first kNoiseOffsets
  std::vector<std::uint32_t> marker_fall_;  // Knuth-Morris-Pratt: [marker bytes + 1]
};

}  // namespace sluice::eng
