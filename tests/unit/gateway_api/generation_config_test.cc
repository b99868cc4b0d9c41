// A model's generation_config.json or GGUF keys: what is taken from it, what yields to the request,
// and the files that are refused.
#include "gateway/api/generation_config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gateway/api/parse_request.h"
#include "tests/support/gguf_bytes.h"

namespace sluice::gw {
namespace {

constexpr std::uint32_t kVocabulary = 100;

GenerationRequest request_of(std::string fields) {
  RequestParser parser(1);
  GenerationRequest request;
  std::string body = R"({"model":"m","prompt":"hi")" + fields + "}";
  EXPECT_TRUE(parser.parse_generation(body, ApiKind::completion, request));
  return request;
}

GenerationConfig config_of(std::string text) {
  Result<GenerationConfig> config = parse_generation_config(std::move(text), kVocabulary);
  EXPECT_TRUE(config) << (config ? "" : config.error().detail);
  return config ? *config : GenerationConfig{};
}

TEST(GenerationConfig, FillsInWhatTheRequestLeftOpen) {
  const GenerationConfig config = config_of(
      R"({"temperature":0.25,"top_p":0.5,"top_k":7,"min_p":0.125,"repetition_penalty":1.5,)"
      R"("do_sample":true,"eos_token_id":[4,2],"transformers_version":"4.40"})");
  EXPECT_EQ(config.eos_ids, (std::vector<TokenId>{4, 2}));
  GenerationRequest request = request_of("");
  config.apply_to(request);
  EXPECT_EQ(request.sampling.temperature, 0.25f);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 7u);
  EXPECT_EQ(request.sampling.min_p, 0.125f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5f);
}

TEST(GenerationConfig, YieldsToEveryFieldOfTheRequest) {
  const GenerationConfig config = config_of(
      R"({"temperature":0.25,"top_p":0.5,"top_k":7,"min_p":0.125,"repetition_penalty":1.5})");
  // The values that mean "off" count as given, too.
  GenerationRequest request =
      request_of(R"(,"temperature":1,"top_p":1,"top_k":0,"min_p":0,"repetition_penalty":1)");
  config.apply_to(request);
  EXPECT_EQ(request.sampling.temperature, 1.0f);
  EXPECT_EQ(request.sampling.top_p, 1.0f);
  EXPECT_EQ(request.sampling.top_k, 0u);
  EXPECT_EQ(request.sampling.min_p, 0.0f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.0f);
}

TEST(GenerationConfig, ANullInTheRequestIsNoChoice) {
  GenerationRequest request = request_of(R"(,"temperature":null)");
  config_of(R"({"temperature":0.25,"top_p":null,"eos_token_id":3})").apply_to(request);
  EXPECT_EQ(request.sampling.temperature, 0.25f);
  EXPECT_EQ(request.sampling.top_p, 1.0f);
}

TEST(GenerationConfig, RefusesWhatNoRequestCouldAskFor) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"temperature":2.5})", "temperature"},
      {R"({"temperature":"hot"})", "temperature"},
      {R"({"top_p":0})", "top_p"},
      {R"({"top_p":1.5})", "top_p"},
      {R"({"min_p":-1})", "min_p"},
      {R"({"top_k":-3})", "top_k"},
      {R"({"top_k":1.5})", "top_k"},
      {R"({"repetition_penalty":0})", "repetition_penalty"},
      {R"({"eos_token_id":100})", "below 100"},
      {R"({"eos_token_id":-1})", "eos_token_id"},
      {R"({"eos_token_id":[1,100]})", "below 100"},
      {R"({"eos_token_id":[1,"2"]})", "eos_token_id[1]"},
      {R"([1])", "object"},
      {R"({"top_k":1,"top_k":2})", ""},
      {R"({"top_k":)", ""},
      {"", ""}};
  for (const auto& [text, named] : cases) {
    const Result<GenerationConfig> config = parse_generation_config(text, kVocabulary);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, Errc::bad_file) << text;
    EXPECT_NE(config.error().detail.find(named), std::string::npos) << config.error().detail;
  }
  std::string ids = "{\"eos_token_id\":[0";
  for (std::size_t i = 0; i < kEosIdsMax; ++i) ids += ",1";
  EXPECT_FALSE(parse_generation_config(ids + "]}", kVocabulary));
}

Result<GenerationConfig> gguf_config_of(const test::GgufBytes& file) {
  const std::string bytes = file.bytes();
  const auto header = parse_gguf_header(bytes, bytes.size());
  return read_gguf_generation(**header, kVocabulary);
}

TEST(GenerationConfig, ComesFromTheKeysOfAGgufFile) {
  test::GgufBytes file;
  const auto nothing = gguf_config_of(file);
  ASSERT_TRUE(nothing);
  EXPECT_FALSE(nothing->temperature || nothing->top_k || !nothing->eos_ids.empty());
  file.f32("general.sampling.temp", 0.5f).f32("general.sampling.top_p", 0.75f);
  file.f32("general.sampling.min_p", 0.25f).f32("general.sampling.penalty_repeat", 1.5f);
  file.i32("general.sampling.top_k", 40).u32("tokenizer.ggml.eos_token_id", 2);
  file.u32("tokenizer.ggml.eot_token_id", 4).u32("tokenizer.ggml.eom_token_id", 2);
  const auto config = gguf_config_of(file);
  ASSERT_TRUE(config) << config.error().detail;
  EXPECT_EQ(config->temperature, 0.5f);
  EXPECT_EQ(config->top_p, 0.75f);
  EXPECT_EQ(config->min_p, 0.25f);
  EXPECT_EQ(config->repetition_penalty, 1.5f);
  EXPECT_EQ(config->top_k, 40u);
  EXPECT_EQ(config->eos_ids, (std::vector<TokenId>{2, 4}));
  EXPECT_EQ(gguf_config_of(test::GgufBytes().i32("general.sampling.top_k", -1))->top_k, 0u);

  const std::pair<const char*, float> cases[] = {
      {"general.sampling.temp", 2.5f},      {"general.sampling.top_p", 0.0f},
      {"general.sampling.min_p", -0.5f},    {"general.sampling.penalty_repeat", 3.0f},
      {"general.sampling.top_k", 1.5f},     {"general.sampling.top_k", -2.0f},
      {"tokenizer.ggml.eos_token_id", 1.0f}};
  for (const auto& [key, value] : cases) {
    const auto wrong = gguf_config_of(test::GgufBytes().f32(key, value));
    ASSERT_FALSE(wrong) << key;
    EXPECT_NE(wrong.error().detail.find(std::string("key '") + key + "' must be"),
              std::string::npos)
        << wrong.error().detail;
  }
  EXPECT_FALSE(gguf_config_of(test::GgufBytes().u32("tokenizer.ggml.eot_token_id", kVocabulary)));
  EXPECT_FALSE(gguf_config_of(test::GgufBytes().text("general.sampling.temp", "hot")));
}

TEST(GenerationConfig, ComesFromTheModelsDirectory) {
  char pattern[] = "/tmp/sluice_generation_XXXXXX";
  const std::filesystem::path folder = ::mkdtemp(pattern);
  const auto absent = load_generation_config(folder, kVocabulary);
  ASSERT_TRUE(absent);
  EXPECT_FALSE(absent->temperature || absent->top_p || !absent->eos_ids.empty());
  const auto write = [&](const std::string& text) {
    std::ofstream(folder / "generation_config.json", std::ios::binary) << text;
  };
  write(R"({"top_p":0.5})");
  EXPECT_EQ(load_generation_config(folder, kVocabulary)->top_p, 0.5f);
  write(R"({"top_p":7})");
  const auto wrong = load_generation_config(folder, kVocabulary);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().detail.find((folder / "generation_config.json").string()), 0u);
  write("{\"top_p\":0.5}" + std::string(kGenerationConfigBytesMax, ' '));
  EXPECT_FALSE(load_generation_config(folder, kVocabulary));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sluice::gw
