// PrefixCache: finds a full KV block by the chained hash of everything up to its end
// (block_hash.h), and says which cached block to give up first.
//
// A hit compares the stored parent hash, salt and ids, so that an accident of hashes never hands
// out another prefix's KV. Blocks that no table holds queue for eviction, least recently used
// first; a finished sequence parks its last block first, so that a chain is given up from its end.
// Order depends on nothing but the calls. Pure; one owner; nothing allocates after construction.
// Invariants: an entry per block at most; the eviction queue holds exactly the parked entries.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "shared/ids.h"
#include "worker/core/block_hash.h"

namespace sluice::eng {

class PrefixCache {
 public:
  PrefixCache(std::uint32_t num_blocks, std::uint32_t block_tokens);

  // What a full block holds: `hash` is block_hash(key, parent, salt, ids).
  struct Content {
    BlockHash hash;
    BlockHash parent;  // 0,0 for the first block
    BlockSalt salt;
    std::span<const TokenId> ids;  // [block_tokens]
  };

  std::optional<BlockId> find(const Content& content) const;
  // Names `block`. False when another block has that name already: then this one stays unnamed.
  bool insert(BlockId block, const Content& content);
  void erase(BlockId block);  // forgets a block; in the eviction queue or not
  bool contains(BlockId block) const { return entries_[block.value].is_present; }

  // The last table gave `block` up: it queues for eviction. REQUIRES: contains(block).
  void park(BlockId block);
  // A table holds it again.
  void unpark(BlockId block);
  // The block to give up first; nothing when none is parked. Still present until erase().
  std::optional<BlockId> oldest_parked() const;

  std::uint32_t num_entries() const { return num_entries_; }
  std::uint32_t num_parked() const { return num_parked_; }
  void check_invariants() const;  // O(num_blocks)

 private:
  struct Entry {
    BlockHash hash{};
    BlockHash parent{};
    BlockSalt salt{};
    std::uint32_t previous = 0;  // in the eviction queue: index + 1; 0 is the end
    std::uint32_t next = 0;
    bool is_present = false;
    bool is_parked = false;
  };

  bool equals(std::uint32_t index, const Content& content) const;
  std::size_t home(const BlockHash& hash) const { return hash[0] & (table_.size() - 1); }

  std::uint32_t block_tokens_;
  std::vector<Entry> entries_;  // [num_blocks]
  std::vector<TokenId> ids_;    // [num_blocks, block_tokens]
  std::vector<std::uint32_t>
      table_;                 // linear probing: block index + 1; 0 is empty; at most half full
  std::uint32_t oldest_ = 0;  // eviction queue: index + 1
  std::uint32_t newest_ = 0;
  std::uint32_t num_entries_ = 0;
  std::uint32_t num_parked_ = 0;
};

}  // namespace sluice::eng
