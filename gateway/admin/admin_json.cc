// Limits are written by a visitor of the settings' table, so that reader and writer agree.
#include "gateway/admin/admin_json.h"

#include <algorithm>

#include "config/settings.h"
#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

void append_name(std::string& out, std::string_view name) {
  if (out.back() != '{') out.push_back(',');
  append_json_string(out, name);
  out.push_back(':');
}

void append_text(std::string& out, std::string_view name, std::string_view text) {
  append_name(out, name);
  append_json_string(out, text);
}

// 0 is written as null where it means "none".
void append_or_null(std::string& out, std::string_view name, std::uint64_t value) {
  append_name(out, name);
  if (value == 0)
    out.append("null");
  else
    append_integer(out, value);
}

struct LimitsWriter {
  std::string& out;

  void integer(const char* key, std::uint64_t field, std::uint64_t, std::uint64_t) {
    append_or_null(out, limit_api_name(key), field);
  }
  void boolean(const char* key, bool field) {
    append_name(out, key);
    out.append(field ? "true" : "false");
  }
  template <class Enum, std::size_t N>
  void choice(const char* key, Enum field, const std::array<std::string_view, N>& names) {
    append_text(out, key, names[static_cast<std::size_t>(field)]);
  }
};

template <class L>
void append_limits_members(std::string& out, const L& limits) {
  LimitsWriter writer{out};
  cfg::visit_settings(writer, limits);
}

void append_tenant_members(std::string& out, const TenantFields& fields) {
  append_text(out, "id", fields.id);
  append_name(out, "is_blocked");
  out.append(fields.is_blocked ? "true" : "false");
  append_name(out, "models");
  out.push_back('[');
  for (const std::string& model : fields.models) {
    if (out.back() != '[') out.push_back(',');
    append_json_string(out, model);
  }
  out.push_back(']');
  append_name(out, "priority_ceiling");
  append_integer(out, fields.priority_ceiling);
}

void append_key_members(std::string& out, const KeyFields& fields) {
  append_text(out, "name", fields.name);
  append_or_null(out, "expires_at", static_cast<std::uint64_t>(fields.expires_at));
  append_name(out, "limits");
  out.push_back('{');
  append_limits_members(out, fields.limits);
  out.push_back('}');
}

}  // namespace

void append_tenant_body(std::string& out, const TenantFields& fields) {
  out.push_back('{');
  append_tenant_members(out, fields);
  out.push_back('}');
}

void append_limits_body(std::string& out, const cfg::TenantLimits& limits) {
  out.push_back('{');
  append_limits_members(out, limits);
  out.push_back('}');
}

void append_key_body(std::string& out, const KeyFields& fields) {
  out.push_back('{');
  append_key_members(out, fields);
  out.push_back('}');
}

void append_tenant(std::string& out, const ManagedTenant& tenant, Source source) {
  out.append("{\"object\":\"tenant\"");
  append_tenant_members(out, tenant.fields);
  append_text(out, "source", source == Source::rest ? "rest" : "configuration");
  append_or_null(out, "created_at", static_cast<std::uint64_t>(tenant.created_at));
  out.push_back('}');
}

void append_uses(std::string& out, const cfg::TenantLimits& limits, const Amounts& used) {
  const auto append = [&](LimitKind kind, std::uint64_t limit) {
    append_name(out, limit_kind_name(kind));
    out.push_back('{');
    append_or_null(out, "limit", limit);
    append_name(out, "used");
    append_integer(out, used[index_of(kind)]);
    append_name(out, "remaining");
    if (limit == 0)
      out.append("null");
    else
      append_integer(out, limit - std::min(limit, used[index_of(kind)]));
    out.push_back('}');
  };
  append(LimitKind::requests_per_minute, limits.requests_per_minute);
  append(LimitKind::tokens_per_minute, limits.tokens_per_minute);
  append(LimitKind::input_tokens_per_minute, limits.input_tokens_per_minute);
  append(LimitKind::output_tokens_per_minute, limits.output_tokens_per_minute);
  append(LimitKind::tokens_per_day, limits.tokens_per_day);
  append(LimitKind::monthly_budget, limits.monthly_budget);
  append(LimitKind::concurrent_requests, limits.concurrent_requests);
  append(LimitKind::concurrent_kv_tokens, limits.concurrent_kv_tokens);
}

void append_quota(std::string& out, const std::string& tenant, const cfg::TenantLimits& limits,
                  const std::optional<Amounts>& used) {
  out.append("{\"object\":\"quota\"");
  append_text(out, "tenant", tenant);
  append_name(out, "limits");
  append_limits_body(out, limits);
  append_name(out, "state");
  if (used) {
    out.push_back('{');
    append_uses(out, limits, *used);
    out.push_back('}');
  } else {
    out.append("null");
  }
  out.push_back('}');
}

void append_key(std::string& out, const ManagedKey& key, std::int64_t unix_s) {
  out.append("{\"object\":\"key\"");
  append_text(out, "id", key.public_id);
  append_text(out, "tenant", key.tenant);
  append_key_members(out, key.fields);
  append_text(out, "state",
              key.revoked_at != 0    ? "revoked"
              : key.is_valid(unix_s) ? "active"
                                     : "expired");
  append_or_null(out, "created_at", static_cast<std::uint64_t>(key.created_at));
  append_or_null(out, "revoked_at", static_cast<std::uint64_t>(key.revoked_at));
  out.push_back('}');
}

void append_audit_row(std::string& out, std::int64_t id, const AuditRow& row) {
  out.append("{\"object\":\"audit_event\"");
  append_text(out, "id", std::to_string(id));
  append_name(out, "created_at");
  append_integer(out, row.unix_s);
  append_text(out, "actor", row.actor);
  append_text(out, "action", row.action);
  append_text(out, "target", row.target);
  append_name(out, "detail");
  out.append(row.detail);  // JSON already
  out.push_back('}');
}

}  // namespace sluice::gw
