// The vocabulary of a Hugging Face tokenizer.json (huggingface/tokenizers): byte-level BPE whose
// pattern is one of those that byte_level_bpe.h knows. What such a file may say besides (other
// models, patterns, normalizers, a prefix space, dropout) is refused by name, with two exceptions:
// the normalizer NFC is not applied, so that every text comes back as it went in (text that is not
// in that form may have other tokens than there), and how added tokens are found in text does not
// matter, because user text never yields one: those marked special, and bos and eos, write nothing,
// the others write their text into the output unless they look special (<|...|>).
//
// Ids may have holes, and a model more rows than its vocabulary (Qwen2): such ids are special
// tokens without text. Input is hostile: ids twice or out of range, merges of unknown tokens and
// everything else that make_byte_level_vocabulary refuses. Pure; no thread rule.
#pragma once

#include <cstdint>
#include <string>

#include "shared/result.h"
#include "tokenizer/vocabulary_source.h"

namespace sluice::tok {

inline constexpr std::size_t kTokenizerJsonBytesMax = 64u << 20;

// config: of tokenizer_config.json; it names bos and eos. num_rows: of the model, 0: not known.
// Errors (bad_file) name the part and the reason.
Result<VocabularySource> read_tokenizer_json(const std::string& json, TokenizerConfig config,
                                             std::uint32_t num_rows);

}  // namespace sluice::tok
