// Finds cuts that no piece can cross; see piece_borders.h.
#include "tokenizer/piece_borders.h"

#include <algorithm>
#include <bit>

#include "shared/random.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

constexpr std::uint32_t kSpaceSymbol = 0x2581;

// REQUIRES: valid UTF-8, not empty.
std::uint32_t first_character(std::string_view text, std::size_t& size) {
  size = next_utf8(text).size;
  std::uint32_t code = static_cast<std::uint8_t>(text[0]);
  if (size > 1) code &= 0xFFu >> (size + 1);
  for (std::size_t i = 1; i < size; ++i)
    code = (code << 6) | (static_cast<std::uint8_t>(text[i]) & 0x3Fu);
  return code == ' ' ? kSpaceSymbol : code;
}

std::uint64_t pair_key(std::uint32_t first, std::uint32_t second) {
  return (std::uint64_t{first} << 32) | second | (std::uint64_t{1} << 63);
}

bool ends_with_space(std::string_view text) {
  return text.ends_with(' ') || text.ends_with("\xE2\x96\x81");
}

}  // namespace

PieceBorders::PieceBorders(const ModelProtoFacts& model) {
  can_cut_ = model.algorithm == ModelProtoFacts::Algorithm::bpe && model.byte_fallback &&
             !model.has_charsmap && !model.remove_extra_whitespaces && model.escape_whitespaces &&
             !model.whitespace_as_suffix;
  std::vector<std::uint64_t> keys;
  bool has_space_piece = false;
  cuts_before_space_ = cuts_around_newline_ = true;
  for (const PieceFacts& piece : model.pieces) {
    // Control, unknown and byte pieces are never matched in text.
    if (piece.type == PieceType::control || piece.type == PieceType::unknown ||
        piece.type == PieceType::byte)
      continue;
    // A raw space inside a user-defined piece is matched before spaces are escaped.
    if (!is_valid_utf8(piece.text) || piece.text.find(' ') != std::string_view::npos)
      can_cut_ = false;
    if (!can_cut_) return;
    std::uint32_t before = 0;
    for (std::size_t at = 0, size = 0; at < piece.text.size(); at += size) {
      const std::uint32_t code = first_character(piece.text.substr(at), size);
      if (at == 0 && size == piece.text.size()) has_space_piece |= code == kSpaceSymbol;
      if (at != 0) {
        keys.push_back(pair_key(before, code));
        if (code == kSpaceSymbol && before != kSpaceSymbol) cuts_before_space_ = false;
        if ((code == '\n') != (before == '\n')) cuts_around_newline_ = false;
      }
      before = code;
    }
  }
  can_cut_ = can_cut_ && has_space_piece;
  pairs_.resize(std::bit_ceil(2 * keys.size() + 1));
  for (const std::uint64_t key : keys) {
    std::size_t slot = mix64(key) & (pairs_.size() - 1);
    while (pairs_[slot] != 0 && pairs_[slot] != key) slot = (slot + 1) & (pairs_.size() - 1);
    pairs_[slot] = key;
  }
}

bool PieceBorders::has_pair(std::uint32_t first, std::uint32_t second) const {
  const std::uint64_t key = pair_key(first, second);
  std::size_t slot = mix64(key) & (pairs_.size() - 1);
  while (pairs_[slot] != 0 && pairs_[slot] != key) slot = (slot + 1) & (pairs_.size() - 1);
  return pairs_[slot] == key;
}

std::size_t PieceBorders::word_bytes(std::string_view text) const {
  for (std::size_t i = 1; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ' && cuts_before_space_ && !ends_with_space(text.substr(0, i))) return i;
    if (cuts_around_newline_ && (c == '\n') != (text[i - 1] == '\n')) return i;
  }
  return text.size();
}

std::size_t PieceBorders::part_bytes(std::string_view text) const {
  std::size_t size = 0;
  std::uint32_t before = first_character(text, size);
  for (std::size_t i = size; i < text.size(); i += size) {
    const std::uint32_t code = first_character(text.substr(i), size);
    if (!has_pair(before, code)) return i;
    before = code;
  }
  return text.size();
}

}  // namespace sluice::tok
