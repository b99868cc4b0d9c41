// The service's start, the pipeline of writes, and the thread on which they become durable.
#include "gateway/admin/admin_service.h"

#include <algorithm>
#include <utility>

#include "gateway/admin/admin_thread.h"

namespace sluice::gw {

AdminService::AdminService(DirectoryStore store, Directory directory, cfg::Config base,
                           std::uint64_t seed)
    : store_(std::move(store)),
      directory_(std::move(directory)),
      base_(std::move(base)),
      configured_(configured_parents(base_)),
      parser_(seed) {}

AdminService::~AdminService() = default;

Result<std::unique_ptr<AdminService>> AdminService::open(const std::string& state_dir,
                                                         cfg::Config base, std::uint64_t seed,
                                                         std::int64_t unix_s) {
  Result<std::string> secret = load_hash_secret(state_dir + "/key_hash_secret");
  if (!secret) return secret.error();
  Result<DirectoryStore> store = DirectoryStore::open(state_dir + "/store.db");
  if (!store) return store.error();
  Result<Directory> directory = store->load();
  if (!directory) return directory.error();
  Result<std::vector<AdminKey>> admin_keys = store->load_admin_keys();
  if (!admin_keys) return admin_keys.error();
  std::unique_ptr<AdminService> service(
      new AdminService(std::move(*store), std::move(*directory), std::move(base), seed));
  service->expired_until_ = unix_s;
  service->store_path_ = state_dir + "/store.db";
  service->hash_secret_ = std::move(*secret);
  service->admin_keys_ = std::move(*admin_keys);
  if (service->admin_keys_.empty()) {
    NewKey made = make_new_key(kAdminKeyPrefix, service->hash_secret_);
    const AdminKey key{made.public_id, made.digest};
    if (const Result<void> done = service->store_.add_admin_key(key, unix_s); !done)
      return done.error();
    service->admin_keys_.push_back(key);
    service->first_admin_key_ = std::move(made.text);
  }
  service->thread_ = std::make_unique<Thread>();
  return service;
}

// Every key is compared, so that a wrong and an unknown one take the same time.
Result<std::string> AdminService::actor_of(std::string_view token) const {
  const KeyDigest digest = hash_key(hash_secret_, token);
  const AdminKey* found = nullptr;
  for (const AdminKey& key : admin_keys_)
    if (is_equal(key.digest, digest)) found = &key;
  if (found == nullptr)
    return make_error(Errc::invalid_api_key, "the admin key is not known to this server");
  return found->public_id;
}

void AdminService::reload_admin_keys() {
  thread_->submit([this] {
    auto keys = std::make_shared<Result<std::vector<AdminKey>>>(store_.load_admin_keys());
    hooks_.post([this, keys] {
      if (*keys) admin_keys_ = std::move(**keys);
    });
  });
}

void AdminService::call(AdminCall call, AdminDone done) {
  if (call.method == "GET" || call.method == "HEAD") {
    if (call.noun == AdminNoun::audit) return list_audit(call, std::move(done));
    if (call.noun == AdminNoun::usage || call.noun == AdminNoun::tenant_usage)
      return report_usage(call, std::move(done));
    AdminAnswer answer = read(call);
    return done(answer);
  }
  if (waiting_.size() >= kAdminCallsWaitingMax) {
    AdminAnswer answer;
    answer.error = make_error(Errc::overloaded, "too many admin writes wait");
    answer.error->retry_after = std::chrono::seconds(1);
    return done(answer);
  }
  waiting_.push_back({std::move(call), std::move(done)});
  begin_next_write();
}

void AdminService::begin_next_write() {
  while (!is_writing_ && !waiting_.empty()) {
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    Result<Plan> planned = plan(next.call);
    if (!planned || planned->is_replay) {
      AdminAnswer answer;
      if (planned) {
        answer = std::move(planned->answer);
      } else {
        answer.error = planned.error();
      }
      next.done(answer);
      continue;
    }
    is_writing_ = true;
    auto shared = std::make_shared<Plan>(std::move(*planned));
    thread_->submit([this, shared, call = std::move(next.call), done = std::move(next.done)] {
      const Result<void> stored = store_.apply(shared->change);
      hooks_.post(
          [this, shared, call, done, stored] { finish_write(stored, *shared, call, done); });
    });
  }
}

void AdminService::finish_write(const Result<void>& stored, Plan& plan, const AdminCall& call,
                                const AdminDone& done) {
  is_writing_ = false;
  if (stored) {
    const std::vector<std::string> affected = directory_.affected_by(plan.change);
    // One that comes under the name of a tenant that went starts anew.
    if (!plan.change.erased_tenant.empty() && directory_.orders().contains(plan.change.ordered))
      hooks_.fleet->act(FleetAction::reset_breaker, plan.change.ordered);
    directory_.apply(plan.change);
    if (plan.action) {
      hooks_.fleet->act(*plan.action, call.id);
      AdminAnswer now = read(call);
      plan.answer.body = std::move(now.body);
      plan.answer.error = std::move(now.error);
    } else {
      hooks_.changed(updates_of(affected));
    }
  } else {
    plan.answer = {};
    plan.answer.error = make_error(Errc::quota_store_unavailable,
                                   "the change could not be stored; nothing was changed");
    plan.answer.error->retry_after = std::chrono::seconds(1);
  }
  done(plan.answer);
  begin_next_write();
}

void AdminService::set_base(cfg::Config base) {
  base_ = std::move(base);
  configured_ = configured_parents(base_);
}

void AdminService::restore_orders() {
  for (const auto& [id, order] : directory_.orders())
    if (model_of(id) == order.model) hooks_.fleet->act(order.action, id);
}

std::vector<cfg::TenantUpdate> AdminService::updates_of(
    const std::vector<std::string>& tenants) const {
  std::vector<cfg::TenantUpdate> updates;
  for (const std::string& tenant : tenants)
    if (!is_configured(tenant))
      updates.push_back(directory_.update_of(tenant, configured_, hooks_.unix_s()));
  return updates;
}

// ---- what happened by itself

std::vector<cfg::TenantUpdate> AdminService::take_expired(std::int64_t unix_s) {
  const std::set<std::string> tenants = directory_.expiring(expired_until_, unix_s);
  expired_until_ = std::max(expired_until_, unix_s);
  return updates_of({tenants.begin(), tenants.end()});
}

void AdminService::record(std::string action, std::string target, std::string detail) {
  if (events_.size() >= kAdminEventsMax) {
    events_.pop_front();
    ++num_events_lost_;
  }
  events_.push_back(
      {hooks_.unix_s(), "system", std::move(action), std::move(target), std::move(detail)});
  write_events();
}

// One transaction for all that gathered while the last one ran. A store that fails loses them: they
// are in the log as well.
void AdminService::write_events() {
  if (is_writing_events_ || events_.empty()) return;
  is_writing_events_ = true;
  auto rows = std::make_shared<std::vector<AuditRow>>(events_.begin(), events_.end());
  events_.clear();
  if (const std::uint64_t lost = std::exchange(num_events_lost_, 0); lost > 0)
    rows->push_back({hooks_.unix_s(), "system", "audit.lost", "audit",
                     "{\"events\":" + std::to_string(lost) + "}"});
  thread_->submit([this, rows] {
    (void)store_.add_audit(*rows).has_value();
    hooks_.post([this] {
      is_writing_events_ = false;
      write_events();
    });
  });
}

}  // namespace sluice::gw
