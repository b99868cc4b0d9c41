// What an admin write takes from the decision thread, which meanwhile serves nobody: microseconds
// of that thread's CPU per PATCH of a quota, per new key and per PATCH of a tenant, with 1, 1,000
// and 100,000 tenants of one key each, picked at random. The store's thread is not counted. Real
// service, decision loop and key table, wired as in the gateway. Usage: admin_bench [repeats]
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gateway/admin/admin_json.h"
#include "gateway/http/service.h"
#include "gateway/link/ring_decision_loop.h"
#include "shared/check.h"
#include "shared/random.h"

namespace sluice::gw {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;
constexpr int kWrites = 50;  // of one measurement

double thread_cpu_us() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

std::string name_of(std::uint64_t tenant) {
  return "tenant-" + std::to_string(tenant);
}

template <class Value>
Value checked(Result<Value> result) {
  CHECK(result.has_value());
  return std::move(*result);
}

// Rows as the service would have written them, in one transaction.
void fill_store(const std::string& path, std::uint32_t num_tenants) {
  Sqlite database = checked(Sqlite::open(path));
  Transaction transaction = checked(Transaction::begin(database));
  Statement tenants = checked(database.prepare("INSERT INTO tenants VALUES (?1, 1, ?2, ?3, ?4)"));
  Statement keys = checked(
      database.prepare("INSERT INTO keys (public_id, tenant, digest, created_at, revoked_at, "
                       "fields, version) VALUES (?1, ?2, ?3, ?4, 0, ?5, 1)"));
  cfg::TenantLimits tenant_limits;
  tenant_limits.tokens_per_minute = 1'000'000;
  tenant_limits.monthly_budget = 1'000'000'000;
  std::string limits, key_fields;
  append_limits_body(limits, tenant_limits);
  append_key_body(key_fields, KeyFields{"first", 0, {}, {}});
  for (std::uint32_t i = 0; i < num_tenants; ++i) {
    TenantFields tenant;
    tenant.id = name_of(i);
    std::string fields;
    append_tenant_body(fields, tenant);
    tenants.reset();
    tenants.bind(1, tenant.id).bind(2, kNow).bind(3, fields).bind(4, limits);
    CHECK(tenants.run().has_value());
    KeyDigest digest{};
    for (std::size_t at = 0; at < digest.size(); ++at)
      digest[at] = static_cast<std::uint8_t>(mix64(i ^ mix64(at)));
    keys.reset();
    keys.bind(1, "key" + std::to_string(i)).bind(2, tenant.id).bind_blob(3, digest);
    keys.bind(4, kNow).bind(5, key_fields);
    CHECK(keys.run().has_value());
  }
  CHECK(transaction.commit().has_value());
}

class Gateway {
 public:
  Gateway(const std::string& folder, std::uint32_t num_tenants) : num_tenants_(num_tenants) {
    checked(AdminService::open(folder, config_, 1, kNow)).reset();  // makes the tables
    fill_store(folder + "/store.db", num_tenants);
    admin_ = checked(AdminService::open(folder, config_, 1, kNow));
    const cfg::Config merged = admin_->merged(kNow);
    std::vector<Journal::Recovered> left;
    auto file = checked(Journal::create_file((folder + "/journal").c_str(), 64));
    auto pair = checked(ControlChannel::make_pair());
    parent_ = ControlChannel(std::move(pair.first));
    loop_ = std::make_unique<RingDecisionLoop>(io_, clock_, merged,
                                               checked(Journal::open(std::move(file), left)),
                                               ControlChannel(std::move(pair.second)));
    service_ =
        std::make_unique<Service>(merged, std::vector<ServedModel>{}, *loop_, clock_, 1, kNow);
    service_->set_admin(*admin_);
    loop_->hooks.tenants_changed = [this](std::span<const TenantChange> changes) {
      for (const TenantChange& change : changes) service_->update(change.number, change.update);
    };
    AdminHooks hooks;
    hooks.post = [this](std::function<void()> job) { boost::asio::post(io_, std::move(job)); };
    hooks.unix_s = [] { return kNow; };
    hooks.tenant_quota = [this](const std::string& id) { return loop_->quota_of(id); };
    hooks.changed = [this](std::span<const cfg::TenantUpdate> updates) { loop_->apply(updates); };
    admin_->set_hooks(std::move(hooks));
  }

  // CPU of this thread per write.
  double measure(AdminNoun noun, const char* method, const char* body, std::uint64_t seed) {
    const double start = thread_cpu_us();
    for (int i = 0; i < kWrites; ++i) {
      bool is_done = false;
      AdminCall call;
      call.noun = noun;
      call.method = method;
      call.id = name_of(mix64(seed ^ mix64(static_cast<std::uint64_t>(i))) % num_tenants_);
      call.body = body + std::to_string(1 + i) + "}";
      if (noun == AdminNoun::tenant_keys) call.body = "{\"name\":\"another\"}";
      call.actor = "bench";
      admin_->call(std::move(call), [&](AdminAnswer& answer) {
        CHECK(!answer.error);
        is_done = true;
      });
      while (!is_done) io_.run_one();
    }
    return (thread_cpu_us() - start) / kWrites;
  }

 private:
  const std::uint32_t num_tenants_;
  cfg::Config config_;
  const SystemClock clock_;
  boost::asio::io_context io_{1};
  ControlChannel parent_;
  std::unique_ptr<AdminService> admin_;
  std::unique_ptr<RingDecisionLoop> loop_;
  std::unique_ptr<Service> service_;
};

void report(const char* what, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf("  %-24s %9.1f us (%.1f .. %.1f)\n", what, values[values.size() / 2], values.front(),
              values.back());
}

void run(std::uint32_t num_tenants, int repeats) {
  std::string folder = std::filesystem::temp_directory_path() / "sluice-admin-bench-XXXXXX";
  CHECK(::mkdtemp(folder.data()) != nullptr);
  {
    Gateway gateway(folder, num_tenants);
    std::vector<double> quota, key, tenant;
    for (int i = 0; i < repeats; ++i) {
      const auto seed = static_cast<std::uint64_t>(i);
      quota.push_back(
          gateway.measure(AdminNoun::quota, "PATCH", "{\"tokens_per_minute\":", 3 * seed));
      if (num_tenants > 1 || i == 0)  // a tenant has at most 100
        key.push_back(gateway.measure(AdminNoun::tenant_keys, "POST", "", 3 * seed + 1));
      tenant.push_back(gateway.measure(AdminNoun::tenant, "PATCH", "{\"weight\":", 3 * seed + 2));
    }
    std::printf("%u tenants, CPU of the decision thread per write\n", num_tenants);
    report("PATCH of a quota", quota);
    report("a new key", key);
    report("PATCH of a tenant", tenant);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sluice::gw

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  for (const std::uint32_t tenants : {1u, 1000u, 100'000u}) sluice::gw::run(tenants, repeats);
  return 0;
}
