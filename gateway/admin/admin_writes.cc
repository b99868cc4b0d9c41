// What each write changes, planned against the directory as it is. Nothing acts here.
#include <algorithm>
#include <set>
#include <utility>

#include "config/settings.h"
#include "gateway/admin/admin_json.h"
#include "gateway/admin/admin_service.h"

namespace sluice::gw {
namespace {

Error not_found(std::string_view what) {
  return make_error(Errc::not_found, std::string("there is no such ").append(what));
}

Result<void> check_match(const AdminCall& call, std::int64_t version) {
  if (call.if_match.empty() || call.if_match == "*" || call.if_match == etag_of(version)) return {};
  return make_error(Errc::precondition_failed,
                    "it was changed meanwhile; its ETag is now " + etag_of(version), "If-Match");
}

std::string hex(const KeyDigest& digest) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : digest) {
    text.push_back(kHex[byte >> 4]);
    text.push_back(kHex[byte & 15]);
  }
  return text;
}

}  // namespace

Result<AdminService::Plan> AdminService::plan(AdminCall& call) {
  if (call.body.size() > kAdminBodyBytesMax)
    return make_error(Errc::request_too_large, "admin bodies hold at most 64 KiB");
  if (call.method != "POST" || call.idempotency_key.empty()) return plan_once(call);
  const bool is_printable = std::all_of(call.idempotency_key.begin(), call.idempotency_key.end(),
                                        [](char c) { return c >= 0x20 && c < 0x7f; });
  if (!is_printable || call.idempotency_key.size() > kIdempotencyKeyBytesMax)
    return make_error(Errc::invalid_value,
                      "'Idempotency-Key' must be 1 to 255 printable ASCII characters",
                      "Idempotency-Key");
  IdempotentAnswer answer;
  answer.unix_s = hooks_.unix_s();
  answer.id = hex(hash_key(hash_secret_, call.actor + '\n' + call.idempotency_key));
  answer.fingerprint =
      hex(hash_key(hash_secret_, std::to_string(static_cast<int>(call.noun)) + '\n' + call.id +
                                     '\n' + call.if_match + '\n' + call.body));
  const auto known = directory_.answers().find(answer.id);
  if (known != directory_.answers().end() &&
      known->second.unix_s + kIdempotentSeconds > answer.unix_s) {
    if (known->second.fingerprint != answer.fingerprint)
      return make_error(Errc::conflict, "this Idempotency-Key was used for another request",
                        "Idempotency-Key");
    Plan replay;
    replay.is_replay = true;
    if (known->second.body.empty()) replay.answer = read(call);
    replay.answer.status = static_cast<unsigned>(known->second.status);
    replay.answer.version = known->second.version;
    if (!known->second.body.empty()) replay.answer.body = known->second.body;
    replay.answer.is_replayed = true;
    return replay;
  }
  Result<Plan> plan = plan_once(call);
  if (!plan) return plan;
  answer.status = plan->answer.status;
  answer.version = plan->answer.version;
  answer.body = plan->answer.body;
  // A secret is shown once.
  if (const std::size_t at = answer.body.find(",\"key\":\"" + std::string(kTenantKeyPrefix));
      at != std::string::npos)
    answer.body.replace(at, std::string::npos, ",\"key\":null}");
  plan->change.answer = std::move(answer);
  return plan;
}

Result<AdminService::Plan> AdminService::plan_once(AdminCall& call) {
  switch (call.noun) {
    case AdminNoun::tenants:
      return create_tenant(call);
    case AdminNoun::tenant:
      return call.method == "DELETE" ? erase_tenant(call) : change_tenant(call);
    case AdminNoun::quota:
      return change_quota(call);
    case AdminNoun::tenant_keys:
      return create_key(call);
    case AdminNoun::key:
    case AdminNoun::key_rotate:
      return change_key(call);
    case AdminNoun::breaker_open:
      return act_on_fleet(call, FleetAction::open_breaker);
    case AdminNoun::breaker_reset:
      return act_on_fleet(call, FleetAction::reset_breaker);
    case AdminNoun::worker_drain:
      return act_on_fleet(call, FleetAction::drain_worker);
    case AdminNoun::worker_resume:
      return act_on_fleet(call, FleetAction::resume_worker);
    case AdminNoun::worker_recycle:
      return act_on_fleet(call, FleetAction::recycle_worker);
    default:
      return not_found("route");
  }
}

AdminService::Plan AdminService::plan_for(const AdminCall& call, std::string action,
                                          std::string target) const {
  Plan plan;
  plan.change.revision = directory_.revision() + 1;
  plan.change.audit = {hooks_.unix_s(), call.actor, std::move(action), std::move(target), "{}"};
  return plan;
}

Result<AdminService::Plan> AdminService::act_on_fleet(AdminCall& call, FleetAction action) {
  if (const Result<void> empty = parser_.read_empty(call.body); !empty) return empty.error();
  AdminAnswer now = read(call);
  if (now.error) return *now.error;
  constexpr std::array<std::string_view, 5> kNames{"breaker.open", "breaker.reset", "worker.drain",
                                                   "worker.resume", "worker.recycle"};
  Plan plan = plan_for(call, std::string(kNames[static_cast<std::size_t>(action)]), call.id);
  plan.action = action;
  plan.change.ordered = call.id;
  if (action == FleetAction::open_breaker || action == FleetAction::drain_worker)
    plan.change.order = FleetOrder{action, model_of(call.id), hooks_.unix_s(), call.actor};
  return plan;
}

// ---- tenants

Result<ManagedTenant> AdminService::writable(const std::string& id) const {
  if (is_configured(id))
    return make_error(Errc::read_only,
                      "this tenant is declared in the configuration file and is changed there");
  const auto at = directory_.tenants().find(id);
  if (at == directory_.tenants().end()) return not_found("tenant");
  return at->second;
}

// Neither a cycle nor too deep a tree, with all that hangs below.
Result<void> AdminService::check_parent(const TenantFields& fields) const {
  if (fields.parent.empty()) return {};
  const auto wrong = [](std::string detail) {
    return make_error(Errc::invalid_value, std::move(detail), "parent");
  };
  std::size_t above = 0;
  for (std::string up = fields.parent; !up.empty();) {
    if (up == fields.id) return wrong("a tenant cannot be above itself");
    const std::optional<ManagedTenant> tenant = find(up);
    if (!tenant) return wrong("'parent' must be the id of a tenant");
    if (++above >= cfg::kTenantDepthMax) break;
    up = tenant->fields.parent;
  }
  if (above + 1 + directory_.levels_below(fields.id) > cfg::kTenantDepthMax)
    return wrong("at most " + std::to_string(cfg::kTenantDepthMax) +
                 " levels of tenants are allowed");
  return {};
}

Result<AdminService::Plan> AdminService::create_tenant(AdminCall& call) {
  ManagedTenant tenant;
  if (const Result<void> read = parser_.read_tenant(call.body, tenant.fields); !read)
    return read.error();
  if (tenant.fields.id.empty()) return make_error(Errc::invalid_value, "'id' is needed", "id");
  if (find(tenant.fields.id))
    return make_error(Errc::already_exists, "there is a tenant of this id", "id");
  if (const Result<void> parent = check_parent(tenant.fields); !parent) return parent.error();
  if (directory_.tenants().size() + base_.tenants.size() >= kManagedTenantsMax)
    return make_error(Errc::invalid_value,
                      "there are as many tenants as may be: " + std::to_string(kManagedTenantsMax));
  tenant.created_at = hooks_.unix_s();
  Plan plan = plan_for(call, "tenant.create", tenant.fields.id);
  tenant.version = plan.answer.version = plan.change.revision;
  append_tenant(plan.answer.body, tenant, Source::rest);
  append_tenant_body(plan.change.audit.detail.assign(""), tenant.fields);
  plan.answer.status = 201;
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
  if (const Result<void> parent = check_parent(tenant->fields); !parent) return parent.error();
  Plan plan = plan_for(call, "tenant.update", call.id);
  tenant->version = plan.answer.version = plan.change.revision;
  append_tenant(plan.answer.body, *tenant, Source::rest);
  append_tenant_body(plan.change.audit.detail.assign(""), tenant->fields);
  plan.change.tenant = std::move(*tenant);
  return plan;
}

Result<AdminService::Plan> AdminService::erase_tenant(const AdminCall& call) {
  const Result<ManagedTenant> tenant = writable(call.id);
  if (!tenant) return tenant.error();
  if (const Result<void> match = check_match(call, tenant->version); !match) return match.error();
  if (const std::set<std::string>& below = directory_.below(call.id); !below.empty())
    return make_error(Errc::conflict, "it is the parent of the tenant '" + *below.begin() + "'");
  Plan plan = plan_for(call, "tenant.delete", call.id);
  plan.change.erased_tenant = call.id;
  plan.change.ordered = "tenant:" + call.id;
  plan.answer.body = "{\"object\":\"tenant\",\"id\":\"" + call.id + "\",\"deleted\":true}";
  return plan;
}

// ---- quotas

// Overrides that are over go with the next write.
void AdminService::drop_ended(cfg::Limits& limits) const {
  const std::int64_t now = hooks_.unix_s();
  std::erase_if(limits.temporary_overrides,
                [&](const cfg::TemporaryOverride& temporary) { return temporary.until <= now; });
}

Result<void> AdminService::check_overrides(const cfg::Limits& limits,
                                           std::string_view prefix) const {
  const auto wrong = [&](const char* list, std::size_t index, const char* field, const char* what) {
    std::string param(prefix);
    param.append(list).append("[").append(std::to_string(index)).append("].").append(field);
    return make_error(Errc::invalid_value, "'" + param + "' must be " + what, param);
  };
  const auto is_served = [&](const std::string& name) {
    return std::any_of(base_.models.begin(), base_.models.end(),
                       [&](const cfg::Model& model) { return model.name == name; });
  };
  std::set<std::string_view> named;
  for (std::size_t i = 0; i < limits.model_overrides.size(); ++i) {
    const std::string& model = limits.model_overrides[i].model;
    if (!is_served(model)) return wrong("model_overrides", i, "model", "a model of this server");
    if (!named.insert(model).second)
      return wrong("model_overrides", i, "model", "named once in the list");
  }
  for (std::size_t i = 0; i < limits.temporary_overrides.size(); ++i) {
    const cfg::TemporaryOverride& temporary = limits.temporary_overrides[i];
    if (!temporary.model.empty() && !is_served(temporary.model))
      return wrong("temporary_overrides", i, "model", "a model of this server, or null");
    if (temporary.until <= hooks_.unix_s())
      return wrong("temporary_overrides", i, "until", "a Unix time in seconds that is to come");
  }
  return {};
}

Result<AdminService::Plan> AdminService::change_quota(AdminCall& call) {
  Result<ManagedTenant> tenant = writable(call.id);
  if (!tenant) return tenant.error();
  if (const Result<void> match = check_match(call, tenant->version); !match) return match.error();
  if (call.method == "PUT") tenant->limits = {};
  drop_ended(tenant->limits);
  if (const Result<void> read = parser_.read_quota(call.body, tenant->limits); !read)
    return read.error();
  if (const Result<void> checked = check_overrides(tenant->limits, ""); !checked)
    return checked.error();
  Plan plan = plan_for(call, "quota.update", call.id);
  tenant->version = plan.answer.version = plan.change.revision;
  plan.answer.body = quota_json(*tenant);
  append_limits_body(plan.change.audit.detail.assign(""), tenant->limits);
  plan.change.tenant = std::move(*tenant);
  return plan;
}

// ---- keys

Result<AdminService::Plan> AdminService::create_key(AdminCall& call) {
  ManagedKey key;
  key.tenant = call.id;
  if (const Result<ManagedTenant> tenant = writable(call.id); !tenant) return tenant.error();
  if (const Result<void> read = parser_.read_key(call.body, key.fields); !read) return read.error();
  if (key.fields.name.empty()) return make_error(Errc::invalid_value, "'name' is needed", "name");
  if (key.fields.expires_at != 0 && key.fields.expires_at <= hooks_.unix_s())
    return make_error(Errc::invalid_value, "'expires_at' must be a Unix time that is to come",
                      "expires_at");
  if (const Result<void> checked = check_overrides(key.fields.limits, "limits."); !checked)
    return checked.error();
  return plan_key(call, std::move(key), 0);
}

// A new key of these fields, while `num_ending` valid ones end. What is over makes room.
Result<AdminService::Plan> AdminService::plan_key(const AdminCall& call, ManagedKey key,
                                                  std::size_t num_ending) {
  const std::int64_t now = hooks_.unix_s();
  if (directory_.num_valid_keys(key.tenant, now) - num_ending >= kManagedKeysMax)
    return make_error(Errc::invalid_value, "a tenant has at most 100 valid keys");
  const NewKey made = make_new_key(kTenantKeyPrefix, hash_secret_);
  key.public_id = made.public_id;
  key.digest = made.digest;
  key.created_at = now;
  Plan plan = plan_for(call, "key.create", key.public_id);
  key.version = plan.answer.version = plan.change.revision;
  append_key_body(plan.change.audit.detail.assign(""), key.fields);
  append_key(plan.answer.body, key, now);
  plan.answer.body.pop_back();
  plan.answer.body.append(",\"key\":\"" + made.text + "\"}");
  plan.answer.status = 201;
  plan.change.erased_keys = directory_.keys_to_forget(key.tenant, now);
  plan.change.keys.push_back(std::move(key));
  return plan;
}

// PATCH changes, DELETE revokes; POST .../rotate makes another and lets this one expire.
Result<AdminService::Plan> AdminService::change_key(AdminCall& call) {
  const auto at = directory_.keys().find(call.id);
  if (at == directory_.keys().end()) return not_found("key");
  ManagedKey key = at->second;
  if (const Result<void> match = check_match(call, key.version); !match) return match.error();
  if (call.noun == AdminNoun::key_rotate) return rotate_key(call, std::move(key));
  const std::int64_t now = hooks_.unix_s();
  const bool is_revoked = call.method == "DELETE";
  if (is_revoked) {
    if (key.revoked_at == 0) key.revoked_at = now;
  } else {
    drop_ended(key.fields.limits);
    if (const Result<void> read = parser_.read_key(call.body, key.fields); !read)
      return read.error();
    if (key.fields.name.empty()) return make_error(Errc::invalid_value, "'name' is needed", "name");
    if (const Result<void> checked = check_overrides(key.fields.limits, "limits."); !checked)
      return checked.error();
  }
  Plan plan = plan_for(call, is_revoked ? "key.revoke" : "key.update", key.public_id);
  key.version = plan.answer.version = plan.change.revision;
  if (!is_revoked) append_key_body(plan.change.audit.detail.assign(""), key.fields);
  append_key(plan.answer.body, key, now);
  plan.change.keys.push_back(std::move(key));
  return plan;
}

Result<AdminService::Plan> AdminService::rotate_key(AdminCall& call, ManagedKey old) {
  std::int64_t overlap_seconds = 0;
  if (const Result<void> read = parser_.read_rotation(call.body, overlap_seconds); !read)
    return read.error();
  const std::int64_t now = hooks_.unix_s();
  if (!old.is_valid(now))
    return make_error(Errc::invalid_value, "the key is revoked or has expired");
  ManagedKey fresh;
  fresh.tenant = old.tenant;
  fresh.fields = old.fields;
  drop_ended(fresh.fields.limits);
  Result<Plan> plan = plan_key(call, std::move(fresh), overlap_seconds == 0 ? 1 : 0);
  if (!plan) return plan.error();
  plan->change.audit.action = "key.rotate";
  plan->change.audit.target = old.public_id;
  plan->change.audit.detail = "{\"successor\":\"" + plan->change.keys.front().public_id + "\"}";
  const std::int64_t end = now + overlap_seconds;
  if (overlap_seconds == 0)
    old.revoked_at = now;
  else if (old.fields.expires_at == 0 || end < old.fields.expires_at)
    old.fields.expires_at = end;
  old.version = plan->change.revision;
  plan->change.keys.push_back(std::move(old));
  return plan;
}

}  // namespace sluice::gw
