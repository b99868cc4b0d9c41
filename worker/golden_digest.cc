// The passes are those of an ordinary sequence: a chunk of prompt, then token by token.
#include "worker/golden_digest.h"

#include <algorithm>
#include <bit>
#include <span>

#include "shared/random.h"

namespace sluice::eng {
namespace {

constexpr std::uint32_t kPromptTokens = 8;

}  // namespace

GoldenDigest::GoldenDigest(Executor& executor, BlockId first) : executor_(executor) {
  for (std::uint32_t i = 0; i < golden_blocks(executor.facts().block_tokens); ++i)
    blocks_.push_back(BlockId(first.value + i));
}

std::optional<std::uint64_t> GoldenDigest::take(const std::function<bool()>& before_pass) {
  const WorkerFacts facts = executor_.facts();
  const std::size_t length = std::min(kGoldenTokens, facts.context_tokens);
  const std::size_t chunk = std::min(kPromptTokens, facts.step_tokens_max);
  std::vector<TokenId> ids;
  for (TokenId i = 0; i < std::min<std::size_t>(kPromptTokens, length - 1); ++i)
    ids.push_back((1 + 37 * i) % facts.vocab_size);
  std::uint64_t digest = 0;
  std::uint32_t computed = 0;
  while (computed < length) {
    if (!before_pass()) {
      executor_.zero_blocks(blocks_);
      return std::nullopt;
    }
    const std::size_t count = std::min(chunk, ids.size() - computed);
    const SequenceSpan span{SequenceId(1), std::span(ids).subspan(computed, count), computed,
                            blocks_, 1};
    const std::span<const float> logits = executor_.forward({&span, 1});
    computed += static_cast<std::uint32_t>(count);
    if (facts.continuity != Continuity::tokens)
      for (const float logit : logits) digest = mix64(digest ^ std::bit_cast<std::uint32_t>(logit));
    if (computed < ids.size()) continue;
    const auto best =
        static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    digest = mix64(digest ^ best);
    if (ids.size() < length) ids.push_back(best);
  }
  executor_.zero_blocks(blocks_);
  return digest;
}

}  // namespace sluice::eng
