// The table of operations, and the search in it.
#include "gateway/http/routes.h"

#include <algorithm>
#include <array>

namespace sluice::gw {
namespace {

constexpr AdminNoun kNoNoun{};
constexpr Scope kNoScope{};
constexpr Precondition kNone = Precondition::none;

// A route of tenants, of anyone, of admins.
constexpr Operation api(std::string_view method, std::string_view path, Endpoint endpoint,
                        Scope scope, std::string_view id, std::string_view summary,
                        std::string_view request, std::string_view response) {
  return {method,  path, Access::tenant, endpoint, kNoNoun, scope, id,
          summary, "",   request,        response, 200,     kNone};
}
constexpr Operation open(std::string_view path, Endpoint endpoint, std::string_view id,
                         std::string_view summary, std::string_view response) {
  return {"GET", path, Access::anyone, endpoint, kNoNoun, kNoScope, id, summary,
          "",    "",   response,       200,      kNone};
}
constexpr Operation read(std::string_view path, AdminNoun noun, std::string_view id,
                         std::string_view summary, std::string_view response,
                         std::string_view query, Precondition precondition) {
  return {"GET", path,     Access::admin, Endpoint::admin, noun, kNoScope, id, summary, query,
          "",    response, 200,           precondition};
}
constexpr Operation write(std::string_view method, std::string_view path, AdminNoun noun,
                          std::string_view id, std::string_view summary, std::string_view request,
                          std::string_view response, std::uint16_t status,
                          Precondition precondition) {
  return {method,  path, Access::admin, Endpoint::admin, noun,   kNoScope,    id,
          summary, "",   request,       response,        status, precondition};
}

using enum Endpoint;
using Noun = AdminNoun;
constexpr Precondition kEtag = Precondition::etag;
constexpr Precondition kIfMatch = Precondition::if_match;
constexpr std::string_view kPaged = "limit after";
constexpr std::string_view kUsageQuery = "period from to group_by tenant model limit after format";

// The busiest first.
constexpr std::array kOperations = std::to_array<Operation>({
    api("POST", "/v1/chat/completions", chat_completions, Scope::model_request,
        "createChatCompletion", "Answer a chat", "ChatRequest", "ChatCompletion"),
    api("POST", "/v1/completions", completions, Scope::model_request, "createCompletion",
        "Continue a text", "CompletionRequest", "Completion"),
    api("POST", "/v1/chat/completions/input_tokens", input_tokens, Scope::model_request,
        "countInputTokens", "Count the prompt tokens of a chat", "ChatRequest", "InputTokens"),
    api("POST", "/tokenize", Endpoint::tokenize, Scope::model_request, "tokenize",
        "Token ids of a text or chat", "TokenizeRequest", "Tokens"),
    api("POST", "/v1/tokenize", Endpoint::tokenize, Scope::model_request, "tokenizeV1",
        "Token ids of a text or chat", "TokenizeRequest", "Tokens"),
    api("POST", "/detokenize", Endpoint::detokenize, Scope::model_request, "detokenize",
        "The text of token ids", "DetokenizeRequest", "Prompt"),
    api("POST", "/v1/detokenize", Endpoint::detokenize, Scope::model_request, "detokenizeV1",
        "The text of token ids", "DetokenizeRequest", "Prompt"),
    api("GET", "/v1/models", models, Scope::model_read, "listModels", "The models that may be used",
        "", "ModelList"),
    api("GET", "/v1/models/{model}", model, Scope::model_read, "getModel", "One model", "",
        "Model"),
    api("GET", "/v1/quota", Endpoint::quota, Scope::quota_read, "getOwnQuota",
        "The caller's own limits and what is left of them", "", "CallerQuota"),
    api("POST", "/v1/embeddings", embeddings, Scope::model_request, "createEmbedding",
        "The mean of a prompt's final hidden states", "EmbeddingRequest", "EmbeddingList"),
    open("/live", live, "getLive", "Does the process answer", "Status"),
    open("/ready", ready, "getReady", "Does every model have a ready worker", "Status"),
    open("/health", health, "getHealth", "The same as /ready", "Status"),
    open("/metrics", metrics, "getMetrics", "Prometheus metrics", "text/plain"),
    open("/openapi.json", openapi, "getOpenApi", "This document", "application/json"),
    read("/admin/v1/tenants", Noun::tenants, "listTenants", "Tenants by id", "TenantList", kPaged,
         kNone),
    write("POST", "/admin/v1/tenants", Noun::tenants, "createTenant", "Make a tenant", "NewTenant",
          "Tenant", 201, kEtag),
    read("/admin/v1/tenants/{tenant}", Noun::tenant, "getTenant", "One tenant", "Tenant", "",
         kEtag),
    write("PATCH", "/admin/v1/tenants/{tenant}", Noun::tenant, "updateTenant",
          "Change a tenant (merge patch)", "TenantFields", "Tenant", 200, kIfMatch),
    write("DELETE", "/admin/v1/tenants/{tenant}", Noun::tenant, "deleteTenant",
          "Remove a tenant with its keys", "", "Deleted", 200, kIfMatch),
    read("/admin/v1/tenants/{tenant}/quota", Noun::quota, "getQuota",
         "Limits of a tenant, what is used, reserved and left", "Quota", "", kEtag),
    write("PUT", "/admin/v1/tenants/{tenant}/quota", Noun::quota, "replaceQuota",
          "Replace the limits of a tenant", "TenantLimits", "Quota", 200, kIfMatch),
    write("PATCH", "/admin/v1/tenants/{tenant}/quota", Noun::quota, "updateQuota",
          "Change limits of a tenant (merge patch)", "TenantLimits", "Quota", 200, kIfMatch),
    read("/admin/v1/tenants/{tenant}/keys", Noun::tenant_keys, "listKeys", "Keys of a tenant by id",
         "KeyList", kPaged, kNone),
    write("POST", "/admin/v1/tenants/{tenant}/keys", Noun::tenant_keys, "createKey",
          "Make an API key; it is shown once", "NewKey", "SecretKey", 201, kEtag),
    read("/admin/v1/keys/{key}", Noun::key, "getKey", "One key", "Key", "", kEtag),
    write("PATCH", "/admin/v1/keys/{key}", Noun::key, "updateKey", "Change a key (merge patch)",
          "KeyFields", "Key", 200, kIfMatch),
    write("DELETE", "/admin/v1/keys/{key}", Noun::key, "revokeKey",
          "Revoke a key; its running requests end", "", "Key", 200, kIfMatch),
    write("POST", "/admin/v1/keys/{key}/rotate", Noun::key_rotate, "rotateKey",
          "Make its successor; the old key may overlap", "Rotation", "SecretKey", 201, kIfMatch),
    read("/admin/v1/breakers", Noun::breakers, "listBreakers",
         "Circuit breakers of tenants and workers by id", "BreakerList", kPaged, kNone),
    read("/admin/v1/breakers/{breaker}", Noun::breaker, "getBreaker", "One circuit breaker",
         "Breaker", "", kNone),
    write("POST", "/admin/v1/breakers/{breaker}/open", Noun::breaker_open, "openBreaker",
          "Open it until it is reset", "Empty", "Breaker", 200, kNone),
    write("POST", "/admin/v1/breakers/{breaker}/reset", Noun::breaker_reset, "resetBreaker",
          "Close it and forget the past", "Empty", "Breaker", 200, kNone),
    read("/admin/v1/workers", Noun::workers, "listWorkers", "Worker processes by id", "WorkerList",
         kPaged, kNone),
    read("/admin/v1/workers/{worker}", Noun::worker, "getWorker", "One worker", "Worker", "",
         kNone),
    write("POST", "/admin/v1/workers/{worker}/drain", Noun::worker_drain, "drainWorker",
          "Give it no new work; what it runs may finish", "Empty", "Worker", 200, kNone),
    write("POST", "/admin/v1/workers/{worker}/resume", Noun::worker_resume, "resumeWorker",
          "End a drain", "Empty", "Worker", 200, kNone),
    write("POST", "/admin/v1/workers/{worker}/recycle", Noun::worker_recycle, "recycleWorker",
          "Drain it and replace its process", "Empty", "Worker", 200, kNone),
    read("/admin/v1/audit", Noun::audit, "listAudit", "What was changed, newest first", "AuditList",
         kPaged, kNone),
    read("/admin/v1/usage", Noun::usage, "getUsage",
         "What was used, by time, tenant, key and model", "UsageList", kUsageQuery, kNone),
    read("/admin/v1/tenants/{tenant}/usage", Noun::tenant_usage, "getTenantUsage",
         "What one tenant used", "UsageList", kUsageQuery, kNone),
    read("/admin/v1/config", Noun::config, "getConfig",
         "The effective configuration, secrets masked", "Config", "", kNone),
});

// Does `path` follow the pattern? Only the name of a model may hold slashes.
bool matches(const Operation& operation, std::string_view path, std::string_view& tail) {
  const std::string_view pattern = operation.path;
  const std::size_t begin = pattern.find('{');
  if (begin == std::string_view::npos) return pattern == path;
  if (!path.starts_with(pattern.substr(0, begin))) return false;
  const std::string_view after = pattern.substr(pattern.find('}') + 1);
  tail = path.substr(begin);
  if (!tail.ends_with(after)) return false;
  tail.remove_suffix(after.size());
  return !tail.empty() && (operation.endpoint == model || tail.find('/') == std::string_view::npos);
}

// "GET, HEAD, POST, OPTIONS": what operations of one path allow.
std::string allow_of(std::string_view path) {
  std::string allow;
  for (const std::string_view method : {"GET", "POST", "PUT", "PATCH", "DELETE"}) {
    const bool has = std::any_of(kOperations.begin(), kOperations.end(), [&](const Operation& o) {
      std::string_view tail;
      return o.method == method && matches(o, path, tail);
    });
    if (has) allow.append(method).append(method == "GET" ? ", HEAD, " : ", ");
  }
  return allow.append("OPTIONS");
}

}  // namespace

bool is_body_optional(const Operation& operation) {
  return operation.request == "Empty" || operation.request == "Rotation";
}

std::span<const Operation> operations() {
  return kOperations;
}

Route find_route(std::string_view method, std::string_view path) {
  Route route;
  if (method == "OPTIONS") {
    route.result = RouteResult::preflight;
    route.allow = allow_of(path);
    if (route.allow == "OPTIONS") route.allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    return route;
  }
  for (const Operation& operation : kOperations) {
    if (!matches(operation, path, route.tail)) continue;
    const bool is_found =
        operation.method == method || (method == "HEAD" && operation.method == "GET");
    route.endpoint = operation.endpoint;
    route.result = is_found ? RouteResult::found : RouteResult::wrong_method;
    if (!is_found) continue;
    route.needs_tenant = operation.access == Access::tenant;
    route.needs_admin = operation.access == Access::admin;
    route.scope = operation.scope;
    route.noun = operation.noun;
    route.takes_body = !operation.request.empty();
    route.is_body_optional = is_body_optional(operation);
    route.omits_body = method == "HEAD";
    return route;
  }
  route.tail = {};
  route.omits_body = method == "HEAD";
  if (route.result == RouteResult::wrong_method) route.allow = allow_of(path);
  return route;
}

std::string_view endpoint_name(Endpoint endpoint) {
  constexpr std::array<std::string_view, kEndpoints> kNames{
      "chat_completions", "completions", "input_tokens", "tokenize",
      "detokenize",       "models",      "model",        "quota",
      "embeddings",       "live",        "ready",        "health",
      "metrics",          "openapi",     "admin",        "none"};
  return kNames[static_cast<std::size_t>(endpoint)];
}

}  // namespace sluice::gw
