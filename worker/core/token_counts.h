// TokenCounts: how often each token occurred in a sequence, kept as it grows, for the penalties.
// Counts only what occurs: an open-addressing table beside a dense list, so that a row is penalised
// in the number of distinct tokens. Not used (and empty) when no penalty is set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "shared/ids.h"

namespace sluice::eng {

struct TokenCount {
  TokenId token;
  std::uint32_t num_output;  // occurrences in the output; 0: in the prompt alone
};

class TokenCounts {
 public:
  // Makes room for `num_ids` further ids without allocation. Keeps its memory over clear().
  void reserve(std::size_t num_ids);
  void clear();
  void add_prompt(TokenId token) { find_or_add(token); }
  void add_output(TokenId token) { ++counts_[find_or_add(token)].num_output; }
  bool is_empty() const { return counts_.empty(); }
  std::span<const TokenCount> counts() const { return counts_; }  // in order of first occurrence
  std::size_t capacity_bytes() const;

 private:
  std::size_t find_or_add(TokenId token);

  std::vector<TokenCount> counts_;
  std::vector<std::uint32_t>
      table_;  // index into counts_ + 1; 0 is empty; a power of two, at most half full
};

}  // namespace sluice::eng
