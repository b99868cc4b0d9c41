// JSON escaping against a naive byte-by-byte model and against the parser's reading of it.
#include "gateway/api/json_text.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include "shared/random.h"

namespace sluice::gw {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(JsonText, EscapesWhatJsonRequiresAndNothingElse) {
  EXPECT_EQ(escaped("plain text"), "\"plain text\"");
  EXPECT_EQ(escaped("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
  EXPECT_EQ(escaped("\n\r\t\b\f"), "\"\\n\\r\\t\\b\\f\"");
  EXPECT_EQ(escaped(std::string_view("\0\x01\x1f\x7f", 4)), "\"\\u0000\\u0001\\u001f\\u007f\"");
  EXPECT_EQ(escaped("h\xc3\xa9llo \xf0\x9f\x98\x80"), "\"h\xc3\xa9llo \xf0\x9f\x98\x80\"");
}

TEST(JsonText, EveryByteAtEveryOffsetReadsBackEqual) {
  // Offsets 0..16 move each byte over both borders of the eight-byte scan.
  for (int c = 0; c < 0x80; ++c) {
    for (std::size_t offset = 0; offset <= 16; ++offset) {
      std::string text(17, 'x');
      text[offset] = static_cast<char>(c);
      simdjson::dom::parser parser;
      std::string_view read;
      ASSERT_EQ(parser.parse(escaped(text)).get(read), simdjson::SUCCESS) << c << " at " << offset;
      ASSERT_EQ(read, text) << c << " at " << offset;
    }
  }
}

TEST(JsonText, RandomTextsReadBackEqual) {
  constexpr std::string_view kPieces[] = {"a",           "\"",           "\\",
                                          "\n",          "\x7f",         "\x01",
                                          "\xc3\xa9",    "\xe2\x96\x81", "\xf0\x9f\x98\x80",
                                          "wordwordword"};
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    std::string text;
    for (std::uint64_t i = 0; i < mix64(seed) % 40; ++i)
      text.append(kPieces[mix64(seed ^ (i << 20)) % std::size(kPieces)]);
    simdjson::dom::parser parser;
    std::string_view read;
    ASSERT_EQ(parser.parse(escaped(text)).get(read), simdjson::SUCCESS) << "seed " << seed;
    ASSERT_EQ(read, text) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sluice::gw
