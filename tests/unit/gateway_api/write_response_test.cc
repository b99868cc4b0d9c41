// Bodies and chunks: golden transcripts, validity of the JSON, and no allocation per token.
#include "gateway/api/write_response.h"

#include <gtest/gtest.h>
#include <simdjson.h>

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
  writer.text_chunk(out, 0, "Hi \"you\"\n", FinishReason::none, ids, usage);
  writer.text_chunk(out, 1, "\xc3\xa9", FinishReason::length, ids, usage);
  writer.text_chunk(out, 0, "", FinishReason::stop, {}, usage);
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
    writer.text_chunk(out, 3, " word\n", FinishReason::none, id, usage);
  }
  EXPECT_EQ(allocation_count(), before);
}

}  // namespace
}  // namespace sluice::gw
