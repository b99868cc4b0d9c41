// Bodies of the admin routes. Each reader merges a JSON object into what is there (RFC 7396): a key
// that is given replaces, null resets, a missing one stays; lists are replaced as wholes. Unknown
// keys are refused; names and ranges of limits are those of the configuration (config/settings.h):
// null is no limit, 0 allows nothing. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "gateway/api/json_document.h"
#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::size_t kAdminBodyBytesMax = 64u << 10;
inline constexpr std::size_t kAdminNameBytesMax = 64;
inline constexpr std::int64_t kOverlapSecondsMax = 30 * 86'400;

struct TenantFields {
  std::string id;
  std::string name;    // for people
  std::string parent;  // id of another tenant; empty: none
  std::string security_class;
  std::uint32_t weight = 1;
  bool is_blocked = false;
  std::vector<std::string> models;  // allowed; empty: all
  std::uint32_t priority_ceiling = 0;
};

struct KeyFields {
  std::string name;
  std::int64_t expires_at = 0;      // unix seconds; 0: never
  std::vector<std::string> scopes;  // of cfg::kScopeNames; empty: all
  cfg::Limits limits;               // beside those of the tenant
};

// Ids and names go into paths, logs and metrics: 1 to kAdminNameBytesMax of [A-Za-z0-9._-].
bool is_admin_name(std::string_view name);

// The API's name of a setting.
std::string_view limit_api_name(std::string_view setting);

class AdminParser {
 public:
  explicit AdminParser(std::uint64_t hash_seed) : document_(hash_seed) {}

  // Errors: invalid_json, invalid_value, unsupported_parameter; the target may be half-written.
  Result<void> read_tenant(std::string& body, TenantFields& fields);
  Result<void> read_quota(std::string& body, cfg::TenantLimits& limits);
  Result<void> read_key(std::string& body, KeyFields& fields);
  Result<void> read_rotation(std::string& body, std::int64_t& overlap_seconds);
  Result<void> read_empty(std::string& body);  // {} or nothing

 private:
  Result<simdjson::dom::object> parse(std::string& body);

  JsonDocument document_;
};

}  // namespace sluice::gw
