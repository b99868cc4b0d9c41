// Tokenizer: text to token ids and back, for one vocabulary (SentencePiece, or byte-level BPE). The
// same object counts, admits, bills and decodes, so there is one truth about tokens.
//
// User text never yields a special token: those enter only by id, from a chat template. Special are
// the vocabulary's control pieces, its user-defined pieces that look like one (<|...|>, or marked
// special in tokenizer_config.json), and the unknown piece where bytes make it needless.
// Immutable after load; every method is const and safe in any thread.
//
// Cost (tests/bench/tokenizer_bench.cc): the library takes some 20 us for a short prompt; BPE
// models with byte fallback (Llama-2, Mistral, the built-in one) are cut at places that no piece
// can cross and their words looked up in a cache, about 1 us. Time grows as n log n with the
// longest run that can't be cut (1 MB of one letter), linearly with the rest.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/ids.h"
#include "shared/result.h"
#include "tokenizer/special_pieces.h"

namespace sluice::tok {

// SentencePiece puts a space (its dummy prefix) before the first word of a text; only a text's
// first segment gets it, not the text after a special token.
enum class Segment : std::uint8_t { first, following };

inline constexpr std::uint32_t kPieceBytesUnbounded = 1u << 31;

struct Vocabulary {
  std::uint32_t size = 0;
  // Most bytes of text that one token takes: num_tokens >= bytes / longest. kPieceBytesUnbounded
  // where the model's normalization may drop text.
  std::uint32_t longest_piece_bytes = 0;
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  // /v1/completions and add_special_tokens put bos first: add_bos_token of the
  // tokenizer_config.json beside the model, without it true when there is a bos.
  bool adds_bos = false;
};

class Tokenizer {
 public:
  // A SentencePiece model file (BPE or unigram) or a tokenizer.json (tokenizer_json.h), and
  // tokenizer_config.json beside it if it exists; or a GGUF file with a SentencePiece or byte-level
  // vocabulary (gguf_vocabulary.h).
  // Errors: bad_file (path and reason).
  static Result<Tokenizer> load(const std::string& path);
  // vocabulary().size of what load() makes of the same file, much faster; it may miss its errors.
  static Result<std::uint32_t> count_pieces(const std::string& path);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  const Vocabulary& vocabulary() const;
  // The Jinja template that the model was published with (tokenizer_config.json,
  // chat_template.jinja, or a key of the GGUF file); empty: none.
  const std::string& chat_template_source() const;
  // What its template calls bos_token and eos_token; empty: there is none.
  std::string_view bos_text() const;
  std::string_view eos_text() const;

  // Appends the ids of `text` (any bytes; invalid UTF-8 becomes U+FFFD first). Callers bound its
  // size. Never yields a special id.
  void encode(std::string_view text, Segment segment, std::vector<TokenId>& ids) const;

  // The bytes that a token adds to the output: a piece with its spaces, one byte for byte pieces,
  // nothing for special ids, the vocabulary's mark for an unknown one. REQUIRES: id < size.
  std::string_view piece_bytes(TokenId id) const;
  bool is_special(TokenId id) const;
  // What names a token where tokens are listed: its bytes, of a special one its text.
  std::string_view token_text(TokenId id) const;
  // The id of a special token by its text ("<|im_end|>"), if the vocabulary has it.
  std::optional<TokenId> special_id(std::string_view text) const;
  // The longest piece that `text` begins with among those that user text never yields: special ids
  // and user-defined ones. For text that a chat template wrote.
  std::optional<SpecialMatch> special_at(std::string_view text) const;

  // Whole text of ids, as /detokenize answers it: special ids dropped, the dummy prefix dropped,
  // invalid UTF-8 replaced. Errors: invalid_value (an id outside the vocabulary), param "tokens".
  Result<std::string> decode(std::span<const TokenId> ids) const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::tok
