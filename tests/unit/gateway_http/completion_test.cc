// Generating requests: what is submitted, what is accepted when, and what the client reads.
#include <gtest/gtest.h>

#include "gateway/api/json_text.h"
#include "shared/random.h"
#include "tests/support/allocation_count.h"
#include "tests/support/golden.h"
#include "tests/support/http_fixture.h"

namespace sluice::gw {
namespace {

using namespace std::chrono_literals;
using test::body_of;
using test::header_of;
using test::HttpFixture;
using test::post;
using test::status_of;
using test::unchunk;

std::string chat(std::string_view fields = {}) {
  return std::string(R"({"model":"canned","messages":[{"role":"user","content":"hi"}])")
      .append(fields.empty() ? "" : ",")
      .append(fields)
      .append("}");
}
std::string completion(std::string_view fields = {}) {
  return std::string(R"({"model":"canned","prompt":"Once upon")")
      .append(fields.empty() ? "" : ",")
      .append(fields)
      .append("}");
}

class Completion : public testing::Test {
 protected:
  std::vector<TokenId> encode(std::string_view text) {
    std::vector<TokenId> ids;
    f.service.models[0].tokenizer.encode(text, tok::Segment::first, ids);
    return ids;
  }
  std::string chat_answer(std::string_view fields = {}) {
    return f.exchange(post("/v1/chat/completions", chat(fields)));
  }
  std::string completion_answer(std::string_view fields = {}) {
    return f.exchange(post("/v1/completions", completion(fields)));
  }
  HttpFixture f;
};

std::string param_of(const std::string& response) {
  const std::size_t at = response.find("\"param\":\"");
  return at == std::string::npos ? ""
                                 : response.substr(at + 9, response.find('"', at + 9) - at - 9);
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

TEST_F(Completion, AnswersAreCompleteBodies) {
  f.loop.reply = encode("Hello there");
  const std::string response = chat_answer();
  EXPECT_EQ(status_of(response), 200);
  EXPECT_EQ(header_of(response, "content-type"), "application/json");
  const std::string body = body_of(response);
  EXPECT_TRUE(has(body, "Hello there\"")) << body;
  const auto& request = f.loop.last();
  EXPECT_TRUE(has(body, "\"prompt_tokens\":" + std::to_string(request.spec.prompt.size())));
  EXPECT_TRUE(has(body, "\"completion_tokens\":" + std::to_string(f.loop.reply.size() + 1)))
      << "the id that stopped it is billed and no text";
  EXPECT_EQ(request.spec.delivery, Delivery::whole);
  EXPECT_EQ(request.spec.output_tokens_max, 256u);
}

TEST_F(Completion, StreamTranscripts) {
  f.loop.reply = encode("Hello \"wor\"ld\nh\xc3\xa9 \xf0\x9f\x98\x80");
  const std::string events = chat_answer(
      R"("stream":true,"max_tokens":40,"seed":5,"stream_options":{"include_usage":true})");
  EXPECT_EQ(status_of(events), 200);
  test::expect_golden("http_chat_stream.txt", unchunk(body_of(events)));
  const std::string plain = completion_answer(R"("stream":true,"max_tokens":3,"n":2,"seed":5)");
  test::expect_golden("http_completion_stream_n2.txt", unchunk(body_of(plain)));
  EXPECT_EQ(header_of(plain, "content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(header_of(plain, "cache-control"), "no-cache");
  EXPECT_EQ(header_of(plain, "x-accel-buffering"), "no");
}

// The text of all content chunks of one choice.
std::string streamed_text(const std::string& events, int choice = 0) {
  std::string text;
  const std::string index = "[{\"index\":" + std::to_string(choice) + ",";
  std::size_t at = 0;
  while ((at = events.find(index, at)) != std::string::npos) {
    at += index.size();
    const std::size_t end = events.find("\n\n", at);
    for (const std::string_view key : {"\"content\":\"", "\"text\":\""}) {
      std::size_t begin = events.find(key, at);
      if (begin > end) continue;
      begin += key.size();
      text.append(events, begin, events.find('"', begin) - begin);
    }
  }
  return text;
}

TEST_F(Completion, StreamedAndWholeTextsAreEqual) {
  for (const char* text : {"Once upon a time", "h\xc3\xa9llo w\xc3\xb6rld \xf0\x9f\x98\x80!",
                           "one stop two stop three", "aaabaaabaaac"}) {
    f.loop.reply = encode(text);
    for (const std::string stop : {"", R"("stop":" two",)", R"("stop":["aaac","xyz"],)"}) {
      const std::string whole = body_of(completion_answer(stop + R"("max_tokens":100)"));
      const std::string events =
          unchunk(body_of(completion_answer(stop + R"("stream":true,"max_tokens":100)")));
      const std::string sent = streamed_text(events);
      EXPECT_TRUE(has(whole, "\"text\":\"" + sent + "\"")) << whole << "\n" << sent;
      EXPECT_TRUE(has(events, "data: [DONE]"));
    }
  }
}

TEST_F(Completion, AStopStringEndsAtTheTokenThatCompletesIt) {
  f.loop.reply = encode("alpha beta gamma delta");
  const std::string events =
      unchunk(body_of(completion_answer(R"("stream":true,"stop":"beta","max_tokens":50)")));
  EXPECT_EQ(streamed_text(events).find("beta"), std::string::npos);
  EXPECT_TRUE(has(events, "\"finish_reason\":\"stop\""));
  const auto& request = f.loop.last();
  EXPECT_TRUE(request.is_stopped);
  EXPECT_LT(request.choices[0].accepted, f.loop.reply.size());
  std::string text;
  for (std::uint32_t i = 0; i < request.choices[0].accepted; ++i)
    text.append(f.service.models[0].tokenizer.piece_bytes(request.choices[0].script[i].id));
  EXPECT_TRUE(has(text, "beta")) << "accepted exactly up to it: " << text;
  text.resize(
      text.size() -
      f.service.models[0]
          .tokenizer.piece_bytes(request.choices[0].script[request.choices[0].accepted - 1].id)
          .size());
  EXPECT_FALSE(has(text, "beta"));
}

TEST_F(Completion, NothingIsAcceptedWhileAWriteIsInFlight) {
  f.loop.reply = std::vector<TokenId>(50, encode("x").back());
  auto& c = f.connect();
  c.wire.input = post("/v1/completions", completion(R"("stream":true,"max_tokens":50)"));
  f.turn();
  f.loop.step();
  c.wire.is_write_blocked = true;
  f.turn();
  ASSERT_EQ(f.loop.last().choices[0].accepted, 1u) << "a lone token goes out at once";
  for (int i = 0; i < 20; ++i) f.loop.step();
  f.turn();
  EXPECT_EQ(f.loop.last().choices[0].accepted, 1u);
  c.wire.is_write_blocked = false;
  const int before = c.wire.num_operations;
  f.turn();
  EXPECT_EQ(f.loop.last().choices[0].accepted, 21u);
  EXPECT_EQ(c.wire.num_operations - before, 2) << "the old write and one for all that waited";
}

TEST_F(Completion, TheStatusLineWaitsForTheFirstToken) {
  auto& c = f.connect();
  c.wire.input = post("/v1/chat/completions", chat(R"("stream":true)"));
  f.turn();
  EXPECT_EQ(c.wire.output, "");
  Error error = make_error(Errc::overloaded, "late refusal");
  error.retry_after = 2s;
  f.loop.fail_last(error);
  f.turn();
  EXPECT_EQ(status_of(c.wire.output), 503);
  EXPECT_EQ(header_of(c.wire.output, "retry-after"), "2");
}

TEST_F(Completion, AStreamThatWaitsIsCommittedWithAComment) {
  auto& c = f.connect();
  c.wire.input = post("/v1/chat/completions", chat(R"("stream":true)"));
  f.turn();
  f.advance(14s);
  EXPECT_EQ(c.wire.output, "");
  f.advance(2s);
  EXPECT_EQ(status_of(c.wire.output), 200);
  EXPECT_EQ(unchunk(body_of(c.wire.output), false), ": waiting\n\n");
  f.advance(16s);
  EXPECT_EQ(unchunk(body_of(c.wire.output), false), ": waiting\n\n: waiting\n\n");
  f.loop.fail_last(make_error(Errc::poisoned_request, "condemned"));
  f.turn();
  const std::string events = unchunk(body_of(c.wire.output), false);
  EXPECT_TRUE(has(events, "data: {\"error\":")) << events;
  EXPECT_FALSE(has(events, "[DONE]"));
  EXPECT_TRUE(c.wire.is_shut);
}

TEST_F(Completion, AWholeAnswerThatFailsIsAnErrorAndTheConnectionStays) {
  auto& c = f.connect();
  c.wire.input = post("/v1/chat/completions", chat());
  f.turn();
  f.loop.step();
  f.loop.fail_last(make_error(Errc::deadline_exceeded, "too late"));
  f.turn();
  EXPECT_EQ(status_of(c.wire.output), 504);
  EXPECT_EQ(header_of(c.wire.output, "x-should-retry"), "false");
  c.wire.output.clear();
  c.wire.input = test::get("/live");
  f.turn();
  EXPECT_EQ(status_of(c.wire.output), 200);
}

TEST_F(Completion, ChoicesOfSeveralPromptsAreNumberedThrough) {
  f.loop.script = [](const GenerationSpec& spec, std::uint32_t choice) {
    const TokenId id = 300 + spec.prompt.back() % 7 + choice;
    return std::vector<OutputToken>{{id, 0, FinishReason::length}};
  };
  const std::string body = body_of(f.exchange(post(
      "/v1/completions",
      R"({"model":"canned","prompt":[[5,6],[7]],"n":2,"max_tokens":1,"return_token_ids":true})")));
  ASSERT_EQ(f.loop.requests.size(), 2u);
  EXPECT_TRUE(has(body, R"({"index":0,)"));
  EXPECT_TRUE(has(body, "\"token_ids\":[306],\"prompt_token_ids\":[5,6]")) << body;
  EXPECT_TRUE(has(body, "\"token_ids\":[307],\"prompt_token_ids\":[5,6]"));
  EXPECT_TRUE(has(body, "\"token_ids\":[300],\"prompt_token_ids\":[7]"));
  EXPECT_TRUE(has(body, R"({"index":3,)"));
  EXPECT_TRUE(has(body, "\"prompt_tokens\":3,\"completion_tokens\":4"));
}

TEST_F(Completion, WhenOnePromptIsRefusedTheOthersAreCancelled) {
  f.loop.script = [this](const GenerationSpec&, std::uint32_t) {
    f.loop.refuse_submit = make_error(Errc::concurrency_limit, "one at a time");
    return std::vector<OutputToken>{{5, 0, FinishReason::length}};
  };
  const std::string response =
      f.exchange(post("/v1/completions", R"({"model":"canned","prompt":["a","b"]})"));
  EXPECT_EQ(status_of(response), 429);
  EXPECT_EQ(f.loop.num_live(), 0u);
  EXPECT_EQ(f.loop.last().cancelled, CancelCause::failed);
}

TEST_F(Completion, EchoPutsThePromptInFront) {
  f.loop.reply = encode("there");
  EXPECT_TRUE(has(body_of(completion_answer(R"("echo":true)")), "\"text\":\"Once upon"));
  EXPECT_EQ(streamed_text(unchunk(body_of(completion_answer(R"("echo":true,"stream":true)"))))
                .substr(0, 9),
            "Once upon");
}

// All entries of "logprobs" in a stream or a body: what one key holds, one after another.
std::string values_of(const std::string& text, std::string_view key) {
  const std::string opening = std::string("\"").append(key).append("\":");
  std::string values;
  for (std::size_t at = 0; (at = text.find(opening, at)) != std::string::npos;) {
    at += opening.size();
    if (text[at] != '[') continue;
    const std::size_t end = text.find(']', at);
    const std::string list = text.substr(at + 1, end - at - 1);
    if (!values.empty() && !list.empty()) values.push_back(',');
    values += list;
  }
  return values;
}

std::string quoted_tokens(const tok::Tokenizer& tokenizer, std::span<const TokenId> ids) {
  std::string list;
  for (const TokenId id : ids) {
    if (!list.empty()) list.push_back(',');
    append_json_string(list, tokenizer.piece_bytes(id));
  }
  return list;
}

TEST_F(Completion, LogprobsAreOfTheTokensOfTheTextWholeAndStreamed) {
  f.loop.reply = encode("alpha beta gamma");
  const std::string whole = body_of(completion_answer(R"("logprobs":2,"max_tokens":60)"));
  const std::string events =
      unchunk(body_of(completion_answer(R"("logprobs":2,"max_tokens":60,"stream":true)")));
  const tok::Tokenizer& tokenizer = f.service.models[0].tokenizer;
  const std::string tokens = quoted_tokens(tokenizer, f.loop.reply);
  EXPECT_EQ(values_of(whole, "tokens"), tokens) << "the id that stops is none of them";
  EXPECT_EQ(values_of(events, "tokens"), tokens);
  EXPECT_EQ(values_of(events, "token_logprobs"), values_of(whole, "token_logprobs"));
  EXPECT_EQ(values_of(events, "top_logprobs"), values_of(whole, "top_logprobs"));
  EXPECT_EQ(values_of(events, "text_offset"), values_of(whole, "text_offset"));
  EXPECT_EQ(f.loop.last().spec.sampling.wants_logprob, 1);
  EXPECT_EQ(f.loop.last().spec.sampling.num_top_logprobs, 2);

  const std::string chat_whole = body_of(chat_answer(R"("logprobs":true,"top_logprobs":1)"));
  const std::string chat_events =
      unchunk(body_of(chat_answer(R"("logprobs":true,"top_logprobs":1,"stream":true)")));
  EXPECT_EQ(values_of(chat_whole, "bytes"), values_of(chat_events, "bytes"));
  EXPECT_FALSE(values_of(chat_whole, "bytes").empty());
  EXPECT_TRUE(has(chat_whole, "\"logprob\":-1,"));
  const std::string plain = body_of(chat_answer());
  EXPECT_TRUE(has(plain, "\"logprobs\":null")) << plain;
  EXPECT_EQ(f.loop.last().spec.sampling.wants_logprob, 0);
}

TEST_F(Completion, LogprobsOfAStopStringAndOfWhatItCutsAreNotShown) {
  f.loop.reply = encode("alpha beta gamma delta");
  const tok::Tokenizer& tokenizer = f.service.models[0].tokenizer;
  for (const std::string stop : {"beta", "a gam", "delta"}) {
    const std::string fields = R"("logprobs":0,"max_tokens":60,"stop":")" + stop + "\"";
    const std::string whole = body_of(completion_answer(fields));
    const std::string events = unchunk(body_of(completion_answer(fields + R"(,"stream":true)")));
    const std::string sent = streamed_text(events);
    std::vector<TokenId> shown;
    std::string text;
    for (const TokenId id : f.loop.reply) {
      text.append(tokenizer.piece_bytes(id));
      if (text.size() > sent.size()) break;
      shown.push_back(id);
    }
    EXPECT_EQ(values_of(whole, "tokens"), quoted_tokens(tokenizer, shown)) << stop;
    EXPECT_EQ(values_of(events, "tokens"), quoted_tokens(tokenizer, shown)) << stop;
  }
}

// Each chunk shows the tokens of its own text: those of a character in one piece with it.
TEST_F(Completion, TokensInsideACharacterAreShownWithItsText) {
  f.loop.reply = encode("\xf0\x9f\x98\x80!");
  const std::string events =
      unchunk(body_of(chat_answer(R"("logprobs":true,"stream":true,"max_tokens":60)")));
  const std::size_t at = events.find("\"content\":\"\xf0\x9f\x98\x80");
  ASSERT_NE(at, std::string::npos) << events;
  const std::string chunk = events.substr(at, events.find("\n\n", at) - at);
  EXPECT_TRUE(has(values_of(chunk, "bytes"), "240,159,152,128")) << chunk;
  EXPECT_FALSE(has(events.substr(0, at), "240")) << events;
}

TEST_F(Completion, EchoWithLogprobsShowsThoseOfThePrompt) {
  f.loop.reply = encode("there");
  const tok::Tokenizer& tokenizer = f.service.models[0].tokenizer;
  for (const std::string stream : {"", R"("stream":true,)"}) {
    const std::string response =
        completion_answer(stream + R"("echo":true,"logprobs":1,"max_tokens":60,"n":2)");
    const std::string text = stream.empty() ? body_of(response) : unchunk(body_of(response));
    const GenerationSpec& spec = f.loop.last().spec;
    EXPECT_EQ(spec.prompt_scores, PromptScores::wanted);
    std::vector<TokenId> ids = spec.prompt;
    std::string logprobs = "null";
    for (std::size_t i = 1; i < ids.size(); ++i) logprobs += ",-" + std::to_string(i);
    for (std::size_t i = 0; i < f.loop.reply.size(); ++i) logprobs += ",-1";
    std::string got = values_of(text, "token_logprobs");
    EXPECT_EQ(got, logprobs + "," + logprobs) << "of both choices, each with the prompt in front";
    std::string tokens;
    for (const TokenId id : ids) {
      if (!tokens.empty()) tokens.push_back(',');
      append_json_string(tokens, tokenizer.token_text(id));
    }
    EXPECT_EQ(values_of(text, "tokens").substr(0, tokens.size()), tokens);
  }
}

TEST_F(Completion, AnEchoMayHaveNoOutputAtAll) {
  const std::string whole = body_of(completion_answer(R"("echo":true,"max_tokens":0)"));
  EXPECT_TRUE(has(whole, R"("text":"Once upon")")) << whole;
  EXPECT_TRUE(has(whole, R"("finish_reason":"length")"));
  EXPECT_TRUE(has(whole, R"("completion_tokens":0)"));
  EXPECT_EQ(f.loop.last().spec.output_tokens_max, 0u);
  EXPECT_EQ(f.loop.last().spec.prompt_scores, PromptScores::none);
  const std::string scored = unchunk(
      body_of(completion_answer(R"("echo":true,"max_tokens":0,"logprobs":1,"stream":true)")));
  EXPECT_EQ(values_of(scored, "token_logprobs").substr(0, 7), "null,-1") << scored;
  EXPECT_TRUE(has(scored, R"("finish_reason":"length")"));
  EXPECT_TRUE(has(scored, "data: [DONE]"));
  EXPECT_EQ(f.loop.num_live(), 0u);
}

TEST_F(Completion, BestOfAnswersTheLikeliestAndBillsAll) {
  // Means of -3, -1, -2 and -1: the second and, behind it, the fourth.
  const std::vector<TokenId> ids = encode("alpha beta gamma delta");
  f.loop.script = [ids](const GenerationSpec&, std::uint32_t choice) {
    const float logprob = choice == 0 ? -3.0f : choice == 2 ? -2.0f : -1.0f;
    return std::vector<OutputToken>{{ids[choice], logprob, FinishReason::none},
                                    {ids[choice], logprob, FinishReason::length}};
  };
  const std::string body =
      body_of(completion_answer(R"("best_of":4,"n":2,"max_tokens":2,"return_token_ids":true)"));
  const GenerationSpec& spec = f.loop.last().spec;
  EXPECT_EQ(spec.choices, 4u);
  EXPECT_EQ(spec.sampling.wants_logprob, 1);
  const auto pair = [&](std::size_t i) {
    return "\"token_ids\":[" + std::to_string(ids[i]) + "," + std::to_string(ids[i]) + "]";
  };
  EXPECT_TRUE(has(body, pair(1)) && has(body, pair(3))) << body;
  EXPECT_FALSE(has(body, pair(0)) || has(body, pair(2))) << body;
  EXPECT_LT(body.find(pair(1)), body.find(pair(3)));
  EXPECT_TRUE(has(body, "\"completion_tokens\":8"));
  EXPECT_TRUE(has(body, "\"logprobs\":null"));
}

TEST_F(Completion, EmbeddingsAreAnsweredInTheOrderOfTheInputs) {
  const std::string off = f.exchange(post("/v1/embeddings", R"({"model":"canned","input":"a"})"));
  EXPECT_TRUE(has(off, "unsupported_parameter")) << "a device without hidden states says so";
  f.loop.facts.embedding_size = 2;
  const std::string body =
      body_of(f.exchange(post("/v1/embeddings", R"({"model":"canned","input":[[8,9],[5,6,7]]})")));
  ASSERT_EQ(f.loop.requests.size(), 2u);
  const GenerationSpec& spec = f.loop.last().spec;
  EXPECT_EQ(spec.task, SequenceTask::embed);
  EXPECT_EQ(spec.output_tokens_max, 0u);
  EXPECT_EQ(spec.prompt, (std::vector<TokenId>{5, 6, 7}));
  EXPECT_TRUE(has(body, R"({"object":"embedding","index":0,"embedding":[0.6,-0.8]})")) << body;
  EXPECT_TRUE(has(body, R"({"object":"embedding","index":1,"embedding":[0.6,-0.8]})"));
  EXPECT_TRUE(has(body, R"("usage":{"prompt_tokens":5,"total_tokens":5})"));
  EXPECT_EQ(f.loop.num_live(), 0u);
  const auto param = [&](const char* fields) {
    return param_of(
        f.exchange(post("/v1/embeddings", std::string(R"({"model":"canned",)") + fields + "}")));
  };
  EXPECT_EQ(param(R"("input":"a","dimensions":3)"), "dimensions");
  EXPECT_EQ(param(R"("input":["a",""],"add_special_tokens":false)"), "input");
  EXPECT_EQ(param(R"("input":[[1],[4096]])"), "input[1][0]");
}

// Four inputs, of which the caller may have two under way: the others follow as these end.
TEST_F(Completion, InputsOfEmbeddingsWaitForThoseOfTheirOwnRequest) {
  f.loop.facts.embedding_size = 2;
  f.loop.live_max = 2;
  const std::string body = R"({"model":"canned","input":[[5],[6,6],[7,7,7],[8,8,8,8]]})";
  const std::string answer = body_of(f.exchange(post("/v1/embeddings", body)));
  ASSERT_EQ(f.loop.requests.size(), 4u);
  EXPECT_EQ(f.loop.most_live, 2u);
  EXPECT_TRUE(has(answer, R"("index":3)")) << answer;
  EXPECT_TRUE(has(answer, R"("prompt_tokens":10,)"));
  f.loop.live_max = 0;  // somebody else's: there is nothing to wait for
  EXPECT_TRUE(has(f.exchange(post("/v1/embeddings", body)), "concurrency_limit"));
  // A client that leaves takes all of them along.
  f.loop.live_max = 2;
  auto& c = f.connect();
  c.wire.input = post("/v1/embeddings", body);
  f.turn();
  EXPECT_EQ(f.loop.num_live(), 2u);
  c.wire.is_input_ended = true;
  f.turn();
  EXPECT_EQ(f.loop.num_live(), 0u);
  EXPECT_EQ(f.loop.last().cancelled, CancelCause::client_gone);
}

TEST_F(Completion, ALongListOfInputsHasABoundedNumberUnderWay) {
  f.loop.facts.embedding_size = 2;
  std::string body = R"({"model":"canned","input":[[5])";
  for (int i = 1; i < 1000; ++i) body.append(",[5]");
  const std::string answer = body_of(f.exchange(post("/v1/embeddings", body + "]}")));
  EXPECT_EQ(f.loop.requests.size(), 1000u);
  EXPECT_EQ(f.loop.most_live, 128u);
  EXPECT_TRUE(has(answer, R"("index":999)"));
}

TEST_F(Completion, TheLogprobsAndEmbeddingsOfOneAnswerAreBounded) {
  // 4,000 x 21 x 7 are too many, x 6 are not; a stream holds none of them.
  const std::string fields = R"("logprobs":20,"max_tokens":4000,"n":)";
  const std::string refused = completion_answer(fields + "7");
  EXPECT_EQ(status_of(refused), 400);
  EXPECT_EQ(param_of(refused), "logprobs");
  EXPECT_EQ(status_of(completion_answer(fields + "6")), 200);
  EXPECT_EQ(status_of(completion_answer(fields + R"(7,"stream":true)")), 200);
  EXPECT_EQ(f.loop.num_live(), 0u);
  // A prompt of 3,000 stands before each choice; a stream repeats it without holding it again.
  std::string echo = R"({"model":"canned","echo":true,"logprobs":20,"max_tokens":0,"prompt":[5)";
  for (int i = 1; i < 3000; ++i) echo.append(",5");
  EXPECT_EQ(status_of(f.exchange(post("/v1/completions", echo + R"(],"n":8})"))), 200);
  EXPECT_EQ(param_of(f.exchange(post("/v1/completions", echo + R"(],"n":9})"))), "logprobs");
  EXPECT_EQ(status_of(f.exchange(post("/v1/completions", echo + R"(],"n":9,"stream":true})"))),
            200);
  f.loop.facts.embedding_size = 1u << 16;
  std::string body = R"({"model":"canned","input":[[5])";
  for (int i = 1; i < 128; ++i) body.append(",[5]");
  EXPECT_EQ(status_of(f.exchange(post("/v1/embeddings", body + "]}"))), 200);
  EXPECT_EQ(param_of(f.exchange(post("/v1/embeddings", body + ",[5]]}"))), "input");
}

TEST_F(Completion, SpecsCarryWhatTheRequestSaid) {
  chat_answer(R"("max_tokens":5,"temperature":0,"stop_token_ids":[9],"logit_bias":{"7":-3},
                 "n":2,"seed":-2,"priority":4)");
  const GenerationSpec& spec = f.loop.last().spec;
  EXPECT_EQ(spec.output_tokens_max, 5u);
  EXPECT_EQ(spec.sampling.temperature, 0.f);
  EXPECT_EQ(spec.sampling.seed, static_cast<std::uint64_t>(-2));
  EXPECT_EQ(spec.choices, 2u);
  EXPECT_EQ(spec.priority, 4u);
  EXPECT_EQ(spec.bias.at(0).token, 7u);
  EXPECT_NE(std::find(spec.stop_ids.begin(), spec.stop_ids.end(), 9u), spec.stop_ids.end());
  EXPECT_NE(std::find(spec.stop_ids.begin(), spec.stop_ids.end(),
                      *f.service.models[0].tokenizer.vocabulary().eos),
            spec.stop_ids.end());
  chat_answer(R"("ignore_eos":true)");
  EXPECT_TRUE(f.loop.last().spec.stop_ids.empty());
  chat_answer();
  const std::uint64_t seed = f.loop.last().spec.sampling.seed;
  chat_answer();
  EXPECT_NE(f.loop.last().spec.sampling.seed, seed) << "drawn when absent";
}

TEST_F(Completion, HeadersSetDeadlineAndPriority) {
  f.exchange(post("/v1/completions", completion(),
                  "X-Sluice-Deadline-Ms: 1500\r\nX-Sluice-Priority: 3\r\n"));
  const GenerationSpec& spec = f.loop.last().spec;
  EXPECT_EQ(spec.deadline, spec.arrival + 1500ms);
  EXPECT_EQ(spec.priority, 3u);
  for (const char* bad : {"X-Sluice-Deadline-Ms: 0\r\n", "X-Sluice-Deadline-Ms: 1x\r\n",
                          "X-Sluice-Priority: -1\r\n", "X-Sluice-Priority: high\r\n"}) {
    const std::string response = f.exchange(post("/v1/completions", completion(), bad));
    EXPECT_EQ(status_of(response), 400) << bad;
    EXPECT_EQ(param_of(response).substr(0, 9), "x-sluice-") << bad;
  }
}

TEST_F(Completion, BoundsContextAndOutput) {
  EXPECT_TRUE(has(completion_answer(R"("max_tokens":4096)"), "context_length_exceeded"));
  EXPECT_EQ(status_of(completion_answer(R"("max_tokens":4000)")), 200);
  std::string ids = "[1";
  for (int i = 0; i < 4095; ++i) ids.append(",1");
  const std::string full = R"({"model":"canned","prompt":)" + ids + "]";
  EXPECT_TRUE(has(f.exchange(post("/v1/completions", full + "}")), "context_length_exceeded"));
  EXPECT_EQ(
      status_of(f.exchange(post("/v1/completions", full + R"(,"truncate_prompt_tokens":10})"))),
      200);
  EXPECT_EQ(f.loop.last().spec.prompt.size(), 10u);
  EXPECT_EQ(status_of(f.exchange(post("/v1/completions",
                                      full + R"(,"truncate_prompt_tokens":-1,"max_tokens":96})"))),
            200);
  EXPECT_EQ(f.loop.last().spec.prompt.size(), 4000u);
  // More bytes than any 4096 tokens can stand for: refused before tokenizing.
  const auto& vocabulary = f.service.models[0].tokenizer.vocabulary();
  if (vocabulary.longest_piece_bytes < 1000) {
    const std::string text(4096u * vocabulary.longest_piece_bytes + 1, 'a');
    EXPECT_TRUE(
        has(f.exchange(post("/v1/completions", R"({"model":"canned","prompt":")" + text + "\"}")),
            "context_length_exceeded"));
  }
}

TEST_F(Completion, BoundsWhatTheVocabularyHolds) {
  EXPECT_EQ(
      param_of(f.exchange(post("/v1/completions", R"({"model":"canned","prompt":[5,1024]})"))),
      "prompt[1]");
  EXPECT_EQ(param_of(completion_answer(R"("stop_token_ids":[1024])")), "stop_token_ids[0]");
  EXPECT_EQ(param_of(completion_answer(R"("logit_bias":{"1024":1})")), "logit_bias.1024");
  EXPECT_EQ(f.loop.requests.size(), 0u);
}

TEST_F(Completion, TheTenantsOutputBoundHolds) {
  f.service.config.default_limits.output_tokens_max = 10;
  f.service.reload(f.service.config);
  EXPECT_EQ(param_of(completion_answer(R"("max_tokens":11)")), "max_tokens");
  EXPECT_EQ(status_of(completion_answer(R"("max_tokens":10)")), 200);
  completion_answer();
  EXPECT_EQ(f.loop.last().spec.output_tokens_max, 10u);
}

TEST_F(Completion, AdmissionErrorsKeepTheirStatusAndHint) {
  Error error = make_error(Errc::tokens_rate_limited, "slow down");
  error.retry_after = 700ms;
  f.loop.refuse_precheck = error;
  std::string response = chat_answer();
  EXPECT_EQ(status_of(response), 429);
  EXPECT_EQ(header_of(response, "retry-after-ms"), "700");
  f.loop.refuse_precheck.reset();
  f.loop.refuse_submit = make_error(Errc::request_exceeds_quota_capacity, "never");
  response = chat_answer();
  EXPECT_EQ(status_of(response), 429);
  EXPECT_EQ(header_of(response, "retry-after"), "");
  EXPECT_EQ(header_of(response, "x-should-retry"), "false");
}

TEST_F(Completion, CountsEqualTheUsageOfTheSameBody) {
  for (const std::string_view fields : {"", R"("add_generation_prompt":false)"}) {
    const std::string usage = body_of(chat_answer(fields));
    const std::string count =
        body_of(f.exchange(post("/v1/chat/completions/input_tokens", chat(fields))));
    const std::string tokens = std::to_string(f.loop.last().spec.prompt.size());
    EXPECT_EQ(count, R"({"object":"response.input_tokens","input_tokens":)" + tokens + "}");
    EXPECT_TRUE(has(usage, "\"prompt_tokens\":" + tokens + ","));
  }
  EXPECT_EQ(f.loop.num_counted, 2);
}

TEST_F(Completion, TokenizeAndDetokenizeAreInverse) {
  const std::string body =
      body_of(f.exchange(post("/tokenize", R"({"prompt":"Once upon a time"})")));
  EXPECT_TRUE(has(body, "\"max_model_len\":4096"));
  const std::size_t at = body.find("\"tokens\":");
  const std::string tokens = body.substr(at + 9, body.find(']', at) - at - 8);
  EXPECT_EQ(
      body_of(f.exchange(post("/v1/detokenize", R"({"model":"canned","tokens":)" + tokens + "}"))),
      R"({"prompt":"Once upon a time"})");
  EXPECT_EQ(param_of(f.exchange(post("/detokenize", R"({"tokens":[9999]})"))), "tokens");
  const std::string chat_count =
      body_of(f.exchange(post("/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})")));
  body_of(chat_answer());
  EXPECT_TRUE(
      has(chat_count, "{\"count\":" + std::to_string(f.loop.last().spec.prompt.size()) + ","));
  f.loop.refuse_count = make_error(Errc::requests_rate_limited, "too fast");
  EXPECT_EQ(status_of(f.exchange(post("/tokenize", R"({"prompt":"a"})"))), 429);
}

TEST_F(Completion, TimingIsOptIn) {
  EXPECT_FALSE(has(chat_answer(), "\"sluice\""));
  EXPECT_TRUE(has(chat_answer(R"("sluice":{"timing":true},"seed":9)"), "\"seed\":9}"));
  EXPECT_TRUE(has(chat_answer(R"("sluice":{"timing":true},"stream":true)"), "\"sluice\":{"));
}

TEST_F(Completion, Http10StreamsEndWithTheConnection) {
  auto& c = f.connect();
  const std::string body = chat(R"("stream":true)");
  c.wire.input =
      "POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
      "Connection: keep-alive\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  f.turn_all();
  EXPECT_EQ(header_of(c.wire.output, "transfer-encoding"), "");
  EXPECT_EQ(header_of(c.wire.output, "connection"), "close");
  EXPECT_EQ(body_of(c.wire.output).substr(0, 6), "data: ");
  EXPECT_TRUE(c.wire.is_shut);
}

TEST_F(Completion, ALongStreamOfTokensAllocatesNothing) {
  f.loop.reply = std::vector<TokenId>(3000, encode("word").back());
  auto& c = f.connect();
  c.wire.input = post("/v1/completions", completion(R"("stream":true,"max_tokens":3000)"));
  c.wire.output.reserve(4 << 20);
  f.turn();
  // The fake loop's own copies are made beforehand; buffers reach their size in the first rounds.
  f.loop.last().choices[0].span.reserve(4000);
  std::size_t in_handler = 0;
  auto& request = f.loop.last();
  for (int i = 0; i < 2000; ++i) {
    ++request.choices[0].drained;
    const std::size_t before = allocation_count();
    request.sink->on_tokens(0);
    if (i >= 100) in_handler += allocation_count() - before;
    f.turn();
  }
  EXPECT_EQ(request.choices[0].accepted, 2000u);
  EXPECT_EQ(in_handler, 0u);
}

TEST_F(Completion, RandomStepsAndBlockedWritesLoseNothing) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    HttpFixture g;
    std::uint64_t draw = 0;
    const auto random = [&](std::uint64_t below) { return mix64(seed << 20 ^ ++draw) % below; };
    g.loop.script = [&](const GenerationSpec&, std::uint32_t) {
      std::vector<OutputToken> tokens;
      for (std::uint64_t i = 0; i <= random(60); ++i)
        tokens.push_back({static_cast<TokenId>(3 + random(1000)), 0, FinishReason::none});
      tokens.back().finish = FinishReason::length;
      return tokens;
    };
    auto& c = g.connect();
    const std::uint64_t n = 1 + random(4);
    c.wire.input = post("/v1/completions",
                        completion(R"("stream":true,"max_tokens":100,"n":)" + std::to_string(n)));
    g.turn();
    for (int guard = 0; g.loop.num_live() > 0; ++guard) {
      ASSERT_LT(guard, 5000) << "seed " << seed;
      c.wire.is_write_blocked = random(2) == 0;
      c.wire.write_bytes_max = 1 + random(500);
      if (random(3) > 0) g.loop.step(random(5));
      g.turn();
    }
    c.wire.is_write_blocked = false;
    g.turn();
    const std::string events = unchunk(body_of(c.wire.output));
    for (std::uint32_t i = 0; i < n; ++i) {
      const auto& choice = g.loop.last().choices[i];
      EXPECT_EQ(choice.accepted, choice.script.size()) << "seed " << seed;
      std::string bytes, expected, escaped;
      for (const OutputToken& token : choice.script)
        bytes.append(g.service.models[0].tokenizer.piece_bytes(token.id));
      tok::StreamDecoder decoder;
      decoder.push(bytes, expected);
      decoder.finish(expected);
      append_json_escaped(escaped, expected);
      if (has(escaped, "\\\"")) continue;  // an escaped quote cuts the naive reader short
      EXPECT_EQ(streamed_text(events, static_cast<int>(i)), escaped) << "seed " << seed;
    }
  }
}

TEST_F(Completion, WaitsForSharedLimitsBeforeItIsSubmitted) {
  f.loop.reply = encode("Hello there");
  f.loop.leases_pending = 2;
  auto& c = f.connect();
  c.wire.input = post("/v1/completions", completion(R"("max_tokens":20,"logprobs":1)"));
  f.turn_all();
  EXPECT_EQ(c.wire.output, "");
  EXPECT_TRUE(f.loop.requests.empty());
  f.loop.grant();  // once more too little
  f.turn_all();
  EXPECT_EQ(c.wire.output, "");
  f.loop.grant();
  f.turn_all();
  EXPECT_EQ(status_of(c.wire.output), 200);
  ASSERT_EQ(f.loop.requests.size(), 1u);
  EXPECT_EQ(f.loop.last().spec.prompt, encode("Once upon"));
  EXPECT_TRUE(has(body_of(c.wire.output), "Hello there"));
}

TEST_F(Completion, ARequestThatWaitsForSharedLimitsMayBeRefusedOrLeave) {
  f.loop.leases_pending = 1;
  auto& refused = f.connect();
  refused.wire.input = post("/v1/completions", completion(R"("stream":true)"));
  f.turn();
  f.loop.refuse_lease = make_error(Errc::quota_store_unavailable, "no answer");
  f.loop.refuse_lease->retry_after = 1s;
  f.loop.grant();
  f.turn();
  EXPECT_EQ(status_of(refused.wire.output), 503);
  EXPECT_EQ(header_of(refused.wire.output, "retry-after"), "1");
  f.loop.refuse_lease.reset();
  f.loop.leases_pending = 1;
  auto& left = f.connect();
  left.wire.input = post("/v1/completions", completion());
  f.turn();
  ASSERT_EQ(f.loop.waiters.size(), 1u);
  left.wire.is_input_ended = true;
  f.turn();
  EXPECT_TRUE(f.loop.waiters.empty()) << "nobody is there to be called";
  EXPECT_TRUE(f.loop.requests.empty());
}

TEST_F(Completion, SeveralPromptsWaitForSharedLimitsOneByOne) {
  f.loop.reply = encode("Hello");
  const std::string body =
      R"({"model":"canned","prompt":["one two three","four"],"max_tokens":8,"echo":true,)"
      R"("truncate_prompt_tokens":3})";
  const std::string at_once = f.exchange(post("/v1/completions", body));
  const auto text_of = [](const std::string& response) {
    std::string texts;
    const std::string all = body_of(response);
    for (std::size_t at = 0; (at = all.find("\"text\":", at)) != std::string::npos; ++at)
      texts += all.substr(at, all.find("\"", at + 9) - at) + ";";
    return texts;
  };
  f.loop.leases_pending = 2;
  auto& c = f.connect();
  c.wire.input = post("/v1/completions", body);
  for (int i = 0; i < 4; ++i) {
    f.turn_all();
    f.loop.grant();
  }
  f.turn_all();
  EXPECT_EQ(status_of(c.wire.output), 200);
  EXPECT_FALSE(text_of(at_once).empty());
  EXPECT_EQ(text_of(c.wire.output), text_of(at_once));
}

TEST_F(Completion, RoutesThatOnlyCountWaitForSharedLimits) {
  const std::string prompt = R"({"model":"canned","prompt":"Once upon"})";
  const std::string tokens = R"({"model":"canned","tokens":[10,11]})";
  for (const auto& [path, body] : {std::pair("/tokenize", prompt), std::pair("/detokenize", tokens),
                                   std::pair("/v1/chat/completions/input_tokens", chat())}) {
    SCOPED_TRACE(path);
    const int before = f.loop.num_counted;
    f.loop.leases_pending = 1;
    auto& c = f.connect();
    c.wire.input = post(path, body) + post(path, body);
    f.turn();
    EXPECT_EQ(c.wire.output, "");
    EXPECT_EQ(f.loop.num_counted, before);
    f.loop.grant();
    f.turn();
    EXPECT_EQ(status_of(c.wire.output), 200);
    EXPECT_EQ(f.loop.num_counted, before + 2) << "and the next one on the connection";
  }
}

}  // namespace
}  // namespace sluice::gw
