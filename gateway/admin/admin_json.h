// The admin routes' objects as JSON, appended to a buffer. Secrets are no part of any of them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gateway/admin/directory.h"
#include "gateway/admin/fleet.h"
#include "gateway/core/quota_view.h"

namespace sluice::gw {

// As a body that AdminParser reads back.
void append_tenant_body(std::string& out, const TenantFields& fields);
void append_limits_body(std::string& out, const cfg::TenantLimits& limits);
void append_key_body(std::string& out, const KeyFields& fields);

enum class Source : std::uint8_t { configuration, rest };

void append_tenant(std::string& out, const ManagedTenant& tenant, Source source);
// `quota`: nothing where the ledger does not know the tenant. `models`: names by number.
void append_quota(std::string& out, const std::string& tenant, const cfg::TenantLimits& limits,
                  const std::optional<AccountQuota>& quota, const std::vector<std::string>& models);
// What a caller may see of its own: by kind, of the level that has the least left.
void append_caller_quota(std::string& out, const cfg::Tenant& tenant, const QuotaView& quota);
void append_key(std::string& out, const ManagedKey& key, std::int64_t unix_s);
void append_audit_row(std::string& out, std::int64_t id, const AuditRow& row);
void append_breaker(std::string& out, const BreakerStatus& status);
void append_worker(std::string& out, const WorkerStatus& status);

}  // namespace sluice::gw
