// A sorted list, narrowed byte by byte; see special_pieces.h.
#include "tokenizer/special_pieces.h"

#include <algorithm>

namespace sluice::tok {

void SpecialPieces::add(std::string_view text, TokenId id) {
  if (text.empty()) return;
  first_bytes_[static_cast<unsigned char>(text.front())] = true;
  pieces_.emplace_back(std::string(text), id);
}

void SpecialPieces::finish() {
  std::ranges::sort(pieces_);
}

std::optional<SpecialMatch> SpecialPieces::match(std::string_view text) const {
  if (text.empty() || !first_bytes_[static_cast<unsigned char>(text.front())]) return std::nullopt;
  std::optional<SpecialMatch> longest;
  auto begin = pieces_.begin(), end = pieces_.end();  // they agree with `text` in `size` bytes
  for (std::size_t size = 0; begin != end && size < text.size(); ++size) {
    // A piece that ends here sorts before those that go on with some byte.
    const auto byte_of = [size](const auto& piece) {
      return piece.first.size() == size ? -1 : static_cast<unsigned char>(piece.first[size]);
    };
    const int wanted = static_cast<unsigned char>(text[size]);
    begin = std::ranges::lower_bound(begin, end, wanted, {}, byte_of);
    end = std::ranges::upper_bound(begin, end, wanted, {}, byte_of);
    if (begin != end && begin->first.size() == size + 1)
      longest = SpecialMatch{begin->second, size + 1};
  }
  return longest;
}

std::string_view SpecialPieces::text_of(TokenId id) const {
  const auto found = std::ranges::find(pieces_, id, &std::pair<std::string, TokenId>::second);
  return found == pieces_.end() ? std::string_view() : std::string_view(found->first);
}

}  // namespace sluice::tok
