// The vocabulary inside a GGUF file (keys tokenizer.ggml.*, tokenizer.chat_template) as a
// SentencePiece model, so that the same library encodes with it. "llama" is read: SentencePiece's
// BPE with its scores. Byte-level BPE ("gpt2") and others are refused by name.
//
// User text never yields a token of type control or user-defined, nor one that begins or ends a
// sequence: the library gets all of them as control pieces. User-defined ones keep their text in
// the output unless they look special (<|...|>). A user-defined token of a single character becomes
// a normal piece: the library finds single characters in text whatever their type.
//
// Input is hostile: duplicate, empty or invalid tokens, scores that are no numbers, lists of
// different lengths and ids out of range are refused with key and reason. Pure; no thread rule.
#pragma once

#include <string>
#include <vector>

#include "shared/gguf.h"
#include "shared/ids.h"
#include "shared/result.h"
#include "tokenizer/tokenizer_config.h"

namespace sluice::tok {

struct GgufVocabulary {
  std::string model_proto;       // as parse_model_proto and the library read it
  std::vector<TokenId> visible;  // ascending: control pieces whose text belongs to the output
  TokenizerConfig config;
};

Result<GgufVocabulary> read_gguf_vocabulary(const GgufHeader& header);

}  // namespace sluice::tok
