// One connection: routing, checks before the body, keep-alive, pipelining, deadlines, CORS, ends.
#include "gateway/http/session.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include "tests/support/http_fixture.h"

namespace sluice::gw {
namespace {

using namespace std::chrono_literals;
using test::body_of;
using test::get;
using test::header_of;
using test::HttpFixture;
using test::post;
using test::status_of;

const std::string kChat = R"({"model":"canned","messages":[{"role":"user","content":"hi"}]})";

std::string code_of(const std::string& response) {
  const std::size_t at = response.find("\"code\":\"");
  return at == std::string::npos ? ""
                                 : response.substr(at + 8, response.find('"', at + 8) - at - 8);
}

cfg::Config with_key(const std::string& key) {
  cfg::Config config = test::canned_config();
  cfg::Tenant& tenant = config.tenants.emplace_back();
  tenant.models = {"canned"};
  cfg::ApiKey& stored = tenant.keys.emplace_back();
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), stored.sha256.data());
  return config;
}

TEST(Session, AnswersTheProbes) {
  HttpFixture f;
  EXPECT_EQ(status_of(f.exchange(get("/live"))), 200);
  EXPECT_EQ(status_of(f.exchange(get("/ready"))), 200);
  EXPECT_EQ(status_of(f.exchange(get("/health"))), 200);
  f.loop.facts.workers_ready = 0;
  EXPECT_EQ(status_of(f.exchange(get("/live"))), 200);
  EXPECT_EQ(status_of(f.exchange(get("/ready"))), 503);
  EXPECT_EQ(code_of(f.exchange(get("/health"))), "model_loading");
  f.loop.facts.workers_ready = 1;
  f.service.is_draining = true;
  EXPECT_EQ(status_of(f.exchange(get("/ready"))), 503);
}

TEST(Session, ListsModels) {
  HttpFixture f;
  const std::string list = f.exchange(get("/v1/models"));
  EXPECT_EQ(status_of(list), 200);
  EXPECT_NE(list.find(R"({"id":"canned","object":"model","created":1700000000,"owned_by":"sluice",)"
                      R"("max_model_len":4096})"),
            std::string::npos);
  EXPECT_EQ(status_of(f.exchange(get("/v1/models/canned"))), 200);
  EXPECT_EQ(status_of(f.exchange(get("/v1/models/c%61nned"))), 200);
  EXPECT_EQ(code_of(f.exchange(get("/v1/models/other"))), "model_not_found");
  EXPECT_EQ(status_of(f.exchange(get("/v1/models/%00"))), 404);
}

TEST(Session, UnknownRoutesAndMethods) {
  HttpFixture f;
  EXPECT_EQ(code_of(f.exchange(get("/nothing"))), "not_found");
  EXPECT_EQ(status_of(f.exchange(get("/v1/responses"))), 404);
  const std::string wrong = f.exchange(get("/v1/chat/completions"));
  EXPECT_EQ(status_of(wrong), 405);
  EXPECT_EQ(header_of(wrong, "allow"), "POST, OPTIONS");
  EXPECT_EQ(status_of(f.exchange(get("/v1/embeddings"))), 405);
  // An upgrade is not served: the request is answered as if it had not asked.
  EXPECT_EQ(status_of(f.exchange(get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n"))), 404);
}

TEST(Session, HeadHasTheHeadersOfGetAndNoBody) {
  HttpFixture f;
  const std::string response = f.exchange("HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(status_of(response), 200);
  EXPECT_NE(header_of(response, "content-length"), "0");
  EXPECT_EQ(body_of(response), "");
  EXPECT_EQ(body_of(f.exchange("HEAD /v1/models/none HTTP/1.1\r\nHost: x\r\n\r\n")), "");
}

TEST(Session, KeepsRequestIdsThatAreFitAndReplacesOthers) {
  HttpFixture f;
  EXPECT_EQ(header_of(f.exchange(get("/live", "X-Request-ID: my.id-1\r\n")), "x-request-id"),
            "my.id-1");
  const std::string made =
      header_of(f.exchange(get("/live", "X-Request-ID: not fit\r\n")), "x-request-id");
  EXPECT_EQ(made.substr(0, 4), "req_");
  EXPECT_NE(made, header_of(f.exchange(get("/live")), "x-request-id"));
}

TEST(Session, ReturnsTheTraceOfTheCallerWhenItIsOne) {
  HttpFixture f;
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_EQ(header_of(f.exchange(get("/live", "traceparent: " + trace + "\r\n")), "traceparent"),
            trace);
  EXPECT_EQ(header_of(f.exchange(get("/live", "traceparent: 00-1-2-01\r\n")), "traceparent"), "");
  EXPECT_EQ(header_of(f.exchange(get("/live")), "traceparent"), "");
}

TEST(Session, ChecksKeysBeforeTheBody) {
  HttpFixture f(with_key("sk-secret"));
  const std::string refused = f.exchange(post("/v1/chat/completions", "not even json"));
  EXPECT_EQ(status_of(refused), 401);
  EXPECT_EQ(header_of(refused, "www-authenticate"), "Bearer");
  EXPECT_EQ(code_of(f.exchange(get("/v1/models", "Authorization: Bearer sk-wrong\r\n"))),
            "invalid_api_key");
  EXPECT_EQ(status_of(f.exchange(get("/v1/models", "Authorization: Bearer sk-secret\r\n"))), 200);
  EXPECT_EQ(status_of(f.exchange(get("/live"))), 200) << "probes need no key";
}

TEST(Session, ModelsOutsideTheTenantsListAreForbidden) {
  cfg::Config config = with_key("k");
  config.models.push_back(config.models[0]);
  config.models[1].name = "other";
  HttpFixture f(config);
  const std::string key = "Authorization: Bearer k\r\n";
  EXPECT_EQ(f.exchange(get("/v1/models", key)).find("other"), std::string::npos);
  EXPECT_EQ(code_of(f.exchange(get("/v1/models/other", key))), "model_not_allowed");
  EXPECT_EQ(code_of(f.exchange(post("/v1/completions", R"({"model":"other","prompt":"x"})", key))),
            "model_not_allowed");
}

TEST(Session, BodiesMustBeJson) {
  HttpFixture f;
  for (const char* type :
       {"", "Content-Type: text/plain\r\n", "Content-Type: application/jsonx\r\n"}) {
    const std::string response =
        f.exchange("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" +
                   std::string(type) + "\r\n{}");
    EXPECT_EQ(status_of(response), 415) << type;
  }
}

TEST(Session, LargeBodiesAreRefusedByTheirLength) {
  HttpFixture f;
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
  const std::string response = f.exchange(head + "Content-Length: 99999999\r\n\r\n");
  EXPECT_EQ(status_of(response), 413);
  EXPECT_EQ(header_of(response, "connection"), "close");
  EXPECT_EQ(status_of(f.exchange(head + "X: " + std::string(20000, 'x') + "\r\n\r\n")), 431);
}

TEST(Session, AnswersExpectContinueAfterTheHeadChecks) {
  HttpFixture f;
  auto& ok = f.connect();
  const std::string head =
      "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Expect: 100-continue\r\nContent-Length: " +
      std::to_string(kChat.size()) + "\r\n\r\n";
  ok.wire.input = head;
  f.turn();
  EXPECT_EQ(ok.wire.output, "HTTP/1.1 100 Continue\r\n\r\n");
  ok.wire.input = kChat;
  f.turn_all();
  EXPECT_EQ(status_of(ok.wire.output.substr(25)), 200);
  auto& refused = f.connect();
  refused.wire.input = "POST /nowhere" + head.substr(25);
  f.turn();
  EXPECT_EQ(status_of(refused.wire.output), 404);
}

TEST(Session, AnswersPipelinedRequestsInOrder) {
  HttpFixture f;
  auto& c = f.connect();
  c.wire.input = get("/v1/models/a") + post("/v1/chat/completions", kChat) + get("/v1/models/b") +
                 get("/live", "Connection: close\r\n") + get("/never");
  f.turn_all();
  const std::size_t a = c.wire.output.find("'a'");
  const std::size_t chat = c.wire.output.find("chat.completion");
  const std::size_t b = c.wire.output.find("'b'");
  const std::size_t live = c.wire.output.find("\"live\"");
  ASSERT_NE(live, std::string::npos);
  EXPECT_TRUE(a < chat && chat < b && b < live);
  EXPECT_EQ(c.wire.output.find("no such route"), std::string::npos);
  EXPECT_TRUE(c.wire.is_shut);
}

TEST(Session, ReadsNoMoreThanItsBufferWhileARequestRuns) {
  HttpFixture f;
  auto& c = f.connect();
  c.wire.input = post("/v1/chat/completions", kChat) + std::string(1 << 20, 'x');
  f.turn();
  EXPECT_EQ(f.loop.num_live(), 1u);
  EXPECT_GT(c.wire.input.size(), (1u << 20) - (40u << 10));
}

TEST(Session, AClientThatLeavesCancelsItsRequest) {
  for (const bool streamed : {false, true}) {
    HttpFixture f;
    auto& c = f.connect();
    c.wire.input = post("/v1/chat/completions", kChat.substr(0, kChat.size() - 1) +
                                                    (streamed ? R"(,"stream":true})" : "}"));
    f.turn();
    f.loop.step();
    f.turn();
    ASSERT_EQ(f.loop.num_live(), 1u);
    c.wire.is_input_ended = true;  // a half-close is enough
    f.turn();
    EXPECT_EQ(f.loop.num_live(), 0u);
    EXPECT_EQ(f.loop.last().cancelled, CancelCause::client_gone);
    EXPECT_TRUE(c.wire.is_closed);
    EXPECT_EQ(c.session, nullptr) << "closed sessions are retired";
    EXPECT_EQ(f.service.metrics.clients_gone, 1u);
  }
}

TEST(Session, AnAnswerOnItsWaySurvivesAHalfClose) {
  HttpFixture f;
  auto& c = f.connect();
  c.wire.input = get("/live");
  c.wire.is_input_ended = true;
  c.wire.write_bytes_max = 7;
  f.turn();
  EXPECT_NE(c.wire.output.find("\"live\""), std::string::npos);
  EXPECT_TRUE(c.wire.is_closed);
}

TEST(Session, DeadlinesOfEveryPhase) {
  HttpFixture f;
  auto& idle = f.connect();
  auto& head = f.connect();
  auto& body = f.connect();
  auto& slow = f.connect();
  head.wire.input = "GET /li";
  body.wire.input = post("/v1/chat/completions", kChat).substr(0, 130);
  slow.wire.input = get("/v1/models");
  slow.wire.is_write_blocked = true;
  f.turn();
  f.advance(9s);
  head.wire.input = "ve";  // a byte now and then does not buy more time
  f.turn();
  EXPECT_EQ(head.wire.output, "");
  f.advance(2s);
  EXPECT_EQ(status_of(head.wire.output), 408);
  EXPECT_TRUE(head.wire.is_shut);
  f.advance(20s);
  EXPECT_EQ(code_of(body.wire.output), "request_timeout");
  EXPECT_TRUE(slow.wire.is_closed) << "a write without progress";
  EXPECT_FALSE(idle.wire.is_closed);
  f.advance(50s);
  EXPECT_TRUE(idle.wire.is_closed);
  EXPECT_EQ(idle.wire.output, "");
}

TEST(Session, LingersAfterAnErrorUntilTheClientEnds) {
  HttpFixture f;
  auto& c = f.connect();
  c.wire.input = "BAD\r\n\r\n";
  f.turn();
  EXPECT_EQ(status_of(c.wire.output), 400);
  EXPECT_EQ(code_of(c.wire.output), "malformed_http");
  EXPECT_TRUE(c.wire.is_shut);
  EXPECT_FALSE(c.wire.is_closed) << "closing with unread bytes could take the answer away";
  c.wire.input = get("/live");
  f.turn();
  EXPECT_EQ(c.wire.output.find("live"), std::string::npos);
  c.wire.is_input_ended = true;
  f.turn();
  EXPECT_TRUE(c.wire.is_closed);
  auto& silent = f.connect();
  silent.wire.input = "BAD\r\n\r\n";
  f.turn();
  f.advance(3s);
  EXPECT_TRUE(silent.wire.is_closed);
}

TEST(Session, Http10ClosesUnlessAskedToStay) {
  HttpFixture f;
  auto& once = f.connect();
  once.wire.input = "GET /live HTTP/1.0\r\n\r\n";
  auto& stays = f.connect();
  stays.wire.input = "GET /live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
  f.turn();
  EXPECT_EQ(header_of(once.wire.output, "connection"), "close");
  EXPECT_TRUE(once.wire.is_shut);
  EXPECT_EQ(header_of(stays.wire.output, "connection"), "keep-alive");
  EXPECT_FALSE(stays.wire.is_shut);
}

TEST(Session, PreflightsNameWhatIsAllowed) {
  HttpFixture f;
  const std::string response = f.exchange(
      "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://localhost:3000\r\n"
      "Access-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n");
  EXPECT_EQ(status_of(response), 204);
  EXPECT_EQ(header_of(response, "access-control-allow-origin"), "http://localhost:3000");
  EXPECT_EQ(header_of(response, "access-control-allow-headers"), "authorization,x-stainless-os");
  const std::string other =
      f.exchange("OPTIONS /x HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n\r\n");
  EXPECT_EQ(header_of(other, "access-control-allow-origin"), "");
  const std::string read = f.exchange(get("/v1/models", "Origin: http://127.0.0.1:9\r\n"));
  EXPECT_NE(header_of(read, "access-control-expose-headers").find("x-ratelimit-limit-tokens"),
            std::string::npos);
}

TEST(Session, TellsLimitsOnV1Answers) {
  cfg::Config config = test::canned_config();
  config.default_limits.requests_per_minute = 60;
  config.default_limits.tokens_per_minute = 1000;
  HttpFixture f(config);
  f.loop.limits_view = {.requests_limit = 60,
                        .requests_remaining = 59,
                        .tokens_limit = 1000,
                        .tokens_remaining = 900,
                        .requests_reset = 1s,
                        .tokens_reset = 6min,
                        .has_requests_limit = true,
                        .has_tokens_limit = true};
  const std::string response = f.exchange(get("/v1/models"));
  EXPECT_EQ(header_of(response, "x-ratelimit-limit-requests"), "60");
  EXPECT_EQ(header_of(response, "x-ratelimit-remaining-tokens"), "900");
  EXPECT_EQ(header_of(response, "x-ratelimit-reset-requests"), "1s");
  EXPECT_EQ(header_of(response, "x-ratelimit-reset-tokens"), "6m0s");
  EXPECT_NE(header_of(response, "openai-processing-ms"), "");
  EXPECT_EQ(header_of(f.exchange(get("/live")), "x-ratelimit-limit-requests"), "");
  f.loop.limits_view = {.tokens_limit = 4'000'000, .has_requests_limit = true};
  const std::string zero = f.exchange(get("/v1/models"));
  EXPECT_EQ(header_of(zero, "x-ratelimit-limit-requests"), "0") << "a limit of 0 is one";
}

TEST(Session, TheCallersQuotaHasEveryKindOfLimit) {
  cfg::Config config = test::canned_config();
  config.default_limits.output_tokens_max = 500;
  HttpFixture f(config);
  f.loop.quota_view[index_of(LimitKind::tokens_per_minute)] = {1000, 90, 10, 6min};
  f.loop.quota_view[index_of(LimitKind::concurrent_requests)] = {0, 0, 0, std::nullopt};
  const std::string quota = body_of(f.exchange(get("/v1/quota")));
  const std::string none =
      R"({"limit":null,"used":0,"reserved":0,"remaining":null,"reset_ms":null})";
  EXPECT_EQ(
      quota,
      R"({"object":"quota","tenant":"default","requests_per_minute":)" + none +
          R"(,"tokens_per_minute":{"limit":1000,"used":90,"reserved":10,"remaining":900,)" +
          R"("reset_ms":360000},"input_tokens_per_minute":)" + none +
          R"(,"output_tokens_per_minute":)" + none + R"(,"tokens_per_day":)" + none +
          R"(,"monthly_budget":)" + none +
          R"(,"concurrent_requests":{"limit":0,"used":0,"reserved":0,"remaining":0,"reset_ms":null})" +
          R"(,"concurrent_kv_tokens":)" + none +
          R"(,"max_output_tokens":500,"default_output_tokens":256,"reserve":"exact","shadow":false})");
}

TEST(Session, AModelMayAskForASecurityClass) {
  cfg::Config config = test::canned_config();
  config.models[0].security_classes = {"restricted"};
  for (const char* name : {"sk-open", "sk-restricted"}) {
    cfg::Tenant& tenant = config.tenants.emplace_back();
    tenant.name = name;
    const std::string key(name);
    SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(),
           tenant.keys.emplace_back().sha256.data());
  }
  config.tenants[1].security_class = "restricted";
  HttpFixture f(config);
  const std::string open = "Authorization: Bearer sk-open\r\n";
  const std::string restricted = "Authorization: Bearer sk-restricted\r\n";
  EXPECT_EQ(code_of(f.exchange(post("/v1/chat/completions", kChat, open))),
            "classification_denied");
  EXPECT_EQ(code_of(f.exchange(get("/v1/models/canned", open))), "classification_denied");
  EXPECT_EQ(body_of(f.exchange(get("/v1/models", open))), R"({"object":"list","data":[]})");
  EXPECT_EQ(status_of(f.exchange(post("/v1/chat/completions", kChat, restricted))), 200);
}

TEST(Session, DrainClosesTheIdleAtOnceAndTheBusyAfterTheirAnswer) {
  HttpFixture f;
  auto& idle = f.connect();
  auto& busy = f.connect();
  busy.wire.input = post("/v1/chat/completions", kChat);
  f.turn();
  idle.session->drain();
  busy.session->drain();
  f.turn();
  EXPECT_TRUE(idle.wire.is_closed);
  EXPECT_FALSE(busy.wire.is_closed);
  f.turn_all();
  EXPECT_EQ(status_of(busy.wire.output), 200);
  EXPECT_TRUE(busy.wire.is_shut);
}

TEST(Session, MetricsCountWhatHappened) {
  HttpFixture f;
  f.exchange(post("/v1/chat/completions", kChat));
  f.exchange(post("/v1/chat/completions", "{"));
  const std::string page = f.exchange(get("/metrics"));
  EXPECT_EQ(header_of(page, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
  for (const char* line :
       {"sluice_http_responses_total{route=\"chat_completions\",status=\"2xx\"} 1\n",
        "sluice_http_responses_total{route=\"chat_completions\",status=\"4xx\"} 1\n",
        "sluice_http_errors_total{code=\"invalid_json\"} 1\n", "sluice_http_body_bytes_held 0\n"})
    EXPECT_NE(page.find(line), std::string::npos) << line;
}

TEST(Session, BodiesAreBoundedAllTogether) {
  cfg::Config config = test::canned_config();
  config.http.body_bytes_max = 1000;
  HttpFixture f(config);
  // Bodies that never end, up to the common bound: the one that passes it is refused.
  std::string last;
  for (int i = 0; i < 40; ++i) {
    auto& c = f.connect();
    c.wire.input =
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n" +
        std::string(990, ' ');
    f.turn();
    last = c.wire.output;
  }
  EXPECT_EQ(code_of(last), "overloaded");
  EXPECT_LE(f.service.metrics.body_bytes_held, 33'000u);
  for (const auto& c : f.connections) c->wire.is_input_ended = true;
  f.turn();
  EXPECT_EQ(f.service.metrics.body_bytes_held, 0u);
}

}  // namespace
}  // namespace sluice::gw
