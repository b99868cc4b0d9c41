// VocabularySource: what a Tokenizer is made of, whichever file it comes from: a SentencePiece
// model for the library, or a byte-level BPE, with what the files say beyond the vocabulary. Values
// only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "shared/ids.h"
#include "tokenizer/byte_level_vocabulary.h"
#include "tokenizer/tokenizer_config.h"

namespace sluice::tok {

struct VocabularySource {
  std::string model_proto;  // as parse_model_proto and the library read it; empty for byte_level
  std::optional<ByteLevelVocabulary> byte_level;
  std::vector<TokenId> visible;     // ascending: outside of text, but of the output
  std::optional<TokenId> bos, eos;  // control pieces
  TokenizerConfig config;
};

}  // namespace sluice::tok
