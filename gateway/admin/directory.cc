// Changes and the merge.
#include "gateway/admin/directory.h"

#include <algorithm>

namespace sluice::gw {

void Directory::apply(const DirectoryChange& change) {
  if (change.tenant) tenants[change.tenant->fields.id] = *change.tenant;
  for (const ManagedKey& key : change.keys) keys[key.public_id] = key;
  if (change.erased_tenant.empty()) return;
  tenants.erase(change.erased_tenant);
  std::erase_if(keys,
                [&](const auto& entry) { return entry.second.tenant == change.erased_tenant; });
}

std::size_t Directory::num_keys(const std::string& tenant) const {
  return static_cast<std::size_t>(std::count_if(
      keys.begin(), keys.end(), [&](const auto& entry) { return entry.second.tenant == tenant; }));
}

cfg::Config Directory::merged(const cfg::Config& base, std::int64_t unix_s) const {
  cfg::Config config = base;
  std::map<std::string_view, std::size_t> places;
  for (const auto& [id, managed] : tenants) {
    const bool is_configured =
        std::any_of(base.tenants.begin(), base.tenants.end(),
                    [&name = id](const cfg::Tenant& t) { return t.name == name; });
    if (is_configured) continue;
    places.emplace(id, config.tenants.size());
    cfg::Tenant& tenant = config.tenants.emplace_back();
    tenant.name = id;
    tenant.models = managed.fields.models;
    tenant.priority_ceiling = managed.fields.priority_ceiling;
    tenant.limits = managed.limits;
  }
  for (const auto& [public_id, key] : keys) {
    const auto place = places.find(key.tenant);
    if (place == places.end() || !key.is_valid(unix_s)) continue;
    // Who is blocked has no key: running requests end as those of a revoked one.
    if (tenants.at(key.tenant).fields.is_blocked) continue;
    config.tenants[place->second].keys.push_back({public_id, key.digest, key.fields.limits});
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
