// Directory: the tenants and API keys that were made over REST, as values, and what they amount to
// beside those of the configuration. Tenants of the configuration win over one of the same id.
// Pure: no clock, file or thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "gateway/api/parse_admin.h"
#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::size_t kManagedKeysMax = 100;  // of one tenant, revoked ones included

struct ManagedTenant {
  TenantFields fields;
  cfg::TenantLimits limits;
  std::int64_t version = 1;  // grows with each write; the ETag of the tenant and its quota
  std::int64_t created_at = 0;
};

struct ManagedKey {
  std::string public_id;
  std::string tenant;
  KeyFields fields;
  std::array<std::uint8_t, 32> digest{};  // keyed hash of the whole key
  std::int64_t created_at = 0;
  std::int64_t revoked_at = 0;  // 0: not

  bool is_valid(std::int64_t unix_s) const {
    return revoked_at == 0 && (fields.expires_at == 0 || unix_s < fields.expires_at);
  }
};

struct AuditRow {
  std::int64_t unix_s = 0;
  std::string actor;   // public id of the admin key
  std::string action;  // such as tenant.create
  std::string target;
  std::string detail;  // JSON of the outcome; no secret
};

// One write: all of it or nothing.
struct DirectoryChange {
  std::optional<ManagedTenant> tenant;  // made or replaced
  std::string erased_tenant;            // with its keys; empty: none
  std::vector<ManagedKey> keys;         // made or replaced
  AuditRow audit;
};

class Directory {
 public:
  std::map<std::string, ManagedTenant> tenants;
  std::map<std::string, ManagedKey> keys;  // by public id

  void apply(const DirectoryChange& change);
  std::size_t num_keys(const std::string& tenant) const;
  // The configuration with the tenants and the valid keys of the directory behind its own.
  cfg::Config merged(const cfg::Config& base, std::int64_t unix_s) const;
  // When merged() next gives another result by the passing of time alone.
  std::optional<std::int64_t> next_expiry(std::int64_t unix_s) const;
};

}  // namespace sluice::gw
