// Bodies and chunks: golden transcripts, validity of the JSON, and no allocation per token.
#include "gateway/api/write_response.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <limits>

#include "tests/support/allocation_count.h"
#include "tests/support/golden.h"

namespace sluice::gw {
namespace {

ResponseIdentity identity(ApiKind kind) {
  return {.kind = kind,
          .id = kind == ApiKind::chat ? "chatcmpl-0011" : "cmpl-0011",
          .model = "tiny \"q\"",
          .fingerprint = "fp_0123",
          .created = 1700000000};
}

TimingInfo timing() {
  TimingInfo info;
  info.stats.queued = std::chrono::microseconds(1500);
  info.stats.prefill = std::chrono::milliseconds(2);
  info.stats.decode = std::chrono::milliseconds(30);
  info.stats.worker = WorkerId(1);
  info.seed = ~std::uint64_t{0};
  return info;
}

std::string transcript(ApiKind kind, const ChunkOptions& options) {
  ResponseWriter writer;
  writer.begin(identity(kind), options);
  const TokenId prompt[] = {1, 2};
  const TokenId ids[] = {7, 8};
  std::string out;
  Usage usage{.prompt_tokens = 2, .completion_tokens = 0, .cached_tokens = 1};
  writer.role_chunk(out, 0, prompt, usage);
  usage.completion_tokens = 2;
  writer.text_chunk(out, 0, {.text = "Hi \"you\"\n", .ids = ids}, usage);
  writer.text_chunk(out, 1, {.text = "\xc3\xa9", .finish = FinishReason::length, .ids = ids},
                    usage);
  writer.text_chunk(out, 0, {.text = "", .finish = FinishReason::stop}, usage);
  const TimingInfo info = timing();
  writer.closing_chunk(out, usage, &info);
  writer.done(out);
  return out;
}

void expect_valid_events(const std::string& text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = text.find("\n\n", at);
    ASSERT_NE(end, std::string::npos);
    const std::string event = text.substr(at, end - at);
    ASSERT_EQ(event.substr(0, 6), "data: ");
    at = end + 2;
    if (event == "data: [DONE]") continue;
    simdjson::dom::parser parser;
    simdjson::dom::object object;
    ASSERT_EQ(parser.parse(event.substr(6)).get(object), simdjson::SUCCESS) << event;
  }
}

TEST(WriteResponse, ChatStreamTranscripts) {
  const std::string plain = transcript(ApiKind::chat, {});
  expect_valid_events(plain);
  test::expect_golden("chat_stream.sse", plain);
  const std::string full = transcript(
      ApiKind::chat, {.include_usage = true, .continuous_usage = true, .token_ids = true});
  expect_valid_events(full);
  test::expect_golden("chat_stream_usage.sse", full);
}

TEST(WriteResponse, CompletionStreamTranscripts) {
  const std::string plain = transcript(
      ApiKind::completion, {.include_usage = true, .continuous_usage = false, .token_ids = false});
  expect_valid_events(plain);
  test::expect_golden("completion_stream.sse", plain);
}

TEST(WriteResponse, WholeBodies) {
  const TokenId prompt[] = {1, 2};
  const TokenId ids[] = {7, 8};
  const ChoiceResult choices[] = {
      {.text = "Hello\n",
       .finish = FinishReason::stop,
       .token_ids = ids,
       .prompt_token_ids = prompt},
      {.text = "", .finish = FinishReason::length, .token_ids = {}, .prompt_token_ids = prompt}};
  for (const ApiKind kind : {ApiKind::chat, ApiKind::completion}) {
    for (const bool full : {false, true}) {
      ResponseWriter writer;
      writer.begin(identity(kind),
                   {.include_usage = false, .continuous_usage = false, .token_ids = full});
      std::string out;
      const TimingInfo info = timing();
      writer.body(out, choices, prompt, {2, 3, 1}, full ? &info : nullptr);
      simdjson::dom::parser parser;
      simdjson::dom::object object;
      ASSERT_EQ(parser.parse(out).get(object), simdjson::SUCCESS) << out;
      const std::string name = kind == ApiKind::chat ? "chat_body" : "completion_body";
      test::expect_golden(name + (full ? "_full.json" : ".json"), out);
    }
  }
}

TEST(WriteResponse, ATokenChunkAllocatesNothing) {
  ResponseWriter writer;
  writer.begin(identity(ApiKind::chat),
               {.include_usage = true, .continuous_usage = true, .token_ids = true});
  std::string out;
  out.reserve(1 << 20);
  const TokenId id[] = {12345};
  Usage usage;
  const std::size_t before = allocation_count();
  for (int i = 0; i < 1000; ++i) {
    ++usage.completion_tokens;
    writer.text_chunk(out, 3, {.text = " word\n", .ids = id}, usage);
  }
  EXPECT_EQ(allocation_count(), before);
}

const tok::Tokenizer& canned_tokenizer() {
  static const tok::Tokenizer tokenizer =
      std::move(tok::Tokenizer::load(SLUICE_SOURCE_DIR "/models/canned/tokenizer.model").value());
  return tokenizer;
}

TokenId id_of(std::string_view bytes) {
  const tok::Tokenizer& tokenizer = canned_tokenizer();
  for (TokenId id = 0; id < tokenizer.vocabulary().size; ++id)
    if (tokenizer.piece_bytes(id) == bytes) return id;
  ADD_FAILURE() << "no such piece: " << bytes;
  return 0;
}

TEST(LogprobList, ChatShowsBytesAndAlternatives) {
  const TokenId half = id_of("\xe2");  // a byte piece: no whole character
  const TokenId a = id_of("a");
  const TopLogprob top[] = {{half, -0.5f}, {*canned_tokenizer().vocabulary().eos, -1.25f}};
  LogprobList list;
  list.begin(ApiKind::chat, 2);
  EXPECT_TRUE(list.is_empty());
  list.add(canned_tokenizer(), {half, -0.5f, top}, 0);
  list.add(canned_tokenizer(), {a, -std::numeric_limits<float>::infinity(), {}}, 0);
  std::string out;
  list.append_to(out);
  EXPECT_EQ(out,
            "{\"content\":[{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.5,\"bytes\":[226],"
            "\"top_logprobs\":[{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.5,\"bytes\":[226]},"
            "{\"token\":\"</s>\",\"logprob\":-1.25,\"bytes\":null}]},"
            "{\"token\":\"a\",\"logprob\":-9999,\"bytes\":[97],\"top_logprobs\":[]}],"
            "\"refusal\":null}");
}

TEST(LogprobList, CompletionsShowFourListsWithUniqueKeys) {
  const TokenId half = id_of("\xe2");
  const TokenId a = id_of("a");
  const TokenId b = id_of("b");
  const TopLogprob top[] = {{half, -0.5f}, {b, -1.0f}};
  LogprobList list;
  list.begin(ApiKind::completion, 2);
  list.add(canned_tokenizer(), {b, std::nullopt, {}}, 0);
  list.add(canned_tokenizer(), {a, -2.0f, top}, 1);
  list.add(canned_tokenizer(), {b, -1.0f, top}, 2);
  std::string out;
  list.append_to(out);
  EXPECT_EQ(
      out,
      "{\"tokens\":[\"b\",\"a\",\"b\"],\"token_logprobs\":[null,-2,-1],\"top_logprobs\":[null,"
      "{\"bytes:\\\\xe2\":-0.5,\"b\":-1,\"a\":-2},{\"bytes:\\\\xe2\":-0.5,\"b\":-1}],"
      "\"text_offset\":[0,1,2]}");
  list.begin(ApiKind::completion, 0);
  list.add(canned_tokenizer(), {a, -2.0f, {}}, 0);
  out.clear();
  list.append_to(out);
  EXPECT_NE(out.find("\"top_logprobs\":null"), std::string::npos) << out;
}

TEST(WriteResponse, EmbeddingsAsFloatsAndAsBase64) {
  const float one[] = {1.0f, -0.25f, 0.1f};
  const float other[] = {3.0e-8f};
  const EmbeddingResult results[] = {{one}, {other}};
  std::string out;
  append_embeddings(out, "m", results, EncodingFormat::floats, 7);
  EXPECT_EQ(out,
            "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
            "[1,-0.25,0.1]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[3e-08]}],"
            "\"model\":\"m\",\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}");
  out.clear();
  append_embeddings(out, "m", results, EncodingFormat::base64, 7);
  // 00 00 80 3f, 00 00 80 be, cd cc cc 3d; then one number alone, which needs padding.
  EXPECT_NE(out.find("\"embedding\":\"AACAPwAAgL7NzMw9\""), std::string::npos) << out;
  EXPECT_NE(out.find("\"embedding\":\"WdkAMw==\""), std::string::npos) << out;
}

}  // namespace
}  // namespace sluice::gw
