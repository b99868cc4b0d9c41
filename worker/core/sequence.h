// Sequence: one token stream that the scheduler extends. Plain data; the scheduler owns and changes
// it, the engine reads it to build a step and to sample.
//
//   ids:      | prompt ............ | output ....... |          num_ids = prompt + output
//   KV:       | computed ................ |                     positions [0, num_computed)
//   blocks:   [b0][b1][b2]...                                   position p lives in blocks[p /
//   block_tokens]
//
// Invariants: num_computed < ids.size() while the sequence lives (the last id's KV is computed by
// the step that samples after it); blocks cover num_computed, and with num_promised more they cover
// ids while it runs; chain[i] is the hash of full block i. While it waits, blocks hold the KV of
// the first ids: found in the prefix cache, or kept over a preemption.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "shared/clock.h"
#include "shared/ids.h"
#include "shared/messages.h"
#include "shared/sampling_params.h"
#include "worker/core/block_hash.h"
#include "worker/core/token_counts.h"

namespace sluice::eng {

enum class SequenceState : std::uint8_t { absent, waiting, running, leaving };

// Who goes first: preempted sequences, then the earlier virtual arrival (arrival + priority times
// kPriorityAging, so that no priority starves another for ever), then the smaller id.
struct OrderKey {
  bool is_fresh = true;  // false once preempted: back to the front
  Tick virtual_arrival{};
  SequenceId id{};
  friend constexpr auto operator<=>(const OrderKey&, const OrderKey&) = default;
};

struct Sequence {
  SequenceId id{};
  SequenceState state = SequenceState::absent;
  OrderKey key;
  BlockSalt salt{};
  std::uint32_t security_class = 0;
  std::uint32_t choice = 0;
  std::uint32_t num_prompt = 0;
  std::uint32_t output_max = 0;  // total output allowed; 0: it ends with its prompt
  SequenceTask task = SequenceTask::generate;
  std::uint32_t next_scored = 0;     // prompt index whose log-probability comes next; 0: none
  std::uint32_t num_computed = 0;    // positions whose KV exists
  std::uint32_t num_promised = 0;    // blocks that it may take without asking
  std::uint32_t num_registered = 0;  // full blocks that were offered to the prefix cache
  std::uint32_t cached_tokens = 0;   // prompt tokens found in the prefix cache at first admission
  bool was_admitted = false;         // once or more
  bool has_emitted = false;          // a token since its submission
  SamplingParams sampling;
  std::vector<TokenId> ids;      // prompt, then output
  std::vector<BlockId> blocks;   // block table
  std::vector<BlockHash> chain;  // hashes of the leading full blocks, as far as known
  std::vector<TokenId> stop_ids;
  std::vector<LogitBias> bias;
  TokenCounts counts;  // empty unless a penalty needs it

  std::uint32_t num_ids() const { return static_cast<std::uint32_t>(ids.size()); }
  std::uint32_t num_output() const { return num_ids() - num_prompt; }
  std::uint32_t num_uncomputed() const { return num_ids() - num_computed; }
  // The first position of which more than KV is needed: what lies before it may come from the
  // prefix cache.
  std::uint32_t first_needed() const {
    if (task == SequenceTask::embed) return 0;
    return next_scored > 0 ? next_scored - 1 : num_ids() - 1;
  }
  bool is_decoding() const { return num_uncomputed() == 1 && num_output() > 0; }
};

}  // namespace sluice::eng
