// The requests and the arrival schedule: valid JSON, equal seeds equal runs, the asked rate.
#include "gateway/bench/request_mix.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include "gateway/bench/arrivals.h"

namespace sluice::bench {
namespace {

std::string body_of(const std::string& request) {
  return request.substr(request.find("\r\n\r\n") + 4);
}

TEST(RequestMix, BodiesAreValidJsonWithTheAskedMembers) {
  RequestOptions options;
  options.host = "localhost:1";
  options.prompt = "quote \" back \\ line \n tab \t nul \x01 e \xc3\xa9";
  options.stream = true;
  options.extra_json = R"( { "temperature" : 0.5, "stop" : ["x"] } )";
  options.api_key = "sk-test";
  for (const Endpoint endpoint : {Endpoint::completions, Endpoint::chat}) {
    options.endpoint = endpoint;
    const auto requests = make_requests(options);
    ASSERT_TRUE(requests);
    const std::string& request = requests->front();
    EXPECT_NE(request.find("Authorization: Bearer sk-test\r\n"), std::string::npos);
    const std::string body = body_of(request);
    EXPECT_NE(request.find("Content-Length: " + std::to_string(body.size()) + "\r\n"),
              std::string::npos);
    simdjson::dom::parser parser;
    simdjson::dom::element root = parser.parse(body);
    EXPECT_EQ(double(root["temperature"]), 0.5);
    EXPECT_EQ(bool(root["stream"]), true);
    const std::string_view prompt =
        endpoint == Endpoint::chat ? root["messages"].at(0)["content"] : root["prompt"];
    EXPECT_EQ(prompt, options.prompt);
  }
}

TEST(RequestMix, RefusesExtraJsonThatIsNoObject) {
  RequestOptions options;
  for (const char* extra : {"[1]", "7", "{", "{\"a\":01}"}) {
    options.extra_json = extra;
    EXPECT_FALSE(make_requests(options)) << extra;
  }
}

TEST(RequestMix, PromptsShareThePrefixAndDifferBehindIt) {
  RequestOptions options;
  options.prefix_words = 50;
  options.num_prompts = 8;
  const auto requests = make_requests(options);
  ASSERT_TRUE(requests);
  ASSERT_EQ(requests->size(), 8u);
  const std::string prefix = seeded_words(options.seed, ~0u, 50);
  for (const std::string& request : *requests) EXPECT_NE(request.find(prefix), std::string::npos);
  EXPECT_NE((*requests)[0], (*requests)[1]);
  EXPECT_EQ(*make_requests(options), *requests);
  options.seed = 2;
  EXPECT_NE(*make_requests(options), *requests);
}

TEST(PoissonArrivals, HaveTheAskedRateAndSpreadAndRepeatForASeed) {
  constexpr int kCount = 200'000;
  PoissonArrivals arrivals(1000, 7), again(1000, 7), other(1000, 8);
  double sum = 0, squares = 0;
  int num_different = 0;
  for (int i = 0; i < kCount; ++i) {
    const Duration gap = arrivals.next();
    ASSERT_GE(gap, Duration(0));
    ASSERT_EQ(gap, again.next());
    num_different += gap != other.next();
    const double ms = static_cast<double>(gap.count()) / 1e6;
    sum += ms;
    squares += ms * ms;
  }
  // Exponential: mean 1 ms and variance 1 ms^2; five standard errors of each.
  const double mean = sum / kCount;
  EXPECT_NEAR(mean, 1, 0.012);
  EXPECT_NEAR(squares / kCount - mean * mean, 1, 0.04);
  EXPECT_GT(num_different, kCount * 99 / 100);
}

}  // namespace
}  // namespace sluice::bench
