// Executor: the seam between the engine and whatever computes logits. The CPU and CUDA executors
// and the canned one implement it; the engine never asks which.
//
// A call computes one step: for every span of new tokens of every sequence the KV of those tokens,
// the logits after the last ones where they are wanted, and the final hidden states where those
// are. Output depends only on a sequence's own ids (P2): not on its batch mates, on chunk borders
// or on the blocks' numbers.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "shared/confinement.h"
#include "shared/ids.h"
#include "shared/limits.h"
#include "shared/worker_facts.h"

namespace sluice::eng {

// One sequence's part of a step. Spans live until the call returns.
struct SequenceSpan {
  SequenceId sequence;
  std::span<const TokenId> ids;     // new tokens, positions [start, start + ids.size())
  std::uint32_t start;              // tokens whose KV exists already
  std::span<const BlockId> blocks;  // block table: position p lives in blocks[p / block_tokens]
  std::uint32_t num_logits;         // rows after the last ids; 0 inside a chunked prefill
  bool wants_hidden = false;        // final hidden states of all ids
};

// Rows of logits in one call, at most.
constexpr std::uint32_t logit_rows_max(const WorkerFacts& facts) {
  return facts.sequences_max + kStepScoresMax;
}

// Hidden states behind the final norm, one row per token. Row r begins at data + r * stride.
struct HiddenRows {
  const float* data = nullptr;
  std::size_t stride = 0;
  std::size_t num_rows = 0;
};

// What a step took, from shapes and counts alone (no clock): a lower bound, to be held against what
// the device can do. Zero where there is no model to speak of.
struct StepWork {
  std::uint64_t operations = 0;   // multiplications and additions
  std::uint64_t bytes_moved = 0;  // weights and KV that had to be read, KV written
};

class Executor {
 public:
  virtual ~Executor() = default;
  virtual WorkerFacts facts() const = 0;
  // What forward() asks of the system beyond memory. An executor on a device says `files`.
  virtual DeviceAccess device_access() const { return DeviceAccess::none; }
  // logits: [sum of num_logits, vocab_size], in the order of spans, then of ids. Owned by the
  // executor, valid until the next call.
  virtual std::span<const float> forward(std::span<const SequenceSpan> spans) = 0;
  // Of the last forward(): [ids of the spans with wants_hidden, facts().embedding_size], likewise.
  // REQUIRES: embedding_size > 0.
  virtual HiddenRows hidden() const { return {}; }
  virtual StepWork last_work() const { return {}; }
  // For the log: what computes, and how. One line of printable ASCII without quotes.
  virtual std::string description() const { return {}; }
  // KV memory of these blocks becomes zero (between security classes, P7).
  virtual void zero_blocks(std::span<const BlockId> blocks) = 0;
};

}  // namespace sluice::eng
