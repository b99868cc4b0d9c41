// Linear probing over a table that never fills beyond one half.
#include "worker/core/token_counts.h"

#include <algorithm>
#include <bit>

#include "shared/random.h"

namespace sluice::eng {

void TokenCounts::reserve(std::size_t num_ids) {
  const std::size_t wanted =
      std::bit_ceil(std::max<std::size_t>(16, 2 * (counts_.size() + num_ids)));
  counts_.reserve(counts_.size() + num_ids);
  if (table_.size() >= wanted) return;
  table_.assign(wanted, 0);
  const std::vector<TokenCount> old = std::move(counts_);
  counts_.clear();
  counts_.reserve(old.size() + num_ids);
  for (const TokenCount& count : old)
    counts_[find_or_add(count.token)].num_output = count.num_output;
}

void TokenCounts::clear() {
  if (counts_.empty()) return;
  counts_.clear();
  std::fill(table_.begin(), table_.end(), 0u);
}

std::size_t TokenCounts::capacity_bytes() const {
  return counts_.capacity() * sizeof(TokenCount) + table_.capacity() * sizeof(std::uint32_t);
}

std::size_t TokenCounts::find_or_add(TokenId token) {
  if (2 * (counts_.size() + 1) > table_.size()) reserve(std::max<std::size_t>(8, counts_.size()));
  const std::size_t mask = table_.size() - 1;
  for (std::size_t i = mix64(token) & mask;; i = (i + 1) & mask) {
    if (table_[i] == 0) {
      counts_.push_back({token, 0});
      table_[i] = static_cast<std::uint32_t>(counts_.size());
      return counts_.size() - 1;
    }
    if (counts_[table_[i] - 1].token == token) return table_[i] - 1;
  }
}

}  // namespace sluice::eng
