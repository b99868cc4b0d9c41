// Reads, planned writes, and the thread on which they become durable.
#include "gateway/admin/admin_service.h"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "config/load_config.h"
#include "gateway/admin/admin_json.h"
#include "gateway/api/json_text.h"

namespace sluice::gw {

// One job at a time is under way; further ones are few (kAdminCallsWaitingMax bounds the callers).
struct AdminService::Thread {
  Thread() : thread([this] { run(); }) {}
  ~Thread() {
    {
      const std::lock_guard lock(mutex);
      is_stopping = true;
    }
    has_work.notify_one();
    thread.join();
  }
  void submit(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex);
      jobs.push_back(std::move(job));
    }
    has_work.notify_one();
  }
  std::size_t num_waiting() {
    const std::lock_guard lock(mutex);
    return jobs.size();
  }
  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      has_work.wait(lock, [this] { return is_stopping || !jobs.empty(); });
      if (is_stopping) return;
      const std::function<void()> job = std::move(jobs.front());
      jobs.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex;  // guards all below but the thread
  std::condition_variable has_work;
  std::deque<std::function<void()>> jobs;
  bool is_stopping = false;
  std::thread thread;  // last: it uses the others
};

namespace {

AdminAnswer failure(Error error) {
  AdminAnswer answer;
  answer.error = std::move(error);
  return answer;
}

Error not_found(std::string_view what) {
  return make_error(Errc::not_found, std::string("there is no such ").append(what));
}

struct Page {
  std::size_t limit = 20;
  std::string after;
};

// limit=1..100 and after=ID; nothing else, each once.
Result<Page> parse_page(std::string_view query) {
  Page page;
  bool has_limit = false;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = pair.substr(0, equals);
    const std::string_view value = pair.substr(std::min(pair.size(), equals + 1));
    if (name == "limit" && !has_limit) {
      has_limit = true;
      const auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), page.limit);
      if (error != std::errc() || end != value.data() + value.size() || page.limit == 0 ||
          page.limit > kAdminPageMax)
        return make_error(Errc::invalid_value, "'limit' must be an integer from 1 to 100", "limit");
    } else if (name == "after" && page.after.empty() && is_admin_name(value)) {
      page.after.assign(value);
    } else {
      const std::string param(is_admin_name(name) ? name : std::string_view("query"));
      return make_error(Errc::invalid_value,
                        "the query may hold 'limit' and 'after', the last id of the page before",
                        param);
    }
  }
  return page;
}

// {"object":"list","data":[...],"has_more":..,"last_id":..} of what follows `after` by id.
template <class Entries, class Append>
std::string list_json(const Entries& entries, const Page& page, Append append) {
  std::string out = "{\"object\":\"list\",\"data\":[";
  std::size_t count = 0;
  std::string_view last;
  auto at = page.after.empty() ? entries.begin() : entries.upper_bound(page.after);
  for (; at != entries.end() && count < page.limit; ++at, ++count) {
    if (count > 0) out.push_back(',');
    append(out, at->second);
    last = at->first;
  }
  out.append("],\"has_more\":").append(at != entries.end() ? "true" : "false");
  out.append(",\"last_id\":");
  if (count > 0)
    append_json_string(out, last);
  else
    out.append("null");
  out.push_back('}');
  return out;
}

std::string etag(std::int64_t version) {
  return "\"" + std::to_string(version) + "\"";
}

Result<void> check_match(const AdminCall& call, std::int64_t version) {
  if (call.if_match.empty() || call.if_match == "*" || call.if_match == etag(version)) return {};
  return make_error(Errc::precondition_failed,
                    "it was changed meanwhile; its ETag is now " + etag(version), "If-Match");
}

}  // namespace

AdminService::AdminService(DirectoryStore store, Directory directory, cfg::Config base,
                           std::uint64_t seed)
    : store_(std::move(store)),
      directory_(std::move(directory)),
      base_(std::move(base)),
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

void AdminService::call(AdminCall call, AdminDone done) {
  if (call.method == "GET" || call.method == "HEAD") {
    if (call.noun == AdminNoun::audit) return list_audit(call, std::move(done));
    if (call.noun == AdminNoun::usage || call.noun == AdminNoun::tenant_usage)
      return report_usage(call, std::move(done));
    AdminAnswer answer = read(call);
    return done(answer);
  }
  if (waiting_.size() >= kAdminCallsWaitingMax) {
    Error error = make_error(Errc::overloaded, "too many admin writes wait");
    error.retry_after = std::chrono::seconds(1);
    AdminAnswer answer = failure(std::move(error));
    return done(answer);
  }
  waiting_.push_back({std::move(call), std::move(done)});
  begin_next_write();
}

// ---- reads

bool AdminService::is_configured(const std::string& tenant) const {
  return std::any_of(base_.tenants.begin(), base_.tenants.end(),
                     [&](const cfg::Tenant& t) { return t.name == tenant; });
}

std::optional<ManagedTenant> AdminService::find(const std::string& id) const {
  for (const cfg::Tenant& configured : base_.tenants) {
    if (configured.name != id) continue;
    ManagedTenant tenant;
    tenant.fields = {configured.name, false, configured.models, configured.priority_ceiling};
    tenant.limits = configured.limits;
    return tenant;
  }
  const auto at = directory_.tenants.find(id);
  if (at == directory_.tenants.end()) return std::nullopt;
  return at->second;
}

std::string AdminService::quota_json(const ManagedTenant& tenant) const {
  std::string out;
  append_quota(out, tenant.fields.id, tenant.limits, hooks_.tenant_use(tenant.fields.id));
  return out;
}

AdminAnswer AdminService::read(const AdminCall& call) const {
  const Result<Page> page = parse_page(call.query);
  if (!page) return failure(page.error());
  AdminAnswer answer;
  const std::int64_t now = hooks_.unix_s();
  switch (call.noun) {
    case AdminNoun::tenants: {
      std::map<std::string, ManagedTenant> all = directory_.tenants;
      for (const cfg::Tenant& t : base_.tenants) all[t.name] = *find(t.name);
      answer.body = list_json(all, *page, [&](std::string& out, const ManagedTenant& tenant) {
        append_tenant(out, tenant,
                      is_configured(tenant.fields.id) ? Source::configuration : Source::rest);
      });
      return answer;
    }
    case AdminNoun::tenant:
    case AdminNoun::quota: {
      const std::optional<ManagedTenant> tenant = find(call.id);
      if (!tenant) return failure(not_found("tenant"));
      const bool is_rest = !is_configured(call.id);
      if (call.noun == AdminNoun::quota)
        answer.body = quota_json(*tenant);
      else
        append_tenant(answer.body, *tenant, is_rest ? Source::rest : Source::configuration);
      if (is_rest) answer.version = tenant->version;
      return answer;
    }
    case AdminNoun::tenant_keys: {
      if (!find(call.id)) return failure(not_found("tenant"));
      std::map<std::string, ManagedKey> keys;
      for (const auto& [id, key] : directory_.keys)
        if (key.tenant == call.id) keys.emplace(id, key);
      answer.body = list_json(
          keys, *page, [&](std::string& out, const ManagedKey& key) { append_key(out, key, now); });
      return answer;
    }
    case AdminNoun::key: {
      const auto key = directory_.keys.find(call.id);
      if (key == directory_.keys.end()) return failure(not_found("key"));
      append_key(answer.body, key->second, now);
      return answer;
    }
    case AdminNoun::config:
      answer.body = "{\"object\":\"config\",\"yaml\":";
      append_json_string(answer.body, cfg::print_config(base_, cfg::Secrets::masked));
      answer.body.push_back('}');
      return answer;
    default:
      return failure(not_found("route"));
  }
}

void AdminService::list_audit(const AdminCall& call, AdminDone done) {
  const Result<Page> page = parse_page(call.query);
  std::int64_t before = 0;
  bool is_good = page.has_value();
  if (is_good && !page->after.empty()) {
    const char* const end = page->after.data() + page->after.size();
    const auto [at, error] = std::from_chars(page->after.data(), end, before);
    is_good = error == std::errc() && at == end && before > 0;
  }
  if (!is_good || thread_->num_waiting() >= kAdminCallsWaitingMax) {
    AdminAnswer answer =
        failure(!page     ? page.error()
                : is_good ? make_error(Errc::overloaded, "too many admin calls wait")
                          : make_error(Errc::invalid_value,
                                       "'after' must be the last id of the page before", "after"));
    return done(answer);
  }
  thread_->submit([this, before, limit = page->limit, done = std::move(done)]() mutable {
    auto rows = store_.audit(before, static_cast<std::int64_t>(limit) + 1);
    auto answer = std::make_shared<AdminAnswer>();
    if (!rows) {
      answer->error = rows.error();
    } else {
      const std::size_t count = std::min(rows->size(), limit);
      answer->body = "{\"object\":\"list\",\"data\":[";
      for (std::size_t i = 0; i < count; ++i) {
        if (i > 0) answer->body.push_back(',');
        append_audit_row(answer->body, (*rows)[i].first, (*rows)[i].second);
      }
      answer->body.append("],\"has_more\":").append(rows->size() > limit ? "true" : "false");
      answer->body.append(",\"last_id\":");
      if (count == 0)
        answer->body.append("null}");
      else
        answer->body.append("\"" + std::to_string((*rows)[count - 1].first) + "\"}");
    }
    hooks_.post([answer, done = std::move(done)] { done(*answer); });
  });
}

void AdminService::report_usage(const AdminCall& call, AdminDone done) {
  const auto refuse = [&](Error error) {
    AdminAnswer answer = failure(std::move(error));
    done(answer);
  };
  if (call.noun == AdminNoun::tenant_usage && !find(call.id)) return refuse(not_found("tenant"));
  const Result<UsageQuery> query = parse_usage_query(call.query, call.id, hooks_.unix_s());
  if (!query) return refuse(query.error());
  if (thread_->num_waiting() >= kAdminCallsWaitingMax)
    return refuse(make_error(Errc::overloaded, "too many admin calls wait"));
  thread_->submit([this, query = *query, done = std::move(done)]() mutable {
    auto answer = std::make_shared<AdminAnswer>();
    const auto write = [&]() -> Result<std::string> {
      if (usage_report_) return usage_report_->write(query);
      Result<UsageReport> opened = UsageReport::open(store_path_);
      if (!opened) return opened.error();
      usage_report_.emplace(std::move(*opened));
      return usage_report_->write(query);
    };
    Result<std::string> body = write();
    if (body)
      answer->body = std::move(*body);
    else
      answer->error = body.error();
    if (query.is_csv) answer->content_type = "text/csv; charset=utf-8";
    hooks_.post([answer, done = std::move(done)] { done(*answer); });
  });
}

// ---- writes

void AdminService::begin_next_write() {
  while (!is_writing_ && !waiting_.empty()) {
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    Result<Plan> planned = plan(next.call);
    if (!planned) {
      AdminAnswer answer = failure(planned.error());
      next.done(answer);
      continue;
    }
    is_writing_ = true;
    auto shared = std::make_shared<Plan>(std::move(*planned));
    thread_->submit([this, shared, done = std::move(next.done)] {
      const Result<void> stored = store_.apply(shared->change);
      hooks_.post([this, shared, done, stored] { finish_write(stored, *shared, done); });
    });
  }
}

void AdminService::finish_write(const Result<void>& stored, Plan& plan, const AdminDone& done) {
  is_writing_ = false;
  if (stored) {
    directory_.apply(plan.change);
    hooks_.changed();
  } else {
    plan.answer = failure(make_error(Errc::quota_store_unavailable,
                                     "the change could not be stored; nothing was changed"));
    plan.answer.error->retry_after = std::chrono::seconds(1);
  }
  done(plan.answer);
  begin_next_write();
}

Result<AdminService::Plan> AdminService::plan(AdminCall& call) {
  if (call.body.size() > kAdminBodyBytesMax)
    return make_error(Errc::request_too_large, "admin bodies hold at most 64 KiB");
  switch (call.noun) {
    case AdminNoun::tenants:
      return create_tenant(call);
    case AdminNoun::tenant:
      return call.method == "DELETE" ? erase_tenant(call) : change_tenant(call);
    case AdminNoun::quota:
      return change_quota(call);
    case AdminNoun::tenant_keys:
      return create_key(call);
    default:
      return change_key(call);
  }
}

AdminService::Plan AdminService::plan_for(const AdminCall& call, std::string action,
                                          std::string target) const {
  Plan plan;
  plan.change.audit = {hooks_.unix_s(), call.actor, std::move(action), std::move(target), "{}"};
  return plan;
}

Result<ManagedTenant> AdminService::writable(const std::string& id) const {
  if (is_configured(id))
    return make_error(Errc::read_only,
                      "this tenant is declared in the configuration file and is changed there");
  const auto at = directory_.tenants.find(id);
  if (at == directory_.tenants.end()) return not_found("tenant");
  return at->second;
}

Result<AdminService::Plan> AdminService::create_tenant(AdminCall& call) {
  ManagedTenant tenant;
  if (const Result<void> read = parser_.read_tenant(call.body, tenant.fields); !read)
    return read.error();
  if (tenant.fields.id.empty()) return make_error(Errc::invalid_value, "'id' is needed", "id");
  if (find(tenant.fields.id))
    return make_error(Errc::already_exists, "there is a tenant of this id", "id");
  if (directory_.tenants.size() + base_.tenants.size() >= 1000)
    return make_error(Errc::invalid_value, "there are as many tenants as may be: 1000");
  tenant.created_at = hooks_.unix_s();
  Plan plan = plan_for(call, "tenant.create", tenant.fields.id);
  append_tenant(plan.answer.body, tenant, Source::rest);
  append_tenant_body(plan.change.audit.detail.assign(""), tenant.fields);
  plan.answer.status = 201;
  plan.answer.version = tenant.version;
  plan.change.tenant = std::move(tenant);
  return plan;
}

Result<AdminService::Plan> AdminService::change_tenant(AdminCall& call) {
  Result<ManagedTenant> tenant = writable(call.id);
  if (!tenant) return tenant.error();
  if (const Result<void> match = check_match(call, tenant->version); !match) return match.error();
  if (const Result<void> read = parser_.read_tenant(call.body, tenant->fields); !read)
    return read.error();
  if (tenant->fields.id != call.id)
    return make_error(Errc::invalid_value, "'id' cannot be changed", "id");
  ++tenant->version;
  Plan plan = plan_for(call, "tenant.update", call.id);
  append_tenant(plan.answer.body, *tenant, Source::rest);
  append_tenant_body(plan.change.audit.detail.assign(""), tenant->fields);
  plan.answer.version = tenant->version;
  plan.change.tenant = std::move(*tenant);
  return plan;
}

Result<AdminService::Plan> AdminService::erase_tenant(AdminCall& call) {
  const Result<ManagedTenant> tenant = writable(call.id);
  if (!tenant) return tenant.error();
  if (const Result<void> match = check_match(call, tenant->version); !match) return match.error();
  Plan plan = plan_for(call, "tenant.delete", call.id);
  plan.change.erased_tenant = call.id;
  plan.answer.body = "{\"object\":\"tenant\",\"id\":\"" + call.id + "\",\"deleted\":true}";
  return plan;
}

Result<AdminService::Plan> AdminService::change_quota(AdminCall& call) {
  Result<ManagedTenant> tenant = writable(call.id);
  if (!tenant) return tenant.error();
  if (const Result<void> match = check_match(call, tenant->version); !match) return match.error();
  if (call.method == "PUT") tenant->limits = {};
  if (const Result<void> read = parser_.read_quota(call.body, tenant->limits); !read)
    return read.error();
  ++tenant->version;
  Plan plan = plan_for(call, "quota.update", call.id);
  plan.answer.body = quota_json(*tenant);
  append_limits_body(plan.change.audit.detail.assign(""), tenant->limits);
  plan.answer.version = tenant->version;
  plan.change.tenant = std::move(*tenant);
  return plan;
}

Result<AdminService::Plan> AdminService::create_key(AdminCall& call) {
  const Result<ManagedTenant> tenant = writable(call.id);
  if (!tenant) return tenant.error();
  if (directory_.num_keys(call.id) >= kManagedKeysMax)
    return make_error(Errc::invalid_value, "a tenant has at most 100 keys, revoked ones included");
  ManagedKey key;
  if (const Result<void> read = parser_.read_key(call.body, key.fields); !read) return read.error();
  if (key.fields.name.empty()) return make_error(Errc::invalid_value, "'name' is needed", "name");
  NewKey made = make_new_key(kTenantKeyPrefix, hash_secret_);
  key.public_id = made.public_id;
  key.digest = made.digest;
  key.tenant = call.id;
  key.created_at = hooks_.unix_s();
  Plan plan = plan_for(call, "key.create", key.public_id);
  append_key_body(plan.change.audit.detail.assign(""), key.fields);
  append_key(plan.answer.body, key, key.created_at);
  plan.answer.body.pop_back();
  plan.answer.body.append(",\"key\":\"" + made.text + "\"}");
  plan.answer.status = 201;
  plan.change.keys.push_back(std::move(key));
  return plan;
}

// DELETE revokes; POST .../rotate makes another and lets this one expire.
Result<AdminService::Plan> AdminService::change_key(AdminCall& call) {
  const auto at = directory_.keys.find(call.id);
  if (at == directory_.keys.end()) return not_found("key");
  ManagedKey old = at->second;
  const std::int64_t now = hooks_.unix_s();
  if (call.noun == AdminNoun::key) {
    if (old.revoked_at == 0) old.revoked_at = now;
    Plan plan = plan_for(call, "key.revoke", old.public_id);
    append_key(plan.answer.body, old, now);
    plan.change.keys.push_back(std::move(old));
    return plan;
  }
  std::int64_t overlap_seconds = 0;
  if (const Result<void> read = parser_.read_rotation(call.body, overlap_seconds); !read)
    return read.error();
  if (!old.is_valid(now))
    return make_error(Errc::invalid_value, "the key is revoked or has expired");
  AdminCall creation = call;
  creation.id = old.tenant;
  creation.body.clear();
  append_key_body(creation.body, old.fields);
  Result<Plan> plan = create_key(creation);
  if (!plan) return plan.error();
  plan->change.audit.action = "key.rotate";
  plan->change.audit.target = old.public_id;
  plan->change.audit.detail = "{\"successor\":\"" + plan->change.keys.front().public_id + "\"}";
  const std::int64_t end = now + overlap_seconds;
  if (overlap_seconds == 0)
    old.revoked_at = now;
  else if (old.fields.expires_at == 0 || end < old.fields.expires_at)
    old.fields.expires_at = end;
  plan->change.keys.push_back(std::move(old));
  return plan;
}

}  // namespace sluice::gw
