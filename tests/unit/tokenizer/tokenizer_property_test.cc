// Cutting texts into words and caching them never changes ids: random texts, encoded by the
// tokenizer (twice: the second time from the cache), equal what the library says about the whole
// text; decoding gives the text back. TEST_SEED replays a run; TEST_TOKENIZER names another model
// file.
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <array>
#include <cstdlib>

#include "shared/random.h"
#include "tokenizer/model_proto.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

std::string model_path() {
  const char* named = std::getenv("TEST_TOKENIZER");
  return named == nullptr ? SLUICE_SOURCE_DIR "/models/canned/tokenizer.model" : named;
}

class Texts {
 public:
  explicit Texts(std::uint64_t seed) : seed_(seed) {}

  // Words, spaces, line ends, code, scripts, emoji, broken bytes, runs: what borders are made of.
  std::string draw() {
    static constexpr std::array<std::string_view, 36> kParts{
        "the",    " the",     "ing",    "token",  " ",          "  ",     "    ",       "\n",
        "\n\n",   "\t",       "a",      "b",      "ab",         "A",      ".",          ", ",
        "1",      "2024",     "()",     "{",      "<s>",        "</s>",   "<|im_end|>", "\u00e9",
        "\u00df", "\u6f22",   "\u5b57", "\u0431", "\U0001f600", "\u2581", "\u200d",     "\xC2\xA0",
        "\xFF",   "\xF0\x9F", "\r\n",   "-"};
    std::string text;
    for (std::uint64_t parts = below(60); parts > 0; --parts) {
      const std::string_view part = kParts[below(kParts.size())];
      for (std::uint64_t repeats = below(12) == 0 ? below(90) : 1; repeats > 0; --repeats)
        text += part;
    }
    return text;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return mix64(seed_ ^ mix64(++draw_)) % bound; }
  std::uint64_t seed_;
  std::uint64_t draw_ = 0;
};

TEST(TokenizerProperty, EqualsTheLibraryOnWholeTexts) {
  const char* named = std::getenv("TEST_SEED");
  const std::uint64_t seed = named == nullptr ? 1 : std::strtoull(named, nullptr, 10);
  const std::string bytes = read_model_file(model_path(), 64u << 20).value();
  sentencepiece::SentencePieceProcessor first, following;
  ASSERT_TRUE(first.LoadFromSerializedProto(edit_model_proto(bytes, {})).ok());
  ModelProtoEdit edit;
  edit.disable_dummy_prefix = true;
  ASSERT_TRUE(following.LoadFromSerializedProto(edit_model_proto(bytes, edit)).ok());
  const Tokenizer tokenizer = std::move(Tokenizer::load(model_path()).value());

  for (std::uint64_t run = 0; run < 1500; ++run) {
    Texts texts(seed + run);
    const std::string text = texts.draw();
    std::string valid;
    append_valid_utf8(text, valid);
    for (const Segment segment : {Segment::first, Segment::following, Segment::first}) {
      std::vector<TokenId> got;
      tokenizer.encode(text, segment, got);
      std::vector<int> want;
      ASSERT_TRUE((segment == Segment::first ? first : following).Encode(valid, &want).ok());
      ASSERT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end()))
          << "TEST_SEED=" << seed + run << ": " << text;
      ASSERT_GE(got.size(), text.size() / tokenizer.vocabulary().longest_piece_bytes);
    }
  }
}

TEST(TokenizerProperty, DecodingGivesTheTextBack) {
  const Tokenizer tokenizer =
      std::move(Tokenizer::load(SLUICE_SOURCE_DIR "/models/canned/tokenizer.model").value());
  for (std::uint64_t run = 0; run < 1500; ++run) {
    Texts texts(run);
    std::string valid;
    append_valid_utf8(texts.draw(), valid);
    std::vector<TokenId> ids;
    tokenizer.encode(valid, Segment::first, ids);
    // U+2581 is how the vocabulary writes a space, so it comes back as one.
    std::string want;
    for (std::size_t at = 0; at < valid.size();) {
      const bool is_symbol = valid.compare(at, 3, "\u2581") == 0;
      want += is_symbol ? ' ' : valid[at];
      at += is_symbol ? 3 : 1;
    }
    ASSERT_EQ(*tokenizer.decode(ids), want) << run;
  }
}

}  // namespace
}  // namespace sluice::tok
