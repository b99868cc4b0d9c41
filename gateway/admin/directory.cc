// Changes, the merge, and what a change makes of single tenants.
#include "gateway/admin/directory.h"

#include <algorithm>
#include <utility>

#include "config/settings.h"

namespace sluice::gw {

namespace {

using Index = std::map<std::string, std::set<std::string>>;

const std::set<std::string>& entries_of(const Index& index, const std::string& name) {
  static const std::set<std::string> kNone;
  const auto at = index.find(name);
  return at == index.end() ? kNone : at->second;
}

void erase_entry(Index& index, const std::string& name, const std::string& entry) {
  const auto at = index.find(name);
  if (at == index.end()) return;
  at->second.erase(entry);
  if (at->second.empty()) index.erase(at);
}

}  // namespace

ConfiguredParents configured_parents(const cfg::Config& base) {
  ConfiguredParents parents;
  for (const cfg::Tenant& tenant : base.tenants) parents.emplace(tenant.name, tenant.parent);
  return parents;
}

// ---- changes

void Directory::put(ManagedTenant tenant) {
  const std::string id = tenant.fields.id;
  if (const auto former = tenants_.find(id); former != tenants_.end())
    erase_entry(below_, former->second.fields.parent, id);
  if (!tenant.fields.parent.empty()) below_[tenant.fields.parent].insert(id);
  tenants_.insert_or_assign(id, std::move(tenant));
}

void Directory::put(ManagedKey key) {
  const std::string id = key.public_id;
  erase_key(id);
  keys_of_[key.tenant].insert(id);
  if (key.revoked_at == 0 && key.fields.expires_at != 0)
    expiries_.emplace(key.fields.expires_at, id);
  keys_.emplace(id, std::move(key));
}

void Directory::erase_key(const std::string& public_id) {
  const auto at = keys_.find(public_id);
  if (at == keys_.end()) return;
  erase_entry(keys_of_, at->second.tenant, public_id);
  expiries_.erase({at->second.fields.expires_at, public_id});
  keys_.erase(at);
}

void Directory::apply(const DirectoryChange& change) {
  revision_ = std::max(revision_, change.revision);
  if (change.tenant) put(*change.tenant);
  for (const ManagedKey& key : change.keys) put(key);
  for (const std::string& id : change.erased_keys) erase_key(id);
  if (change.answer) {
    for (const std::string& id : outdated_answers(change.answer->unix_s)) answers_.erase(id);
    put(*change.answer);
  }
  if (change.order)
    put(change.ordered, *change.order);
  else
    orders_.erase(change.ordered);
  const auto erased = tenants_.find(change.erased_tenant);
  if (erased == tenants_.end()) return;
  erase_entry(below_, erased->second.fields.parent, change.erased_tenant);
  tenants_.erase(erased);
  const std::set<std::string> keys = keys_of(change.erased_tenant);
  for (const std::string& id : keys) erase_key(id);
}

// ---- questions

const std::set<std::string>& Directory::keys_of(const std::string& tenant) const {
  return entries_of(keys_of_, tenant);
}

const std::set<std::string>& Directory::below(const std::string& tenant) const {
  return entries_of(below_, tenant);
}

std::size_t Directory::levels_below(const std::string& tenant) const {
  std::set<std::string> level = below(tenant), next;
  std::size_t levels = 0;
  for (; !level.empty() && levels < cfg::kTenantDepthMax; ++levels) {
    next.clear();
    for (const std::string& id : level) next.insert(below(id).begin(), below(id).end());
    level.swap(next);
  }
  return levels;
}

std::vector<std::string> Directory::outdated_answers(std::int64_t unix_s) const {
  std::vector<std::pair<std::int64_t, std::string>> by_age;
  for (const auto& [id, answer] : answers_) by_age.emplace_back(answer.unix_s, id);
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
  const std::set<std::string>& ids = keys_of(tenant);
  return static_cast<std::size_t>(std::count_if(
      ids.begin(), ids.end(), [&](const auto& id) { return keys_.at(id).is_valid(unix_s); }));
}

std::vector<std::string> Directory::keys_to_forget(const std::string& tenant,
                                                   std::int64_t unix_s) const {
  std::vector<std::pair<std::int64_t, std::string>> ended;
  for (const std::string& id : keys_of(tenant))
    if (const ManagedKey& key = keys_.at(id); !key.is_valid(unix_s))
      ended.emplace_back(key.created_at, id);
  std::sort(ended.begin(), ended.end());
  std::vector<std::string> ids;
  for (std::size_t i = 0; i + kEndedKeysMax <= ended.size(); ++i) ids.push_back(ended[i].second);
  return ids;
}

// ---- the merge

// Whether all above it exist, and no more than may be.
bool Directory::has_place(const std::string& tenant, const ConfiguredParents& base) const {
  const std::string* at = &tenant;
  for (std::size_t depth = 1; depth <= cfg::kTenantDepthMax; ++depth) {
    const auto configured = base.find(*at);
    const auto managed = tenants_.find(*at);
    if (configured == base.end() && managed == tenants_.end()) return false;
    const std::string& parent =
        configured != base.end() ? configured->second : managed->second.fields.parent;
    if (parent.empty()) return true;
    at = &parent;
  }
  return false;
}

cfg::Tenant Directory::tenant_of(const ManagedTenant& managed, const ConfiguredParents& base,
                                 std::int64_t unix_s) const {
  cfg::Tenant tenant;
  tenant.name = managed.fields.id;
  tenant.models = managed.fields.models;
  tenant.priority_ceiling = managed.fields.priority_ceiling;
  tenant.parent = managed.fields.parent;
  tenant.security_class = managed.fields.security_class;
  tenant.weight = managed.fields.weight;
  tenant.blocked = managed.fields.is_blocked;
  tenant.limits = managed.limits;
  if (!has_place(tenant.name, base)) {
    tenant.parent.clear();
    tenant.blocked = true;
  }
  for (const std::string& id : keys_of(tenant.name)) {
    const ManagedKey& key = keys_.at(id);
    if (key.is_valid(unix_s))
      tenant.keys.push_back({id, key.digest, key.fields.scopes, key.fields.limits});
  }
  return tenant;
}

cfg::Config Directory::merged(const cfg::Config& base, std::int64_t unix_s) const {
  cfg::Config config = base;
  const ConfiguredParents parents = configured_parents(base);
  for (const auto& [id, managed] : tenants_)
    if (!parents.contains(id)) config.tenants.push_back(tenant_of(managed, parents, unix_s));
  return config;
}

std::vector<std::string> Directory::affected_by(const DirectoryChange& change) const {
  std::vector<std::string> affected;
  std::set<std::string> seen;
  const auto add = [&](const std::string& tenant) {
    if (seen.insert(tenant).second) affected.push_back(tenant);
  };
  if (change.tenant) {
    const TenantFields& fields = change.tenant->fields;
    const auto former = tenants_.find(fields.id);
    add(fields.id);
    // What is below hears of blocks and of a parent that comes, goes or moves.
    const bool has_moved = former == tenants_.end() ||
                           former->second.fields.parent != fields.parent ||
                           former->second.fields.is_blocked != fields.is_blocked;
    for (std::size_t i = 0; has_moved && i < affected.size(); ++i)
      for (const std::string& id : below(affected[i])) add(id);
  }
  if (!change.erased_tenant.empty()) {
    const std::size_t first = affected.size();
    add(change.erased_tenant);
    for (std::size_t i = first; i < affected.size(); ++i)
      for (const std::string& id : below(affected[i])) add(id);
  }
  for (const ManagedKey& key : change.keys) add(key.tenant);
  for (const std::string& id : change.erased_keys)
    if (const auto key = keys_.find(id); key != keys_.end()) add(key->second.tenant);
  return affected;
}

cfg::TenantUpdate Directory::update_of(const std::string& tenant, const ConfiguredParents& base,
                                       std::int64_t unix_s) const {
  cfg::TenantUpdate update{tenant, std::nullopt};
  if (const auto at = tenants_.find(tenant); at != tenants_.end())
    update.tenant = tenant_of(at->second, base, unix_s);
  return update;
}

std::set<std::string> Directory::expiring(std::int64_t after, std::int64_t until) const {
  std::set<std::string> tenants;
  auto at = expiries_.lower_bound({after + 1, std::string()});
  for (; at != expiries_.end() && at->first <= until; ++at)
    tenants.insert(keys_.at(at->second).tenant);
  return tenants;
}

std::optional<std::int64_t> Directory::next_expiry(std::int64_t unix_s) const {
  const auto at = expiries_.lower_bound({unix_s + 1, std::string()});
  return at == expiries_.end() ? std::nullopt : std::optional(at->first);
}

}  // namespace sluice::gw
