// Tenants, quotas and keys through AdminService: what is answered is durable and acts, what is
// refused changes nothing. Method: the real service on a fresh folder, opened again to see what was
// kept; results of the store thread are run by the test.
#include "gateway/admin/admin_service.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>

#include "config/settings.h"
#include "gateway/admin/admin_json.h"
#include "shared/random.h"
#include "tests/support/seed.h"

namespace sluice::gw {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;

class FakeFleet final : public Fleet {
 public:
  std::vector<BreakerStatus> breakers(const std::string& after, std::size_t) const override {
    if (after >= "tenant:acme") return {};
    return {*breaker("tenant:acme")};
  }
  std::optional<BreakerStatus> breaker(const std::string& id) const override {
    if (id != "tenant:acme") return std::nullopt;
    BreakerStatus status;
    status.id = "tenant:acme";
    status.kind = "tenant";
    status.subject = "acme";
    status.state = is_open ? "open" : "closed";
    status.reason = is_open ? "operator_open" : "none";
    status.is_forced = is_open;
    return status;
  }
  std::vector<WorkerStatus> workers() const override {
    WorkerStatus status;
    status.id = "0";
    status.model = model;
    status.device = "cpu";
    status.state = "serving";
    status.breaker = "closed";
    return {status};
  }
  void act(FleetAction action, const std::string& id) override {
    if (action == FleetAction::open_breaker) is_open = true;
    if (action == FleetAction::reset_breaker) is_open = false;
    acts.push_back(id);
  }
  bool is_open = false;
  std::string model = "brook";
  std::vector<std::string> acts;
};

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
        posted_.push_back(std::move(job));
      }
      is_posted_.notify_one();
    };
    hooks.unix_s = [this] { return now_; };
    hooks.tenant_quota = [](const std::string&) { return std::optional(AccountQuota{}); };
    hooks.changed = [this](std::span<const cfg::TenantUpdate> updates) {
      ++num_changes_;
      for (const cfg::TenantUpdate& update : updates) apply(update);
    };
    applied_.clear();
    for (cfg::Tenant& tenant : service_->merged(now_).tenants) applied_[tenant.name] = tenant;
    hooks.fleet = &fleet_;
    service_->set_hooks(std::move(hooks));
  }

  AdminAnswer call(AdminNoun noun, std::string method, std::string id = {}, std::string body = {},
                   std::string if_match = {}, std::string query = {},
                   std::string idempotency_key = {}) {
    std::optional<AdminAnswer> answer;
    service_->call({noun, std::move(method), std::move(id), std::move(query), std::move(body),
                    std::move(if_match), std::move(idempotency_key), "tester"},
                   [&](AdminAnswer& done) { answer = std::move(done); });
    while (!answer) run_posted();
    return std::move(*answer);
  }
  void apply(const cfg::TenantUpdate& update) {
    if (update.tenant && !update.tenant->parent.empty()) {
      EXPECT_TRUE(applied_.contains(update.tenant->parent)) << update.name << " before its parent";
    }
    if (update.tenant)
      applied_[update.name] = *update.tenant;
    else
      applied_.erase(update.name);
  }
  void run_posted() {
    std::unique_lock lock(mutex_);
    is_posted_.wait(lock, [this] { return !posted_.empty(); });
    const auto job = std::move(posted_.front());
    posted_.pop_front();
    lock.unlock();
    job();
  }
  AdminAnswer post_once(AdminNoun noun, std::string id, std::string body, std::string key) {
    return call(noun, "POST", std::move(id), std::move(body), {}, {}, std::move(key));
  }
  void make_tenant(const std::string& id, const std::string& fields = {}) {
    const AdminAnswer made =
        call(AdminNoun::tenants, "POST", "", "{\"id\":\"" + id + "\"" + fields + "}");
    ASSERT_FALSE(made.error) << made.error->detail;
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
  std::deque<std::function<void()>> posted_;
  FakeFleet fleet_;
  int num_changes_ = 0;
  std::map<std::string, cfg::Tenant> applied_;  // what the updates add up to
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
      {AdminNoun::quota, "PATCH", "acme", R"({"model_overrides":{}})", Errc::invalid_value,
       "model_overrides"},
      {AdminNoun::quota, "PATCH", "acme", R"({"model_overrides":[{"model":"gpt"}]})",
       Errc::invalid_value, "model_overrides[0].model"},
      {AdminNoun::quota, "PATCH", "acme",
       R"({"model_overrides":[{"model":"brook"},{"model":"brook"}]})", Errc::invalid_value,
       "model_overrides[1].model"},
      {AdminNoun::quota, "PATCH", "acme",
       R"({"model_overrides":[{"model":"brook","tokens_per_day":-5}]})", Errc::invalid_value,
       "model_overrides[0].tokens_per_day"},
      {AdminNoun::quota, "PATCH", "acme", R"({"model_overrides":[{"model":"brook","x":1}]})",
       Errc::unsupported_parameter, "model_overrides[0].x"},
      {AdminNoun::quota, "PATCH", "acme", R"({"temporary_overrides":[{"tokens_per_day":5}]})",
       Errc::invalid_value, "temporary_overrides[0].until"},
      {AdminNoun::quota, "PATCH", "acme",
       R"({"temporary_overrides":[{"until":1700000000,"tokens_per_day":5}]})", Errc::invalid_value,
       "temporary_overrides[0].until"},
      {AdminNoun::tenant, "PATCH", "acme", R"({"parent":"acme"})", Errc::invalid_value, "parent"},
      {AdminNoun::tenant, "PATCH", "acme", R"({"parent":"nobody"})", Errc::invalid_value, "parent"},
      {AdminNoun::tenant, "PATCH", "acme", R"({"weight":0})", Errc::invalid_value, "weight"},
      {AdminNoun::tenant, "PATCH", "acme", R"({"weight":1e300})", Errc::invalid_value, "weight"},
      {AdminNoun::tenant, "PATCH", "acme", R"({"security_class":7})", Errc::invalid_value,
       "security_class"},
      {AdminNoun::tenant, "PATCH", "acme", R"({"name":"a\u0007b"})", Errc::invalid_value, "name"},
      {AdminNoun::tenant_keys, "POST", "acme", R"({"name":"k","scopes":["root"]})",
       Errc::invalid_value, "scopes"},
      {AdminNoun::tenant_keys, "POST", "acme", R"({"name":"k","expires_at":1700000000})",
       Errc::invalid_value, "expires_at"},
      {AdminNoun::breaker_open, "POST", "tenant:acme", R"({"x":1})", Errc::unsupported_parameter,
       "x"},
      {AdminNoun::breaker_open, "POST", "tenant:nobody", "", Errc::not_found, ""},
      {AdminNoun::worker_drain, "POST", "1", "", Errc::not_found, ""},
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
  EXPECT_EQ(service_->directory().tenants().size(), 1u);
  EXPECT_EQ(service_->directory().tenants().at("acme").limits, cfg::TenantLimits{});
  EXPECT_TRUE(service_->directory().keys().empty());
}

TEST_F(Admin, ZeroAllowsNothingAndNullIsNoLimit) {
  make_tenant("acme");
  const std::string zero =
      call(AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":0})").body;
  EXPECT_NE(zero.find(R"("tokens_per_minute":0)"), std::string::npos) << zero;
  EXPECT_EQ(service_->merged(now_).tenants[1].limits.tokens_per_minute, 0u);
  open();
  EXPECT_EQ(service_->merged(now_).tenants[1].limits.tokens_per_minute, 0u);
  ASSERT_FALSE(call(AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_minute":null})").error);
  EXPECT_EQ(service_->merged(now_).tenants[1].limits.tokens_per_minute, std::nullopt);
}

TEST_F(Admin, OverridesAreKeptMergedAndDroppedWhenTheyAreOver) {
  make_tenant("acme");
  const char* body =
      R"({"tokens_per_day":9,"model_overrides":[{"model":"brook","tokens_per_day":5}],)"
      R"("temporary_overrides":[{"until":1800000060,"tokens_per_day":50},)"
      R"({"until":1800000090,"model":"brook","requests_per_minute":0}]})";
  ASSERT_FALSE(call(AdminNoun::quota, "PATCH", "acme", body).error);
  open();
  cfg::TenantLimits limits = service_->merged(now_).tenants[1].limits;
  ASSERT_EQ(limits.model_overrides.size(), 1u);
  EXPECT_EQ(limits.model_overrides[0].tokens_per_day, 5u);
  ASSERT_EQ(limits.temporary_overrides.size(), 2u);
  EXPECT_EQ(limits.temporary_overrides[1].model, "brook");
  EXPECT_EQ(limits.temporary_overrides[1].requests_per_minute, 0u);
  now_ += 70;
  ASSERT_FALSE(call(AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_day":10})").error);
  limits = service_->merged(now_).tenants[1].limits;
  EXPECT_EQ(limits.temporary_overrides.size(), 1u) << "the other one is over";
  EXPECT_EQ(limits.model_overrides.size(), 1u) << "lists that are not given stay";
  ASSERT_FALSE(call(AdminNoun::quota, "PATCH", "acme", R"({"model_overrides":null})").error);
  EXPECT_TRUE(service_->merged(now_).tenants[1].limits.model_overrides.empty());
}

TEST_F(Admin, ParentsFormATreeOfBoundedDepth) {
  make_tenant("t1", R"(,"parent":"declared")");
  for (int i = 2; i < 7; ++i)
    make_tenant("t" + std::to_string(i), R"(,"parent":"t)" + std::to_string(i - 1) + "\"");
  EXPECT_EQ(code(AdminNoun::tenants, "POST", "", R"({"id":"t7","parent":"t6"})"),
            Errc::invalid_value)
      << "an eighth level";
  EXPECT_EQ(code(AdminNoun::tenant, "PATCH", "t1", R"({"parent":"t6"})"), Errc::invalid_value)
      << "a cycle";
  EXPECT_EQ(code(AdminNoun::tenant, "DELETE", "t3", ""), Errc::conflict);
  make_tenant("top");
  EXPECT_FALSE(call(AdminNoun::tenant, "PATCH", "t1", R"({"parent":"top"})").error);
  make_tenant("above");
  EXPECT_EQ(call(AdminNoun::tenant, "PATCH", "top", R"({"parent":"above"})").error->code,
            Errc::invalid_value)
      << "what hangs below counts";
  const cfg::Config merged = service_->merged(now_);
  EXPECT_EQ(merged.tenants.back().name, "top");
  EXPECT_EQ(merged.tenants[merged.tenants.size() - 2].parent, "t5");
}

TEST_F(Admin, ATenantWhoseParentIsGoneIsBlocked) {
  make_tenant("child", R"(,"parent":"declared")");
  ASSERT_FALSE(call(AdminNoun::tenant_keys, "POST", "child", R"({"name":"k"})").error);
  EXPECT_FALSE(service_->merged(now_).tenants[1].blocked);
  base_.tenants[0].name = "renamed";
  service_->set_base(base_);
  const cfg::Config merged = service_->merged(now_);
  EXPECT_TRUE(merged.tenants[1].blocked);
  EXPECT_EQ(merged.tenants[1].parent, "");
  EXPECT_EQ(merged.tenants[1].keys.size(), 1u) << "its keys are told that it is blocked";
}

TEST_F(Admin, AnIdempotencyKeyMakesOnce) {
  const AdminAnswer first = post_once(AdminNoun::tenants, "", R"({"id":"acme"})", "k-1");
  ASSERT_EQ(first.status, 201u);
  EXPECT_FALSE(first.is_replayed);
  const AdminAnswer again = post_once(AdminNoun::tenants, "", R"({"id":"acme"})", "k-1");
  ASSERT_FALSE(again.error);
  EXPECT_TRUE(again.is_replayed);
  EXPECT_EQ(again.status, 201u);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.version, first.version);
  EXPECT_EQ(post_once(AdminNoun::tenants, "", R"({"id":"other"})", "k-1").error->code,
            Errc::conflict);
  EXPECT_EQ(post_once(AdminNoun::tenants, "", R"({"id":"x"})", std::string(256, 'k')).error->param,
            "Idempotency-Key");
  EXPECT_EQ(num_changes_, 1);
  const AdminAnswer made = post_once(AdminNoun::tenant_keys, "acme", R"({"name":"a"})", "k-2");
  const std::string secret = member(made.body, "key");
  open();
  const AdminAnswer replay = post_once(AdminNoun::tenant_keys, "acme", R"({"name":"a"})", "k-2");
  ASSERT_TRUE(replay.is_replayed);
  EXPECT_EQ(member(replay.body, "id"), member(made.body, "id"));
  EXPECT_NE(replay.body.find(R"("key":null)"), std::string::npos) << "a secret is shown once";
  EXPECT_EQ(service_->directory().keys().size(), 1u);
  // A failed one is no answer, and a day later the key is free again.
  EXPECT_EQ(post_once(AdminNoun::tenants, "", R"({"id":"acme"})", "k-3").error->code,
            Errc::already_exists);
  EXPECT_FALSE(post_once(AdminNoun::tenants, "", R"({"id":"third"})", "k-3").error);
  now_ += kIdempotentSeconds;
  EXPECT_FALSE(post_once(AdminNoun::tenants, "", R"({"id":"fourth"})", "k-1").error);
  EXPECT_EQ(service_->directory().answers().size(), 1u) << "old ones are dropped";
  open();
  EXPECT_EQ(service_->directory().answers().size(), 1u);
}

TEST_F(Admin, OfTwoEqualPostsAtOnceOneMakes) {
  std::vector<AdminAnswer> answers;
  for (int i = 0; i < 2; ++i)
    service_->call({AdminNoun::tenants, "POST", "", "", R"({"id":"acme"})", "", "k", "tester"},
                   [&](AdminAnswer& done) { answers.push_back(std::move(done)); });
  while (answers.size() < 2) run_posted();
  EXPECT_EQ(answers[0].status, 201u);
  EXPECT_FALSE(answers[0].is_replayed);
  EXPECT_TRUE(answers[1].is_replayed);
  EXPECT_EQ(answers[1].body, answers[0].body);
}

TEST_F(Admin, AWriteThatCannotBeStoredChangesNothing) {
  make_tenant("acme");
  {
    // The last statement of each write will fail.
    Result<Sqlite> other = Sqlite::open(folder_ + "/store.db");
    ASSERT_TRUE(other && other->execute("ALTER TABLE audit RENAME TO gone"));
  }
  num_changes_ = 0;
  const AdminAnswer refused =
      call(AdminNoun::quota, "PATCH", "acme", R"({"tokens_per_day":5})", "", "");
  ASSERT_TRUE(refused.error);
  EXPECT_EQ(refused.error->code, Errc::quota_store_unavailable);
  EXPECT_TRUE(refused.error->retry_after);
  EXPECT_EQ(call(AdminNoun::breaker_open, "POST", "tenant:acme").error->code,
            Errc::quota_store_unavailable);
  EXPECT_EQ(num_changes_, 0);
  EXPECT_TRUE(fleet_.acts.empty()) << "what is not in the audit log is not done";
  EXPECT_EQ(service_->directory().tenants().at("acme").limits, cfg::TenantLimits{});
  {
    Result<Sqlite> other = Sqlite::open(folder_ + "/store.db");
    ASSERT_TRUE(other && other->execute("ALTER TABLE gone RENAME TO audit"));
  }
  ASSERT_FALSE(call(AdminNoun::tenant, "PATCH", "acme", R"({"weight":2})").error) << "it recovers";
  open();
  EXPECT_EQ(service_->directory().tenants().at("acme").limits, cfg::TenantLimits{});
}

// Fills limits with random values within their ranges: a visitor of the settings' table.
struct RandomLimits {
  std::uint64_t seed;
  std::uint64_t draw = 0;

  std::uint64_t below(std::uint64_t bound) { return mix64(seed ^ mix64(++draw)) % bound; }
  void limit(const char*, cfg::Limit& field, std::uint64_t high) {
    field.reset();
    if (below(3) > 0) field = below(4) == 0 ? high : below(high + 1);
  }
  template <class Int>
  void integer(const char*, Int& field, std::uint64_t low, std::uint64_t high) {
    field = static_cast<Int>(low + below(high - low + 1));
  }
  void boolean(const char*, bool& field) { field = below(2) == 0; }
  void text(const char*, std::string& field, std::size_t) {
    constexpr std::array<const char*, 5> kTexts{"", "brook", "a\"b\\c", "\u00e9\u6f22", "a/b c"};
    field = kTexts[below(kTexts.size())];
  }
  template <class Enum, std::size_t N>
  void choice(const char*, Enum& field, const std::array<std::string_view, N>&) {
    field = static_cast<Enum>(below(N));
  }
  template <class S>
  void list(const char*, std::vector<S>& field, std::size_t) {
    field.resize(below(3));
    for (S& item : field) cfg::visit_settings(*this, item);
  }
};

// What is kept in the tables is read back by the parser of requests.
TEST(AdminProperty, WrittenLimitsAreReadBackToTheSameValues) {
  const std::uint64_t first = test::test_seed(1);
  for (std::uint64_t seed = first; seed < first + 300; ++seed) {
    RandomLimits random{seed};
    cfg::TenantLimits limits, again;
    cfg::visit_settings(random, limits);
    if (const cfg::Limit most = limits.output_tokens_max; most && *most > 0)
      limits.output_tokens_default =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(limits.output_tokens_default, *most));
    std::string body;
    append_limits_body(body, limits);
    const std::string written = body;
    AdminParser parser(seed);
    const Result<void> read = parser.read_quota(body, again);
    ASSERT_TRUE(read) << "TEST_SEED=" << seed << ": " << read.error().detail << "\n" << written;
    ASSERT_EQ(again, limits) << "TEST_SEED=" << seed << "\n" << written;
  }
}

TEST_F(Admin, VersionsNeverComeAgain) {
  make_tenant("acme");
  const std::int64_t version = call(AdminNoun::tenant, "GET", "acme").version;
  ASSERT_FALSE(call(AdminNoun::tenant, "DELETE", "acme").error);
  open();
  make_tenant("acme");
  const AdminAnswer stale = call(AdminNoun::quota, "PATCH", "acme", R"({"shadow":true})",
                                 "\"" + std::to_string(version) + "\"");
  ASSERT_TRUE(stale.error);
  EXPECT_EQ(stale.error->code, Errc::precondition_failed);
}

TEST_F(Admin, BreakersAndWorkersAreActedOnOnceTheAuditHasIt) {
  const AdminAnswer opened = call(AdminNoun::breaker_open, "POST", "tenant:acme");
  ASSERT_FALSE(opened.error);
  EXPECT_NE(opened.body.find(R"("state":"open")"), std::string::npos) << opened.body;
  ASSERT_FALSE(call(AdminNoun::worker_recycle, "POST", "0", "{}").error);
  EXPECT_EQ(fleet_.acts, (std::vector<std::string>{"tenant:acme", "0"}));
  service_->record("breaker.open", "tenant:acme", R"({"from":"closed","reason":"bad_ends"})");
  run_posted();
  const std::string log = call(AdminNoun::audit, "GET").body;
  EXPECT_NE(log.find(R"("actor":"system","action":"breaker.open","target":"tenant:acme")"),
            std::string::npos)
      << log;
  EXPECT_NE(log.find(R"("action":"worker.recycle","target":"0")"), std::string::npos) << log;
  EXPECT_NE(call(AdminNoun::breakers, "GET").body.find(R"("id":"tenant:acme")"), std::string::npos);
  const AdminAnswer once = post_once(AdminNoun::breaker_reset, "tenant:acme", "", "k");
  ASSERT_FALSE(once.error);
  EXPECT_TRUE(post_once(AdminNoun::breaker_reset, "tenant:acme", "", "k").is_replayed);
  EXPECT_EQ(fleet_.acts.size(), 3u);
}

TEST_F(Admin, WhatAnOperatorOrderedHoldsForTheNextGateway) {
  ASSERT_FALSE(call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})").error);
  ASSERT_FALSE(call(AdminNoun::breaker_open, "POST", "tenant:acme").error);
  ASSERT_FALSE(call(AdminNoun::worker_drain, "POST", "0").error);
  const auto restored = [&] {
    open();
    fleet_.acts.clear();
    fleet_.is_open = false;
    service_->restore_orders();
    return fleet_.acts;
  };
  EXPECT_EQ(restored(), (std::vector<std::string>{"0", "tenant:acme"}));
  EXPECT_TRUE(fleet_.is_open);
  EXPECT_EQ(service_->directory().orders().at("0").actor, "tester");
  fleet_.model = "another";
  EXPECT_EQ(restored(), std::vector<std::string>{"tenant:acme"}) << "it is another worker now";
  fleet_.model = "brook";
  ASSERT_FALSE(call(AdminNoun::worker_resume, "POST", "0").error);
  EXPECT_EQ(restored(), std::vector<std::string>{"tenant:acme"});
  ASSERT_FALSE(call(AdminNoun::worker_drain, "POST", "0").error);
  ASSERT_FALSE(call(AdminNoun::worker_recycle, "POST", "0").error);
  EXPECT_EQ(restored(), std::vector<std::string>{"tenant:acme"}) << "recycling ends in serving";
  ASSERT_FALSE(call(AdminNoun::tenant, "DELETE", "acme").error);
  EXPECT_FALSE(fleet_.is_open) << "the next tenant of this name starts anew";
  EXPECT_TRUE(restored().empty());
}

TEST_F(Admin, TheEventLogIsBoundedAndSaysWhatItLost) {
  for (std::size_t i = 0; i < kAdminEventsMax + 12; ++i) service_->record("e", "t", "{}");
  run_posted();  // the first alone; the rest gathered meanwhile
  run_posted();
  const std::string log = call(AdminNoun::audit, "GET", "", "", "", "limit=1").body;
  EXPECT_NE(log.find(R"("action":"audit.lost","target":"audit","detail":{"events":11})"),
            std::string::npos)
      << log;
}

TEST_F(Admin, KeysAreChangedWithTheirETag) {
  make_tenant("acme");
  const AdminAnswer made = call(AdminNoun::tenant_keys, "POST", "acme", R"({"name":"app"})");
  const std::string id = member(made.body, "id");
  const std::string etag = etag_of(made.version);
  ASSERT_FALSE(call(AdminNoun::key, "PATCH", id, R"({"scopes":["model.read"]})", etag).error);
  EXPECT_EQ(service_->merged(now_).tenants[1].keys[0].scopes,
            std::vector<std::string>{"model.read"});
  EXPECT_EQ(call(AdminNoun::key, "DELETE", id, "", etag).error->code, Errc::precondition_failed);
  EXPECT_EQ(service_->merged(now_).tenants[1].keys.size(), 1u);
  open();
  EXPECT_EQ(service_->directory().keys().at(id).fields.scopes.size(), 1u);
}

TEST_F(Admin, KeysThatAreOverMakeRoom) {
  make_tenant("acme");
  AdminAnswer made = call(AdminNoun::tenant_keys, "POST", "acme", R"({"name":"app"})");
  for (std::size_t i = 0; i < kEndedKeysMax + 5; ++i) {
    made = call(AdminNoun::key_rotate, "POST", member(made.body, "id"));
    ASSERT_FALSE(made.error) << i << ": " << made.error->detail;
  }
  EXPECT_EQ(service_->directory().keys().size(), kEndedKeysMax + 1);
  open();
  EXPECT_EQ(service_->directory().keys().size(), kEndedKeysMax + 1);
  EXPECT_EQ(service_->directory().num_valid_keys("acme", now_), 1u);
}

TEST_F(Admin, AStaleETagIsRefused) {
  const AdminAnswer made = call(AdminNoun::tenants, "POST", "", R"({"id":"acme"})");
  EXPECT_EQ(made.version, 1);
  EXPECT_EQ(call(AdminNoun::quota, "PATCH", "acme", R"({"shadow":true})", "\"1\"").version, 2);
  const AdminAnswer stale = call(AdminNoun::quota, "PATCH", "acme", R"({"shadow":false})", "\"1\"");
  ASSERT_TRUE(stale.error);
  EXPECT_EQ(stale.error->code, Errc::precondition_failed);
  EXPECT_TRUE(service_->directory().tenants().at("acme").limits.shadow);
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
  EXPECT_TRUE(service_->merged(now_).tenants[1].blocked);
  ASSERT_FALSE(call(AdminNoun::tenant, "DELETE", "acme").error);
  open();
  EXPECT_TRUE(service_->directory().keys().empty());
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
      entry.kv_token_ms = 1500;
      entry.device_ms = i;
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
      R"("output_tokens":12,"cost":300,"kv_token_seconds":4.500,"device_seconds":0.012},)"
      R"({"object":"usage","period":"day","start":1700006400,"tenant":"acme","key":"k1","model":null,)"
      R"("requests":1,"input_tokens":10,"cached_tokens":2,"output_tokens":9,"cost":100,)"
      R"("kv_token_seconds":1.500,"device_seconds":0.009},)"
      R"({"object":"usage","period":"day","start":1700006400,"tenant":"acme","key":"k1",)"
      R"("model":"brook","requests":2,"input_tokens":20,"cached_tokens":4,"output_tokens":9,)"
      R"("cost":200,"kv_token_seconds":3.000,"device_seconds":0.009},)"
      R"({"object":"usage","period":"day","start":1700006400,"tenant":"declared","key":null,)"
      R"("model":"brook","requests":3,"input_tokens":30,"cached_tokens":6,"output_tokens":15,)"
      R"("cost":300,"kv_token_seconds":4.500,"device_seconds":0.015}],)"
      R"("total":{"requests":9,"input_tokens":90,"cached_tokens":18,)"
      R"("output_tokens":45,"cost":900,"kv_token_seconds":13.500,"device_seconds":0.045},)"
      R"("has_more":false,"last_id":"1700006400-6465636c61726564--62726f6f6b"})");
  const AdminAnswer csv =
      call(AdminNoun::tenant_usage, "GET", "acme", "", "", "format=csv&group_by=key");
  EXPECT_EQ(csv.content_type, "text/csv; charset=utf-8");
  EXPECT_EQ(csv.body,
            "start,key,requests,input_tokens,cached_tokens,output_tokens,cost,kv_token_seconds,"
            "device_seconds\r\n"
            "1700006400,\"k\"\"2\",3,30,6,12,300,4.500,0.012\r\n"
            "1700006400,\"k1\",3,30,6,18,300,4.500,0.018\r\n");
  // Pages: the rows of all together, in order.
  const std::string first = get("period=minute&group_by=&limit=4");
  EXPECT_NE(first.find(R"("has_more":true)"), std::string::npos) << first;
  const std::string behind = "period=minute&group_by=&limit=4&after=" + member(first, "last_id");
  const std::string rest = get(behind.c_str());
  EXPECT_NE(rest.find(R"("has_more":false)"), std::string::npos) << rest;
  EXPECT_EQ(csv.last_id, "") << "nothing follows";
  const AdminAnswer part =
      call(AdminNoun::usage, "GET", "", "", "", "format=csv&group_by=key,model&limit=2");
  EXPECT_EQ(part.last_id, "1700006400--6b2232-62726f6f6b") << "declared's own come first";
  EXPECT_EQ(call(AdminNoun::usage, "GET", "", "", "",
                 "format=csv&group_by=key,model&after=" + part.last_id)
                .body.find("\"k\"\"2\""),
            std::string::npos);
  {  // A row comes before the second page, and one of it grows: nothing is shown twice or left out.
    UsageBook book = std::move(*UsageBook::open(folder_ + "/store.db"));
    std::vector<UsageEntry> entries(2);
    for (UsageEntry& entry : entries) {
      entry.sequence = 20 + static_cast<std::uint64_t>(&entry - entries.data());
      entry.account = account_digest("acme", "1");
      entry.model = model_digest("brook");
      entry.admitted_unix_ms = (now_ - (&entry == entries.data() ? 3000 : 40)) * 1000;
      entry.requests = 1;
    }
    ASSERT_TRUE(book.add(entries, now_));
  }
  const auto starts = [](const std::string& json) {
    std::vector<std::string> found;
    for (std::size_t at = 0; (at = json.find("\"start\":", at)) != std::string::npos; ++at)
      found.push_back(json.substr(at, 18));
    return found;
  };
  EXPECT_EQ(starts(get(behind.c_str())), starts(rest));
  EXPECT_NE(get("from=1700006401").find(R"("data":[],"total":{"requests":0)"), std::string::npos);
  EXPECT_NE(get("period=month&model=brook&group_by=model").find(R"("requests":10)"),
            std::string::npos);
  EXPECT_NE(get("tenant=x'%20OR%201=1--").find(R"("data":[])"), std::string::npos);
  for (const char* bad : {"period=week",
                          "limit=0",
                          "limit=1001",
                          "limit=1&limit=2",
                          "from=-1",
                          "from=9e9",
                          "tenant=",
                          "tenant=%0",
                          "group_by=key,key",
                          "group_by=x",
                          "x=1",
                          "from=5&to=4",
                          "format=xml",
                          "after=99999999999999999999---",
                          "after=4",
                          "after=4---6",
                          "after=4---6G",
                          "after=4----",
                          "after=-1---",
                          "after=",
                          "period=minute&from=0",
                          "&"})
    EXPECT_TRUE(call(AdminNoun::usage, "GET", "", "", "", bad).error) << bad;
  EXPECT_TRUE(call(AdminNoun::tenant_usage, "GET", "acme", "", "", "tenant=declared").error);
  const AdminAnswer unknown = call(AdminNoun::tenant_usage, "GET", "nobody");
  ASSERT_TRUE(unknown.error);
  EXPECT_EQ(unknown.error->code, Errc::not_found);
}

// Random writes and the passing of time: what the gateway was told of single tenants adds up to the
// whole, and a write tells of no tenant but its own and those below.
TEST_F(Admin, UpdatesOfSingleTenantsAddUpToTheWhole) {
  const std::uint64_t seed = test::test_seed(1);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::uint64_t rolls = 0;
  const auto dice = [&](std::uint64_t bound) { return mix64(seed ^ mix64(++rolls)) % bound; };
  const auto name = [&] { return "t" + std::to_string(dice(8)); };
  base_.tenants.emplace_back().name = "t0";  // hides one of the same id later on
  base_.tenants.back().parent = "declared";
  int writes = 0, refused = 0;
  std::size_t most_at_once = 0;
  for (int i = 0; i < 400; ++i) {
    const std::string id = name();
    const std::string parent = dice(3) == 0 ? "null" : "\"" + name() + "\"";
    AdminAnswer answer;
    const int changes = num_changes_;
    switch (dice(8)) {
      case 0:
      case 1:
        answer = call(AdminNoun::tenants, "POST", "",
                      "{\"id\":\"" + id + "\",\"parent\":" + parent + "}");
        break;
      case 2:
        answer = call(
            AdminNoun::tenant, "PATCH", id,
            "{\"parent\":" + parent + ",\"is_blocked\":" + (dice(3) == 0 ? "true" : "false") + "}");
        break;
      case 3:
        answer = call(AdminNoun::quota, "PATCH", id,
                      "{\"requests_per_minute\":" + std::to_string(dice(100)) + "}");
        break;
      case 4:
        answer = call(AdminNoun::tenant_keys, "POST", id,
                      "{\"name\":\"k\",\"expires_at\":" +
                          (dice(2) == 0 ? "null" : std::to_string(now_ + 1 + dice(50))) + "}");
        break;
      case 5: {
        const auto& keys = service_->directory().keys();
        if (keys.empty()) continue;
        const std::string key = std::next(keys.begin(), dice(keys.size()))->first;
        answer = dice(2) == 0 ? call(AdminNoun::key, "DELETE", key)
                              : call(AdminNoun::key_rotate, "POST", key, "{\"overlap_seconds\":5}");
        break;
      }
      case 6:
        if (dice(3) == 0) answer = call(AdminNoun::tenant, "DELETE", id);
        break;
      default:
        now_ += static_cast<std::int64_t>(dice(30));
        for (const cfg::TenantUpdate& update : service_->take_expired(now_)) apply(update);
        if (dice(8) == 0) open();  // the next gateway
        if (dice(16) == 0) {       // another configuration file: everything is told anew
          if (dice(2) == 0)
            base_.tenants.resize(1);
          else if (base_.tenants.size() == 1)
            base_.tenants.emplace_back().name = "t0";
          service_->set_base(base_);
          applied_.clear();
          for (cfg::Tenant& t : service_->merged(now_).tenants) applied_[t.name] = t;
        }
    }
    (answer.error ? refused : writes) += 1;
    if (answer.error) {
      ASSERT_EQ(num_changes_, changes);
    }
    std::map<std::string, cfg::Tenant> whole;
    for (cfg::Tenant& tenant : service_->merged(now_).tenants) whole[tenant.name] = tenant;
    // A key may be over that nobody has asked for yet.
    for (const cfg::TenantUpdate& update : service_->take_expired(now_)) apply(update);
    ASSERT_EQ(applied_.size(), whole.size());
    for (const auto& [tenant, expected] : whole)
      ASSERT_TRUE(applied_.at(tenant) == expected) << tenant << " after " << i << " events";
    most_at_once = std::max(most_at_once, whole.size());
  }
  EXPECT_GT(writes, 100);
  EXPECT_GT(refused, 10);
  EXPECT_GT(most_at_once, 4u);
}

TEST_F(Admin, AWriteTellsOfItsTenantAndOfWhatHangsBelow) {
  for (const char* id : {"a", "b", "c", "d"}) make_tenant(id);
  const auto parent = [&](const char* id, const char* of) {
    EXPECT_FALSE(
        call(AdminNoun::tenant, "PATCH", id, std::string("{\"parent\":\"") + of + "\"}").error);
  };
  parent("b", "a");
  parent("c", "b");
  const Directory& directory = service_->directory();
  DirectoryChange change;
  change.tenant = directory.tenants().at("a");
  EXPECT_EQ(directory.affected_by(change), std::vector<std::string>{"a"}) << "its quota alone";
  change.tenant->fields.is_blocked = true;
  EXPECT_EQ(directory.affected_by(change), (std::vector<std::string>{"a", "b", "c"}));
  change.tenant->fields.id = "e";
  EXPECT_EQ(directory.affected_by(change), std::vector<std::string>{"e"});
  change = {};
  change.keys.emplace_back().tenant = "d";
  EXPECT_EQ(directory.affected_by(change), std::vector<std::string>{"d"});
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
