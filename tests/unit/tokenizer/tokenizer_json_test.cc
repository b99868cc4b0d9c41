// tokenizer.json: a vocabulary written as one has the tokens that it has in a GGUF file, whatever
// the pattern; added tokens never come from text; rows beyond the vocabulary are special; what is
// not read is refused by name, and damaged files never more than that.
#include "tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/gguf_bytes.h"
#include "tests/unit/tokenizer/byte_level_lists.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

constexpr char kByteLevel[] =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":)";
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|)"
    R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
constexpr char kQwen2[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|)"
                          R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";

std::string split_by(const char* pattern) {
  return std::string(
             R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":")") +
         pattern + R"("},"behavior":"Isolated","invert":false},)" + kByteLevel + "false}]}";
}

// The parts of a file as texts, so that a test can change each.
struct Json {
  std::string normalizer = "null";
  std::string pre_tokenizer = std::string(kByteLevel) + "true}";
  std::string post_processor = "null";
  std::string added = "[]";
  std::string model_type = "\"BPE\"";
  std::string model_more;  // behind the type
  Lists lists = small();
  bool merges_as_pairs = false;
};

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string text_of(const Json& json) {
  std::string vocab, merges;
  for (std::size_t id = 0; id < json.lists.tokens.size(); ++id) {
    if (json.lists.tokens[id].empty()) continue;  // a hole
    vocab +=
        (vocab.empty() ? "" : ",") + json_text(json.lists.tokens[id]) + ":" + std::to_string(id);
  }
  for (const std::string& merge : json.lists.merges) {
    std::string text = json_text(merge);
    if (json.merges_as_pairs) text = "[" + text.replace(text.find(' '), 1, "\",\"") + "]";
    merges += (merges.empty() ? "" : ",") + text;
  }
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":)" + json.added +
         R"(,"normalizer":)" + json.normalizer + R"(,"pre_tokenizer":)" + json.pre_tokenizer +
         R"(,"post_processor":)" + json.post_processor + R"(,"decoder":{"type":"ByteLevel"},)" +
         R"("model":{"type":)" + json.model_type + json.model_more + R"(,"vocab":{)" + vocab +
         R"(},"merges":[)" + merges + "]}}";
}

class TokenizerJson : public testing::Test {
 protected:
  TokenizerJson() { std::filesystem::create_directory(folder_); }
  ~TokenizerJson() override { std::filesystem::remove_all(folder_); }
  void write(const char* name, const std::string& text) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
  }
  Result<Tokenizer> load(const Json& json) {
    write("tokenizer.json", text_of(json));
    return Tokenizer::load(folder_ + "/tokenizer.json");
  }
  // Behind the path; "loaded" without an error.
  std::string outcome(const Json& json) {
    const auto loaded = load(json);
    return loaded ? "loaded" : loaded.error().detail.substr((folder_ + "/tokenizer.json: ").size());
  }
  Result<Tokenizer> load_gguf(const Lists& lists, const char* pre) {
    test::GgufBytes file;
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
    file.texts("tokenizer.ggml.tokens", lists.tokens);
    file.integers("tokenizer.ggml.token_type", lists.types);
    file.texts("tokenizer.ggml.merges", lists.merges);
    write("v.gguf", file.bytes());
    return Tokenizer::load(folder_ + "/v.gguf");
  }

  const std::string folder_ = testing::TempDir() + "tokenizer_json_" + std::to_string(::getpid());
};

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  tokenizer.encode(text, Segment::first, ids);
  return ids;
}

TEST_F(TokenizerJson, HasTheTokensOfTheSameVocabularyInAGgufFile) {
  const std::string digits = R"({"type":"Sequence","pretokenizers":[{"type":"Digits",)"
                             R"("individual_digits":true},)" +
                             std::string(kByteLevel) + "true}]}";
  const std::pair<const char*, std::string> kinds[] = {{"gpt-2", std::string(kByteLevel) + "true}"},
                                                       {"llama-bpe", split_by(kLlama3)},
                                                       {"qwen2", split_by(kQwen2)},
                                                       {"smollm", digits}};
  for (const auto& [pre, pre_tokenizer] : kinds) {
    SCOPED_TRACE(pre);
    Json json;
    json.pre_tokenizer = pre_tokenizer;
    json.merges_as_pairs = *pre == 'q';
    json.lists.add(written(" ba"), kNormal);  // which no merges lead to
    const auto gguf = load_gguf(json.lists, pre);
    const auto loaded = load(json);
    ASSERT_TRUE(gguf && loaded) << loaded.error().detail;
    for (std::uint32_t run = 0; run < 1000; ++run) {
      const std::string text = random_text(run) + " ba";
      const auto ids = encode(*loaded, text);
      ASSERT_EQ(ids, encode(*gguf, text)) << run;
      std::string valid;
      append_valid_utf8(text, valid);
      ASSERT_EQ(*loaded->decode(ids), valid);
    }
  }
}

TEST_F(TokenizerJson, KeepsWordsWhereTheFileSaysSo) {
  Json json;
  const TokenId word = json.lists.add(written(" ba"), kNormal);
  EXPECT_EQ(encode(*load(json), " ba").size(), 2u);
  json.model_more = R"(,"ignore_merges":true)";
  EXPECT_EQ(encode(*load(json), " ba"), std::vector<TokenId>{word});
}

TEST_F(TokenizerJson, AddedTokensNeverComeFromText) {
  Json json;
  const auto first = static_cast<TokenId>(json.lists.tokens.size());
  json.lists.add("<|endoftext|>", kNormal);  // of the vocabulary, too
  const auto entry = [](TokenId id, const char* text, const char* special) {
    return R"({"id":)" + std::to_string(id) + R"(,"content":")" + text + R"(","special":)" +
           special + "}";
  };
  // An id is left out.
  json.added =
      "[" + entry(first, "<|endoftext|>", "true") + "," + entry(first + 1, "<|im_end|>", "false") +
      "," + entry(first + 2, "<tool_call>", "false") + "," + entry(first + 4, "<s>", "true") + "]";
  json.post_processor =
      R"({"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing",)"
      R"("single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A"}}]}]})";
  write("tokenizer_config.json",
        R"({"bos_token":{"content":"<s>"},"eos_token":"<|im_end|>","chat_template":"{{ x }}"})");
  const std::string rows = std::to_string(first + 9);
  write("config.json", R"({"vocab_size":)" + rows + "}");
  const auto loaded = load(json);
  ASSERT_TRUE(loaded) << loaded.error().detail;
  const std::string text = "<|endoftext|><|im_end|><tool_call><s>[PAD270]";
  for (const TokenId id : encode(*loaded, text)) EXPECT_LT(id, first);
  EXPECT_EQ(*loaded->decode(encode(*loaded, text)), text);
  EXPECT_EQ(loaded->vocabulary().bos, first + 4);
  EXPECT_EQ(loaded->vocabulary().eos, first + 1);
  EXPECT_TRUE(loaded->vocabulary().adds_bos);
  EXPECT_EQ(loaded->chat_template_source(), "{{ x }}");
  EXPECT_EQ(loaded->special_id("<|im_end|>"), first + 1);
  EXPECT_EQ(loaded->piece_bytes(first), "");
  EXPECT_EQ(loaded->piece_bytes(first + 2), "<tool_call>");
  EXPECT_FALSE(loaded->is_special(first + 2));
  // The hole, and the model's rows beyond.
  EXPECT_EQ(loaded->vocabulary().size, first + 9);
  for (const TokenId id : {first + 3, first + 5, first + 8}) {
    EXPECT_TRUE(loaded->is_special(id));
    EXPECT_EQ(loaded->piece_bytes(id), "");
  }
  write("tokenizer_config.json", R"({"bos_token":"<s>","add_bos_token":false})");
  EXPECT_FALSE(load(json)->vocabulary().adds_bos);
  write("config.json", R"({"vocab_size":99999999})");
  EXPECT_NE(load(json).error().detail.find("vocab_size must be at most"), std::string::npos);
}

TEST_F(TokenizerJson, RefusesWhatItDoesNotReadByName) {
  struct Row {
    void (*change)(Json&);
    const char* answer;
  };
  const Row rows[] = {
      {[](Json& j) { j.normalizer = R"({"type":"NFC"})"; }, "loaded"},
      {[](Json& j) { j.normalizer = R"({"type":"NFKC"})"; },
       "normalizer of type 'NFKC' is not read; NFC and none are"},
      {[](Json& j) { j.normalizer = R"({"type":"Sequence","normalizers":{}})"; },
       "normalizer must hold a list"},
      {[](Json& j) { j.normalizer = "3"; }, "normalizer is no object"},
      {[](Json& j) { j.pre_tokenizer = "null"; }, "pre_tokenizer has no ByteLevel"},
      {[](Json& j) { j.pre_tokenizer = R"({"type":"Metaspace"})"; },
       "pre_tokenizer has a step 'Metaspace'"},
      {[](Json& j) { j.pre_tokenizer = split_by("\\\\w+|[^\\\\w]+"); },
       "pre_tokenizer has a pattern that is not known: '\\w+|[^\\w]+'"},
      {[](Json& j) { j.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":true})"; },
       "pre_tokenizer with add_prefix_space is not read"},
      {[](Json& j) { j.pre_tokenizer = std::string(kByteLevel) + "false}"; },
       "pre_tokenizer has no pattern"},
      {[](Json& j) { j.model_type = "\"WordPiece\""; }, "model of type 'WordPiece' is not read"},
      {[](Json& j) { j.model_more = R"(,"dropout":0.1)"; }, "model with dropout is not read"},
      {[](Json& j) { j.model_more = R"(,"byte_fallback":true)"; }, "model with byte_fallback"},
      {[](Json& j) { j.model_more = R"(,"end_of_word_suffix":"</w>")"; },
       "model with end_of_word_suffix is not read"},
      {[](Json& j) { j.model_more = R"(,"ignore_merges":1)"; }, "model has an ignore_merges"},
      {[](Json& j) { j.added = R"([{"content":"<s>"}])"; }, "added_tokens holds what has no id"},
      {[](Json& j) { j.added = R"([{"id":7,"content":"<s>"}])"; },
       "vocabulary has two tokens of id 7"},
      {[](Json& j) { j.added = R"([{"id":4294967303,"content":"<s>"}])"; },
       "vocabulary has an id above 1048575"},
      {[](Json& j) { j.added = R"([{"id":-1,"content":"<s>"}])"; }, "added_tokens holds what has"},
      {[](Json& j) { j.added = R"([{"id":300,"content":"a"}])"; }, "vocabulary holds 'a' twice"},
      {[](Json& j) { j.added = R"([{"id":300}])"; }, "vocabulary has an empty token"},
      {[](Json& j) { j.lists.tokens[65].clear(); }, "no token for byte 65"},
      {[](Json& j) { j.lists.merges.push_back("a zz"); }, "merge 11 is not of two tokens"},
  };
  for (const Row& row : rows) {
    Json json;
    row.change(json);
    const std::string want = row.answer;
    EXPECT_EQ(outcome(json).substr(0, want.size()), want);
  }
}

TEST_F(TokenizerJson, DamagedFilesAreReadOrRefused) {
  Json json;
  json.pre_tokenizer = split_by(kLlama3);
  const std::string whole = text_of(json);
  std::size_t refused = 0;
  for (std::size_t at = 0; at < whole.size(); at += 3) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 7)));
    const auto source = read_tokenizer_json(damaged, {}, 0);
    if (source) continue;
    ++refused;
    ASSERT_EQ(source.error().code, Errc::bad_file);
    ASSERT_FALSE(source.error().detail.empty());
  }
  EXPECT_GT(refused, whole.size() / 3 / 2);
  for (std::size_t size = 0; size < whole.size(); size += 5)
    ASSERT_FALSE(read_tokenizer_json(whole.substr(0, size), {}, 0));
}

}  // namespace
}  // namespace sluice::tok
