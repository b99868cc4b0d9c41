// The scheduler's dealings with KV blocks: taking, sharing, giving back, naming full ones.
#include <algorithm>
#include <limits>

#include "shared/check.h"
#include "worker/core/scheduler.h"

namespace sluice::eng {

// Blocks that `sequence` may take later without asking. REQUIRES: so many are available.
void Scheduler::promise(Sequence& sequence, std::uint32_t num_blocks) {
  CHECK(num_blocks <= num_available());
  sequence.num_promised += num_blocks;
  num_promised_ += num_blocks;
}

void Scheduler::break_promise(Sequence& sequence) {
  num_promised_ -= sequence.num_promised;
  sequence.num_promised = 0;
}

// Makes `wanted` blocks available, where they are not, out of what is held without being used: by
// sequences that leave, then by the last `num_behind` of the queue, the very last first. Gives back
// blocks_left of them at most; false when that was not enough.
bool Scheduler::reclaim(std::uint32_t wanted, std::size_t num_behind, std::uint32_t& blocks_left) {
  const auto is_enough = [&] { return num_available() >= wanted; };
  const auto take_from = [&](Sequence& sequence) {
    for (; !sequence.blocks.empty() && blocks_left > 0 && !is_enough(); --blocks_left)
      release_blocks(sequence, static_cast<std::uint32_t>(sequence.blocks.size()) - 1);
  };
  while (!leaving_.empty() && blocks_left > 0 && !is_enough()) {
    const Slot slot = leaving_.back();
    take_from(slots_[slot]);
    if (!slots_[slot].blocks.empty()) break;
    leaving_.pop_back();
    recycle(slot);
  }
  for (std::size_t i = 0; i < num_behind && blocks_left > 0 && !is_enough(); ++i)
    take_from(slots_[waiting_[i]]);
  return is_enough();
}

void Scheduler::release_leaving(std::uint32_t& blocks_left) {
  while (!leaving_.empty() && blocks_left > 0) {
    const Slot slot = leaving_.back();
    const auto num_blocks = static_cast<std::uint32_t>(slots_[slot].blocks.size());
    const std::uint32_t num_released = std::min(num_blocks, blocks_left);
    blocks_left -= num_released;
    release_blocks(slots_[slot], num_blocks - num_released);
    if (num_released < num_blocks) return;
    leaving_.pop_back();
    recycle(slot);
  }
}

// All that is held without being used, at once.
void Scheduler::give_back_all() {
  std::uint32_t blocks_left = std::numeric_limits<std::uint32_t>::max();
  release_leaving(blocks_left);
  for (const Slot slot : waiting_) release_blocks(slots_[slot], 0);
}

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
    const auto ids = std::span<const TokenId>(sequence.ids)
                         .subspan(i * limits_.block_tokens, limits_.block_tokens);
    const BlockHash parent = i == 0 ? BlockHash{} : sequence.chain[i - 1];
    sequence.chain.push_back(block_hash(limits_.hash_key, parent, sequence.salt, ids));
  }
}

PrefixCache::Content Scheduler::content(const Sequence& sequence, std::uint32_t index) const {
  return {sequence.chain[index], index == 0 ? BlockHash{} : sequence.chain[index - 1],
          sequence.salt,
          std::span<const TokenId>(sequence.ids)
              .subspan(index * limits_.block_tokens, limits_.block_tokens)};
}

// Goes on looking up the cached prefix of a waiting sequence and puts what it finds at the end of
// the block table. One of them takes half of what the step has left for that, so that the next ones
// find something, too. At least one token stays to be computed, because logits come from it, and
// all from the first position whose own result is wanted.
Scheduler::Lookup Scheduler::find_prefix(Sequence& sequence, std::size_t num_behind) {
  if (!limits_.prefix_cache) return Lookup::over;
  const std::uint32_t num_full = sequence.first_needed() / limits_.block_tokens;
  std::uint32_t piece = lookup_left_ - lookup_left_ / 2;
  for (auto i = static_cast<std::uint32_t>(sequence.blocks.size()); i < num_full; ++i) {
    if (piece == 0) return Lookup::goes_on;
    --piece;
    --lookup_left_;
    extend_chain(sequence, i + 1);
    const std::optional<BlockId> block = cache_.find(content(sequence, i));
    if (!block) return Lookup::over;
    if (pool_.is_parked(*block) && !reclaim(1, num_behind, release_left_)) return Lookup::no_room;
    share_block(*block);
    sequence.blocks.push_back(*block);
  }
  return Lookup::over;
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
  std::uint32_t num_promised = 0;
  for (const Slot slot : running_) {
    const Sequence& sequence = slots_[slot];
    CHECK(sequence.state == SequenceState::running && sequence.num_uncomputed() > 0);
    CHECK(sequence.blocks.size() >= blocks_for(sequence.num_computed));
    CHECK(sequence.blocks.size() + sequence.num_promised >= blocks_for(sequence.num_ids() - 1));
    num_promised += sequence.num_promised;
    CHECK(sequence.num_output() < std::max(sequence.output_max, 1u));
    for (const BlockId block : sequence.blocks) ++num_tables[block.value];
  }
  CHECK(num_promised == num_promised_);
  CHECK(num_promised_ <= pool_.num_free() + pool_.num_parked());
  for (const Slot slot : leaving_) {
    CHECK(slots_[slot].state == SequenceState::leaving && !slots_[slot].blocks.empty());
    for (const BlockId block : slots_[slot].blocks) ++num_tables[block.value];
  }
  for (const Slot slot : waiting_)
    for (const BlockId block : slots_[slot].blocks) ++num_tables[block.value];
  for (std::uint32_t i = 0; i < limits_.num_blocks; ++i) {
    CHECK(pool_.num_refs(BlockId{i}) == num_tables[i]);
    CHECK(pool_.is_parked(BlockId{i}) <= cache_.contains(BlockId{i}));
    CHECK(is_written_[i] != 0 || (num_tables[i] == 0 && !cache_.contains(BlockId{i})));
  }
  std::uint32_t tokens = 0;
  std::uint32_t blocks = 0;
  for (const Slot slot : waiting_) {
    const Sequence& sequence = slots_[slot];
    CHECK(sequence.state == SequenceState::waiting && sequence.num_computed == 0);
    CHECK(sequence.blocks.size() * limits_.block_tokens < sequence.num_ids());
    CHECK(sequence.num_promised == 0);
    tokens += sequence.num_ids();
    blocks += blocks_for(sequence.num_ids() + 1);
  }
  CHECK(tokens == waiting_tokens_ && blocks == waiting_blocks_);
  const auto key = [this](Slot slot) { return slots_[slot].key; };
  CHECK(std::ranges::is_sorted(waiting_, std::ranges::greater{}, key));
  CHECK(!looking_up_ || slots_[*looking_up_].state == SequenceState::waiting);
  CHECK(running_.size() + waiting_.size() + leaving_.size() + unused_slots_.size() ==
        slots_.size());
  if (limits_.classes == ClassPolicy::separate)
    CHECK(std::ranges::all_of(
        running_, [this](Slot slot) { return slots_[slot].security_class == resident_class_; }));
}

}  // namespace sluice::eng
