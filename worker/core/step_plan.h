// StepPlan and StepOutcome: what one step computes, and what came of it. Plain values; the spans
// inside point into the scheduler and hold until its next call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shared/ids.h"
#include "shared/messages.h"

namespace sluice::eng {

// One sequence's part: the KV of ids [start, start + ids.size()), logits after the last of them.
struct PlanItem {
  SequenceId sequence;
  std::uint32_t slot;               // where the scheduler keeps the sequence
  std::uint32_t start;              // tokens whose KV exists already
  std::span<const TokenId> ids;     // at least one
  std::span<const BlockId> blocks;  // block table, covers start + ids.size()
  std::uint32_t num_logits;         // rows after the last ids; 0 inside a chunked prefill
  bool wants_hidden = false;        // final hidden states of all ids
  bool ends_embedding = false;      // they complete those of the prompt
};

struct StepPlan {
  std::vector<PlanItem> items;  // decodes first, then prefills, the older first
  std::vector<BlockId>
      zero_blocks;  // to be zeroed before the step: another security class wrote them
  std::uint32_t num_prefill_tokens = 0;
  std::uint32_t num_decode_tokens = 0;
  std::uint32_t num_logits = 0;      // rows of all items
  std::uint32_t num_embeddings = 0;  // items with ends_embedding
  std::uint32_t num_preemptions = 0;
  std::uint32_t num_looking_up = 0;      // waiting sequences whose look-up goes on in the next step
  std::uint32_t num_prefix_queries = 0;  // prompt tokens looked up
  std::uint32_t num_prefix_hits = 0;     // prompt tokens found

  std::uint32_t num_tokens() const { return num_prefill_tokens + num_decode_tokens; }
};

enum class SampleStatus : std::uint8_t { ok, bad_logits };  // bad: NaN or infinite

// What came of one row of logits, or of one embedding. The spans hold until the next step.
struct SampledToken {
  TokenId token = 0;     // of a prompt's row: not used
  float logprob = 0.0f;  // 0 unless wanted; of a prompt's row: of the prompt id that follows
  SampleStatus status = SampleStatus::ok;
  std::span<const TopLogprob> top{};   // the likeliest, as many as wanted
  std::span<const float> embedding{};  // empty for a row of logits
};

struct StepOutcome {
  std::span<const StepEntry> entries;  // cancelled sequences, then the step's tokens in plan order
  std::span<const TopLogprob> top;     // of the entries, one after another
  std::span<const float> values;       // likewise
  std::uint32_t num_tokens = 0;        // entries that carry a token
};

}  // namespace sluice::eng
