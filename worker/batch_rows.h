// BatchRows: the spans of a step as the forward pass takes them: all new tokens in one row order,
// block tables one after another. Sized at construction; fill() allocates nothing. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shared/worker_facts.h"
#include "worker/executor.h"
#include "worker/model/transformer.h"

namespace sluice::eng {

class BatchRows {
 public:
  explicit BatchRows(const WorkerFacts& facts);

  // Our own scheduler made the spans: what is wrong with them is a bug and stops the process. Valid
  // until the next call.
  TokenBatch fill(std::span<const SequenceSpan> spans);

  // Blocks in the tables of a step, at most.
  std::size_t table_blocks_max() const { return tables_.capacity(); }

 private:
  WorkerFacts facts_;
  std::vector<TokenId> ids_;                // [step_tokens_max]
  std::vector<std::uint32_t> tables_;       // block tables of all spans, one after another
  std::vector<krn::AttentionSpan> spans_;   // [sequences_max]
  std::vector<std::uint32_t> read_rows_;    // [step_tokens_max]
  std::vector<std::uint32_t> logit_rows_;   // [logit_rows_max()]
  std::vector<std::uint32_t> hidden_rows_;  // [step_tokens_max]
};

}  // namespace sluice::eng
