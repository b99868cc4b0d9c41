// Traces and datasets that a load run replays: what both formats give, and that every hostile line
// is refused with its number.
#include <gtest/gtest.h>
#include <simdjson.h>

#include "gateway/bench/dataset.h"
#include "gateway/bench/request_mix.h"
#include "gateway/bench/trace.h"

namespace sluice::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kCsv =
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 23:59:59.5000000,374,44\r\n"
    "2023-11-17T00:00:01.25Z,396,0\r\n"
    "\r\n"
    "2023-11-17 02:00:00+02:00,5,7";
constexpr std::string_view kJsonLines =
    R"({"timestamp": 27000, "input_length": 700, "output_length": 5, "hash_ids": [0, 9]})"
    "\n"
    R"({"timestamp": 27001.5, "input_length": 1024, "output_length": 6, "hash_ids": [0, 4294967297]})"
    "\n"
    R"({"timestamp": 30000, "input_length": 10, "output_length": 1})"
    "\n";

std::string trace_error(std::string_view text) {
  const auto trace = parse_trace(text, 512);
  return trace ? "accepted" : trace.error().detail;
}
std::string dataset_error(std::string_view text) {
  const auto dataset = parse_dataset(text);
  return dataset ? "accepted" : dataset.error().detail;
}

TEST(Trace, CsvGivesTimesFromTheFirstRequestInOrder) {
  const auto trace = parse_trace(kCsv, 512);
  ASSERT_TRUE(trace) << trace.error().detail;
  ASSERT_EQ(trace->requests.size(), 3u);
  const auto& r = trace->requests;
  EXPECT_EQ(r[0].at, Duration(0));
  EXPECT_EQ(r[1].at, Duration(500ms));  // 02:00 two hours east of Greenwich
  EXPECT_EQ(r[2].at, Duration(1750ms));
  EXPECT_EQ(r[0].prompt_tokens, 374u);
  EXPECT_EQ(r[1].output_tokens, 7u);
  EXPECT_EQ(r[2].output_tokens, 1u);  // 0: nothing can be asked for less
}

TEST(Trace, CsvColumnsGoByName) {
  const auto trace = parse_trace(
      "Timestamp,Model,Request tokens,Response tokens,Total "
      "tokens\n5,x,472,18,490\n45.25,y,1,2,3\n",
      512);
  ASSERT_TRUE(trace) << trace.error().detail;
  EXPECT_EQ(trace->requests[1].at, Duration(40'250ms));
  EXPECT_EQ(trace->requests[0].prompt_tokens, 472u);
  EXPECT_EQ(trace->requests[0].output_tokens, 18u);
}

TEST(Trace, JsonLinesGiveBlocks) {
  const auto trace = parse_trace(kJsonLines, 512);
  ASSERT_TRUE(trace) << trace.error().detail;
  EXPECT_EQ(trace->requests[1].at, Duration(1500us));
  EXPECT_EQ(trace->requests[1].num_blocks, 2u);
  EXPECT_EQ(trace->blocks, (std::vector<std::uint64_t>{0, 9, 0, 4294967297}));
  EXPECT_EQ(trace->requests[2].num_blocks, 0u);
}

TEST(Trace, HostileLinesAreRefusedWithTheirNumber) {
  const std::string head = "TIMESTAMP,ContextTokens,GeneratedTokens\n1,1,1\n";
  const std::string good = "{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n";
  const std::pair<std::string, const char*> rows[] = {
      {"", "line 0: the file is empty"},
      {"\n\n", "line 2: the file is empty"},
      {"a,b,c\n1,1,1\n", "line 1: expected the columns"},
      {"TIMESTAMP,TimeStamp,ContextTokens,GeneratedTokens\n", "line 1: the column timestamp"},
      {"TIMESTAMP,ContextTokens,GeneratedTokens\n", "line 1: the trace holds no request"},
      {head + "1,1\n", "line 3: too few"},
      {head + "\"1\",1,1\n", "line 3: too few or quoted"},
      {head + std::string(100, ',') + "\n", "line 3: too few"},
      {head + "nan,1,1\n", "line 3: the timestamp"},
      {head + "1e300,1,1\n", "line 3: the timestamp"},
      {head + "-1,1,1\n", "line 3: the timestamp"},
      {head + "2023-02-29 00:00:00,1,1\n", "line 3: the timestamp"},
      {head + "2023-11-16 24:00:00,1,1\n", "line 3: the timestamp"},
      {head + "2023-11-16 18:15:46.,1,1\n", "line 3: the timestamp"},
      {head + "2023-11-16 18:15:46+2,1,1\n", "line 3: the timestamp"},
      {head + "9999-11-16 18:15:46,1,1\n", "line 3: the timestamp"},
      {head + "2023-11-1,1,1\n", "line 3: the timestamp"},
      {head + "1,0,1\n", "line 3: the prompt's tokens"},
      {head + "1,-5,1\n", "line 3: the prompt's tokens"},
      {head + "1,10000001,1\n", "line 3: the prompt's tokens"},
      {head + "1,18446744073709551617,1\n", "line 3: the prompt's tokens"},
      {head + "1,1 1,1\n", "line 3: the prompt's tokens"},
      {head + "1,1,1048577\n", "line 3: the answer's tokens"},
      {head + "1,1,1x\n", "line 3: the answer's tokens"},
      {good + "[]\n", "line 2: not a JSON object"},
      {good + "{\"timestamp\":1\n", "line 2: not a JSON object"},
      {good + "\n{\"timestamp\":-1,\"input_length\":1,\"output_length\":1}",
       "line 3: the timestamp"},
      {good + R"({"timestamp":"1","input_length":1,"output_length":1})", "line 2: the timestamp"},
      {good + R"({"timestamp":1,"input_length":1.5,"output_length":1})", "line 2: the prompt's"},
      {good + R"({"timestamp":1,"input_length":1})", "line 2: the answer's"},
      {good + R"({"timestamp":1,"input_length":1,"output_length":1,"hash_ids":7})",
       "line 2: hash_ids are no array"},
      {good + R"({"timestamp":1,"input_length":1,"output_length":1,"hash_ids":[-7]})",
       "line 2: a number of hash_ids"},
      {good + R"({"timestamp":1,"input_length":513,"output_length":1,"hash_ids":[7]})",
       "line 2: hash_ids do not fit input_length: 2 blocks"},
      {good + R"({"timestamp":1,"input_length":512,"output_length":1,"hash_ids":[7,7,7]})",
       "line 2: hash_ids do not fit input_length: 1 blocks"},
  };
  for (const auto& [text, wanted] : rows)
    EXPECT_EQ(trace_error(text).substr(0, std::string_view(wanted).size()), wanted) << text;
}

TEST(Trace, EveryCutOfAFileIsReadOrRefused) {
  for (const std::string_view whole : {kCsv, kJsonLines}) {
    for (std::size_t n = 0; n < whole.size(); ++n) {
      const auto trace = parse_trace(whole.substr(0, n), 512);
      EXPECT_TRUE(!trace || !trace->requests.empty()) << n;
    }
  }
}

TEST(Trace, RequestsHaveItsLengthsAndShareWhatItsBlocksShare) {
  const auto trace = parse_trace(kJsonLines, 512);
  ASSERT_TRUE(trace);
  const auto requests = make_requests(RequestOptions{}, *trace);
  ASSERT_TRUE(requests);
  ASSERT_EQ(requests->size(), 3u);
  std::vector<std::string> prompts;
  simdjson::dom::parser parser;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string& request = (*requests)[i];
    const simdjson::dom::element root = parser.parse(request.substr(request.find("\r\n\r\n") + 4));
    prompts.emplace_back(std::string_view(root["prompt"]));
    EXPECT_EQ(std::uint64_t(root["max_tokens"]), trace->requests[i].output_tokens);
    EXPECT_EQ(std::count(prompts[i].begin(), prompts[i].end(), ' ') + 1,
              trace->requests[i].prompt_tokens);
  }
  const std::string shared = seeded_words(1, 0, 512) + " ";
  EXPECT_TRUE(prompts[0].starts_with(shared));
  EXPECT_TRUE(prompts[1].starts_with(shared));
  EXPECT_NE(prompts[0].substr(shared.size(), 100), prompts[1].substr(shared.size(), 100));
}

TEST(Dataset, GivesTextsIdsChatsAndFirstTurns) {
  const auto dataset = parse_dataset(
      "{\"prompt\": \"a \\\"b\\\"\", \"max_tokens\": 7}\n"
      "{\"prompt\": [1, 15043]}\r\n\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"id\": 1}\n"
      "{\"question_id\": 81, \"turns\": [\"one\", \"two\"]}");
  ASSERT_TRUE(dataset) << dataset.error().detail;
  ASSERT_EQ(dataset->size(), 4u);
  EXPECT_EQ((*dataset)[0].value, "a \"b\"");
  EXPECT_EQ((*dataset)[0].max_tokens, 7u);
  EXPECT_EQ((*dataset)[1].value, "[1,15043]");
  EXPECT_EQ((*dataset)[2].value, R"([{"role":"user","content":"x"}])");
  EXPECT_EQ((*dataset)[3].value, "one");
  RequestOptions options;
  EXPECT_EQ(make_requests(options, *dataset).error().detail, "messages need the endpoint chat");
  options.endpoint = Endpoint::chat;
  EXPECT_EQ(make_requests(options, *dataset).error().detail,
            "prompts of ids need the endpoint completions");
  const auto requests = make_requests(options, {(*dataset)[0], (*dataset)[2]});
  ASSERT_TRUE(requests);
  EXPECT_TRUE((*requests)[0].ends_with(
      R"("messages":[{"role":"user","content":"a \"b\""}],"max_tokens":7})"));
  EXPECT_TRUE(
      (*requests)[1].ends_with(R"("messages":[{"role":"user","content":"x"}],"max_tokens":16})"));
}

TEST(Dataset, HostileLinesAreRefusedWithTheirNumber) {
  const std::string good = "{\"prompt\":\"x\"}\n";
  const std::pair<std::string, const char*> rows[] = {
      {"", "line 0: the dataset holds no prompt"},
      {good + "7\n", "line 2: not a JSON object"},
      {good + "{\"prompt\":\"\xff\"}", "line 2: not a JSON object"},
      {good + std::string(100'000, '['), "line 2: not a JSON object"},
      {good + "{}", "line 2: expected one of"},
      {good + R"({"prompt":"x","turns":["y"]})", "line 2: expected one of"},
      {good + R"({"prompt":7})", "line 2: the prompt is no text"},
      {good + R"({"prompt":[]})", "line 2: the prompt is no text"},
      {good + R"({"prompt":[1,-1]})", "line 2: the prompt is no text"},
      {good + R"({"prompt":[4294967296]})", "line 2: the prompt is no text"},
      {good + R"({"messages":{}})", "line 2: messages are no array"},
      {good + R"({"turns":[]})", "line 2: turns are no array"},
      {good + R"({"turns":[1]})", "line 2: turns are no array"},
      {good + R"({"prompt":"x","max_tokens":0})", "line 2: max_tokens"},
      {good + R"({"prompt":"x","max_tokens":"9"})", "line 2: max_tokens"},
  };
  for (const auto& [text, wanted] : rows)
    EXPECT_EQ(dataset_error(text).substr(0, std::string_view(wanted).size()), wanted)
        << text.substr(0, 200);
}

}  // namespace
}  // namespace sluice::bench
