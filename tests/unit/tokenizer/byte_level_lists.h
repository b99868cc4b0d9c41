// Small byte-level vocabularies for tests, as lists that every format can be written from, and
// texts that meet every part of the patterns.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "shared/ids.h"
#include "shared/random.h"

namespace sluice::tok {

inline constexpr std::int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

// GPT-2's alphabet: how a byte is written in tokens.
inline std::string written(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<std::uint8_t>(c);
    std::uint32_t code = byte;
    std::uint32_t stand_ins = 0;
    for (std::uint32_t b = 0; b <= byte; ++b) {
      const bool is_itself =
          (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
      if (b == byte && !is_itself) code = 0x100 + stand_ins;
      if (!is_itself) ++stand_ins;
    }
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else {
      text += static_cast<char>(0xC0 | code >> 6);
      text += static_cast<char>(0x80 | (code & 0x3F));
    }
  }
  return text;
}

struct Lists {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<std::string> merges;

  TokenId add(const std::string& token, std::int32_t type) {
    tokens.push_back(token);
    types.push_back(type);
    return static_cast<TokenId>(tokens.size() - 1);
  }
  // The bytes of two tokens become a third.
  void merge(std::string_view left, std::string_view right) {
    add(written(std::string(left) + std::string(right)), kNormal);
    merges.push_back(written(left) + " " + written(right));
  }
};

// All bytes as 0..255, then merges that overlap in every way.
inline Lists small() {
  Lists lists;
  for (int byte = 0; byte < 256; ++byte)
    lists.add(written(std::string(1, static_cast<char>(byte))), kNormal);
  lists.merge("a", "b");
  lists.merge("a", "a");
  lists.merge(" ", "a");
  lists.merge("b", "a");
  lists.merge("aa", "b");
  lists.merge("ab", "a");
  lists.merge(" a", "b");
  lists.merge("aa", "aa");
  lists.merge("\xC3", "\xA4");
  lists.merge("\n", "\n");
  lists.merge("b", "ab");
  return lists;
}

// Words, spaces, line ends, digits, scripts, broken bytes, runs.
inline std::string random_text(std::uint32_t run) {
  static constexpr std::array<std::string_view, 30> kParts{
      "the",    " a",     "ab",       "aab",        " ",      "   ",        "\n",     "\r\n",
      "\t",     "'s",     "'LL",      "12",         "7",      "1",          ".",      "...",
      "(",      "\u00e4", "\u00df",   "\u6f22",     "\u0663", "\U0001f600", "\u0301", "\u2028",
      "\u180e", "\xFF",   "\xF0\x9F", "<|im_end|>", "_",      "$"};
  const RandomKey key{37, 0, run};
  std::string text;
  std::uint32_t draw = 0;
  for (std::uint64_t parts = random_bits(key, draw++) % 40; parts > 0; --parts) {
    const std::string_view part = kParts[random_bits(key, draw++) % kParts.size()];
    const std::uint64_t repeats =
        random_bits(key, draw++) % 12 == 0 ? random_bits(key, draw++) % 60 : 1;
    for (std::uint64_t i = 0; i < repeats; ++i) text += part;
  }
  return text;
}

}  // namespace sluice::tok
