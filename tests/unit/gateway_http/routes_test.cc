// Routes, authentication, CORS, rate limit headers: the small tables.
#include "gateway/http/routes.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <set>

#include "gateway/api/percent_decode.h"
#include "gateway/http/auth.h"
#include "gateway/http/cors.h"
#include "gateway/http/openapi.h"
#include "gateway/http/response_head.h"

namespace sluice::gw {
namespace {

constexpr Scope kScope = Scope::model_request;

TEST(Routes, FindsEachRouteByOneSpelling) {
  EXPECT_EQ(find_route("POST", "/v1/chat/completions").endpoint, Endpoint::chat_completions);
  EXPECT_EQ(find_route("GET", "/v1/models").result, RouteResult::found);
  EXPECT_EQ(find_route("HEAD", "/v1/models").result, RouteResult::found);
  EXPECT_EQ(find_route("GET", "/v1/models/a/b").tail, "a/b");
  EXPECT_EQ(find_route("OPTIONS", "/anything").result, RouteResult::preflight);
  for (const char* path : {"/v1/models/", "//v1/models", "/v1//models", "/V1/models", "/", "",
                           "/v1/../v1/models", "/v1/models%2f", "/v1/%6dodels", "*", "/tokenize/"})
    EXPECT_EQ(find_route("GET", path).result, RouteResult::unknown) << path;
}

TEST(Routes, AWrongMethodNamesTheRightOnes) {
  EXPECT_EQ(find_route("GET", "/v1/chat/completions").result, RouteResult::wrong_method);
  EXPECT_EQ(find_route("GET", "/v1/chat/completions").allow, "POST, OPTIONS");
  EXPECT_EQ(find_route("HEAD", "/tokenize").result, RouteResult::wrong_method);
  EXPECT_EQ(find_route("POST", "/v1/models").allow, "GET, HEAD, OPTIONS");
  EXPECT_EQ(find_route("get", "/v1/models").result, RouteResult::wrong_method);
  EXPECT_EQ(find_route("BREW", "/health").result, RouteResult::wrong_method);
}

TEST(Routes, AdminRoutesTakeOneSegmentAndSayWhatTheyAllow) {
  const Route quota = find_route("PATCH", "/admin/v1/tenants/a%20b/quota");
  EXPECT_EQ(quota.result, RouteResult::found);
  EXPECT_EQ(quota.noun, AdminNoun::quota);
  EXPECT_EQ(quota.tail, "a%20b");
  EXPECT_TRUE(quota.needs_admin && quota.takes_body);
  EXPECT_EQ(find_route("POST", "/admin/v1/breakers/tenant:x/open").noun, AdminNoun::breaker_open);
  EXPECT_EQ(find_route("POST", "/admin/v1/tenants/x").allow, "GET, HEAD, PATCH, DELETE, OPTIONS");
  EXPECT_EQ(find_route("OPTIONS", "/admin/v1/tenants/x/quota").allow,
            "GET, HEAD, PUT, PATCH, OPTIONS");
  EXPECT_EQ(find_route("OPTIONS", "/nowhere").allow,
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
  for (const char* path :
       {"/admin/v1/tenants/", "/admin/v1/tenants//quota", "/admin/v1/tenants/a/b",
        "/admin/v1/keys/a/rotate/", "/admin/v1", "/admin/v1/tenants/a/quota/b"})
    EXPECT_EQ(find_route("GET", path).result, RouteResult::unknown) << path;
}

// Each operation is found by its own path; ids and (method, path) are unique; errors and the
// document know it.
TEST(Routes, TheTableIsWhatTheRouterFindsAndTheDocumentSays) {
  const std::string document = openapi_document();
  std::set<std::string> ids, pairs;
  for (const Operation& operation : operations()) {
    EXPECT_TRUE(ids.insert(std::string(operation.id)).second) << operation.id;
    EXPECT_TRUE(pairs.insert(std::string(operation.method).append(operation.path)).second)
        << operation.path;
    std::string path(operation.path);
    if (const std::size_t at = path.find('{'); at != std::string::npos)
      path.replace(at, path.find('}') - at + 1, "x");
    const Route route = find_route(operation.method, path);
    EXPECT_EQ(route.result, RouteResult::found) << path;
    EXPECT_EQ(route.endpoint, operation.endpoint) << path;
    EXPECT_EQ(route.noun, operation.noun) << path;
    EXPECT_NE(document.find("\"" + std::string(operation.path) + "\""), std::string::npos);
    EXPECT_NE(document.find("\"operationId\":\"" + std::string(operation.id) + "\""),
              std::string::npos);
    for (const std::string_view schema : {operation.request, operation.response}) {
      if (schema.empty() || schema.find('/') != std::string_view::npos) continue;
      EXPECT_NE(document.find("\"" + std::string(schema) + "\":{"), std::string::npos) << schema;
    }
  }
}

TEST(Routes, PercentDecoding) {
  std::string out;
  EXPECT_TRUE(percent_decode("meta%2Fllama%20x", out));
  EXPECT_EQ(out, "meta/llama x");
  for (const char* bad : {"%", "%2", "%zz", "a%0", "%00", "x%00y"})
    EXPECT_FALSE(percent_decode(bad, out)) << bad;
}

cfg::Config with_keys() {
  cfg::Config config;
  for (const std::string& key : {std::string("sk-one"), std::string("sk-two")}) {
    cfg::Tenant& tenant = config.tenants.emplace_back();
    tenant.name = key;
    cfg::ApiKey& stored = tenant.keys.emplace_back();
    SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), stored.sha256.data());
  }
  return config;
}

TEST(Auth, FindsTheTenantOfAKey) {
  const Auth auth(with_keys());
  EXPECT_EQ(auth.caller_of("Bearer sk-one", kScope)->tenant, TenantId(0));
  EXPECT_EQ(auth.caller_of("bearer  sk-two", kScope)->tenant, TenantId(1));
}

TEST(Auth, TheKeysOfOneTenantAreReplaced) {
  cfg::Config config = with_keys();
  Auth auth(config, "secret");
  cfg::ApiKey fresh;
  SHA256(reinterpret_cast<const unsigned char*>("sk-new"), 6, fresh.sha256.data());
  auth.set_tenant(TenantId(1), {fresh}, false);
  EXPECT_FALSE(auth.caller_of("Bearer sk-two", kScope));
  EXPECT_EQ(auth.caller_of("Bearer sk-new", kScope)->tenant, TenantId(1));
  EXPECT_EQ(auth.caller_of("Bearer sk-one", kScope)->tenant, TenantId(0)) << "others stay";
  auth.set_tenant(TenantId(5), config.tenants[1].keys, true);
  EXPECT_EQ(auth.caller_of("Bearer sk-two", kScope).error().code, Errc::invalid_api_key);
  EXPECT_TRUE(auth.knows("Bearer sk-two")) << "blocked";
  for (const std::uint32_t number : {0u, 1u, 5u}) auth.set_tenant(TenantId(number), {}, false);
  EXPECT_FALSE(auth.is_open()) << "tenants without keys are no invitation";
  EXPECT_FALSE(auth.caller_of("Bearer sk-one", kScope));
}

TEST(Auth, RefusesEverythingElseWithoutRepeatingIt) {
  const Auth auth(with_keys());
  for (const char* header : {"", "Bearer", "Bearer ", "Bearer sk-On", "Bearer sk-one ",
                             "Basic sk-one", "sk-one", "Bearer sk-one,sk-two", "Bearer\tsk-one"}) {
    const Result<Caller> tenant = auth.caller_of(header, kScope);
    ASSERT_FALSE(tenant) << header;
    EXPECT_EQ(tenant.error().code, Errc::invalid_api_key);
    EXPECT_EQ(tenant.error().detail.find("sk-"), std::string::npos);
  }
  EXPECT_FALSE(auth.caller_of("Bearer " + std::string(100'000, 'x'), kScope));
}

TEST(Auth, AKeyDoesWhatItsScopesAllow) {
  cfg::Config config = with_keys();
  config.tenants[0].keys[0].scopes = {"model.read"};
  const Auth auth(config);
  EXPECT_TRUE(auth.caller_of("Bearer sk-one", Scope::model_read));
  const Result<Caller> refused = auth.caller_of("Bearer sk-one", Scope::model_request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::insufficient_scope);
  EXPECT_NE(refused.error().detail.find("model.request"), std::string::npos);
  EXPECT_TRUE(auth.caller_of("Bearer sk-two", Scope::model_request)) << "no list: all";
}

TEST(Auth, ABlockedTenantBlocksWhatHangsBelow) {
  cfg::Config config = with_keys();
  config.tenants[1].parent = config.tenants[0].name;
  config.tenants[0].blocked = true;
  const Auth auth(config);
  for (const char* key : {"Bearer sk-one", "Bearer sk-two"}) {
    EXPECT_EQ(auth.caller_of(key, kScope).error().detail, "the tenant of this API key is blocked");
    EXPECT_TRUE(auth.knows(key));
  }
  EXPECT_FALSE(auth.knows("Bearer sk-three"));
}

TEST(Auth, WithoutKeysEveryoneIsTheFirstTenant) {
  const Auth auth{cfg::Config{}};
  EXPECT_TRUE(auth.is_open());
  EXPECT_EQ(*auth.caller_of("Bearer whatever", kScope), Caller{});
}

TEST(Cors, AllowsLocalOriginsByDefaultAndListedOnesElse) {
  cfg::Cors cors;
  for (const char* origin :
       {"http://localhost", "https://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:5173"})
    EXPECT_TRUE(is_origin_allowed(cors, origin)) << origin;
  for (const char* origin :
       {"", "null", "http://localhost.evil.com", "http://localhost:80@evil.com", "https://evil.com",
        "http://127.0.0.1.evil.com", "file://localhost",
        "http://localhost:", "http://localhost:1234567"})
    EXPECT_FALSE(is_origin_allowed(cors, origin)) << origin;
  cors.origins = {"https://app.example"};
  EXPECT_TRUE(is_origin_allowed(cors, "https://app.example"));
  EXPECT_FALSE(is_origin_allowed(cors, "https://app.example.org"));
  EXPECT_FALSE(is_origin_allowed(cors, "http://localhost"));
  cors.origins = {"*"};
  EXPECT_TRUE(is_origin_allowed(cors, "https://any.example"));
}

TEST(ResponseHead, Durations) {
  const auto text = [](std::int64_t ms) {
    std::string out;
    append_duration(out, std::chrono::milliseconds(ms));
    return out;
  };
  EXPECT_EQ(text(0), "0ms");
  EXPECT_EQ(text(120), "120ms");
  EXPECT_EQ(text(1000), "1s");
  EXPECT_EQ(text(59'001), "1m0s");
  EXPECT_EQ(text(360'000), "6m0s");
  EXPECT_EQ(text(3'600'000), "1h0m0s");
  EXPECT_EQ(text(-5), "0ms");
}

TEST(ResponseHead, ClientRequestIds) {
  EXPECT_TRUE(is_valid_request_id("a.B_9-x"));
  EXPECT_TRUE(is_valid_request_id(std::string(128, 'a')));
  for (const std::string& id : {std::string(), std::string(129, 'a'), std::string("a b"),
                                std::string("a\"b"), std::string("\xc3\xa9")})
    EXPECT_FALSE(is_valid_request_id(id)) << id;
}

TEST(ResponseHead, TraceParents) {
  const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_TRUE(is_valid_traceparent(good));
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char bad : {'g', 'A', '\n', ' ', '\0'}) {
      std::string text = good;
      text[i] = bad;
      EXPECT_FALSE(is_valid_traceparent(text)) << i;
    }
    EXPECT_FALSE(is_valid_traceparent(good.substr(0, i)));
  }
  EXPECT_FALSE(is_valid_traceparent(good + "-00"));
  EXPECT_FALSE(is_valid_traceparent("01" + good.substr(2)));
  EXPECT_FALSE(is_valid_traceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
  EXPECT_FALSE(is_valid_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
}

}  // namespace
}  // namespace sluice::gw
