// Request bodies: every field's type and range as a table, the JSON that is refused as JSON, and
// what a parsed request holds.
#include "gateway/api/parse_request.h"

#include <gtest/gtest.h>

#include "shared/limits.h"

namespace sluice::gw {
namespace {

class ParseRequest : public testing::Test {
 protected:
  Result<void> chat(std::string_view fields) {
    return parse(R"({"model":"m","messages":[{"role":"user","content":"hi"}])", fields,
                 ApiKind::chat);
  }
  Result<void> completion(std::string_view fields) {
    return parse(R"({"model":"m","prompt":"hi")", fields, ApiKind::completion);
  }
  Result<void> raw(std::string body, ApiKind kind = ApiKind::chat) {
    return parser_.parse_generation(body, kind, request_);
  }

  RequestParser parser_{42};
  GenerationRequest request_;

 private:
  Result<void> parse(std::string start, std::string_view fields, ApiKind kind) {
    if (!fields.empty()) start.append(",").append(fields);
    start.append("}");
    return raw(std::move(start), kind);
  }
};

struct Case {
  const char* fields;
  const char* param;
  Errc code = Errc::invalid_value;
};

constexpr Case kRefusedByBoth[] = {
    {R"("max_tokens":0)", "max_tokens"},
    {R"("max_tokens":-1)", "max_tokens"},
    {R"("max_tokens":1.5)", "max_tokens"},
    {R"("max_tokens":"7")", "max_tokens"},
    {R"("max_tokens":9223372036854775807)", "max_tokens"},
    {R"("max_tokens":18446744073709551615)", "max_tokens"},
    {R"("max_completion_tokens":0)", "max_completion_tokens"},
    {R"("max_completion_tokens":[])", "max_completion_tokens"},
    {R"("temperature":-0.1)", "temperature"},
    {R"("temperature":2.01)", "temperature"},
    {R"("temperature":"1")", "temperature"},
    {R"("temperature":true)", "temperature"},
    {R"("top_p":0)", "top_p"},
    {R"("top_p":1.1)", "top_p"},
    {R"("top_p":{})", "top_p"},
    {R"("n":0)", "n"},
    {R"("n":129)", "n"},
    {R"("n":1.0)", "n"},
    {R"("n":"1")", "n"},
    {R"("stop":7)", "stop"},
    {R"("stop":"")", "stop"},
    {R"("stop":["a","b","c","d","e"])", "stop"},
    {R"("stop":["a",7])", "stop[1]"},
    {R"("stop":["a",""])", "stop[1]"},
    {R"("seed":1.5)", "seed"},
    {R"("seed":"1")", "seed"},
    {R"("seed":9223372036854775808)", "seed"},
    {R"("stream":1)", "stream"},
    {R"("stream":"true")", "stream"},
    {R"("stream_options":{"include_usage":true})", "stream_options"},
    {R"("stream":true,"stream_options":[])", "stream_options"},
    {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
    {R"("stream":true,"stream_options":{"continuous_usage_stats":"x"})",
     "stream_options.continuous_usage_stats"},
    {R"("top_logprobs":21)", "top_logprobs"},
    {R"("top_logprobs":-1)", "top_logprobs"},
    {R"("top_logprobs":"2")", "top_logprobs"},
    {R"("top_logprobs":2)", "top_logprobs"},  // without logprobs; not in a completion at all
    {R"("logit_bias":[])", "logit_bias"},
    {R"("logit_bias":{"x":1})", "logit_bias.x"},
    {R"("logit_bias":{"-1":1})", "logit_bias.-1"},
    {R"("logit_bias":{"01":1})", "logit_bias.01"},
    {R"("logit_bias":{"1048576":1})", "logit_bias.1048576"},
    {R"("logit_bias":{"5":101})", "logit_bias.5"},
    {R"("logit_bias":{"5":"1"})", "logit_bias.5"},
    {R"("presence_penalty":2.1)", "presence_penalty"},
    {R"("presence_penalty":"x")", "presence_penalty"},
    {R"("frequency_penalty":-2.1)", "frequency_penalty"},
    {R"("frequency_penalty":[])", "frequency_penalty"},
    {R"("response_format":"text")", "response_format"},
    {R"("response_format":{})", "response_format.type"},
    {R"("response_format":{"type":"xml"})", "response_format.type"},
    {R"("response_format":{"type":"json_object"})", "response_format", Errc::unsupported_parameter},
    {R"("response_format":{"type":"json_schema"})", "response_format", Errc::unsupported_parameter},
    {R"("tools":{})", "tools"},
    {R"("tools":[{"type":"function"}])", "tools", Errc::unsupported_parameter},
    {R"("tool_choice":7)", "tool_choice"},
    {R"("tool_choice":"sometimes")", "tool_choice"},
    {R"("tool_choice":"required")", "tool_choice", Errc::unsupported_parameter},
    {R"("tool_choice":{"type":"function"})", "tool_choice", Errc::unsupported_parameter},
    {R"("functions":[{}])", "functions", Errc::unsupported_parameter},
    {R"("function_call":{"name":"f"})", "function_call", Errc::unsupported_parameter},
    {R"("parallel_tool_calls":"yes")", "parallel_tool_calls"},
    {R"("user":7)", "user"},
    {R"("metadata":[])", "metadata"},
    {R"("metadata":{"a":7})", "metadata"},
    {R"("service_tier":"gold")", "service_tier"},
    {R"("service_tier":1)", "service_tier"},
    {R"("top_k":-2)", "top_k"},
    {R"("top_k":0.5)", "top_k"},
    {R"("top_k":2147483648)", "top_k"},
    {R"("min_p":-0.1)", "min_p"},
    {R"("min_p":1.1)", "min_p"},
    {R"("min_p":"0")", "min_p"},
    {R"("repetition_penalty":0)", "repetition_penalty"},
    {R"("repetition_penalty":2.5)", "repetition_penalty"},
    {R"("repetition_penalty":"1")", "repetition_penalty"},
    {R"("stop_token_ids":7)", "stop_token_ids"},
    {R"("stop_token_ids":[-1])", "stop_token_ids[0]"},
    {R"("stop_token_ids":[1,"2"])", "stop_token_ids[1]"},
    {R"("stop_token_ids":[1048576])", "stop_token_ids[0]"},
    {R"("ignore_eos":1)", "ignore_eos"},
    {R"("min_tokens":-1)", "min_tokens"},
    {R"("min_tokens":"1")", "min_tokens"},
    {R"("min_tokens":9,"max_tokens":8)", "min_tokens"},
    {R"("truncate_prompt_tokens":0)", "truncate_prompt_tokens"},
    {R"("truncate_prompt_tokens":-2)", "truncate_prompt_tokens"},
    {R"("truncate_prompt_tokens":"1")", "truncate_prompt_tokens"},
    {R"("continue_final_message":1)", "continue_final_message"},
    {R"("add_generation_prompt":"no")", "add_generation_prompt"},
    {R"("add_generation_prompt":true,"continue_final_message":true)", "add_generation_prompt"},
    {R"("return_token_ids":1)", "return_token_ids"},
    {R"("priority":"high")", "priority"},
    {R"("priority":2147483648)", "priority"},
    {R"("sluice":7)", "sluice"},
    {R"("sluice":{"timing":1})", "sluice.timing"},
    {R"("structured_outputs":{"json":{}})", "structured_outputs", Errc::unsupported_parameter},
    {R"("guided_regex":"a+")", "guided_regex", Errc::unsupported_parameter},
    {R"("chat_template":"x")", "chat_template", Errc::unsupported_parameter},
    {R"("chat_template_kwargs":{"a":1})", "chat_template_kwargs", Errc::unsupported_parameter},
    {R"("prompt_logprobs":1)", "prompt_logprobs", Errc::unsupported_parameter},
    {R"("skip_special_tokens":false)", "skip_special_tokens", Errc::unsupported_parameter},
    {R"("use_beam_search":true)", "use_beam_search", Errc::unsupported_parameter},
    {R"("best_of":0)", "best_of"},
    {R"("n":3,"best_of":2)", "best_of"},
    {R"("modalities":["text","audio"])", "modalities", Errc::unsupported_parameter},
    {R"("modalities":"text")", "modalities"},
    {R"("suffix":"x")", "suffix", Errc::unsupported_parameter},
    {R"("suffix":1)", "suffix"},
    {R"("echo":1)", "echo"},
    {R"("add_special_tokens":1)", "add_special_tokens"},
};

TEST_F(ParseRequest, RefusesWrongTypesAndRangesNamingTheField) {
  for (const Case& c : kRefusedByBoth) {
    for (const ApiKind kind : {ApiKind::chat, ApiKind::completion}) {
      const Result<void> result = kind == ApiKind::chat ? chat(c.fields) : completion(c.fields);
      ASSERT_FALSE(result) << c.fields;
      EXPECT_EQ(result.error().code, c.code) << c.fields;
      EXPECT_EQ(result.error().param, c.param) << c.fields;
      EXPECT_FALSE(result.error().detail.empty()) << c.fields;
    }
  }
}

TEST_F(ParseRequest, RefusesWrongMessages) {
  constexpr Case kCases[] = {
      {R"("messages":7)", "messages"},
      {R"("messages":[])", "messages"},
      {R"("messages":["hi"])", "messages[0]"},
      {R"("messages":[{"content":"hi"}])", "messages[0].role"},
      {R"("messages":[{"role":"king","content":"hi"}])", "messages[0].role"},
      {R"("messages":[{"role":7,"content":"hi"}])", "messages[0].role"},
      {R"("messages":[{"role":"user"}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":null}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":7}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":[]}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":"a"},{"role":"user","content":["x"]}])",
       "messages[1].content[0]"},
      {R"("messages":[{"role":"user","content":[{"type":"text","text":1}]}])",
       "messages[0].content[0].text"},
      {R"("messages":[{"role":"user","content":[{"type":"image_url"}]}])",
       "messages[0].content[0].type", Errc::unsupported_parameter},
      {R"("messages":[{"role":"user","content":[{"type":"dance"}]}])",
       "messages[0].content[0].type"},
      {R"("messages":[{"role":"user","content":"a","name":1}])", "messages[0].name"},
      {R"("messages":[{"role":"assistant","content":"a","tool_calls":[{}]}])",
       "messages[0].tool_calls", Errc::unsupported_parameter},
      {R"("messages":[{"role":"tool","content":"a","tool_call_id":1}])",
       "messages[0].tool_call_id"},
  };
  for (const Case& c : kCases) {
    const Result<void> result = raw(std::string(R"({"model":"m",)") + c.fields + "}");
    ASSERT_FALSE(result) << c.fields;
    EXPECT_EQ(result.error().code, c.code) << c.fields;
    EXPECT_EQ(result.error().param, c.param) << c.fields;
  }
  EXPECT_EQ(raw(R"({"model":"m"})").error().param, "messages");
}

TEST_F(ParseRequest, RefusesWrongPrompts) {
  constexpr Case kCases[] = {
      {R"("prompt":7)", "prompt"},
      {R"("prompt":[])", "prompt"},
      {R"("prompt":{})", "prompt"},
      {R"("prompt":["a",7])", "prompt[1]"},
      {R"("prompt":[1,"a"])", "prompt[1]"},
      {R"("prompt":[1,-1])", "prompt[1]"},
      {R"("prompt":[1048576])", "prompt[0]"},
      {R"("prompt":[[1],[]])", "prompt[1]"},
      {R"("prompt":[[1],["a"]])", "prompt[1][0]"},
      {R"("prompt":[[1],"a"])", "prompt[1]"},
      {R"("prompt":[1.5])", "prompt[0]"},
      {R"("prompt":["a","b"],"n":128)", "n"},
      {R"("logprobs":21,"prompt":"a")", "logprobs"},
      {R"("logprobs":"2","prompt":"a")", "logprobs"},
      {R"("logprobs":2,"top_logprobs":2,"prompt":"a")", "top_logprobs"},
      {R"("n":2,"best_of":3,"stream":true,"prompt":"a")", "best_of"},
      {R"("prompt":["a","b"],"n":2,"best_of":65)", "best_of"},
      {R"("max_tokens":0,"prompt":"a")", "max_tokens"},
      {R"("logprobs":-1,"prompt":"a")", "logprobs"},
      {R"("logprobs":true,"prompt":"a")", "logprobs"},
  };
  for (const Case& c : kCases) {
    const Result<void> result =
        raw(std::string(R"({"model":"m",)") + c.fields + "}", ApiKind::completion);
    ASSERT_FALSE(result) << c.fields;
    EXPECT_EQ(result.error().code, c.code) << c.fields;
    EXPECT_EQ(result.error().param, c.param) << c.fields;
  }
  EXPECT_EQ(raw(R"({"model":"m"})", ApiKind::completion).error().param, "prompt");
}

TEST_F(ParseRequest, RefusesAMissingOrWrongModel) {
  for (const char* model : {"", R"("model":"",)", R"("model":7,)", R"("model":null,)"}) {
    const Result<void> result =
        raw(std::string("{") + model + R"("messages":[{"role":"user","content":"hi"}]})");
    ASSERT_FALSE(result) << model;
    EXPECT_EQ(result.error().param, "model");
  }
}

TEST_F(ParseRequest, ChatRefusesWhatOnlyCompletionsKnow) {
  EXPECT_EQ(chat(R"("echo":true)").error().param, "echo");
  EXPECT_EQ(chat(R"("best_of":2)").error().code, Errc::unsupported_parameter);
  EXPECT_EQ(chat(R"("logprobs":1)").error().code, Errc::invalid_value);
  EXPECT_EQ(chat(R"("add_special_tokens":true)").error().code, Errc::unsupported_parameter);
  EXPECT_TRUE(chat(R"("logprobs":false,"top_logprobs":0)"));
}

TEST_F(ParseRequest, LogprobsAsEachRouteWritesThem) {
  ASSERT_TRUE(chat(R"("logprobs":true)"));
  EXPECT_EQ(request_.logprobs, 0u);
  ASSERT_TRUE(chat(R"("top_logprobs":20,"logprobs":true)"));
  EXPECT_EQ(request_.logprobs, 20u);
  ASSERT_TRUE(chat(R"("logprobs":false)"));
  EXPECT_FALSE(request_.logprobs);
  ASSERT_TRUE(completion(R"("logprobs":0)"));
  EXPECT_EQ(request_.logprobs, 0u);
  ASSERT_TRUE(completion(R"("logprobs":5)"));
  EXPECT_EQ(request_.logprobs, 5u);
  ASSERT_TRUE(completion(""));
  EXPECT_FALSE(request_.logprobs);
}

TEST_F(ParseRequest, BestOfAndAnEchoWithoutOutput) {
  ASSERT_TRUE(completion(R"("best_of":5,"n":2)"));
  EXPECT_EQ(request_.best_of, 5u);
  EXPECT_EQ(request_.choices, 2u);
  ASSERT_TRUE(completion(R"("n":3)"));
  EXPECT_EQ(request_.best_of, 3u);
  ASSERT_TRUE(completion(R"("n":2,"best_of":2,"stream":true)"));
  ASSERT_TRUE(completion(R"("max_tokens":0,"echo":true)"));
  EXPECT_EQ(request_.max_tokens, 0u);
}

TEST_F(ParseRequest, Embeddings) {
  const auto parse = [this](std::string_view fields) {
    return raw(std::string(R"({"model":"m",)").append(fields).append("}"), ApiKind::embedding);
  };
  ASSERT_TRUE(parse(R"("input":["a","b"],"encoding_format":"base64","dimensions":8,"user":"u")"));
  ASSERT_EQ(request_.prompts.size(), 2u);
  EXPECT_EQ(request_.prompts[1].text, "b");
  EXPECT_EQ(request_.encoding_format, EncodingFormat::base64);
  EXPECT_EQ(request_.dimensions, 8u);
  ASSERT_TRUE(parse(R"("input":[[1,2],[3]],"temperature":"ignored","n":7)"));
  EXPECT_EQ(request_.prompts[0].ids, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(request_.encoding_format, EncodingFormat::floats);
  EXPECT_EQ(request_.choices, 1u);
  constexpr Case kCases[] = {
      {R"("input":7)", "input"},
      {R"("input":[])", "input"},
      {R"("input":["a",7])", "input[1]"},
      {R"("input":[[1],[]])", "input[1]"},
      {R"("input":[1,-1])", "input[1]"},
      {R"("prompt":"a")", "input"},
      {R"("input":"a","encoding_format":"int8")", "encoding_format"},
      {R"("input":"a","encoding_format":1)", "encoding_format"},
      {R"("input":"a","dimensions":0)", "dimensions"},
      {R"("input":"a","dimensions":"8")", "dimensions"},
      {R"("input":"a","user":7)", "user"},
  };
  for (const Case& c : kCases) {
    const Result<void> result = parse(c.fields);
    ASSERT_FALSE(result) << c.fields;
    EXPECT_EQ(result.error().code, c.code) << c.fields;
    EXPECT_EQ(result.error().param, c.param) << c.fields;
  }
  std::string many = R"("input":["a")";
  for (std::uint32_t i = 1; i < kEmbeddingInputsMax; ++i) many.append(R"(,"a")");
  EXPECT_TRUE(parse(many + "]"));
  EXPECT_EQ(parse(many + R"(,"a"])").error().param, "input");
}

TEST_F(ParseRequest, RefusesWhatIsNotJson) {
  const std::string cases[] = {"",
                               "{",
                               "[]",
                               "7",
                               "null",
                               "\"x\"",
                               "{\"model\":\"m\"} x",
                               "{\"model\":01}",
                               "{'model':1}",
                               "{\"model\":\"m\",}",
                               "{\"a\":\"\\ud800\"}",
                               "{\"a\":\"\\udc00\"}",
                               "{\"a\":\"\\ud800\\u0041\"}",
                               "{\"a\":\"\xff\"}",
                               "{\"a\":\"\xed\xa0\x80\"}",
                               "{\"a\":18446744073709551616}",
                               "{\"a\":-9223372036854775809}",
                               "{\"a\":1e400}",
                               "{\"a\":tru}",
                               "{\"a\":\"\n\"}",
                               "{\"a\":NaN}",
                               std::string("{\"a\":1\0}", 8),
                               "\xef\xbb\xbf{}",
                               "{\"model\":\"m\",\"model\":\"m\"}",
                               "{\"x\":{\"a\":1,\"a\":1}}",
                               "{\"x\":[[{\"a\":1,\"a\":1}]]}",
                               "{\"\\u0061\":1,\"a\":2}"};
  for (const std::string& text : cases) {
    const Result<void> result = raw(text);
    ASSERT_FALSE(result) << text;
    EXPECT_EQ(result.error().code, Errc::invalid_json) << text;
  }
}

TEST_F(ParseRequest, RefusesEveryTruncationOfAValidBody) {
  const std::string body =
      R"({"model":"m","messages":[{"role":"user","content":"h\u00e9\n"}],"n":2,"seed":-7})";
  ASSERT_TRUE(raw(body));
  for (std::size_t size = 0; size < body.size(); ++size)
    ASSERT_FALSE(raw(body.substr(0, size))) << size;
}

TEST_F(ParseRequest, FindsADuplicateAmongManyKeys) {
  for (const std::size_t keys : {2u, 11u, 12u, 13u, 64u, 1000u, 4095u}) {
    std::string body = "{\"x\":{";
    for (std::size_t i = 0; i < keys; ++i)
      body.append(i > 0 ? ",\"key" : "\"key").append(std::to_string(i)).append("\":0");
    EXPECT_EQ(raw(body + "}}").error().param, "model") << keys << " distinct keys are no fault";
    EXPECT_EQ(raw(body + ",\"key0\":0}}").error().code, Errc::invalid_json) << keys;
  }
}

TEST_F(ParseRequest, BoundsTheKeysOfOneObject) {
  std::string body = "{\"x\":{\"k\":0";
  for (int i = 0; i < 4096; ++i) body.append(",\"k").append(std::to_string(i)).append("\":0");
  EXPECT_EQ(raw(body + "}}").error().code, Errc::invalid_json);
}

TEST_F(ParseRequest, BoundsTheDepthAlsoAfterALargeBodyGrewTheParser) {
  const auto deep = [](int depth) {
    // The object itself is one level.
    return "{\"x\":" + std::string(static_cast<std::size_t>(depth - 1), '[') +
           std::string(static_cast<std::size_t>(depth - 1), ']') + "}";
  };
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(raw(deep(64)).error().param, "model") << "64 levels are allowed";
    EXPECT_EQ(raw(deep(65)).error().code, Errc::invalid_json);
    EXPECT_EQ(raw(deep(5000)).error().code, Errc::invalid_json);
    EXPECT_TRUE(raw(R"({"model":"m","messages":[{"role":"user","content":")" +
                    std::string(3 << 20, 'a') + "\"}]}"));
  }
}

TEST_F(ParseRequest, BoundsLogitBiasAndStopIds) {
  std::string bias = "\"logit_bias\":{";
  for (std::uint32_t i = 0; i < kLogitBiasMax; ++i)
    bias.append(i > 0 ? ",\"" : "\"").append(std::to_string(i)).append("\":1");
  EXPECT_TRUE(chat(bias + "}"));
  EXPECT_EQ(request_.logit_bias.size(), kLogitBiasMax);
  EXPECT_EQ(chat(bias + ",\"100000\":1}").error().param, "logit_bias");
  std::string ids = "\"stop_token_ids\":[0";
  for (std::uint32_t i = 1; i < kStopIdsMax; ++i) ids.append(",").append(std::to_string(i));
  EXPECT_TRUE(chat(ids + "]"));
  EXPECT_EQ(chat(ids + ",1]").error().param, "stop_token_ids");
}

TEST_F(ParseRequest, ReadsEveryChatField) {
  ASSERT_TRUE(raw(R"({"model":"m","messages":[
      {"role":"system","content":"s"},{"role":"developer","content":"d"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"bob"},
      {"role":"assistant","content":"x","tool_calls":[]},{"role":"tool","content":"t","tool_call_id":"1"}],
      "max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_p":0.25,"n":2,"stop":["a","b"],
      "seed":-1,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},
      "logit_bias":{"5":-100},"presence_penalty":1,"frequency_penalty":-2,"top_k":40,"min_p":0.5,
      "repetition_penalty":1.5,"stop_token_ids":[3,4],"ignore_eos":true,"min_tokens":2,
      "truncate_prompt_tokens":-1,"continue_final_message":true,"return_token_ids":true,"priority":-3,
      "sluice":{"timing":true},"unknown":{"a":[1]},"tools":[],"tool_choice":"auto","user":"u",
      "metadata":{"a":"b"},"service_tier":"auto","response_format":{"type":"text"},"best_of":2,
      "parallel_tool_calls":true,"modalities":["text"],"suffix":null})"));
  const GenerationRequest& r = request_;
  ASSERT_EQ(r.messages.size(), 5u);
  EXPECT_EQ(r.messages[1].role, tok::Role::developer);
  EXPECT_EQ(r.messages[2].content, "a\nb");
  EXPECT_EQ(r.messages[2].name, "bob");
  EXPECT_EQ(r.messages[4].role, tok::Role::tool);
  EXPECT_EQ(r.max_tokens, 7u) << "max_completion_tokens wins";
  EXPECT_EQ(r.sampling.temperature, 0.5f);
  EXPECT_EQ(r.sampling.top_p, 0.25f);
  EXPECT_EQ(r.choices, 2u);
  EXPECT_EQ(r.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(r.has_seed);
  EXPECT_EQ(r.sampling.seed, ~std::uint64_t{0});
  EXPECT_TRUE(r.stream && r.stream_options.include_usage);
  EXPECT_TRUE(r.stream_options.continuous_usage_stats);
  ASSERT_EQ(r.logit_bias.size(), 1u);
  EXPECT_EQ(r.logit_bias[0].token, 5u);
  EXPECT_EQ(r.logit_bias[0].bias, -100.f);
  EXPECT_EQ(r.sampling.presence_penalty, 1.f);
  EXPECT_EQ(r.sampling.frequency_penalty, -2.f);
  EXPECT_EQ(r.sampling.top_k, 40u);
  EXPECT_EQ(r.sampling.min_p, 0.5f);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(r.stop_token_ids, (std::vector<TokenId>{3, 4}));
  EXPECT_EQ(r.sampling.ignore_eos, 1u);
  EXPECT_EQ(r.sampling.min_tokens, 2u);
  EXPECT_EQ(r.truncate_prompt_tokens, -1);
  EXPECT_TRUE(r.continue_final_message && r.return_token_ids && r.wants_timing);
  EXPECT_FALSE(r.chat_options().add_generation_prompt);
  EXPECT_EQ(r.priority, -3);
}

TEST_F(ParseRequest, ReadsEveryShapeOfAPrompt) {
  ASSERT_TRUE(raw(R"({"model":"m","prompt":"a","echo":true,"add_special_tokens":false})",
                  ApiKind::completion));
  ASSERT_EQ(request_.prompts.size(), 1u);
  EXPECT_EQ(request_.prompts[0].text, "a");
  EXPECT_TRUE(request_.echo);
  EXPECT_EQ(request_.add_special_tokens, false);
  ASSERT_TRUE(raw(R"({"model":"m","prompt":["a","b"],"n":64})", ApiKind::completion));
  EXPECT_EQ(request_.prompts.size(), 2u);
  ASSERT_TRUE(raw(R"({"model":"m","prompt":[1,2,3]})", ApiKind::completion));
  ASSERT_EQ(request_.prompts.size(), 1u);
  EXPECT_EQ(request_.prompts[0].ids, (std::vector<TokenId>{1, 2, 3}));
  ASSERT_TRUE(raw(R"({"model":"m","prompt":[[1],[2,3]]})", ApiKind::completion));
  ASSERT_EQ(request_.prompts.size(), 2u);
  EXPECT_TRUE(request_.prompts[1].is_ids);
  EXPECT_EQ(request_.prompts[1].ids, (std::vector<TokenId>{2, 3}));
}

TEST_F(ParseRequest, NothingOfTheRequestBeforeRemains) {
  ASSERT_TRUE(chat(R"("n":3,"stop":"x","seed":5,"stream":true,"max_tokens":4,"temperature":0)"));
  ASSERT_TRUE(chat(""));
  EXPECT_EQ(request_.choices, 1u);
  EXPECT_TRUE(request_.stop.empty());
  EXPECT_FALSE(request_.has_seed || request_.stream || request_.max_tokens.has_value());
  EXPECT_EQ(request_.sampling.temperature, 1.f);
  EXPECT_EQ(request_.messages.size(), 1u);
  EXPECT_TRUE(request_.messages[0].name.empty());
}

TEST_F(ParseRequest, NullsCountAsAbsent) {
  EXPECT_TRUE(chat(R"("n":null,"stop":null,"tools":null,"logprobs":null,"max_tokens":null,
                      "response_format":null,"structured_outputs":null,"logit_bias":null)"));
}

TEST_F(ParseRequest, Tokenize) {
  TokenizeRequest request;
  const auto parse = [&](std::string body) { return parser_.parse_tokenize(body, request); };
  ASSERT_TRUE(parse(R"({"prompt":"a","add_special_tokens":false})"));
  EXPECT_EQ(request.prompt, "a");
  EXPECT_FALSE(request.add_special_tokens);
  ASSERT_TRUE(parse(R"({"model":"m","messages":[{"role":"user","content":"x"}]})"));
  EXPECT_EQ(request.messages.size(), 1u);
  EXPECT_EQ(parse("{}").error().param, "prompt");
  EXPECT_EQ(parse(R"({"prompt":"a","messages":[{"role":"user","content":"x"}]})").error().param,
            "prompt");
  EXPECT_EQ(parse(R"({"prompt":7})").error().param, "prompt");
  EXPECT_EQ(parse(R"({"prompt":"a","add_special_tokens":1})").error().param, "add_special_tokens");
  EXPECT_EQ(parse(R"({"prompt":"a","return_token_strs":true})").error().code,
            Errc::unsupported_parameter);
  EXPECT_EQ(parse(R"({"prompt":"a","prompt":"a"})").error().code, Errc::invalid_json);
}

TEST_F(ParseRequest, Detokenize) {
  DetokenizeRequest request;
  const auto parse = [&](std::string body) { return parser_.parse_detokenize(body, request); };
  ASSERT_TRUE(parse(R"({"model":"m","tokens":[1,2]})"));
  EXPECT_EQ(request.tokens, (std::vector<TokenId>{1, 2}));
  ASSERT_TRUE(parse(R"({"tokens":[]})"));
  EXPECT_EQ(parse("{}").error().param, "tokens");
  EXPECT_EQ(parse(R"({"tokens":7})").error().param, "tokens");
  EXPECT_EQ(parse(R"({"tokens":[1,-2]})").error().param, "tokens[1]");
  EXPECT_EQ(parse(R"({"tokens":[1],"model":7})").error().param, "model");
}

}  // namespace
}  // namespace sluice::gw
