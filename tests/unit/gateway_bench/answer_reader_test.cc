// AnswerReader: what is counted in whole and streamed answers, and how endings are told apart.
#include "gateway/bench/answer_reader.h"

#include <gtest/gtest.h>

#include "tests/unit/gateway_bench/split_feeder.h"

namespace sluice::bench {
namespace {

std::string whole(const std::string& body, const std::string& status = "200 OK") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

std::string chunked(const std::string& stream, std::size_t chunk_bytes) {
  std::string out = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (std::size_t i = 0; i < stream.size(); i += chunk_bytes) {
    const std::string piece = stream.substr(i, chunk_bytes);
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
    out += size + piece + "\r\n";
  }
  return out + "0\r\n\r\n";
}

const std::string kStream =
    R"(data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"content":"a"}}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"content":"\"text\":\"x"}}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"text":"b","finish_reason":null}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})"
    "\n\n"
    R"(data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens": 31,"total_tokens":36}})"
    "\n\n"
    "data: [DONE]\n\n";

TEST(AnswerReader, CountsTextEventsAndUsageInStreamsCutAnywhere) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    AnswerReader reader;
    reader.start(true);
    AnswerState state = AnswerState::reading;
    feed_in_pieces(chunked(kStream, 1 + seed % 90), seed, 1 + seed % 200,
                   [&](std::string_view piece) { state = reader.feed(piece); });
    ASSERT_EQ(state, AnswerState::complete) << seed;
    ASSERT_EQ(reader.text_events(), 3u) << seed;
    ASSERT_EQ(reader.completion_tokens(), 31u);
    ASSERT_EQ(reader.prompt_tokens(), 5u);
    ASSERT_TRUE(reader.keep_alive());
  }
}

TEST(AnswerReader, FindsUsageAtTheEndOfALongWholeAnswer) {
  const std::string body = R"({"choices":[{"text":")" + std::string(500'000, 'x') +
                           R"("}], "usage" : { "prompt_tokens" : 7, "completion_tokens" : 9 } })";
  AnswerReader reader;
  reader.start(false);
  AnswerState state = AnswerState::reading;
  feed_in_pieces(whole(body), 3, 9000, [&](std::string_view piece) { state = reader.feed(piece); });
  EXPECT_EQ(state, AnswerState::complete);
  EXPECT_EQ(reader.completion_tokens(), 9u);
  EXPECT_EQ(reader.prompt_tokens(), 7u);
  EXPECT_EQ(reader.text_events(), 0u);
}

TEST(AnswerReader, TellsEndingsApart) {
  const auto end = [](const std::string& bytes, bool streamed, bool closes) {
    AnswerReader reader;
    reader.start(streamed);
    AnswerState state = reader.feed(bytes);
    if (closes) state = reader.on_close();
    return state;
  };
  const std::string error_event = "data: {\"error\":{\"code\":\"poisoned_request\"}}\n\n";
  const std::string open_stream = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(end(whole("{}"), false, false), AnswerState::complete);
  EXPECT_EQ(end(whole("{}", "503 Busy"), false, false), AnswerState::http_error);
  EXPECT_EQ(end(whole("{}", "429 Slow"), true, false), AnswerState::http_error);
  EXPECT_EQ(end(chunked("data: a\n\n", 99), true, false), AnswerState::truncated);
  EXPECT_EQ(end(chunked(error_event, 99), true, false), AnswerState::stream_error);
  EXPECT_EQ(end(open_stream + error_event, true, true), AnswerState::stream_error);
  EXPECT_EQ(end(open_stream + "data: [DONE]\n\n", true, true), AnswerState::complete);
  EXPECT_EQ(end(open_stream, true, true), AnswerState::truncated);
  EXPECT_EQ(end(chunked(error_event, 99).substr(0, 120), true, true), AnswerState::stream_error);
  EXPECT_EQ(end(whole("{}").substr(0, 30), false, true), AnswerState::truncated);
  EXPECT_EQ(end("hello\r\n\r\n", false, false), AnswerState::malformed);
}

TEST(AnswerReader, BytesAfterTheAnswerEndTheConnectionsUse) {
  AnswerReader reader;
  reader.start(false);
  EXPECT_EQ(reader.feed(whole("{}") + "more"), AnswerState::complete);
  EXPECT_FALSE(reader.keep_alive());
}

TEST(FindNumber, TakesTheLastMemberAndIgnoresLookalikes) {
  EXPECT_EQ(find_number(R"({"n":1,"n":2})", "n"), 2u);
  EXPECT_EQ(find_number(R"({"n":1,"x":"n"})", "n"), 1u);
  EXPECT_EQ(find_number(R"({"n":1,"xn":2})", "n"), 1u);
  EXPECT_EQ(find_number(R"({"n":null})", "n"), std::nullopt);
  EXPECT_EQ(find_number(R"("n)", "n"), std::nullopt);
  EXPECT_EQ(find_number("", "n"), std::nullopt);
}

}  // namespace
}  // namespace sluice::bench
