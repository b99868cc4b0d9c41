// ByteLevelBpe: byte-level BPE as GPT-2, Llama-3, Qwen2 and SmolLM use it. A pattern cuts a text
// into words; each word begins as one token per byte, and while any neighbours are a known merge,
// the merge of the lowest rank, among equal ones the leftmost, is carried out. Every text has
// tokens.
//
// The patterns are matched by PCRE2 with the Unicode properties of its release (10.42: Unicode 14;
// younger letters count as symbols); where a word ends depends on the text behind it, too. Words go
// through the thread's WordCache. Time: linear in the text for the pattern, n log n in the longest
// word. Immutable after construction; safe in any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "shared/ids.h"
#include "tokenizer/byte_level_vocabulary.h"

namespace sluice::tok {

// By the names of GGUF's tokenizer.ggml.pre; nothing: unknown.
std::optional<PreTokenizer> pre_tokenizer(std::string_view name);

// By the expression that the family published; nothing: unknown.
std::optional<PreTokenizer> find_pattern(std::string_view regex);

class ByteLevelBpe {
 public:
  // serial: this vocabulary's number in the word caches. The vocabulary outlives the object and
  // keeps its place.
  ByteLevelBpe(const ByteLevelVocabulary& vocabulary, std::uint32_t serial);
  ByteLevelBpe(ByteLevelBpe&&) noexcept;
  ByteLevelBpe& operator=(ByteLevelBpe&&) noexcept;
  ~ByteLevelBpe();

  // Appends the ids of `text`. REQUIRES: valid UTF-8.
  void encode(std::string_view text, std::vector<TokenId>& ids) const;
  // One word, whatever the pattern says.
  void encode_word(std::string_view word, std::vector<TokenId>& ids) const;
  // Where the word that begins at `begin` ends. REQUIRES: valid UTF-8, begin < size.
  std::size_t word_end(std::string_view text, std::size_t begin) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::tok
