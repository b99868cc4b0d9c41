// DrivenSequence: a sequence under test that hands its tokens to an executor in pieces, with blocks
// of its own choosing. The tests of the forward pass are written in these words.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
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

// What a walk in steps of several shapes gives: the logits of all steps, one after another. Of
// `count` sequences that begin at position `start`, where the cache is as it is: one alone, all, a
// chunk, all of which some want no logits; each shape `times` in a row, all shapes twice over, and
// then a chunk of 33 ids. Contexts grow meanwhile by 16 times + 33 positions at most.
inline std::vector<std::vector<float>> walk_in_shapes(eng::Executor& executor, std::size_t count,
                                                      std::uint32_t start, int times) {
  const std::size_t length = start + 16 * static_cast<std::size_t>(times) + 33;
  const std::size_t blocks = blocks_for(length, executor.facts().block_tokens);
  std::vector<DrivenSequence> sequences(count);
  for (std::size_t s = 0; s < count; ++s) {
    for (std::size_t i = 0; i < length; ++i)
      sequences[s].ids.push_back(static_cast<TokenId>((7 * s + 37 * i + i * i) % 90));
    sequences[s].blocks = consecutive_blocks(blocks, static_cast<std::uint32_t>(s * blocks));
    sequences[s].computed = start;
  }
  std::vector<std::vector<float>> rows;
  const auto step = [&](std::size_t members, std::size_t ids, std::size_t with_logits) {
    std::vector<eng::SequenceSpan> spans;
    for (std::size_t s = 0; s < members; ++s)
      spans.push_back(sequences[s].span(ids, s % with_logits == 0 ? 1 : 0));
    const std::span<const float> logits = executor.forward(spans);
    rows.emplace_back(logits.begin(), logits.end());
    for (std::size_t s = 0; s < members; ++s)
      sequences[s].computed += static_cast<std::uint32_t>(ids);
  };
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < times; ++i) step(1, 1, 1);
    for (int i = 0; i < times; ++i) step(count, 1, 1);
    for (int i = 0; i < times; ++i) step(1, 5, 1);
    for (int i = 0; i < times; ++i) step(count, 1, 2);
  }
  step(1, 33, 1);
  return rows;
}

// An executor's tokens, as if its bits did not count; and how far apart its two best logits were,
// at the least, in what it computed so far.
class TokensOf final : public eng::Executor {
 public:
  explicit TokensOf(eng::Executor& executor) : executor_(executor) {}
  WorkerFacts facts() const override {
    WorkerFacts facts = executor_.facts();
    facts.continuity = Continuity::tokens;
    return facts;
  }
  std::span<const float> forward(std::span<const eng::SequenceSpan> spans) override {
    const std::span<const float> logits = executor_.forward(spans);
    const std::size_t vocab_size = executor_.facts().vocab_size;
    for (std::size_t row = 0; row < logits.size(); row += vocab_size) {
      std::vector<float> sorted(logits.begin() + static_cast<std::ptrdiff_t>(row),
                                logits.begin() + static_cast<std::ptrdiff_t>(row + vocab_size));
      std::ranges::partial_sort(sorted, sorted.begin() + 2, std::greater<>());
      margin_min = std::min(margin_min, sorted[0] - sorted[1]);
    }
    return logits;
  }
  void zero_blocks(std::span<const BlockId> blocks) override { executor_.zero_blocks(blocks); }
  float margin_min = std::numeric_limits<float>::infinity();

 private:
  eng::Executor& executor_;
};

inline TokenId best_id(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace sluice::test
