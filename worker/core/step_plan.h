// StepPlan and StepOutcome: what one step computes, and what came of it. Plain values; the spans
// inside point into the scheduler and hold until its next call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shared/ids.h"
#include "shared/messages.h"

namespace sluice::eng {

// One sequence's part: the KV of ids [start, start + ids.size()), and logits after the last one.
struct PlanItem {
  SequenceId sequence;
  std::uint32_t slot;               // where the scheduler keeps the sequence
  std::uint32_t start;              // tokens whose KV exists already
  std::span<const TokenId> ids;     // at least one
  std::span<const BlockId> blocks;  // block table, covers start + ids.size()
  bool wants_logits;                // false inside a chunked prefill
};

struct StepPlan {
  std::vector<PlanItem> items;  // decodes first, then prefills, the older first
  std::vector<BlockId>
      zero_blocks;  // to be zeroed before the step: another security class wrote them
  std::uint32_t num_prefill_tokens = 0;
  std::uint32_t num_decode_tokens = 0;
  std::uint32_t num_logits = 0;  // items with wants_logits
  std::uint32_t num_preemptions = 0;
  std::uint32_t num_looking_up = 0;      // waiting sequences whose look-up goes on in the next step
  std::uint32_t num_prefix_queries = 0;  // prompt tokens looked up
  std::uint32_t num_prefix_hits = 0;     // prompt tokens found

  std::uint32_t num_tokens() const { return num_prefill_tokens + num_decode_tokens; }
};

enum class SampleStatus : std::uint8_t { ok, bad_logits };  // bad: NaN or infinite

struct SampledToken {
  TokenId token = 0;
  float logprob = 0.0f;  // 0 unless wanted
  SampleStatus status = SampleStatus::ok;
};

struct StepOutcome {
  std::span<const StepEntry> entries;  // cancelled sequences, then the step's tokens in plan order
  std::uint32_t num_tokens = 0;        // entries that carry a token
};

}  // namespace sluice::eng
