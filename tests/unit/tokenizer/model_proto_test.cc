// Reading and editing SentencePiece's model bytes: flags and types change as asked, damage of any
// kind is an error and never more than that.
#include "tokenizer/model_proto.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "shared/random.h"
#include "tokenizer/tokenizer.h"

namespace sluice::tok {
namespace {

std::string model_bytes() {
  std::ifstream file(SLUICE_SOURCE_DIR "/models/canned/tokenizer.model", std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// A piece as the file holds it, behind all others.
std::string piece_field(const std::string& text, PieceType type) {
  std::string piece = "\x0A";
  piece += static_cast<char>(text.size());
  piece += text;
  piece += '\x18';
  piece += static_cast<char>(type);
  std::string field = "\x0A";
  field += static_cast<char>(piece.size());
  return field + piece;
}

TEST(ModelProto, ReadsTheCannedModel) {
  const std::string bytes = model_bytes();
  const auto facts = parse_model_proto(bytes);
  ASSERT_TRUE(facts) << facts.error().detail;
  EXPECT_EQ(facts->pieces.size(), 1024u);
  EXPECT_EQ(facts->pieces[3].text, "<|im_start|>");
  EXPECT_EQ(facts->pieces[3].type, PieceType::control);
  EXPECT_EQ(facts->pieces[5].type, PieceType::byte);
  EXPECT_EQ(facts->algorithm, ModelProtoFacts::Algorithm::bpe);
  EXPECT_TRUE(facts->byte_fallback);
  EXPECT_TRUE(facts->add_dummy_prefix);
  EXPECT_FALSE(facts->remove_extra_whitespaces);
  EXPECT_FALSE(facts->has_charsmap);
}

TEST(ModelProto, EditsReachTheLibrary) {
  const std::string bytes = model_bytes() + piece_field("<|tool|>", PieceType::user_defined);
  sentencepiece::SentencePieceProcessor before, after;
  ASSERT_TRUE(before.LoadFromSerializedProto(edit_model_proto(bytes, {})).ok());
  ModelProtoEdit edit;
  edit.disable_dummy_prefix = true;
  edit.make_control = {1024};
  ASSERT_TRUE(after.LoadFromSerializedProto(edit_model_proto(bytes, edit)).ok());
  EXPECT_EQ(before.EncodeAsIds("<|tool|>"),
            (std::vector<int>{before.PieceToId("\xE2\x96\x81"), 1024}));
  EXPECT_TRUE(after.IsControl(1024));
  EXPECT_EQ(after.DecodeIds(after.EncodeAsIds("<|tool|>")), "<|tool|>");
  EXPECT_GT(after.EncodeAsIds("<|tool|>").size(), 1u);
}

TEST(ModelProto, UserDefinedFrameTokensAreNotMatchedInText) {
  const std::string folder = testing::TempDir() + "model_proto_" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/tokenizer.model";
  std::ofstream(path, std::ios::binary)
      << model_bytes() << piece_field("<|tool|>", PieceType::user_defined)
      << piece_field("<turn>", PieceType::user_defined)
      << piece_field("<table>", PieceType::user_defined);
  std::ofstream(folder + "/tokenizer_config.json")
      << R"({"added_tokens_decoder": {"1025": {"content": "<turn>", "special": true},)"
      << R"( "1026": {"content": "<table>", "special": false}}})";
  const auto tokenizer = Tokenizer::load(path);
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(tokenizer) << tokenizer.error().detail;
  EXPECT_EQ(tokenizer->special_id("<|tool|>"), 1024u);
  EXPECT_EQ(tokenizer->special_id("<turn>"), 1025u);
  EXPECT_EQ(tokenizer->special_id("<table>"), std::nullopt);
  std::vector<TokenId> ids;
  tokenizer->encode("<|tool|><turn>", Segment::following, ids);
  for (const TokenId id : ids) EXPECT_FALSE(tokenizer->is_special(id));
  ids.clear();
  tokenizer->encode("x <table>", Segment::following, ids);
  EXPECT_EQ(ids.back(), 1026u);
}

TEST(ModelProto, RefusesWhatItCanNotMean) {
  const std::string bytes = model_bytes();
  const auto error = [](const std::string& model) {
    const auto facts = parse_model_proto(model);
    return facts ? std::string() : facts.error().detail;
  };
  EXPECT_NE(error("").find("no pieces"), std::string::npos);
  EXPECT_NE(error(bytes + "\x0A\x05").find("broken or cut off"), std::string::npos);
  EXPECT_NE(error(bytes + "\x0B").find("broken or cut off"), std::string::npos);  // a group
  EXPECT_NE(error(bytes + std::string(11, '\xFF')).find("broken"), std::string::npos);
  EXPECT_NE(error(bytes + "\x0A\x02\x18\x09").find("unknown type"), std::string::npos);
  EXPECT_NE(error(bytes + std::string("\x0A\x00", 2)).find("empty piece"), std::string::npos);
  EXPECT_NE(error(bytes + "\x12\x02\x18\x03").find("not BPE or unigram"), std::string::npos);
  EXPECT_NE(error(bytes + "\x1A\x02\x18\xFF").find("normalizer"), std::string::npos);
}

TEST(ModelProto, FlippedAndCutBytesAreReadOrRefused) {
  const std::string bytes = model_bytes();
  for (std::uint32_t run = 0; run < 3000; ++run) {
    const RandomKey key{17, 0, run};
    std::string damaged = bytes;
    for (std::uint32_t flip = 0; flip <= run % 4; ++flip) {
      const std::uint64_t bit = random_bits(key, flip) % (damaged.size() * 8);
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    }
    if (run % 3 == 0) damaged.resize(random_bits(key, 9) % damaged.size());
    const auto facts = parse_model_proto(damaged);
    if (!facts) {
      EXPECT_EQ(facts.error().code, Errc::bad_file);
      continue;
    }
    EXPECT_FALSE(facts->pieces.empty());
    EXPECT_GE(edit_model_proto(damaged, {}).size() + 64, damaged.size());
  }
}

}  // namespace
}  // namespace sluice::tok
