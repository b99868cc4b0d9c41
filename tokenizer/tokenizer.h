// Tokenizer: text to token ids and back, for one vocabulary. The same object counts, admits, bills
// and decodes, so there is one truth about tokens.
//
// User text never yields a special (control) token: those enter only by id, from a chat template.
// Immutable after load; every method is const and safe in any thread.
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

namespace sluice::tok {

// SentencePiece puts a space before the first word of a text; only the first segment of a prompt
// gets it, not the text after a special token.
enum class Segment : std::uint8_t { first, following };

struct Vocabulary {
  std::uint32_t size = 0;
  std::uint32_t longest_piece_bytes = 0;  // bounds the tokens of a text from below: bytes / longest
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  bool adds_bos = false;                  // /v1/completions and add_special_tokens put bos first
};

class Tokenizer {
 public:
  // A SentencePiece model file. Errors: bad_file (path and reason).
  static Result<Tokenizer> load(const std::string& path);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  const Vocabulary& vocabulary() const;

  // Appends the ids of `text` (any bytes; invalid UTF-8 becomes U+FFFD first). Linear in the text for
  // bounded `text`; callers bound it (limits: P6). Never yields a special id.
  void encode(std::string_view text, Segment segment, std::vector<TokenId>& ids) const;

  // The bytes that a token adds to the output: a piece with its spaces, one byte for byte pieces,
  // nothing for special ids. REQUIRES: id < size.
  std::string_view piece_bytes(TokenId id) const;
  bool is_special(TokenId id) const;
  // The id of a special token by its text ("<|im_end|>"), if the vocabulary has it.
  std::optional<TokenId> special_id(std::string_view text) const;

  // Whole text of ids, as /detokenize answers it: special ids dropped, the first dummy space dropped,
  // invalid UTF-8 replaced. Errors: invalid_value (an id outside the vocabulary).
  Result<std::string> decode(std::span<const TokenId> ids) const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::tok
