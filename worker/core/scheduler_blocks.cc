// The scheduler's dealings with KV blocks: taking, sharing, giving back, naming full ones.
#include <algorithm>

#include "shared/check.h"
#include "worker/core/scheduler.h"

namespace sluice::eng {

// REQUIRES: a block is free or parked. The least recently used cached block goes when none is free.
BlockId Scheduler::take_block() {
  if (!pool_.has_free()) {
    const std::optional<BlockId> oldest = cache_.oldest_parked();
    CHECK(oldest.has_value());
    cache_.erase(*oldest);
    pool_.reclaim(*oldest);
  }
  const BlockId block = pool_.take();
  is_written_[block.value] = 1;
  return block;
}

void Scheduler::share_block(BlockId block) {
  if (pool_.is_parked(block)) cache_.unpark(block);
  pool_.retain(block);
}

// Gives back blocks [first, end) of the table, the last one first: a chain is evicted from its end.
void Scheduler::release_blocks(Sequence& sequence, std::uint32_t first) {
  while (sequence.blocks.size() > first) {
    const BlockId block = sequence.blocks.back();
    sequence.blocks.pop_back();
    const bool is_named = cache_.contains(block);
    const auto keep = is_named ? BlockPool::Keep::content : BlockPool::Keep::nothing;
    if (pool_.release(block, keep) && is_named) cache_.park(block);
  }
}

// Hashes of the first `num_full` blocks; each is computed once in a sequence's life.
void Scheduler::extend_chain(Sequence& sequence, std::uint32_t num_full) {
  for (auto i = static_cast<std::uint32_t>(sequence.chain.size()); i < num_full; ++i) {
    const auto ids =
        std::span<const TokenId>(sequence.ids).subspan(i * limits_.block_tokens, limits_.block_tokens);
    const BlockHash parent = i == 0 ? BlockHash{} : sequence.chain[i - 1];
    sequence.chain.push_back(block_hash(limits_.hash_key, parent, sequence.salt, ids));
  }
}

PrefixCache::Content Scheduler::content(const Sequence& sequence, std::uint32_t index) const {
  return {sequence.chain[index], index == 0 ? BlockHash{} : sequence.chain[index - 1], sequence.salt,
          std::span<const TokenId>(sequence.ids)
              .subspan(index * limits_.block_tokens, limits_.block_tokens)};
}

// Puts the longest cached prefix at the head of the (empty) block table; its blocks. At least one
// token stays to be computed: logits come from it.
std::uint32_t Scheduler::share_prefix(Sequence& sequence) {
  CHECK(sequence.blocks.empty());
  if (!limits_.prefix_cache) return 0;
  const std::uint32_t num_full = (sequence.num_ids() - 1) / limits_.block_tokens;
  for (std::uint32_t i = 0; i < num_full; ++i) {
    extend_chain(sequence, i + 1);
    const std::optional<BlockId> block = cache_.find(content(sequence, i));
    if (!block) return i;
    share_block(*block);
    sequence.blocks.push_back(*block);
  }
  return num_full;
}

// Names the blocks that the last step filled. Content that has a block already keeps that one.
void Scheduler::register_blocks(Sequence& sequence) {
  if (!limits_.prefix_cache) return;
  const std::uint32_t num_full = sequence.num_computed / limits_.block_tokens;
  extend_chain(sequence, num_full);
  for (; sequence.num_registered < num_full; ++sequence.num_registered)
    cache_.insert(sequence.blocks[sequence.num_registered],
                  content(sequence, sequence.num_registered));
}

void Scheduler::check_invariants() const {
  pool_.check_invariants();
  cache_.check_invariants();
  CHECK(cache_.num_parked() == pool_.num_parked());
  std::vector<std::uint32_t> num_tables(limits_.num_blocks, 0);
  for (const Slot slot : running_) {
    const Sequence& sequence = slots_[slot];
    CHECK(sequence.state == SequenceState::running && sequence.num_uncomputed() > 0);
    CHECK(sequence.blocks.size() >= blocks_for(sequence.num_computed));
    CHECK(sequence.num_output() < sequence.output_max);
    for (const BlockId block : sequence.blocks) ++num_tables[block.value];
  }
  for (std::uint32_t i = 0; i < limits_.num_blocks; ++i) {
    CHECK(pool_.num_refs(BlockId{i}) == num_tables[i]);
    CHECK(pool_.is_parked(BlockId{i}) <= cache_.contains(BlockId{i}));
    CHECK(is_written_[i] != 0 || (num_tables[i] == 0 && !cache_.contains(BlockId{i})));
  }
  std::uint32_t tokens = 0;
  std::uint32_t blocks = 0;
  for (const Slot slot : waiting_) {
    const Sequence& sequence = slots_[slot];
    CHECK(sequence.state == SequenceState::waiting && sequence.blocks.empty());
    CHECK(sequence.num_computed == 0);
    tokens += sequence.num_ids();
    blocks += blocks_for(sequence.num_ids() + 1);
  }
  CHECK(tokens == waiting_tokens_ && blocks == waiting_blocks_);
  const auto key = [this](Slot slot) { return slots_[slot].key; };
  CHECK(std::ranges::is_sorted(waiting_, std::ranges::greater{}, key));
  CHECK(running_.size() + waiting_.size() + unused_slots_.size() == slots_.size());
  if (limits_.classes == ClassPolicy::separate)
    CHECK(std::ranges::all_of(running_, [this](Slot slot) {
      return slots_[slot].security_class == resident_class_;
    }));
}

}  // namespace sluice::eng
