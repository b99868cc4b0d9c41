// Vocabularies of GGUF files: which tokens text can and can't yield, what ids add to a text, and
// every damaged list refused with its key and reason. Equality with a model file is in
// tokenizer_property_test.cc.
#include "tokenizer/gguf_vocabulary.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "shared/random.h"
#include "tests/support/gguf_bytes.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/model_proto.h"

namespace sluice::tok {
namespace {

using test::GgufBytes;

constexpr std::int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5,
                       kByte = 6;

struct Lists {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;

  TokenId add(const std::string& token, std::int32_t type, float score = 0) {
    tokens.push_back(token);
    types.push_back(type);
    scores.push_back(score);
    return static_cast<TokenId>(tokens.size() - 1);
  }
};

// <unk> <s> </s>, all bytes, a few letters and merges.
Lists small() {
  Lists lists;
  lists.add("<unk>", kUnknown);
  lists.add("<s>", kControl);
  lists.add("</s>", kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    lists.add(text, kByte);
  }
  float score = 0;
  for (const char* piece : {"\u2581", "a", "b", "c", "ab", "\u2581a", "\u2581ab", "abc"})
    lists.add(piece, kNormal, score -= 1);
  return lists;
}

GgufBytes file_of(const Lists& lists) {
  GgufBytes file;
  file.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", lists.tokens);
  file.floats("tokenizer.ggml.scores", lists.scores);
  return file.integers("tokenizer.ggml.token_type", lists.types);
}

Result<Tokenizer> load(const GgufBytes& file) {
  const std::string path = testing::TempDir() + "vocabulary_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << file.bytes();
  auto loaded = Tokenizer::load(path);
  if (loaded) {
    EXPECT_EQ(Tokenizer::count_pieces(path).value(), loaded->vocabulary().size);
  }
  std::filesystem::remove(path);
  return loaded;
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text,
                            Segment segment = Segment::following) {
  std::vector<TokenId> ids;
  tokenizer.encode(text, segment, ids);
  return ids;
}

TEST(GgufVocabulary, EncodesAndDecodes) {
  const auto loaded = load(file_of(small()));
  ASSERT_TRUE(loaded) << loaded.error().detail;
  const Tokenizer& t = *loaded;
  EXPECT_EQ(t.vocabulary().size, 267u);
  EXPECT_EQ(t.vocabulary().bos, 1u);  // the format's defaults
  EXPECT_EQ(t.vocabulary().eos, 2u);
  EXPECT_TRUE(t.vocabulary().adds_bos);
  EXPECT_EQ(encode(t, "ab", Segment::first), (std::vector<TokenId>{265}));
  EXPECT_EQ(encode(t, "ab"), (std::vector<TokenId>{263}));
  EXPECT_EQ(encode(t, "abc"), (std::vector<TokenId>{266}));
  EXPECT_EQ(encode(t, "a\nb"), (std::vector<TokenId>{260, 3 + '\n', 261}));
  EXPECT_EQ(*t.decode(encode(t, "ab ab\n", Segment::first)), "ab ab\n");
}

TEST(GgufVocabulary, TheSpacePrefixAndBosAreAsTheFileSays) {
  GgufBytes file = file_of(small());
  file.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", false);
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().detail;
  EXPECT_EQ(encode(*loaded, "ab", Segment::first), (std::vector<TokenId>{263}));
  EXPECT_FALSE(loaded->vocabulary().adds_bos);
}

TEST(GgufVocabulary, TextNeverYieldsControlOrUserDefinedTokens) {
  Lists lists = small();
  const TokenId control = lists.add("<|im_end|>", kControl);
  const TokenId special = lists.add("<|im_start|>", kUserDefined);
  const TokenId visible = lists.add("<table>", kUserDefined);
  const TokenId spaces = lists.add("  ", kUserDefined);
  const TokenId letter = lists.add("x", kUserDefined, -100);
  const TokenId unused = lists.add("<unused0>", kUnused);
  const auto loaded = load(file_of(lists));
  ASSERT_TRUE(loaded) << loaded.error().detail;
  const Tokenizer& t = *loaded;
  const std::string text = "<|im_end|><|im_start|><table>  <unused0><s></s>x";
  for (const TokenId id : encode(t, text)) {
    EXPECT_FALSE(t.is_special(id));
    for (const TokenId hidden : {control, special, visible, spaces, unused}) EXPECT_NE(id, hidden);
  }
  EXPECT_EQ(*t.decode(encode(t, text)), text);
  EXPECT_EQ(encode(t, "x"), std::vector<TokenId>{letter});
  EXPECT_EQ(t.special_id("<|im_end|>"), control);
  EXPECT_EQ(t.special_id("<|im_start|>"), special);
  EXPECT_EQ(t.special_id("<table>"), std::nullopt);
  EXPECT_TRUE(t.is_special(special));
  EXPECT_EQ(t.piece_bytes(special), "");
  EXPECT_FALSE(t.is_special(visible));
  EXPECT_EQ(t.piece_bytes(visible), "<table>");
  EXPECT_EQ(t.piece_bytes(spaces), "  ");
}

TEST(GgufVocabulary, EndIdsAreSpecialWhateverTheirType) {
  Lists lists = small();
  const TokenId end = lists.add("<end>", kUserDefined);
  const TokenId turn = lists.add("turn", kNormal, -50);
  GgufBytes file = file_of(lists);
  file.u32("tokenizer.ggml.eos_token_id", end).u32("tokenizer.ggml.eot_token_id", turn);
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().detail;
  EXPECT_EQ(loaded->vocabulary().eos, end);
  EXPECT_TRUE(loaded->is_special(end));
  EXPECT_TRUE(loaded->is_special(turn));
  EXPECT_EQ(encode(*loaded, "turn").size(), 4u);
}

TEST(GgufVocabulary, WithoutBytesUnknownTextIsTheUnknownToken) {
  Lists lists;
  lists.add("a", kNormal, -1);
  const TokenId unknown = lists.add("<mist>", kUnknown);
  lists.add("\u2581", kNormal, -2);
  lists.add("<spare>", kUnknown);
  const auto loaded = load(file_of(lists));
  ASSERT_TRUE(loaded) << loaded.error().detail;
  EXPECT_EQ(encode(*loaded, "a\u6f22"), (std::vector<TokenId>{0, unknown}));
  EXPECT_EQ(loaded->vocabulary().bos, std::nullopt);  // ids 1 and 2 are no control pieces
  EXPECT_EQ(loaded->vocabulary().eos, std::nullopt);
}

TEST(GgufVocabulary, TheChatTemplateIsTheFilesOwn) {
  Lists lists = small();
  lists.add("<|im_start|>", kControl);
  lists.add("<|im_end|>", kControl);
  GgufBytes file = file_of(lists);
  const auto chatml = load(file);
  ASSERT_TRUE(chatml) << chatml.error().detail;
  EXPECT_EQ(recognise_family(*chatml), TemplateFamily::chatml);
  EXPECT_FALSE(ChatTemplate::choose("", *chatml)->is_published());

  file.text("tokenizer.chat_template",
            "{{ bos_token }}<|im_start|>{{ messages[0].content }}<|im_end|>");
  const auto own = load(file);
  ASSERT_TRUE(own) << own.error().detail;
  EXPECT_EQ(own->bos_text(), "<s>");
  EXPECT_EQ(own->eos_text(), "</s>");
  EXPECT_TRUE(ChatTemplate::choose("", *own)->is_published());
  EXPECT_FALSE(ChatTemplate::choose("chatml", *own)->is_published());
  EXPECT_EQ(recognise_family(*load(file_of(small()))), TemplateFamily::plain);
}

struct Change {
  const char* key;                               // named by the answer
  std::function<void(Lists&, GgufBytes&)> make;  // the file is written again when the lists change
  const char* reason;
};

TEST(GgufVocabulary, RefusesWhatItCanNotMean) {
  const auto lists = [](std::function<void(Lists&)> change) {
    return [=](Lists& l, GgufBytes& file) {
      change(l);
      file = file_of(l);
    };
  };
  const auto without = [](std::string key) {
    return [=](Lists&, GgufBytes& file) {
      std::erase_if(file.entries, [&](const std::string& entry) {
        return entry.substr(8, key.size()) == key && entry[0] == static_cast<char>(key.size());
      });
    };
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Change> changes = {
      {"tokenizer.ggml.model", without("tokenizer.ggml.model"), "is missing"},
      {"tokenizer.ggml.model",
       [](Lists&, GgufBytes& f) {
         f.entries.clear();
         f.text("tokenizer.ggml.model", "bert");
       },
       "names 'bert'; 'llama' (SentencePiece) and 'gpt2' (byte-level BPE) are read"},
      {"tokenizer.ggml.tokens", without("tokenizer.ggml.tokens"), "is missing"},
      {"tokenizer.ggml.scores", without("tokenizer.ggml.scores"), "is missing"},
      {"tokenizer.ggml.token_type", without("tokenizer.ggml.token_type"), "is missing"},
      {"tokenizer.ggml.scores", lists([](Lists& l) { l.scores.pop_back(); }),
       "has 266 elements for 267 tokens"},
      {"tokenizer.ggml.token_type", lists([](Lists& l) { l.types.push_back(1); }),
       "has 268 elements for 267 tokens"},
      {"tokenizer.ggml.tokens", lists([](Lists& l) { l = {}; }), "must be a list of 1 to"},
      {"tokenizer.ggml.tokens", lists([](Lists& l) { l.tokens[260] = ""; }),
       "holds token 260, which is empty"},
      {"tokenizer.ggml.tokens", lists([](Lists& l) { l.tokens[260] = "b"; }), "holds 'b' twice"},
      {"tokenizer.ggml.tokens", lists([](Lists& l) { l.tokens[260] = std::string("a\0", 2); }),
       "contains a NUL"},
      {"tokenizer.ggml.tokens", lists([](Lists& l) { l.tokens[260] = "\xff"; }),
       "is not valid UTF-8"},
      {"tokenizer.ggml.scores", lists([](Lists& l) { l.scores[260] = kNan; }),
       "must be a list of F32 numbers"},
      {"tokenizer.ggml.scores",
       lists([](Lists& l) { l.scores[3] = std::numeric_limits<float>::infinity(); }),
       "must be a list of F32 numbers"},
      {"tokenizer.ggml.token_type", lists([](Lists& l) { l.types[5] = 0; }), "numbers from 1 to 6"},
      {"tokenizer.ggml.token_type", lists([](Lists& l) { l.types[5] = -1; }),
       "numbers from 1 to 6"},
      {"tokenizer.ggml.bos_token_id",
       [](Lists&, GgufBytes& f) { f.u32("tokenizer.ggml.bos_token_id", 267); },
       "must be a token id below 267"},
      {"tokenizer.ggml.eos_token_id",
       [](Lists&, GgufBytes& f) { f.i32("tokenizer.ggml.eos_token_id", -1); },
       "must be a token id below 267"},
      {"tokenizer.ggml.unknown_token_id",
       [](Lists&, GgufBytes& f) { f.u64("tokenizer.ggml.unknown_token_id", 1ull << 32); },
       "must be a token id below 267"},
      {"tokenizer.ggml.add_bos_token",
       [](Lists&, GgufBytes& f) { f.u32("tokenizer.ggml.add_bos_token", 1); },
       "must be true or false"},
      {"tokenizer.chat_template", [](Lists&, GgufBytes& f) { f.u32("tokenizer.chat_template", 1); },
       "must be a text"},
  };
  for (const Change& change : changes) {
    Lists l = small();
    GgufBytes file = file_of(l);
    change.make(l, file);
    const auto loaded = load(file);
    ASSERT_FALSE(loaded) << change.reason;
    EXPECT_EQ(loaded.error().code, Errc::bad_file);
    EXPECT_NE(loaded.error().detail.find(std::string("key '") + change.key + "' "),
              std::string::npos)
        << loaded.error().detail;
    EXPECT_NE(loaded.error().detail.find(change.reason), std::string::npos)
        << loaded.error().detail;
  }
}

TEST(GgufVocabulary, BytePiecesMustBeTheBytes) {
  for (const char* wrong : {"<0x-1>", "<0x100>", "<0x0a>", "0x0A", "<0xGG>"}) {
    Lists lists = small();
    lists.tokens[3 + 10] = wrong;
    EXPECT_FALSE(load(file_of(lists))) << wrong;
  }
  Lists lists = small();
  lists.tokens[3 + 10] = "ten";  // a byte is missing
  lists.types[3 + 10] = kNormal;
  EXPECT_FALSE(load(file_of(lists)));
}

TEST(GgufVocabulary, FlippedBitsAreReadOrRefused) {
  const std::string bytes = file_of(small()).bytes();
  for (std::uint32_t run = 0; run < 1500; ++run) {
    std::string damaged = bytes;
    const std::uint64_t bit = random_bits({23, 0, run}, 0) % (damaged.size() * 8);
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const auto header = parse_gguf_header(damaged, damaged.size());
    if (!header) continue;
    const auto vocabulary = read_gguf_vocabulary(**header);
    if (!vocabulary) {
      EXPECT_EQ(vocabulary.error().code, Errc::bad_file);
      continue;
    }
    const auto facts = parse_model_proto(vocabulary->model_proto);
    ASSERT_TRUE(facts) << facts.error().detail;
    EXPECT_EQ(facts->pieces.size(), 267u);
  }
}

}  // namespace
}  // namespace sluice::tok
