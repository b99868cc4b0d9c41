// The stream decoder against decoding the whole: any bytes, cut anywhere, give the same text, never
// a broken character in between. Method: random mixtures of valid, broken and cut-off UTF-8, and
// all short byte strings over the bytes that matter. TEST_SEED replays a run.
#include "tokenizer/stream_decoder.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <span>
#include <vector>

#include "shared/random.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

std::uint64_t test_seed() {
  const char* named = std::getenv("TEST_SEED");
  return named == nullptr ? 1 : std::strtoull(named, nullptr, 10);
}

std::string whole(std::string_view bytes) {
  std::string text;
  append_valid_utf8(bytes, text);
  return text;
}

TEST(StreamDecoder, ReplacesEachMaximalInvalidPart) {
  const std::string r(kReplacement);
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", ""},
      {"abc", "abc"},
      {"\xC3\xA9", "\xC3\xA9"},
      {"\xFF", r},
      {"\x80\x80", r + r},
      {"\xC0\xAF", r + r},                  // overlong
      {"\xE0\x80\x80", r + r + r},          // overlong
      {"\xED\xA0\x80", r + r + r},          // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},  // beyond U+10FFFF
      {"\xF0\x9F\x98", r},                  // cut off: one part
      {"\xF0\x9F\x98"
       "a",
       r + "a"},
      {"\xE2\x82\xE2\x82\xAC", r + "\xE2\x82\xAC"},
      // The example of table 3-8 of the Unicode Standard.
      {"a\xF1\x80\x80\xE1\x80\xC2"
       "b\x80"
       "c\x80\xBF"
       "d",
       "a" + r + r + r + "b" + r + "c" + r + r + "d"},
  };
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(whole(bytes), text);
    EXPECT_TRUE(is_valid_utf8(whole(bytes)));
    EXPECT_EQ(is_valid_utf8(bytes), bytes == text);
  }
}

// Every push must leave whole characters only; held bytes stay within bounds.
std::string streamed(std::string_view bytes, std::span<const std::size_t> cuts) {
  StreamDecoder decoder;
  std::string text;
  std::size_t at = 0;
  for (const std::size_t cut : cuts) {
    decoder.push(bytes.substr(at, cut - at), text);
    EXPECT_TRUE(is_valid_utf8(text));
    EXPECT_LE(decoder.held_bytes(), 3u);
    at = cut;
  }
  decoder.push(bytes.substr(at), text);
  decoder.finish(text);
  EXPECT_EQ(decoder.held_bytes(), 0u);
  return text;
}

TEST(StreamDecoderProperty, AllShortStringsCutEverywhere) {
  constexpr std::array<unsigned char, 12> kBytes{0x41, 0x80, 0x8F, 0x90, 0xA0, 0xBF,
                                                 0xC3, 0xE0, 0xED, 0xF0, 0xF4, 0xFF};
  std::string bytes(4, '\0');
  for (std::size_t n = 0; n < kBytes.size() * kBytes.size() * kBytes.size() * kBytes.size(); ++n) {
    std::size_t rest = n;
    for (char& byte : bytes) {
      byte = static_cast<char>(kBytes[rest % kBytes.size()]);
      rest /= kBytes.size();
    }
    const std::array<std::size_t, 3> cuts{1, 2, 3};
    ASSERT_EQ(streamed(bytes, cuts), whole(bytes)) << n;
    ASSERT_EQ(streamed(bytes, std::span(cuts).subspan(1, 1)), whole(bytes)) << n;
  }
}

TEST(StreamDecoderProperty, RandomTextsCutAtRandom) {
  constexpr std::array<std::string_view, 9> kParts{
      "a",    "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF0\x9F", "\xE2", "\x80",
      "\xFF", " b"};
  const std::uint64_t seed = test_seed();
  for (std::uint32_t run = 0; run < 5000; ++run) {
    const RandomKey key{seed, 0, run};
    std::uint32_t draw = 0;
    std::string bytes;
    for (std::uint64_t i = random_bits(key, draw++) % 20; i > 0; --i)
      bytes += kParts[random_bits(key, draw++) % kParts.size()];
    std::vector<std::size_t> cuts;
    for (std::size_t at = 0; at < bytes.size(); ++at)
      if (random_bits(key, draw++) % 3 == 0) cuts.push_back(at);
    ASSERT_EQ(streamed(bytes, cuts), whole(bytes)) << "TEST_SEED=" << seed << " run " << run;
  }
}

}  // namespace
}  // namespace sluice::tok
