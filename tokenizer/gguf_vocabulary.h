// The vocabulary inside a GGUF file (keys tokenizer.ggml.*, tokenizer.chat_template). Two models of
// it are read, others are refused by name: "llama", SentencePiece's BPE with its scores, becomes a
// SentencePiece model for the same library; "gpt2", byte-level BPE, is read where its pattern
// (tokenizer.ggml.pre) is known: gpt-2, llama-bpe, qwen2, smollm.
//
// User text never yields a token of type control or user-defined, nor one that begins or ends a
// sequence: they become control pieces. User-defined ones keep their text in the output unless they
// look special (<|...|>). In a SentencePiece model a user-defined token of a single character
// becomes a normal piece: the library finds single characters in text whatever their type.
//
// Input is hostile: duplicate, empty or invalid tokens, scores that are no numbers, lists of
// different lengths and ids out of range are refused with key and reason. Pure; no thread rule.
#pragma once

#include "shared/gguf.h"
#include "shared/result.h"
#include "tokenizer/vocabulary_source.h"

namespace sluice::tok {

Result<VocabularySource> read_gguf_vocabulary(const GgufHeader& header);
// Of a vocabulary that read_gguf_vocabulary() takes, its number of tokens.
Result<std::uint32_t> count_gguf_pieces(const GgufHeader& header);

}  // namespace sluice::tok
