// WordCache: the ids of short words that were encoded lately. The library takes microseconds for a
// word, most words of most texts repeat. Exact: a hit compares the whole word and the vocabulary.
//
// One per thread (this_thread()), shared by all vocabularies of the process, so nothing is locked.
// Bounded: kSets * kWays entries of 128 bytes = 1 MiB; four words compete for each set, the oldest
// leaves, so hostile text can only make it useless, not large or slow.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "shared/ids.h"

namespace sluice::tok {

class WordCache {
 public:
  static constexpr std::size_t kWordBytesMax = 46;
  static constexpr std::size_t kIdsMax = 19;

  WordCache();
  static WordCache& this_thread();

  // The ids of `word`, valid until the next put(); empty when it is not there. `vocabulary` is a
  // number that no two vocabularies of the process share, never 0.
  std::span<const TokenId> find(std::uint32_t vocabulary, std::string_view word) const;
  // Words or results that are too long are not kept. REQUIRES: ids not empty.
  void put(std::uint32_t vocabulary, std::string_view word, std::span<const TokenId> ids);

 private:
  static constexpr std::size_t kSets = 2048;
  static constexpr std::size_t kWays = 4;
  struct Entry {
    std::uint32_t vocabulary;  // 0: free
    std::uint8_t word_bytes;
    std::uint8_t num_ids;
    std::array<char, kWordBytesMax> word;
    std::array<TokenId, kIdsMax> ids;
  };
  static_assert(sizeof(Entry) == 128);
  struct Set {
    std::array<Entry, kWays> entries;
  };
  static std::size_t set_index(std::uint32_t vocabulary, std::string_view word);

  std::unique_ptr<std::array<Set, kSets>> sets_;
  std::array<std::uint8_t, kSets> oldest_{};  // the way that the next put() replaces
};

}  // namespace sluice::tok
