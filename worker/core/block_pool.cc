// Three states and a stack of free blocks.
#include "worker/core/block_pool.h"

#include "shared/check.h"

namespace sluice::eng {

BlockPool::BlockPool(std::uint32_t num_blocks)
    : refs_(num_blocks, 0), state_(num_blocks, State::free) {
  free_.reserve(num_blocks);
  for (std::uint32_t i = num_blocks; i > 0; --i) free_.push_back(BlockId{i - 1});
}

BlockId BlockPool::take() {
  CHECK(!free_.empty());
  const BlockId block = free_.back();
  free_.pop_back();
  refs_[block.value] = 1;
  state_[block.value] = State::used;
  return block;
}

void BlockPool::retain(BlockId block) {
  CHECK(state_.at(block.value) != State::free);
  if (state_[block.value] == State::parked) --num_parked_;
  state_[block.value] = State::used;
  ++refs_[block.value];
}

bool BlockPool::release(BlockId block, Keep keep) {
  CHECK(state_.at(block.value) == State::used);
  if (--refs_[block.value] > 0) return false;
  if (keep == Keep::content) {
    state_[block.value] = State::parked;
    ++num_parked_;
  } else {
    state_[block.value] = State::free;
    free_.push_back(block);
  }
  return true;
}

void BlockPool::reclaim(BlockId block) {
  CHECK(state_.at(block.value) == State::parked);
  state_[block.value] = State::free;
  --num_parked_;
  free_.push_back(block);
}

void BlockPool::check_invariants() const {
  std::vector<bool> on_stack(refs_.size(), false);
  for (const BlockId block : free_) {
    CHECK(!on_stack[block.value]);
    on_stack[block.value] = true;
  }
  std::uint32_t num_parked = 0;
  for (std::size_t i = 0; i < refs_.size(); ++i) {
    CHECK((state_[i] == State::free) == on_stack[i]);
    CHECK((state_[i] == State::used) == (refs_[i] > 0));
    if (state_[i] == State::parked) ++num_parked;
  }
  CHECK(num_parked == num_parked_);
}

}  // namespace sluice::eng
