// Cutting texts into words and caching them never changes ids: random texts, encoded by the
// tokenizer (twice: the second time from the cache), equal what the library says about the whole
// text; decoding gives the text back; the same vocabulary out of a GGUF file encodes alike.
// TEST_SEED replays a run; TEST_TOKENIZER names another model file.
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "shared/random.h"
#include "tests/support/gguf_bytes.h"
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

// The vocabulary of a model file as the keys of a GGUF file.
std::string gguf_of(const ModelProtoFacts& facts, const Vocabulary& vocabulary) {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  for (const PieceFacts& piece : facts.pieces) {
    tokens.emplace_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(static_cast<std::int32_t>(piece.type));
  }
  test::GgufBytes file;
  file.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", tokens);
  file.floats("tokenizer.ggml.scores", scores).integers("tokenizer.ggml.token_type", types);
  if (vocabulary.bos) file.u32("tokenizer.ggml.bos_token_id", *vocabulary.bos);
  if (vocabulary.eos) file.u32("tokenizer.ggml.eos_token_id", *vocabulary.eos);
  file.flag("tokenizer.ggml.add_space_prefix", facts.add_dummy_prefix);
  file.flag("tokenizer.ggml.remove_extra_whitespaces", facts.remove_extra_whitespaces);
  return file.bytes();
}

TEST(TokenizerProperty, AGgufVocabularyEncodesAndDecodesLikeTheModelItWasMadeFrom) {
  const std::string bytes = read_model_file(model_path(), 64u << 20).value();
  const ModelProtoFacts facts = parse_model_proto(bytes).value();
  if (facts.algorithm != ModelProtoFacts::Algorithm::bpe || facts.has_charsmap)
    GTEST_SKIP() << "not a vocabulary that GGUF's \"llama\" can hold";
  const Tokenizer original = std::move(Tokenizer::load(model_path()).value());
  const std::string path = testing::TempDir() + "gguf_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << gguf_of(facts, original.vocabulary());
  auto loaded = Tokenizer::load(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(loaded) << loaded.error().detail;

  EXPECT_EQ(loaded->vocabulary().size, original.vocabulary().size);
  EXPECT_EQ(loaded->vocabulary().bos, original.vocabulary().bos);
  EXPECT_EQ(loaded->vocabulary().eos, original.vocabulary().eos);
  EXPECT_EQ(loaded->vocabulary().longest_piece_bytes, original.vocabulary().longest_piece_bytes);
  for (TokenId id = 0; id < original.vocabulary().size; ++id) {
    ASSERT_EQ(loaded->piece_bytes(id), original.piece_bytes(id)) << id;
    ASSERT_EQ(loaded->is_special(id), original.is_special(id)) << id;
  }
  for (std::uint64_t run = 0; run < 1500; ++run) {
    const std::string text = Texts(run).draw();
    for (const Segment segment : {Segment::first, Segment::following}) {
      std::vector<TokenId> want, got;
      original.encode(text, segment, want);
      loaded->encode(text, segment, got);
      ASSERT_EQ(got, want) << run << ": " << text;
      ASSERT_EQ(*loaded->decode(got), *original.decode(want));
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
