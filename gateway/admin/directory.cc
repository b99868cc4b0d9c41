// Changes and the merge.
#include "gateway/admin/directory.h"

#include <algorithm>
#include <utility>

#include "config/settings.h"

namespace sluice::gw {

void Directory::apply(const DirectoryChange& change) {
  revision = std::max(revision, change.revision);
  if (change.tenant) tenants[change.tenant->fields.id] = *change.tenant;
  for (const ManagedKey& key : change.keys) keys[key.public_id] = key;
  for (const std::string& id : change.erased_keys) keys.erase(id);
  if (change.answer) {
    for (const std::string& id : outdated_answers(change.answer->unix_s)) answers.erase(id);
    answers[change.answer->id] = *change.answer;
  }
  if (change.erased_tenant.empty()) return;
  tenants.erase(change.erased_tenant);
  std::erase_if(keys,
                [&](const auto& entry) { return entry.second.tenant == change.erased_tenant; });
}

std::vector<std::string> Directory::outdated_answers(std::int64_t unix_s) const {
  std::vector<std::pair<std::int64_t, std::string>> by_age;
  for (const auto& [id, answer] : answers) by_age.emplace_back(answer.unix_s, id);
  std::sort(by_age.begin(), by_age.end());
  std::vector<std::string> outdated;
  for (const auto& [made, id] : by_age) {
    const bool is_over = made + kIdempotentSeconds <= unix_s;
    if (!is_over && by_age.size() - outdated.size() < kIdempotentAnswersMax) break;
    outdated.push_back(id);
  }
  return outdated;
}

std::size_t Directory::num_valid_keys(const std::string& tenant, std::int64_t unix_s) const {
  return static_cast<std::size_t>(std::count_if(keys.begin(), keys.end(), [&](const auto& entry) {
    return entry.second.tenant == tenant && entry.second.is_valid(unix_s);
  }));
}

std::vector<std::string> Directory::keys_to_forget(const std::string& tenant,
                                                   std::int64_t unix_s) const {
  std::vector<std::pair<std::int64_t, std::string>> ended;
  for (const auto& [id, key] : keys)
    if (key.tenant == tenant && !key.is_valid(unix_s)) ended.emplace_back(key.created_at, id);
  std::sort(ended.begin(), ended.end());
  std::vector<std::string> ids;
  for (std::size_t i = 0; i + kEndedKeysMax <= ended.size(); ++i) ids.push_back(ended[i].second);
  return ids;
}

namespace {

// Levels up to the root, `name` included; nothing: a parent is missing, or there are too many.
std::optional<std::size_t> depth_of(const std::map<std::string, std::string>& parents,
                                    const std::string& name) {
  std::size_t depth = 1;
  for (const std::string* at = &name;; ++depth) {
    const auto found = parents.find(*at);
    if (found == parents.end() || depth > cfg::kTenantDepthMax) return std::nullopt;
    if (found->second.empty()) return depth;
    at = &found->second;
  }
}

}  // namespace

cfg::Config Directory::merged(const cfg::Config& base, std::int64_t unix_s) const {
  cfg::Config config = base;
  std::map<std::string, std::string> parents;
  for (const cfg::Tenant& tenant : base.tenants) parents.emplace(tenant.name, tenant.parent);
  const std::size_t num_configured = base.tenants.size();
  std::map<std::string_view, std::size_t> places;
  for (const auto& [id, managed] : tenants) {
    if (!parents.emplace(id, managed.fields.parent).second) continue;  // of the configuration
    places.emplace(id, config.tenants.size());
    cfg::Tenant& tenant = config.tenants.emplace_back();
    tenant.name = id;
    tenant.models = managed.fields.models;
    tenant.priority_ceiling = managed.fields.priority_ceiling;
    tenant.parent = managed.fields.parent;
    tenant.security_class = managed.fields.security_class;
    tenant.weight = managed.fields.weight;
    tenant.blocked = managed.fields.is_blocked;
    tenant.limits = managed.limits;
  }
  for (std::size_t i = num_configured; i < config.tenants.size(); ++i) {
    cfg::Tenant& tenant = config.tenants[i];
    if (depth_of(parents, tenant.name)) continue;
    tenant.parent.clear();
    tenant.blocked = true;
  }
  for (const auto& [public_id, key] : keys) {
    const auto place = places.find(key.tenant);
    if (place == places.end() || !key.is_valid(unix_s)) continue;
    config.tenants[place->second].keys.push_back(
        {public_id, key.digest, key.fields.scopes, key.fields.limits});
  }
  return config;
}

std::optional<std::int64_t> Directory::next_expiry(std::int64_t unix_s) const {
  std::optional<std::int64_t> next;
  for (const auto& [public_id, key] : keys)
    if (key.revoked_at == 0 && key.fields.expires_at > unix_s)
      next = std::min(next.value_or(key.fields.expires_at), key.fields.expires_at);
  return next;
}

}  // namespace sluice::gw
