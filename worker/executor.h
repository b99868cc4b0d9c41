// Executor: the seam between the engine and whatever computes logits. The CPU and CUDA executors
// and the canned one implement it; the engine never asks which.
//
// A call computes one step: for every span of new tokens of every sequence the KV of those tokens,
// and the logits after the last one where they are wanted. Output depends only on a sequence's own
// ids (P2): not on its batch mates, on chunk borders or on the blocks' numbers.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "shared/confinement.h"
#include "shared/ids.h"
#include "shared/worker_facts.h"

namespace sluice::eng {

// One sequence's part of a step. Spans live until the call returns.
struct SequenceSpan {
  SequenceId sequence;
  std::span<const TokenId> ids;     // new tokens, positions [start, start + ids.size())
  std::uint32_t start;              // tokens whose KV exists already
  std::span<const BlockId> blocks;  // block table: position p lives in blocks[p / block_tokens]
  bool wants_logits;                // after the last id; false inside a chunked prefill
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
  // logits: [number of spans with wants_logits, vocab_size], row order = span order. Owned by the
  // executor, valid until the next call.
  virtual std::span<const float> forward(std::span<const SequenceSpan> spans) = 0;
  // Of the last forward().
  virtual StepWork last_work() const { return {}; }
  // For the log: what computes, and how. One line of printable ASCII without quotes.
  virtual std::string description() const { return {}; }
  // KV memory of these blocks becomes zero (between security classes, P7).
  virtual void zero_blocks(std::span<const BlockId> blocks) = 0;
};

}  // namespace sluice::eng
