// DrivenSequence: a sequence under test that hands its tokens to an executor in pieces, with blocks
// of its own choosing. The tests of the forward pass are written in these words.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "worker/executor.h"

namespace sluice::test {

struct DrivenSequence {
  std::vector<TokenId> ids;
  std::vector<BlockId> blocks;  // covers all ids
  std::uint32_t computed = 0;   // tokens whose KV exists

  std::size_t left() const { return ids.size() - computed; }

  eng::SequenceSpan span(std::size_t num_tokens, std::uint32_t num_logits = 1) const {
    return {SequenceId(1), std::span(ids).subspan(computed, num_tokens), computed, blocks,
            num_logits};
  }
};

inline std::size_t blocks_for(std::size_t tokens, std::size_t block_tokens) {
  return (tokens + block_tokens - 1) / block_tokens;
}

// Blocks first, first + 1, ...
inline std::vector<BlockId> consecutive_blocks(std::size_t count, std::uint32_t first = 0) {
  std::vector<BlockId> blocks;
  for (std::size_t i = 0; i < count; ++i)
    blocks.push_back(BlockId(first + static_cast<std::uint32_t>(i)));
  return blocks;
}

// The logits after every token, computed alone in chunks of `chunk`; [ids.size(), vocab_size], rows
// that end no chunk stay empty.
inline std::vector<std::vector<float>> logits_alone(eng::Executor& executor,
                                                    DrivenSequence sequence, std::size_t chunk) {
  std::vector<std::vector<float>> rows(sequence.ids.size());
  while (sequence.left() > 0) {
    const std::size_t n = std::min(chunk, sequence.left());
    const eng::SequenceSpan span = sequence.span(n);
    const std::span<const float> logits = executor.forward({&span, 1});
    sequence.computed += static_cast<std::uint32_t>(n);
    rows[sequence.computed - 1].assign(logits.begin(), logits.end());
  }
  return rows;
}

inline TokenId best_id(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace sluice::test
