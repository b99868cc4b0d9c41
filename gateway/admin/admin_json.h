// The admin routes' objects as JSON, appended to a buffer. Secrets are no part of any of them.
#pragma once

#include <optional>
#include <string>

#include "gateway/admin/directory.h"
#include "gateway/core/ledger_limits.h"

namespace sluice::gw {

// As a body that AdminParser reads back.
void append_tenant_body(std::string& out, const TenantFields& fields);
void append_limits_body(std::string& out, const cfg::TenantLimits& limits);
void append_key_body(std::string& out, const KeyFields& fields);

enum class Source : std::uint8_t { configuration, rest };

void append_tenant(std::string& out, const ManagedTenant& tenant, Source source);
// `used`: spent and reserved by kind; nothing where the ledger does not know the tenant.
void append_quota(std::string& out, const std::string& tenant, const cfg::TenantLimits& limits,
                  const std::optional<Amounts>& used);
void append_key(std::string& out, const ManagedKey& key, std::int64_t unix_s);
void append_audit_row(std::string& out, std::int64_t id, const AuditRow& row);

// Member `"NAME":{"limit":..,"used":..,"remaining":..}` per counted kind, each with a comma before.
void append_uses(std::string& out, const cfg::TenantLimits& limits, const Amounts& used);

}  // namespace sluice::gw
