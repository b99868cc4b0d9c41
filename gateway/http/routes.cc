// The table of routes.
#include "gateway/http/routes.h"

#include <algorithm>
#include <array>

namespace sluice::gw {
namespace {

enum class Verb : std::uint8_t { get, post };
enum class Access : std::uint8_t { tenant, anyone };

struct Row {
  std::string_view path;  // one that ends in '/' takes a tail
  Verb verb;
  Access access;
  Endpoint endpoint;
};

constexpr std::array kRows = std::to_array<Row>({
    {"/v1/chat/completions", Verb::post, Access::tenant, Endpoint::chat_completions},
    {"/v1/completions", Verb::post, Access::tenant, Endpoint::completions},
    {"/v1/chat/completions/input_tokens", Verb::post, Access::tenant, Endpoint::input_tokens},
    {"/tokenize", Verb::post, Access::tenant, Endpoint::tokenize},
    {"/v1/tokenize", Verb::post, Access::tenant, Endpoint::tokenize},
    {"/detokenize", Verb::post, Access::tenant, Endpoint::detokenize},
    {"/v1/detokenize", Verb::post, Access::tenant, Endpoint::detokenize},
    {"/v1/models", Verb::get, Access::tenant, Endpoint::models},
    {"/v1/models/", Verb::get, Access::tenant, Endpoint::model},
    {"/v1/quota", Verb::get, Access::tenant, Endpoint::quota},
    {"/v1/embeddings", Verb::post, Access::tenant, Endpoint::embeddings},
    {"/live", Verb::get, Access::anyone, Endpoint::live},
    {"/ready", Verb::get, Access::anyone, Endpoint::ready},
    {"/health", Verb::get, Access::anyone, Endpoint::health},
    {"/metrics", Verb::get, Access::anyone, Endpoint::metrics},
});

struct AdminRow {
  std::string_view before, after;  // around the id; without an id all stands in `before`
  bool has_id;
  AdminNoun noun;
  std::string_view allow;
};

constexpr std::array kAdminRows = std::to_array<AdminRow>({
    {"/admin/v1/tenants", "", false, AdminNoun::tenants, "GET, HEAD, POST, OPTIONS"},
    {"/admin/v1/audit", "", false, AdminNoun::audit, "GET, HEAD, OPTIONS"},
    {"/admin/v1/usage", "", false, AdminNoun::usage, "GET, HEAD, OPTIONS"},
    {"/admin/v1/tenants/", "/usage", true, AdminNoun::tenant_usage, "GET, HEAD, OPTIONS"},
    {"/admin/v1/config", "", false, AdminNoun::config, "GET, HEAD, OPTIONS"},
    {"/admin/v1/tenants/", "/quota", true, AdminNoun::quota, "GET, HEAD, PUT, PATCH, OPTIONS"},
    {"/admin/v1/tenants/", "/keys", true, AdminNoun::tenant_keys, "GET, HEAD, POST, OPTIONS"},
    {"/admin/v1/tenants/", "", true, AdminNoun::tenant, "GET, HEAD, PATCH, DELETE, OPTIONS"},
    {"/admin/v1/keys/", "/rotate", true, AdminNoun::key_rotate, "POST, OPTIONS"},
    {"/admin/v1/keys/", "", true, AdminNoun::key, "GET, HEAD, DELETE, OPTIONS"},
});

// The methods of a list, each whole.
bool allows(std::string_view list, std::string_view method) {
  while (!list.empty()) {
    const std::string_view one = list.substr(0, list.find(','));
    if (one == method) return true;
    list.remove_prefix(std::min(list.size(), one.size() + 2));
  }
  return false;
}

Route find_admin_route(std::string_view method, std::string_view path) {
  Route route;
  for (const AdminRow& row : kAdminRows) {
    if (!path.starts_with(row.before)) continue;
    std::string_view id = path.substr(row.before.size());
    if (row.has_id ? !id.ends_with(row.after) : !id.empty()) continue;
    if (row.has_id) {
      id.remove_suffix(row.after.size());
      if (!is_admin_name(id)) continue;
    }
    route.endpoint = Endpoint::admin;
    route.noun = row.noun;
    route.needs_admin = true;
    route.tail = id;
    route.allow = row.allow;
    route.takes_body = method == "POST" || method == "PUT" || method == "PATCH";
    route.omits_body = method == "HEAD";
    route.result = allows(row.allow, method) ? RouteResult::found : RouteResult::wrong_method;
    return route;
  }
  return route;
}

bool matches(const Row& row, std::string_view path) {
  if (!row.path.ends_with('/')) return row.path == path;
  return path.size() > row.path.size() && path.starts_with(row.path);
}

}  // namespace

Route find_route(std::string_view method, std::string_view path) {
  Route route;
  if (method == "OPTIONS") {
    route.result = RouteResult::preflight;
    return route;
  }
  if (path.starts_with("/admin/")) return find_admin_route(method, path);
  for (const Row& row : kRows) {
    if (!matches(row, path)) continue;
    const bool is_get = row.verb == Verb::get;
    route.endpoint = row.endpoint;
    route.needs_tenant = row.access == Access::tenant;
    route.takes_body = !is_get;
    route.omits_body = is_get && method == "HEAD";
    route.allow = is_get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
    if (row.path.ends_with('/')) route.tail = path.substr(row.path.size());
    const bool is_right = is_get ? method == "GET" || method == "HEAD" : method == "POST";
    route.result = is_right ? RouteResult::found : RouteResult::wrong_method;
    return route;
  }
  return route;
}

std::string_view endpoint_name(Endpoint endpoint) {
  constexpr std::array<std::string_view, kEndpoints> kNames{
      "chat_completions", "completions", "input_tokens", "tokenize",
      "detokenize",       "models",      "model",        "quota",
      "embeddings",       "live",        "ready",        "health",
      "metrics",          "admin",       "none"};
  return kNames[static_cast<std::size_t>(endpoint)];
}

}  // namespace sluice::gw
