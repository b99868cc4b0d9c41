// A set-associative table of word -> ids; see word_cache.h.
#include "tokenizer/word_cache.h"

#include <algorithm>
#include <cstring>

#include "shared/random.h"

namespace sluice::tok {

WordCache::WordCache() : sets_(std::make_unique<std::array<Set, kSets>>()) {}

WordCache& WordCache::this_thread() {
  thread_local WordCache cache;
  return cache;
}

std::size_t WordCache::set_index(std::uint32_t vocabulary, std::string_view word) {
  std::uint64_t hash = vocabulary ^ (std::uint64_t{word.size()} << 32);
  while (!word.empty()) {
    std::uint64_t part = 0;
    const std::size_t size = std::min(word.size(), sizeof part);
    std::memcpy(&part, word.data(), size);
    hash = mix64(hash ^ part);
    word.remove_prefix(size);
  }
  return hash % kSets;
}

std::span<const TokenId> WordCache::find(std::uint32_t vocabulary, std::string_view word) const {
  if (word.size() > kWordBytesMax) return {};
  for (const Entry& entry : (*sets_)[set_index(vocabulary, word)].entries)
    if (entry.vocabulary == vocabulary && entry.word_bytes == word.size() &&
        std::memcmp(entry.word.data(), word.data(), word.size()) == 0)
      return {entry.ids.data(), entry.num_ids};
  return {};
}

void WordCache::put(std::uint32_t vocabulary, std::string_view word, std::span<const TokenId> ids) {
  if (word.size() > kWordBytesMax || ids.size() > kIdsMax) return;
  const std::size_t index = set_index(vocabulary, word);
  Entry& entry = (*sets_)[index].entries[oldest_[index]];
  oldest_[index] = static_cast<std::uint8_t>((oldest_[index] + 1) % kWays);
  entry.vocabulary = vocabulary;
  entry.word_bytes = static_cast<std::uint8_t>(word.size());
  entry.num_ids = static_cast<std::uint8_t>(ids.size());
  std::ranges::copy(word, entry.word.begin());
  std::ranges::copy(ids, entry.ids.begin());
}

}  // namespace sluice::tok
