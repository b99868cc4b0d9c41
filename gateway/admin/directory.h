// Directory: the tenants and API keys that were made over REST, as values, and what they amount to
// beside those of the configuration. Tenants of the configuration win over one of the same id.
//
// merged() is all of it; a write changes update_of() each tenant that affected_by() names, and
// nothing else: applied one by one they give what merged() would. All but merged() and the bounded
// answers take time in proportion to the tenant, its keys and what hangs below it, however many
// others there are. Pure: no clock, file or thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "gateway/admin/fleet.h"
#include "gateway/api/parse_admin.h"
#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::size_t kManagedTenantsMax = 100'000;  // with those of the configuration
inline constexpr std::size_t kManagedKeysMax = 100;         // valid ones of one tenant
inline constexpr std::size_t kEndedKeysMax = 100;  // further ones that are kept for the record
inline constexpr std::size_t kIdempotentAnswersMax = 1000;
inline constexpr std::int64_t kIdempotentSeconds = 86'400;

struct ManagedTenant {
  TenantFields fields;
  cfg::TenantLimits limits;
  std::int64_t version = 1;  // the ETag of the tenant and its quota: never the same again
  std::int64_t created_at = 0;
};

struct ManagedKey {
  std::string public_id;
  std::string tenant;
  KeyFields fields;
  std::array<std::uint8_t, 32> digest{};  // keyed hash of the whole key
  std::int64_t version = 1;
  std::int64_t created_at = 0;
  std::int64_t revoked_at = 0;  // 0: not

  bool is_valid(std::int64_t unix_s) const {
    return revoked_at == 0 && (fields.expires_at == 0 || unix_s < fields.expires_at);
  }
};

struct AuditRow {
  std::int64_t unix_s = 0;
  std::string actor;   // public id of the admin key; system: nobody asked for it
  std::string action;  // such as tenant.create
  std::string target;
  std::string detail;  // JSON of the outcome; no secret
};

// What a POST with an Idempotency-Key was answered. Of a key that was made: without its secret.
struct IdempotentAnswer {
  std::string id;           // keyed hash of the caller and the header
  std::string fingerprint;  // keyed hash of what was asked
  std::int64_t unix_s = 0;
  std::int64_t status = 0;
  std::int64_t version = 0;
  std::string body;  // empty: what it is about is shown as it is then
};

// What an operator did to a breaker or worker for as long as nobody takes it back: it holds for the
// next gateway, too. The id says what it is about (fleet.h).
struct FleetOrder {
  FleetAction action{};  // open_breaker, drain_worker
  std::string model;     // of a worker: under another configuration its number may be another's
  std::int64_t unix_s = 0;
  std::string actor;
  bool operator==(const FleetOrder&) const = default;
};

// One write: all of it or nothing.
struct DirectoryChange {
  std::int64_t revision = 0;            // of the directory, from now on
  std::optional<ManagedTenant> tenant;  // made or replaced
  std::string erased_tenant;            // with its keys; empty: none
  std::vector<ManagedKey> keys;         // made or replaced
  std::vector<std::string> erased_keys;
  std::optional<IdempotentAnswer> answer;
  std::string ordered;              // id of a breaker or worker; empty: none
  std::optional<FleetOrder> order;  // of it; nothing: what was ordered is over
  AuditRow audit;
};

// The parents of the configuration's tenants by their name; empty: none.
using ConfiguredParents = std::map<std::string, std::string>;
ConfiguredParents configured_parents(const cfg::Config& base);

class Directory {
 public:
  const std::map<std::string, ManagedTenant>& tenants() const { return tenants_; }
  const std::map<std::string, ManagedKey>& keys() const { return keys_; }  // by public id
  const std::map<std::string, IdempotentAnswer>& answers() const { return answers_; }
  // Grows with each write; what versions are taken from.
  std::int64_t revision() const { return revision_; }
  const std::map<std::string, FleetOrder>& orders() const { return orders_; }  // by id

  void apply(const DirectoryChange& change);
  // For what was stored.
  void put(ManagedTenant tenant);
  void put(ManagedKey key);
  void put(IdempotentAnswer answer) { answers_[answer.id] = std::move(answer); }
  void put(const std::string& id, FleetOrder order) { orders_[id] = std::move(order); }
  void set_revision(std::int64_t revision) { revision_ = revision; }

  // Public ids, ascending; of the keys of a tenant, and of the tenants whose parent it is.
  const std::set<std::string>& keys_of(const std::string& tenant) const;
  const std::set<std::string>& below(const std::string& tenant) const;
  std::size_t levels_below(const std::string& tenant) const;  // at most cfg::kTenantDepthMax
  // Answers that a new one makes room for: too old, or the oldest of too many.
  std::vector<std::string> outdated_answers(std::int64_t unix_s) const;
  std::size_t num_valid_keys(const std::string& tenant, std::int64_t unix_s) const;
  // Of the keys that are over, those to forget so that `kEndedKeysMax` - 1 remain.
  std::vector<std::string> keys_to_forget(const std::string& tenant, std::int64_t unix_s) const;

  // The configuration with the tenants and the valid keys of the directory behind its own. One
  // whose parent is gone, or stands too deep now, is blocked: its limits cannot be told.
  cfg::Config merged(const cfg::Config& base, std::int64_t unix_s) const;
  // Tenants of which the change, not applied yet, makes something else; each behind its parent.
  std::vector<std::string> affected_by(const DirectoryChange& change) const;
  // What merged() has of it. REQUIRES: it is none of the configuration's.
  cfg::TenantUpdate update_of(const std::string& tenant, const ConfiguredParents& base,
                              std::int64_t unix_s) const;
  // Tenants with a key that was valid at `after` and is over at `until`.
  std::set<std::string> expiring(std::int64_t after, std::int64_t until) const;
  // When merged() next gives another result by the passing of time alone.
  std::optional<std::int64_t> next_expiry(std::int64_t unix_s) const;

 private:
  void erase_key(const std::string& public_id);
  cfg::Tenant tenant_of(const ManagedTenant& managed, const ConfiguredParents& base,
                        std::int64_t unix_s) const;
  bool has_place(const std::string& tenant, const ConfiguredParents& base) const;

  std::map<std::string, ManagedTenant> tenants_;
  std::map<std::string, ManagedKey> keys_;
  std::map<std::string, IdempotentAnswer> answers_;
  std::map<std::string, FleetOrder> orders_;
  std::int64_t revision_ = 0;
  // What follows from them; no entry is empty.
  std::map<std::string, std::set<std::string>> keys_of_, below_;
  std::set<std::pair<std::int64_t, std::string>> expiries_;  // of keys that are not revoked
};

}  // namespace sluice::gw
