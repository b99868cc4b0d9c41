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

inline constexpr std::size_t kManagedKeysMax = 100;  // valid ones of one tenant
inline constexpr std::size_t kEndedKeysMax = 100;    // further ones that are kept for the record
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

// One write: all of it or nothing.
struct DirectoryChange {
  std::int64_t revision = 0;            // of the directory, from now on
  std::optional<ManagedTenant> tenant;  // made or replaced
  std::string erased_tenant;            // with its keys; empty: none
  std::vector<ManagedKey> keys;         // made or replaced
  std::vector<std::string> erased_keys;
  std::optional<IdempotentAnswer> answer;
  AuditRow audit;
};

class Directory {
 public:
  std::map<std::string, ManagedTenant> tenants;
  std::map<std::string, ManagedKey> keys;           // by public id
  std::map<std::string, IdempotentAnswer> answers;  // by id
  std::int64_t revision = 0;  // grows with each write; what versions are taken from

  void apply(const DirectoryChange& change);
  // Answers that a new one makes room for: too old, or the oldest of too many.
  std::vector<std::string> outdated_answers(std::int64_t unix_s) const;
  std::size_t num_valid_keys(const std::string& tenant, std::int64_t unix_s) const;
  // Of the keys that are over, those to forget so that `kEndedKeysMax` - 1 remain.
  std::vector<std::string> keys_to_forget(const std::string& tenant, std::int64_t unix_s) const;
  // The configuration with the tenants and the valid keys of the directory behind its own. One
  // whose parent is gone, or stands too deep now, is blocked: its limits cannot be told.
  cfg::Config merged(const cfg::Config& base, std::int64_t unix_s) const;
  // When merged() next gives another result by the passing of time alone.
  std::optional<std::int64_t> next_expiry(std::int64_t unix_s) const;
};

}  // namespace sluice::gw
