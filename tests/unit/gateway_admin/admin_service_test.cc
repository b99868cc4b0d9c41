// Tenants, quotas and keys through AdminService: what is answered is durable and acts, what is
// refused changes nothing. Method: the real service on a fresh folder, opened again to see what was
// kept; results of the store thread are run by the test.
#include "gateway/admin/admin_service.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>

namespace sluice::gw {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;

class Admin : public ::testing::Test {
 protected:
  Admin() {
    std::string name = std::filesystem::temp_directory_path() / "sluice-admin-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    base_.tenants.emplace_back().name = "declared";
    open();
  }
  ~Admin() override {
    service_.reset();
    std::filesystem::remove_all(folder_);
  }

  void open() {
    service_.reset();
    auto opened = AdminService::open(folder_, base_, 1, now_);
    ASSERT_TRUE(opened) << opened.error().detail;
    service_ = std::move(*opened);
    AdminHooks hooks;
    hooks.post = [this](std::function<void()> job) {
      {
        const std::lock_guard lock(mutex_);
        posted_ = std::move(job);
      }
      is_posted_.notify_one();
    };
    hooks.unix_s = [this] { return now_; };
    hooks.tenant_use = [](const std::string&) -> std::optional<Amounts> { return Amounts{}; };
    hooks.changed = [this] { ++num_changes_; };
    service_->set_hooks(std::move(hooks));
  }

  AdminAnswer call(AdminNoun noun, std::string method, std::string id = {}, std::string body = {},
                   std::string if_match = {}, std::string query = {}) {
    std::optional<AdminAnswer> answer;
    service_->call({noun, std::move(method), std::move(id), std::move(query), std::move(body),
                    std::move(if_match), "tester"},
                   [&](AdminAnswer& done) { answer = std::move(done); });
    while (!answer) {
      std::unique_lock lock(mutex_);
      is_posted_.wait(lock, [this] { return posted_ != nullptr; });
      const auto job = std::exchange(posted_, nullptr);
      lock.unlock();
      job();
    }
    return std::move(*answer);
  }
  Errc code(AdminNoun noun, std::string method, std::string id, std::string body) {
    const AdminAnswer answer = call(noun, std::move(method), std::move(id), std::move(body));
    return answer.error ? answer.error->code : Errc::internal_error;
  }
  static std::string member(const std::string& json, const std::string& name) {
    const std::string start = "\"" + name + "\":\"";
    const std::size_t at = json.find(start) + start.size();
    return json.substr(at, json.find('"', at) - at);
  }

  std::string folder_;
  cfg::Config base_;
  std::int64_t now_ = kNow;
  std::unique_ptr<AdminService> service_;
  std::mutex mutex_;
  std::condition_variable is_posted_;
  std::function<void()> posted_;
  int num_changes_ = 0;
};

TEST_F(Admin, TheFirstAdminKeyIsShownOnceAndKeepsWorking) {
  const std::string key = service_->first_admin_key();
  ASSERT_TRUE(key.starts_with(kAdminKeyPrefix));
  EXPECT_TRUE(service_->actor_of(key));
  open();
  EXPECT_EQ(service_->first_admin_key(), "");
  EXPECT_TRUE(service_->actor_of(key));
  std::string wrong = key;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  for (const std::string& bad : {std::string(), wrong, key.substr(1), key + "0"})
    EXPECT_EQ(service_->actor_of(bad).error().code, Errc::invalid_api_key);
}

TEST_F(Admin, WhatIsAnsweredIsThereAfterAnotherStart) {
  ASSERT_EQ(call(AdminNoun::tenants, "POST", "", R"({"id":"acme","models":["m"]})").status, 201u);
  ASSERT_FALSE(call(AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":500})").error);
  const AdminAnswer made = call(AdminNoun::tenant_keys, "POST", "acme", R"({"name":"app"})");
  ASSERT_EQ(made.status, 201u);
  EXPECT_EQ(num_changes_, 3);
  open();
  const cfg::Config merged = service_->merged(now_);
  ASSERT_EQ(merged.tenants.size(), 2u);
  EXPECT_EQ(merged.tenants[1].name, "acme");
  EXPECT_EQ(merged.tenants[1].models, std::vector<std::string>{"m"});
  EXPECT_EQ(merged.tenants[1].limits.tokens_per_minute, 500u);
  ASSERT_EQ(merged.tenants[1].keys.size(), 1u);
  EXPECT_EQ(merged.tenants[1].keys[0].sha256,
            hash_key(service_->hash_secret(), member(made.body, "key")));
}

TEST_F(Admin, BadBodiesAreRefusedAndChangeNothing) {
  ASSERT_FALSE(call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})").error);
  num_changes_ = 0;
  struct Row {
    AdminNoun noun;
    const char *method, *id, *body;
    Errc code;
    const char* param;
  };
  const Row rows[] = {
      {AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":-1})", Errc::invalid_value,
       "tokens_per_minute"},
      {AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":0})", Errc::invalid_value,
       "tokens_per_minute"},
      {AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":1.5})", Errc::invalid_value,
       "tokens_per_minute"},
      {AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":"9"})", Errc::invalid_value,
       "tokens_per_minute"},
      {AdminNoun::quota, "PUT", "acme", R"({"monthly_budget":18446744073709551615})",
       Errc::invalid_value, "monthly_budget"},
      {AdminNoun::quota, "PUT", "acme", R"({"monthly_budget":18446744073709551616})",
       Errc::invalid_json, ""},
      {AdminNoun::quota, "PUT", "acme", R"({"requests_per_minute":1e3})", Errc::invalid_value,
       "requests_per_minute"},
      {AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_second":1})", Errc::unsupported_parameter,
       "tokens_per_second"},
      {AdminNoun::quota, "PATCH", "acme", R"({"max_output_tokens":10})", Errc::invalid_value,
       "default_output_tokens"},
      {AdminNoun::quota, "PATCH", "acme", R"({"shadow":1})", Errc::invalid_value, "shadow"},
      {AdminNoun::quota, "PATCH", "acme", R"([])", Errc::invalid_json, ""},
      {AdminNoun::quota, "PATCH", "declared", R"({"shadow":true})", Errc::read_only, ""},
      {AdminNoun::quota, "PATCH", "nobody", R"({"shadow":true})", Errc::not_found, ""},
      {AdminNoun::tenants, "POST", "", R"({"id":"acme"})", Errc::already_exists, "id"},
      {AdminNoun::tenants, "POST", "", R"({"id":"declared"})", Errc::already_exists, "id"},
      {AdminNoun::tenants, "POST", "", R"({})", Errc::invalid_value, "id"},
      {AdminNoun::tenants, "POST", "", R"({"id":"a'; DROP TABLE tenants; --"})",
       Errc::invalid_value, "id"},
      {AdminNoun::tenants, "POST", "", R"({"id":"a\u0000"})", Errc::invalid_value, "id"},
      {AdminNoun::tenants, "POST", "", R"({"id":"a","id":"b"})", Errc::invalid_json, ""},
      {AdminNoun::tenant, "PATCH", "acme", R"({"id":"other"})", Errc::invalid_value, "id"},
      {AdminNoun::tenant_keys, "POST", "acme", R"({"name":"k","limits":{"tokens_per_day":-1}})",
       Errc::invalid_value, "limits.tokens_per_day"},
      {AdminNoun::tenant_keys, "POST", "declared", R"({"name":"k"})", Errc::read_only, ""},
      {AdminNoun::key, "DELETE", "0123456789abcdef", "", Errc::not_found, ""},
  };
  for (const Row& row : rows) {
    const AdminAnswer answer = call(row.noun, row.method, row.id, row.body);
    ASSERT_TRUE(answer.error) << row.body;
    EXPECT_EQ(answer.error->code, row.code) << row.body << ": " << answer.error->detail;
    EXPECT_EQ(answer.error->param, row.param) << row.body;
  }
  EXPECT_EQ(code(AdminNoun::tenants, "POST", "", std::string(kAdminBodyBytesMax + 1, ' ')),
            Errc::request_too_large);
  EXPECT_EQ(num_changes_, 0);
  open();
  EXPECT_EQ(service_->directory().tenants.size(), 1u);
  EXPECT_EQ(service_->directory().tenants.at("acme").limits, cfg::TenantLimits{});
  EXPECT_TRUE(service_->directory().keys.empty());
}

TEST_F(Admin, AStaleETagIsRefused) {
  const AdminAnswer made = call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})");
  EXPECT_EQ(made.version, 1);
  EXPECT_EQ(call(AdminNoun::quota, "PATCH", "acme", R"({"shadow":true})", "\"1\"").version, 2);
  const AdminAnswer stale = call(AdminNoun::quota, "PATCH", "acme", R"({"shadow":false})", "\"1\"");
  ASSERT_TRUE(stale.error);
  EXPECT_EQ(stale.error->code, Errc::precondition_failed);
  EXPECT_TRUE(service_->directory().tenants.at("acme").limits.shadow);
}

TEST_F(Admin, KeysRotateExpireAndEnd) {
  ASSERT_FALSE(call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})").error);
  const AdminAnswer first = call(AdminNoun::tenant_keys, "POST", "acme", R"({"name":"app"})");
  const std::string id = member(first.body, "id");
  const AdminAnswer second = call(AdminNoun::key_rotate, "POST", id, R"({"overlap_seconds":60})");
  ASSERT_EQ(second.status, 201u);
  EXPECT_EQ(service_->merged(now_ + 59).tenants[1].keys.size(), 2u);
  EXPECT_EQ(service_->merged(now_ + 60).tenants[1].keys.size(), 1u);
  EXPECT_EQ(service_->directory().next_expiry(now_), now_ + 60);
  ASSERT_FALSE(call(AdminNoun::key, "DELETE", member(second.body, "id")).error);
  EXPECT_TRUE(service_->merged(now_ + 60).tenants[1].keys.empty());
  ASSERT_FALSE(call(AdminNoun::tenant, "PATCH", "acme", R"({"is_blocked":true})").error);
  EXPECT_TRUE(service_->merged(now_).tenants[1].keys.empty());
  ASSERT_FALSE(call(AdminNoun::tenant, "DELETE", "acme").error);
  open();
  EXPECT_TRUE(service_->directory().keys.empty());
  EXPECT_EQ(service_->merged(now_), base_);
}

TEST_F(Admin, SecretsAreNowhereButInTheAnswerThatMadeThem) {
  ASSERT_FALSE(call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})").error);
  const std::string key =
      member(call(AdminNoun::tenant_keys, "POST", "acme", R"({"name":"app"})").body, "key");
  ASSERT_EQ(key.size(), kTenantKeyPrefix.size() + 16 + 1 + 64);
  const std::string secret = key.substr(key.size() - 64);
  for (const AdminNoun noun : {AdminNoun::tenants, AdminNoun::tenant, AdminNoun::tenant_keys,
                               AdminNoun::audit, AdminNoun::config})
    EXPECT_EQ(call(noun, "GET", "acme").body.find(secret), std::string::npos);
  service_.reset();
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
    EXPECT_EQ(bytes.find(secret), std::string::npos) << file.path();
  }
}

TEST_F(Admin, UsageByPeriodTenantKeyAndModelAsJsonAndCsv) {
  ASSERT_FALSE(call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})").error);
  now_ = 1'700'049'600;  // a day's noon
  {
    UsageBook book = std::move(*UsageBook::open(folder_ + "/store.db"));
    const std::string models[] = {"brook"};
    ASSERT_TRUE(book.name_models(models));
    const AccountName names[] = {{account_digest("acme", "1"), "acme", "k1"},
                                 {account_digest("acme", "2"), "acme", "k\"2"},
                                 {account_digest("declared", ""), "declared", ""}};
    ASSERT_TRUE(book.name_accounts(names));
    std::vector<UsageEntry> entries;
    for (std::uint64_t i = 1; i <= 9; ++i) {
      UsageEntry& entry = entries.emplace_back();
      entry.sequence = i;
      entry.account = names[i % 3].account;
      entry.model = i == 9 ? 0 : model_digest("brook");
      entry.admitted_unix_ms = (now_ - static_cast<std::int64_t>(i) * 40) * 1000;
      entry.requests = 1;
      entry.prompt = 10;
      entry.cached = 2;
      entry.output = i;
      entry.cost = 100;
    }
    ASSERT_TRUE(book.add(entries, now_));
  }
  const auto get = [&](const char* query) {
    return call(AdminNoun::usage, "GET", "", "", "", query).body;
  };
  const std::string all = get("");
  EXPECT_EQ(
      all,
      R"({"object":"list","data":[{"object":"usage","period":"day","start":1700006400,"tenant":"acme",)"
      R"("key":"k\"2","model":"brook","requests":3,"input_tokens":30,"cached_tokens":6,)"
      R"("output_tokens":12,"cost":300},)"
      R"({"object":"usage","period":"day","start":1700006400,"tenant":"acme","key":"k1","model":null,)"
      R"("requests":1,"input_tokens":10,"cached_tokens":2,"output_tokens":9,"cost":100},)"
      R"({"object":"usage","period":"day","start":1700006400,"tenant":"acme","key":"k1",)"
      R"("model":"brook","requests":2,"input_tokens":20,"cached_tokens":4,"output_tokens":9,)"
      R"("cost":200},)"
      R"({"object":"usage","period":"day","start":1700006400,"tenant":"declared","key":null,)"
      R"("model":"brook","requests":3,"input_tokens":30,"cached_tokens":6,"output_tokens":15,)"
      R"("cost":300}],"total":{"requests":9,"input_tokens":90,"cached_tokens":18,)"
      R"("output_tokens":45,"cost":900},"has_more":false,"last_id":"4"})");
  const AdminAnswer csv =
      call(AdminNoun::tenant_usage, "GET", "acme", "", "", "format=csv&group_by=key");
  EXPECT_EQ(csv.content_type, "text/csv; charset=utf-8");
  EXPECT_EQ(csv.body,
            "start,key,requests,input_tokens,cached_tokens,output_tokens,cost\r\n"
            "1700006400,\"k\"\"2\",3,30,6,12,300\r\n1700006400,\"k1\",3,30,6,18,300\r\n");
  // Pages: the rows of all together, in order.
  const std::string first = get("period=minute&group_by=&limit=4");
  EXPECT_NE(first.find(R"("has_more":true,"last_id":"4")"), std::string::npos) << first;
  const std::string rest = get("period=minute&group_by=&limit=4&after=4");
  EXPECT_NE(rest.find(R"("has_more":false)"), std::string::npos) << rest;
  EXPECT_NE(get("from=1700006401").find(R"("data":[],"total":{"requests":0)"), std::string::npos);
  EXPECT_NE(get("period=month&model=brook&group_by=model").find(R"("requests":8)"),
            std::string::npos);
  EXPECT_NE(get("tenant=x'%20OR%201=1--").find(R"("data":[])"), std::string::npos);
  for (const char* bad :
       {"period=week", "limit=0", "limit=1001", "limit=1&limit=2", "from=-1", "from=9e9",
        "tenant=", "tenant=%0", "group_by=key,key", "group_by=x", "x=1", "from=5&to=4",
        "format=xml", "after=99999999999999999999", "period=minute&from=0", "&"})
    EXPECT_TRUE(call(AdminNoun::usage, "GET", "", "", "", bad).error) << bad;
  EXPECT_TRUE(call(AdminNoun::tenant_usage, "GET", "acme", "", "", "tenant=declared").error);
  const AdminAnswer unknown = call(AdminNoun::tenant_usage, "GET", "nobody");
  ASSERT_TRUE(unknown.error);
  EXPECT_EQ(unknown.error->code, Errc::not_found);
}

TEST_F(Admin, PagesAndTheAuditLog) {
  for (const char* id : {"a", "b", "c"})
    ASSERT_FALSE(
        call(AdminNoun::tenants, "POST", "", std::string(R"({"id":")") + id + "\"}").error);
  const std::string first = call(AdminNoun::tenants, "GET", "", "", "", "limit=2").body;
  EXPECT_NE(first.find(R"("has_more":true,"last_id":"b")"), std::string::npos) << first;
  const std::string rest = call(AdminNoun::tenants, "GET", "", "", "", "limit=2&after=b").body;
  EXPECT_NE(rest.find(R"("has_more":false,"last_id":"declared")"), std::string::npos) << rest;
  const std::string log = call(AdminNoun::audit, "GET", "", "", "", "limit=1").body;
  EXPECT_NE(log.find(R"("action":"tenant.create","target":"c")"), std::string::npos) << log;
  EXPECT_NE(log.find(R"("has_more":true,"last_id":"3")"), std::string::npos) << log;
  for (const char* bad : {"limit=0", "limit=101", "limit=x", "limit=1&limit=2", "page=2", "after="})
    EXPECT_TRUE(call(AdminNoun::tenants, "GET", "", "", "", bad).error) << bad;
}

}  // namespace
}  // namespace sluice::gw
