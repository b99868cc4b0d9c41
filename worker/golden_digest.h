// GoldenDigest: a fixed prompt, continued greedily in KV blocks of its own; what the executor makes
// of it as one number. An executor that computes as it did gives the number that it gave: of its
// logits' bits where its continuity is exact, else of the chosen tokens alone.
//
// It takes 16 positions in passes of at most 8; the sequences of the engine are not touched. One
// thread, the executor's, between two steps.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "worker/executor.h"

namespace sluice::eng {

inline constexpr std::uint32_t kGoldenTokens = 16;

// KV blocks that it needs, beside those of the scheduler.
constexpr std::uint32_t golden_blocks(std::uint32_t block_tokens) {
  return (kGoldenTokens + block_tokens - 1) / block_tokens;
}

class GoldenDigest {
 public:
  // `first`: of golden_blocks() blocks of the executor that nobody else uses; it outlives this.
  GoldenDigest(Executor& executor, BlockId first);

  // before_pass(): whether to go on, and the place to tell a supervisor that it does. Nothing when
  // it was not to.
  std::optional<std::uint64_t> take(const std::function<bool()>& before_pass);

 private:
  Executor& executor_;
  std::vector<BlockId> blocks_;
};

}  // namespace sluice::eng
