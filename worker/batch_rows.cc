// Checked and flattened, in the order of the spans.
#include "worker/batch_rows.h"

namespace sluice::eng {

BatchRows::BatchRows(const WorkerFacts& facts) : facts_(facts) {
  const std::size_t table = (facts.context_tokens + facts.block_tokens - 1) / facts.block_tokens;
  ids_.reserve(facts.step_tokens_max);
  tables_.reserve(table * facts.sequences_max);
  spans_.reserve(facts.sequences_max);
  read_rows_.reserve(facts.step_tokens_max);
  logit_rows_.reserve(logit_rows_max(facts));
  hidden_rows_.reserve(facts.step_tokens_max);
}

TokenBatch BatchRows::fill(std::span<const SequenceSpan> spans) {
  ids_.clear();
  tables_.clear();
  spans_.clear();
  read_rows_.clear();
  logit_rows_.clear();
  hidden_rows_.clear();
  CHECK(spans.size() <= facts_.sequences_max);
  for (const SequenceSpan& span : spans) {
    const std::size_t end = std::size_t{span.start} + span.ids.size();
    const std::size_t num_blocks = (end + facts_.block_tokens - 1) / facts_.block_tokens;
    CHECK(!span.ids.empty() && end <= facts_.context_tokens && span.blocks.size() >= num_blocks);
    CHECK(ids_.size() + span.ids.size() <= facts_.step_tokens_max);
    spans_.push_back({ids_.size(), span.ids.size(), span.start, tables_.data() + tables_.size()});
    for (std::size_t b = 0; b < num_blocks; ++b) {
      CHECK(span.blocks[b].value < facts_.num_blocks);
      tables_.push_back(span.blocks[b].value);
    }
    for (const TokenId id : span.ids) {
      CHECK(id < facts_.vocab_size);
      ids_.push_back(id);
    }
    CHECK(span.num_logits <= span.ids.size());
    const auto row_end = static_cast<std::uint32_t>(ids_.size());
    const auto num_ids = static_cast<std::uint32_t>(span.ids.size());
    const std::uint32_t num_read = span.wants_hidden ? num_ids : span.num_logits;
    for (std::uint32_t row = row_end - num_read; row < row_end; ++row) {
      const auto place = static_cast<std::uint32_t>(read_rows_.size());
      read_rows_.push_back(row);
      if (row >= row_end - span.num_logits) logit_rows_.push_back(place);
      if (span.wants_hidden) hidden_rows_.push_back(place);
    }
  }
  CHECK(logit_rows_.size() <= logit_rows_max(facts_));
  return {ids_, spans_, read_rows_, logit_rows_, hidden_rows_};
}

}  // namespace sluice::eng
