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

void append_number(std::string& out, std::string_view name, std::uint64_t value) {
  append_name(out, name);
  append_integer(out, value);
}

void append_boolean(std::string& out, std::string_view name, bool value) {
  append_name(out, name);
  out.append(value ? "true" : "false");
}

void append_limit(std::string& out, std::string_view name, cfg::Limit value) {
  append_name(out, name);
  if (value)
    append_integer(out, *value);
  else
    out.append("null");
}

void append_texts(std::string& out, std::string_view name, const std::vector<std::string>& texts) {
  append_name(out, name);
  out.push_back('[');
  for (const std::string& text : texts) {
    if (out.back() != '[') out.push_back(',');
    append_json_string(out, text);
  }
  out.push_back(']');
}

// A visitor of the settings' table.
struct LimitsWriter {
  std::string& out;

  void limit(const char* key, const cfg::Limit& field, std::uint64_t) {
    append_limit(out, limit_api_name(key), field);
  }
  template <class Int>
  void integer(const char* key, const Int& field, std::uint64_t, std::uint64_t) {
    append_number(out, limit_api_name(key), static_cast<std::uint64_t>(field));
  }
  void boolean(const char* key, bool field) { append_boolean(out, key, field); }
  void text(const char* key, const std::string& field, std::size_t) {
    append_name(out, key);
    if (field.empty())
      out.append("null");
    else
      append_json_string(out, field);
  }
  template <class Enum, std::size_t N>
  void choice(const char* key, Enum field, const std::array<std::string_view, N>& names) {
    append_text(out, key, names[static_cast<std::size_t>(field)]);
  }
  template <class S>
  void list(const char* key, const std::vector<S>& field, std::size_t) {
    append_name(out, key);
    out.push_back('[');
    for (const S& item : field) {
      if (out.back() != '[') out.push_back(',');
      out.push_back('{');
      cfg::visit_settings(*this, item);
      out.push_back('}');
    }
    out.push_back(']');
  }
};

template <class L>
void append_limits_members(std::string& out, const L& limits) {
  LimitsWriter writer{out};
  cfg::visit_settings(writer, limits);
}

void append_text_or_null(std::string& out, std::string_view name, const std::string& text) {
  if (!text.empty()) return append_text(out, name, text);
  append_name(out, name);
  out.append("null");
}

void append_tenant_members(std::string& out, const TenantFields& fields) {
  append_text(out, "id", fields.id);
  append_text(out, "name", fields.name);
  append_text_or_null(out, "parent", fields.parent);
  append_text_or_null(out, "security_class", fields.security_class);
  append_number(out, "weight", fields.weight);
  append_boolean(out, "is_blocked", fields.is_blocked);
  append_texts(out, "models", fields.models);
  append_number(out, "priority_ceiling", fields.priority_ceiling);
}

void append_key_members(std::string& out, const KeyFields& fields) {
  append_text(out, "name", fields.name);
  append_or_null(out, "expires_at", static_cast<std::uint64_t>(fields.expires_at));
  append_texts(out, "scopes", fields.scopes);
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

namespace {

void append_counter(std::string& out, std::string_view name, const CounterView& counter) {
  const bool has_limit = counter.limit != kNoLimit;
  append_name(out, name);
  out.push_back('{');
  append_limit(out, "limit", has_limit ? cfg::Limit(counter.limit) : std::nullopt);
  append_number(out, "used", counter.spent);
  append_number(out, "reserved", counter.reserved);
  append_limit(out, "remaining", has_limit ? cfg::Limit(counter.remaining()) : std::nullopt);
  const auto ms = [](Duration reset) {
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(reset).count(), 0));
  };
  append_limit(out, "reset_ms", counter.reset ? cfg::Limit(ms(*counter.reset)) : std::nullopt);
  out.push_back('}');
}

void append_counters(std::string& out, const QuotaView& quota) {
  for (std::size_t i = 0; i < quota.size(); ++i)
    append_counter(out, limit_kind_name(static_cast<LimitKind>(i)), quota[i]);
}

}  // namespace

void append_quota(std::string& out, const std::string& tenant, const cfg::TenantLimits& limits,
                  const std::optional<AccountQuota>& quota,
                  const std::vector<std::string>& models) {
  out.append("{\"object\":\"quota\"");
  append_text(out, "tenant", tenant);
  append_name(out, "limits");
  append_limits_body(out, limits);
  append_name(out, "state");
  if (!quota) {
    out.append("null,\"models\":[],\"shadow_refusals\":0}");
    return;
  }
  out.push_back('{');
  append_counters(out, quota->own);
  out.append("},\"models\":[");
  for (const ModelQuotaView& model : quota->models) {
    if (model.model >= models.size()) continue;
    if (out.back() != '[') out.push_back(',');
    out.push_back('{');
    append_text(out, "model", models[model.model]);
    append_name(out, "state");
    out.push_back('{');
    for (std::size_t i = 0; i < model.counters.size(); ++i)
      if (model.counters[i])
        append_counter(out, limit_kind_name(static_cast<LimitKind>(i)), *model.counters[i]);
    out.append("}}");
  }
  out.append("]");
  append_number(out, "shadow_refusals", quota->shadow_refusals);
  out.push_back('}');
}

void append_caller_quota(std::string& out, const cfg::Tenant& tenant, const QuotaView& quota) {
  out.append("{\"object\":\"quota\"");
  append_text(out, "tenant", tenant.name);
  append_counters(out, quota);
  append_limit(out, "max_output_tokens", tenant.limits.output_tokens_max);
  append_number(out, "default_output_tokens", tenant.limits.output_tokens_default);
  append_text(out, "reserve",
              cfg::kReservingNames[static_cast<std::size_t>(tenant.limits.reserve)]);
  append_boolean(out, "shadow", tenant.limits.shadow);
  out.push_back('}');
}

void append_breaker(std::string& out, const BreakerStatus& status) {
  const auto at = [&](std::string_view name, std::int64_t unix_ms) {
    append_or_null(out, name, static_cast<std::uint64_t>(std::max<std::int64_t>(unix_ms, 0)));
  };
  out.append("{\"object\":\"breaker\"");
  append_text(out, "id", status.id);
  append_text(out, "kind", status.kind);
  append_text(out, "subject", status.subject);
  append_text(out, "state", status.state);
  append_text(out, "reason", status.reason);
  append_boolean(out, "is_forced", status.is_forced);
  at("since_ms", status.since);
  at("retry_at_ms", status.retry_at);
  append_number(out, "openings", status.openings);
  append_number(out, "refused", status.refused);
  append_name(out, "history");
  out.push_back('[');
  for (const BreakerTransition& past : status.history) {
    if (out.back() != '[') out.push_back(',');
    out.push_back('{');
    append_text(out, "from", past.from);
    append_text(out, "to", past.to);
    append_text(out, "reason", past.reason);
    at("at_ms", past.unix_ms);
    out.push_back('}');
  }
  out.append("]}");
}

void append_worker(std::string& out, const WorkerStatus& status) {
  out.append("{\"object\":\"worker\"");
  append_text(out, "id", status.id);
  append_text(out, "model", status.model);
  append_text(out, "device", status.device);
  append_text(out, "state", status.state);
  append_text(out, "breaker", status.breaker);
  append_number(out, "epoch", status.epoch);
  append_text_or_null(out, "weights_digest", status.weights_digest);
  append_text_or_null(out, "kernel_path", status.kernel_path);
  append_number(out, "steps", status.steps);
  append_name(out, "step_ms");
  append_milliseconds(out, status.step_ms);
  append_number(out, "sequences_held", status.sequences_held);
  append_number(out, "sequences_running", status.sequences_running);
  append_number(out, "sequences_waiting", status.sequences_waiting);
  append_number(out, "kv_blocks", status.kv_blocks);
  append_number(out, "kv_blocks_free", status.kv_blocks_free);
  append_number(out, "kv_blocks_cached", status.kv_blocks_cached);
  append_texts(out, "tenants", status.tenants);
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
