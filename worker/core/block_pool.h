// BlockPool: which KV blocks are free, used or parked, and how many block tables hold each.
//
//   free --take--> used (refs >= 1) --last release--> parked (content kept by the prefix cache) or
//   free
//                    ^--------------retain---------------|                     parked --reclaim-->
//                    free
//
// Invariant: num_free + num_used + num_parked == num_blocks, and a block has references exactly
// while it is used. Wrong calls are our own bugs: CHECK. Pure; one owner; nothing allocates after
// construction.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/ids.h"

namespace sluice::eng {

class BlockPool {
 public:
  enum class Keep : std::uint8_t { nothing, content };  // what becomes of a block nobody holds

  explicit BlockPool(std::uint32_t num_blocks);

  bool has_free() const { return !free_.empty(); }
  BlockId take();              // REQUIRES: has_free(). The block that was freed last
  void retain(BlockId block);  // one more table holds a used or parked block
  // One table fewer. True when it was the last: the block is now parked or free, as `keep` says.
  bool release(BlockId block, Keep keep);
  void reclaim(BlockId block);  // parked -> free

  std::uint32_t num_refs(BlockId block) const { return refs_[block.value]; }
  bool is_parked(BlockId block) const { return state_[block.value] == State::parked; }
  std::uint32_t num_blocks() const { return static_cast<std::uint32_t>(refs_.size()); }
  std::uint32_t num_free() const { return static_cast<std::uint32_t>(free_.size()); }
  std::uint32_t num_parked() const { return num_parked_; }
  std::uint32_t num_used() const { return num_blocks() - num_free() - num_parked_; }
  void check_invariants() const;  // O(num_blocks)

 private:
  enum class State : std::uint8_t { free, used, parked };

  std::vector<std::uint32_t> refs_;  // [num_blocks] tables that hold the block
  std::vector<State> state_;         // [num_blocks]
  std::vector<BlockId> free_;        // stack
  std::uint32_t num_parked_ = 0;
};

}  // namespace sluice::eng
