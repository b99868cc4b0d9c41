// Byte-level BPE: words as each family's pattern cuts them, merges against the plain definition on
// random words, round trips on random bytes, long runs, and every vocabulary that can't be.
#include "tokenizer/byte_level_bpe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "shared/random.h"
#include "tests/support/gguf_bytes.h"
#include "tests/unit/tokenizer/byte_level_lists.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

test::GgufBytes file_of(const Lists& lists, const char* pre) {
  test::GgufBytes file;
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
  file.texts("tokenizer.ggml.tokens", lists.tokens);
  file.integers("tokenizer.ggml.token_type", lists.types);
  return file.texts("tokenizer.ggml.merges", lists.merges);
}

Result<Tokenizer> load(const test::GgufBytes& file) {
  const std::string path = testing::TempDir() + "byte_level_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << file.bytes();
  auto loaded = Tokenizer::load(path);
  if (loaded) {
    EXPECT_EQ(Tokenizer::count_pieces(path).value(), loaded->vocabulary().size);
  }
  std::filesystem::remove(path);
  return loaded;
}

ByteLevelVocabulary vocabulary_of(const Lists& lists, PreTokenizer pre) {
  std::vector<PieceFacts> pieces;
  for (std::size_t id = 0; id < lists.tokens.size(); ++id)
    pieces.push_back({lists.tokens[id], static_cast<PieceType>(lists.types[id])});
  const std::vector<std::string_view> merges(lists.merges.begin(), lists.merges.end());
  return std::move(make_byte_level_vocabulary(pre, pieces, merges).value());
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  tokenizer.encode(text, Segment::first, ids);
  return ids;
}

// The definition: of all neighbours that merge, the first of the lowest rank, until there is none.
std::vector<TokenId> naive(const ByteLevelVocabulary& v, std::string_view word) {
  // Llama-3 keeps a word that is a token.
  const auto known = std::ranges::find(v.pieces, word);
  if (v.pre_tokenizer == PreTokenizer::llama3 && known != v.pieces.end())
    return {static_cast<TokenId>(known - v.pieces.begin())};
  std::vector<TokenId> ids;
  for (const char c : word) ids.push_back(v.byte_ids[static_cast<std::uint8_t>(c)]);
  for (;;) {
    std::size_t best = v.merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      for (std::size_t rank = 0; rank < best; ++rank) {
        if (v.merges[rank].left != ids[i] || v.merges[rank].right != ids[i + 1]) continue;
        best = rank;
        at = i;
      }
    }
    if (best == v.merges.size()) return ids;
    ids[at] = v.merges[best].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::vector<std::string> words_of(const ByteLevelBpe& bpe, std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = bpe.word_end(text, begin);
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

TEST(ByteLevelBpe, MergesAsTheDefinitionSays) {
  const ByteLevelVocabulary vocabulary = vocabulary_of(small(), PreTokenizer::gpt2);
  const ByteLevelBpe bpe(vocabulary, UINT32_MAX);
  constexpr std::array<std::string_view, 7> kParts{"a", "b", "aa", "ab", " ", "\xC3\xA4", "x"};
  for (std::uint32_t run = 0; run < 5000; ++run) {
    std::string word;
    const RandomKey key{31, 0, run};
    for (std::uint32_t i = 0; i < run % 70; ++i)
      word += kParts[random_bits(key, i) % kParts.size()];
    if (word.empty()) continue;
    std::vector<TokenId> got;
    bpe.encode_word(word, got);
    ASSERT_EQ(got, naive(vocabulary, word)) << run << ": " << word;
  }
}

using Words = std::vector<std::string>;

TEST(ByteLevelBpe, WordsOfGpt2) {
  const ByteLevelVocabulary vocabulary = vocabulary_of(small(), PreTokenizer::gpt2);
  const ByteLevelBpe bpe(vocabulary, UINT32_MAX);
  EXPECT_EQ(words_of(bpe, "Hello world's 1234 x2"),
            (Words{"Hello", " world", "'s", " 1234", " x", "2"}));
  EXPECT_EQ(words_of(bpe, "  two  spaces "), (Words{" ", " two", " ", " spaces", " "}));
  EXPECT_EQ(words_of(bpe, "a\n\nb\t c"), (Words{"a", "\n", "\n", "b", "\t", " c"}));
  EXPECT_EQ(words_of(bpe, "we'LL I'll!?..."), (Words{"we", "'", "LL", " I", "'ll", "!?..."}));
  EXPECT_EQ(words_of(bpe, "\u00e4\u6f22 \u0663\u00bd \U0001f600"),
            (Words{"\u00e4\u6f22", " \u0663\u00bd", " \U0001f600"}));
  EXPECT_EQ(words_of(bpe, "a\u00a0\u3000b\u180ec"),
            (Words{"a", "\u00a0", "\u3000", "b", "\u180e", "c"}));
}

TEST(ByteLevelBpe, WordsOfLlama3AndQwen2) {
  for (const PreTokenizer pre : {PreTokenizer::llama3, PreTokenizer::qwen2}) {
    const ByteLevelVocabulary vocabulary = vocabulary_of(small(), pre);
    const ByteLevelBpe bpe(vocabulary, UINT32_MAX);
    EXPECT_EQ(words_of(bpe, "we'LL (see) x"), (Words{"we", "'LL", " (", "see", ")", " x"}));
    EXPECT_EQ(words_of(bpe, "a\r\n\r\n  b"), (Words{"a", "\r\n\r\n", " ", " b"}));
    EXPECT_EQ(words_of(bpe, "x;\n\ty  "), (Words{"x", ";\n", "\ty", "  "}));
    EXPECT_EQ(words_of(bpe, "   \n  z"), (Words{"   \n", " ", " z"}));
    const bool is_qwen = pre == PreTokenizer::qwen2;
    EXPECT_EQ(words_of(bpe, "12345"),
              is_qwen ? Words({"1", "2", "3", "4", "5"}) : Words({"123", "45"}));
    EXPECT_EQ(words_of(bpe, " 7"), (Words{" ", "7"}));
  }
}

TEST(ByteLevelBpe, WordsOfSmollm) {
  const ByteLevelVocabulary vocabulary = vocabulary_of(small(), PreTokenizer::smollm);
  const ByteLevelBpe bpe(vocabulary, UINT32_MAX);
  EXPECT_EQ(words_of(bpe, "in 1984's x2"), (Words{"in", " ", "1", "9", "8", "4", "'s", " x", "2"}));
  EXPECT_EQ(words_of(bpe, "a   7  b"), (Words{"a", "   ", "7", " ", " b"}));
}

TEST(ByteLevelBpe, TextsAreTheirWordsAndComeBack) {
  const std::pair<PreTokenizer, const char*> kinds[] = {{PreTokenizer::gpt2, "gpt-2"},
                                                        {PreTokenizer::llama3, "llama-bpe"},
                                                        {PreTokenizer::qwen2, "qwen2"},
                                                        {PreTokenizer::smollm, "smollm"}};
  for (const auto& [pre, name] : kinds) {
    const ByteLevelVocabulary vocabulary = vocabulary_of(small(), pre);
    const ByteLevelBpe bpe(vocabulary, UINT32_MAX);
    const auto tokenizer = load(file_of(small(), name));
    ASSERT_TRUE(tokenizer) << tokenizer.error().detail;
    for (std::uint32_t run = 0; run < 1500; ++run) {
      const std::string text = random_text(run);
      std::string valid;
      append_valid_utf8(text, valid);
      std::string joined;
      std::vector<TokenId> want;
      for (const std::string& word : words_of(bpe, valid)) {
        ASSERT_FALSE(word.empty());
        ASSERT_TRUE(is_valid_utf8(word));
        joined += word;
        const auto ids = naive(vocabulary, word);
        want.insert(want.end(), ids.begin(), ids.end());
      }
      ASSERT_EQ(joined, valid);
      // Twice: the second time from the cache.
      for (int time = 0; time < 2; ++time) ASSERT_EQ(encode(*tokenizer, text), want) << run;
      ASSERT_EQ(*tokenizer->decode(want), valid);
      ASSERT_GE(want.size(), valid.size() / tokenizer->vocabulary().longest_piece_bytes);
    }
  }
}

TEST(ByteLevelBpe, LongRunsEnd) {
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "smollm"}) {
    const auto tokenizer = load(file_of(small(), name));
    ASSERT_TRUE(tokenizer);
    for (const std::string_view unit : {"a", " ", "\n", "7", "!", " \n", "a ", "\u00e4", "'"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      const auto ids = encode(*tokenizer, text);
      ASSERT_EQ(*tokenizer->decode(ids), text) << name << " " << unit;
    }
  }
}

TEST(ByteLevelBpe, ALlama3WordThatIsATokenStaysOne) {
  Lists lists = small();
  const TokenId word = lists.add(written(" ba"), kNormal);  // no merges lead to it
  const auto llama3 = load(file_of(lists, "llama-bpe"));
  ASSERT_TRUE(llama3) << llama3.error().detail;
  EXPECT_EQ(encode(*llama3, " ba"), std::vector<TokenId>{word});
  EXPECT_EQ(encode(*load(file_of(lists, "qwen2")), " ba").size(), 2u);
}

TEST(ByteLevelBpe, SpecialTokensNeverComeFromText) {
  Lists lists = small();
  const TokenId begin = lists.add("<|begin_of_text|>", kControl);
  const TokenId end = lists.add("<|im_end|>", kUserDefined);
  const TokenId tool = lists.add("<tool_call>", kUserDefined);
  const TokenId spare = lists.add("[PAD7]", kUnused);
  test::GgufBytes file = file_of(lists, "llama-bpe");
  file.u32("tokenizer.ggml.bos_token_id", begin).u32("tokenizer.ggml.eos_token_id", end);
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().detail;
  const std::string text = "<|begin_of_text|><|im_end|><tool_call>[PAD7]";
  for (const TokenId id : encode(*loaded, text)) EXPECT_LT(id, begin);
  EXPECT_EQ(*loaded->decode(encode(*loaded, text)), text);
  EXPECT_EQ(loaded->vocabulary().bos, begin);
  EXPECT_EQ(loaded->vocabulary().eos, end);
  EXPECT_TRUE(loaded->vocabulary().adds_bos);
  EXPECT_EQ(loaded->special_id("<|im_end|>"), end);
  EXPECT_TRUE(loaded->is_special(end));
  EXPECT_FALSE(loaded->is_special(tool));
  EXPECT_EQ(loaded->piece_bytes(tool), "<tool_call>");
  EXPECT_EQ(loaded->piece_bytes(spare), "[PAD7]");
  EXPECT_EQ(loaded->piece_bytes(begin), "");
  EXPECT_EQ(loaded->piece_bytes(static_cast<TokenId>(' ')), " ");
  EXPECT_FALSE(load(file_of(lists, "qwen2"))->vocabulary().adds_bos);
}

TEST(ByteLevelBpe, RefusesVocabulariesThatCanNotBe) {
  struct Row {
    const char* what;
    void (*change)(Lists&);
    const char* reason;
  };
  const Row rows[] = {
      {"a byte is missing", [](Lists& l) { l.types[65] = kUnused; }, "no token for byte 65"},
      {"outside the alphabet", [](Lists& l) { l.add("\u6f22", kNormal); },
       "is not written in the alphabet"},
      {"a raw space", [](Lists& l) { l.add("a b c", kNormal); }, "is not written in the alphabet"},
      {"a merge of one", [](Lists& l) { l.merges.push_back("a"); },
       "merge 11 is not of two tokens"},
      {"of no tokens", [](Lists& l) { l.merges.push_back("a zz"); },
       "merge 11 is not of two tokens"},
      {"to no token", [](Lists& l) { l.merges.push_back("x y"); }, "merge 11 is not of two tokens"},
      {"empty", [](Lists& l) { l.merges.push_back(""); }, "merge 11 is not of two tokens"},
      {"of three", [](Lists& l) { l.merges.push_back("a b c"); }, "merge 11 is not of two tokens"},
      {"to a control token",
       [](Lists& l) {
         l.merge("x", "y");
         l.types.back() = kControl;
       },
       "merge 11 is not of two tokens"},
      {"a token twice", [](Lists& l) { l.add("a", kNormal); }, "holds 'a' twice"}};
  for (const Row& row : rows) {
    Lists lists = small();
    row.change(lists);
    const auto loaded = load(file_of(lists, "gpt-2"));
    ASSERT_FALSE(loaded) << row.what;
    EXPECT_NE(loaded.error().detail.find(row.reason), std::string::npos) << loaded.error().detail;
  }
  EXPECT_NE(load(file_of(small(), "unheard-of")).error().detail.find("names 'unheard-of'"),
            std::string::npos);
  test::GgufBytes file = file_of(small(), "gpt-2");
  file.entries.pop_back();
  EXPECT_NE(load(file).error().detail.find("'tokenizer.ggml.merges' is missing"),
            std::string::npos);
  file.entries.erase(file.entries.begin() + 1);
  EXPECT_NE(load(file).error().detail.find("'tokenizer.ggml.pre' is missing"), std::string::npos);
}

}  // namespace
}  // namespace sluice::tok
