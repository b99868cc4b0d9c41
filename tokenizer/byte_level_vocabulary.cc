// GPT-2's alphabet and the look-ups of merges; see byte_level_vocabulary.h.
#include "tokenizer/byte_level_vocabulary.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

constexpr std::uint32_t kFirstStandIn = 0x100;
constexpr std::size_t kNumStandIns = 68;

bool is_itself(std::uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The bytes that stand-ins mean, in order.
std::array<std::uint8_t, kNumStandIns> stand_ins() {
  std::array<std::uint8_t, kNumStandIns> bytes{};
  std::size_t next = 0;
  for (std::uint32_t byte = 0; byte < 256; ++byte)
    if (!is_itself(byte)) bytes[next++] = static_cast<std::uint8_t>(byte);
  return bytes;
}

// The bytes of a token; nothing when a character is not of the alphabet. REQUIRES: valid UTF-8.
std::optional<std::string> bytes_of(std::string_view text) {
  static const std::array<std::uint8_t, kNumStandIns> kStandIns = stand_ins();
  std::string bytes;
  while (!text.empty()) {
    const std::size_t size = next_utf8(text).size;
    std::uint32_t code = static_cast<std::uint8_t>(text[0]);
    // All of the alphabet has one or two bytes.
    if (size == 2) code = (code & 0x1Fu) << 6 | (static_cast<std::uint8_t>(text[1]) & 0x3Fu);
    if (size > 2) return std::nullopt;
    if (code >= kFirstStandIn && code < kFirstStandIn + kNumStandIns)
      bytes += static_cast<char>(kStandIns[code - kFirstStandIn]);
    else if (code < kFirstStandIn && is_itself(code))
      bytes += static_cast<char>(code);
    else
      return std::nullopt;
    text.remove_prefix(size);
  }
  return bytes;
}

Error bad(const std::string& what) {
  return make_error(Errc::bad_file, what);
}

}  // namespace

Result<ByteLevelVocabulary> make_byte_level_vocabulary(PreTokenizer pre_tokenizer,
                                                       std::span<const PieceFacts> pieces,
                                                       std::span<const std::string_view> merges) {
  constexpr TokenId kNoToken = UINT32_MAX;
  ByteLevelVocabulary vocabulary;
  vocabulary.pre_tokenizer = pre_tokenizer;
  vocabulary.byte_ids.assign(256, kNoToken);
  std::unordered_map<std::string_view, TokenId> ids;  // of normal tokens
  for (const PieceFacts& piece : pieces) {
    const auto id = static_cast<TokenId>(vocabulary.pieces.size());
    const bool is_normal = piece.type == PieceType::normal;
    std::optional<std::string> bytes = bytes_of(piece.text);
    if (is_normal && !bytes)
      return bad("token " + std::to_string(id) + " is not written in the alphabet of bytes");
    if (is_normal && bytes->size() == 1)
      vocabulary.byte_ids[static_cast<std::uint8_t>(bytes->front())] = id;
    if (is_normal) ids.emplace(piece.text, id);
    vocabulary.pieces.push_back(is_normal ? std::move(*bytes) : std::string(piece.text));
    vocabulary.is_normal.push_back(is_normal);
  }
  const auto missing = std::ranges::find(vocabulary.byte_ids, kNoToken);
  if (missing != vocabulary.byte_ids.end())
    return bad("no token for byte " + std::to_string(missing - vocabulary.byte_ids.begin()));
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    // A space in a token is written as a stand-in.
    const std::string_view merge = merges[rank];
    const std::size_t space = merge.find(' ');
    const auto left = ids.find(merge.substr(0, space));
    const auto right =
        space == std::string_view::npos ? ids.end() : ids.find(merge.substr(space + 1));
    auto result = ids.end();
    if (left != ids.end() && right != ids.end()) {
      joined.assign(left->first).append(right->first);
      result = ids.find(joined);
    }
    if (result == ids.end())
      return bad("merge " + std::to_string(rank) + " is not of two tokens that make a third");
    vocabulary.merges.push_back({left->second, right->second, result->second});
  }
  return vocabulary;
}

}  // namespace sluice::tok
