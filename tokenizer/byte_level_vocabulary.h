// ByteLevelVocabulary: the tokens and merges of a byte-level BPE (GPT-2, Llama-3, Qwen2, SmolLM) as
// bytes and ids. Published files write each byte of a token as one printable character (GPT-2's
// alphabet: printable Latin-1 as it is, the 68 other bytes as U+0100 and following) and a merge as
// two tokens with a space between. Values only; constant after making.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/ids.h"
#include "shared/result.h"
#include "tokenizer/model_proto.h"

namespace sluice::tok {

// Which pattern cuts texts into words.
enum class PreTokenizer : std::uint8_t { gpt2, llama3, qwen2, smollm };

struct ByteLevelVocabulary {
  struct Merge {
    TokenId left, right, result;
  };

  PreTokenizer pre_tokenizer = PreTokenizer::gpt2;
  // A word that is a token stays one, whatever its merges; nothing: as the pattern's family does.
  std::optional<bool> keeps_known_words;
  std::vector<std::string> pieces;  // bytes of each token; the text of those that are not normal
  std::vector<bool> is_normal;      // text may yield it
  std::vector<Merge> merges;        // of normal tokens, by rank
  std::vector<TokenId> byte_ids;    // [256], normal
};

// pieces: texts as published, unique and valid UTF-8; normal ones are written in the alphabet.
// Errors (bad_file): a token outside the alphabet, a byte without a token, a merge that is none.
Result<ByteLevelVocabulary> make_byte_level_vocabulary(PreTokenizer pre_tokenizer,
                                                       std::span<const PieceFacts> pieces,
                                                       std::span<const std::string_view> merges);

}  // namespace sluice::tok
