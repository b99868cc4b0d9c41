// AdminService: what the admin routes do. Reads answer from memory; a write is checked against the
// directory, made durable on the store's thread, then applied, then answered: nothing acts before
// it is on disk. Writes go one by one; those that wait are bounded.
//
// Everything on the event loop's thread; `post` brings the store thread's results back to it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/admin/directory_store.h"
#include "gateway/admin/fleet.h"
#include "gateway/admin/usage_report.h"
#include "gateway/core/quota_view.h"

namespace sluice::gw {

inline constexpr std::size_t kAdminCallsWaitingMax = 64;
inline constexpr std::size_t kAdminPageMax = 100;
inline constexpr std::size_t kAdminEventsMax = 1024;
inline constexpr std::size_t kIdempotencyKeyBytesMax = 255;

enum class AdminNoun : std::uint8_t {
  tenants,
  tenant,
  quota,
  tenant_keys,
  key,
  key_rotate,
  audit,
  config,
  usage,
  tenant_usage,
  breakers,
  breaker,
  breaker_open,
  breaker_reset,
  workers,
  worker,
  worker_drain,
  worker_resume,
  worker_recycle,
};

struct AdminCall {
  AdminNoun noun{};
  std::string method;  // one that the route allows
  std::string id;      // of the path; empty where it has none
  std::string query;
  std::string body;
  std::string if_match;
  std::string idempotency_key;  // of a POST
  std::string actor;            // public id of the admin key
};

struct AdminAnswer {
  std::optional<Error> error;
  unsigned status = 200;
  std::string body;
  std::int64_t version = 0;  // for the ETag; 0: none
  std::string_view content_type = "application/json";
  bool is_replayed = false;  // of an earlier POST with the same Idempotency-Key
  std::string last_id;       // of a page whose body cannot tell it, where another follows
};
using AdminDone = std::function<void(AdminAnswer&)>;

// What the service asks of the gateway around it.
struct AdminHooks {
  std::function<void(std::function<void()>)> post;  // from any thread
  std::function<std::int64_t()> unix_s;
  std::function<std::optional<AccountQuota>(const std::string& tenant)> tenant_quota;
  // What a write made of single tenants: applied before the write is answered.
  std::function<void(std::span<const cfg::TenantUpdate>)> changed;
  Fleet* fleet = nullptr;
};

class AdminService {
 public:
  // Opens the tables in `state_dir`. `base`: tenants and all else of the configuration.
  static Result<std::unique_ptr<AdminService>> open(const std::string& state_dir, cfg::Config base,
                                                    std::uint64_t seed, std::int64_t unix_s);
  ~AdminService();  // waits for the write under way

  void set_hooks(AdminHooks hooks) { hooks_ = std::move(hooks); }
  // Nothing, or the first admin key of a fresh state directory: to be shown once, never logged.
  const std::string& first_admin_key() const { return first_admin_key_; }
  const std::string& hash_secret() const { return hash_secret_; }
  const Directory& directory() const { return directory_; }
  // Declared or made over REST. Without any, merged() has none and every caller is the default one.
  bool has_tenants() const { return !configured_.empty() || !directory_.tenants().empty(); }
  cfg::Config merged(std::int64_t unix_s) const { return directory_.merged(base_, unix_s); }
  void set_base(cfg::Config base);
  // Keys whose time came since the last call, or since open(): what is left of their tenants.
  std::vector<cfg::TenantUpdate> take_expired(std::int64_t unix_s);
  // Keys that `sluice admin-key` made or took away meanwhile. REQUIRES: the hooks.
  void reload_admin_keys();
  // What operators had ordered of the former gateway. REQUIRES: the hooks; the fleet is there.
  void restore_orders();
  // Something that happened by itself, for the audit log. Bounded: at kAdminEventsMax that wait the
  // oldest go, and how many went is a row of its own.
  void record(std::string action, std::string target, std::string detail);

  // The public id of the admin key. `token` may be any text. Errors: invalid_api_key.
  Result<std::string> actor_of(std::string_view token) const;
  // Calls `done` once, now or later.
  void call(AdminCall call, AdminDone done);

 private:
  struct Thread;
  struct Plan {
    DirectoryChange change;
    AdminAnswer answer;
    std::optional<FleetAction> action;  // on the call's id, once it is in the audit log
    bool is_replay = false;             // the answer stands, nothing changes
  };
  AdminService(DirectoryStore store, Directory directory, cfg::Config base, std::uint64_t seed);

  // admin_reads.cc
  AdminAnswer read(const AdminCall& call) const;
  void list_audit(const AdminCall& call, AdminDone done);
  void report_usage(const AdminCall& call, AdminDone done);
  bool is_configured(const std::string& tenant) const;
  std::optional<ManagedTenant> find(const std::string& tenant) const;
  std::string quota_json(const ManagedTenant& tenant) const;
  std::map<std::string, ManagedTenant> tenants_behind(const std::string& after,
                                                      std::size_t count) const;
  std::map<std::string, BreakerStatus> breakers_behind(const std::string& after,
                                                       std::size_t count) const;
  std::map<std::string, WorkerStatus> workers() const;
  std::string model_of(const std::string& fleet_id) const;  // of a worker, or its breaker

  std::vector<cfg::TenantUpdate> updates_of(const std::vector<std::string>& tenants) const;
  void begin_next_write();
  void finish_write(const Result<void>& stored, Plan& plan, const AdminCall& call,
                    const AdminDone& done);
  void write_events();

  // admin_writes.cc
  Result<Plan> plan(AdminCall& call);
  Result<Plan> plan_once(AdminCall& call);
  Result<Plan> create_tenant(AdminCall& call);
  Result<Plan> change_tenant(AdminCall& call);
  Result<Plan> erase_tenant(const AdminCall& call);
  Result<Plan> change_quota(AdminCall& call);
  Result<Plan> create_key(AdminCall& call);
  Result<Plan> plan_key(const AdminCall& call, ManagedKey key, std::size_t num_ending);
  Result<Plan> change_key(AdminCall& call);
  Result<Plan> rotate_key(AdminCall& call, ManagedKey old);
  Result<Plan> act_on_fleet(AdminCall& call, FleetAction action);
  Plan plan_for(const AdminCall& call, std::string action, std::string target) const;
  Result<ManagedTenant> writable(const std::string& tenant) const;
  Result<void> check_parent(const TenantFields& fields) const;
  Result<void> check_overrides(const cfg::Limits& limits, std::string_view prefix) const;
  void drop_ended(cfg::Limits& limits) const;

  DirectoryStore store_;  // the store thread's once that runs
  std::string store_path_;
  std::optional<UsageReport> usage_report_;  // likewise; opened by the first report
  Directory directory_;
  cfg::Config base_;
  ConfiguredParents configured_;  // of base_
  std::int64_t expired_until_ = 0;
  AdminParser parser_;
  std::vector<AdminKey> admin_keys_;
  std::string hash_secret_, first_admin_key_;
  AdminHooks hooks_;
  struct Waiting {
    AdminCall call;
    AdminDone done;
  };
  std::deque<Waiting> waiting_;
  bool is_writing_ = false;
  std::deque<AuditRow> events_;  // to be written
  std::uint64_t num_events_lost_ = 0;
  bool is_writing_events_ = false;
  std::unique_ptr<Thread> thread_;  // last: joined before what it uses goes
};

// The text of an ETag.
std::string etag_of(std::int64_t version);

}  // namespace sluice::gw
