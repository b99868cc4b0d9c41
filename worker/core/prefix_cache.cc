// A linear-probing table with backward-shift deletion, and a doubly linked eviction queue by index.
#include "worker/core/prefix_cache.h"

#include <algorithm>
#include <bit>

#include "shared/check.h"

namespace sluice::eng {

PrefixCache::PrefixCache(std::uint32_t num_blocks, std::uint32_t block_tokens)
    : block_tokens_(block_tokens),
      entries_(num_blocks),
      ids_(std::size_t{num_blocks} * block_tokens),
      table_(std::bit_ceil(std::max<std::size_t>(16, 2 * std::size_t{num_blocks})), 0) {}

bool PrefixCache::equals(std::uint32_t index, const Content& content) const {
  const Entry& entry = entries_[index];
  return entry.hash == content.hash && entry.parent == content.parent &&
         entry.salt == content.salt &&
         std::equal(content.ids.begin(), content.ids.end(),
                    ids_.begin() + static_cast<std::ptrdiff_t>(std::size_t{index} * block_tokens_));
}

std::optional<BlockId> PrefixCache::find(const Content& content) const {
  CHECK(content.ids.size() == block_tokens_);
  const std::size_t mask = table_.size() - 1;
  for (std::size_t i = home(content.hash); table_[i] != 0; i = (i + 1) & mask)
    if (equals(table_[i] - 1, content)) return BlockId{table_[i] - 1};
  return std::nullopt;
}

bool PrefixCache::insert(BlockId block, const Content& content) {
  CHECK(block.value < entries_.size() && !contains(block));
  if (find(content)) return false;
  Entry& entry = entries_[block.value];
  entry.hash = content.hash;
  entry.parent = content.parent;
  entry.salt = content.salt;
  entry.is_present = true;
  std::copy(content.ids.begin(), content.ids.end(),
            ids_.begin() + static_cast<std::ptrdiff_t>(std::size_t{block.value} * block_tokens_));
  const std::size_t mask = table_.size() - 1;
  std::size_t i = home(content.hash);
  while (table_[i] != 0) i = (i + 1) & mask;
  table_[i] = block.value + 1;
  ++num_entries_;
  return true;
}

void PrefixCache::erase(BlockId block) {
  CHECK(contains(block));
  if (entries_[block.value].is_parked) unpark(block);
  const std::size_t mask = table_.size() - 1;
  std::size_t hole = home(entries_[block.value].hash);
  while (table_[hole] != block.value + 1) {
    CHECK(table_[hole] != 0);
    hole = (hole + 1) & mask;
  }
  // Backward shift: an entry behind the hole moves into it unless its home lies after the hole.
  for (std::size_t i = (hole + 1) & mask; table_[i] != 0; i = (i + 1) & mask) {
    const std::size_t at_home = home(entries_[table_[i] - 1].hash);
    if (((i - at_home) & mask) < ((i - hole) & mask)) continue;
    table_[hole] = table_[i];
    hole = i;
  }
  table_[hole] = 0;
  entries_[block.value].is_present = false;
  --num_entries_;
}

void PrefixCache::park(BlockId block) {
  Entry& entry = entries_.at(block.value);
  CHECK(entry.is_present && !entry.is_parked);
  entry.is_parked = true;
  entry.previous = newest_;
  entry.next = 0;
  if (newest_ != 0) entries_[newest_ - 1].next = block.value + 1;
  newest_ = block.value + 1;
  if (oldest_ == 0) oldest_ = newest_;
  ++num_parked_;
}

void PrefixCache::unpark(BlockId block) {
  Entry& entry = entries_.at(block.value);
  CHECK(entry.is_present && entry.is_parked);
  entry.is_parked = false;
  (entry.previous != 0 ? entries_[entry.previous - 1].next : oldest_) = entry.next;
  (entry.next != 0 ? entries_[entry.next - 1].previous : newest_) = entry.previous;
  --num_parked_;
}

std::optional<BlockId> PrefixCache::oldest_parked() const {
  if (oldest_ == 0) return std::nullopt;
  return BlockId{oldest_ - 1};
}

void PrefixCache::check_invariants() const {
  std::uint32_t num_present = 0;
  std::uint32_t num_parked = 0;
  for (const Entry& entry : entries_) {
    num_present += entry.is_present ? 1u : 0u;
    num_parked += entry.is_parked ? 1u : 0u;
    CHECK(entry.is_present || !entry.is_parked);
  }
  CHECK(num_present == num_entries_ && num_parked == num_parked_);
  std::uint32_t num_queued = 0;
  std::uint32_t before = 0;
  for (std::uint32_t at = oldest_; at != 0; at = entries_[at - 1].next) {
    CHECK(entries_[at - 1].is_parked && entries_[at - 1].previous == before);
    CHECK(++num_queued <= num_parked);
    before = at;
  }
  CHECK(before == newest_ && num_queued == num_parked);
  std::uint32_t num_named = 0;
  for (const std::uint32_t at : table_) num_named += at != 0 ? 1u : 0u;
  CHECK(num_named == num_entries_);
  for (std::uint32_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].is_present) continue;
    const auto ids =
        std::span<const TokenId>(ids_).subspan(std::size_t{i} * block_tokens_, block_tokens_);
    CHECK(find({entries_[i].hash, entries_[i].parent, entries_[i].salt, ids}) == BlockId{i});
  }
}

}  // namespace sluice::eng
