// Paths from the table of operations, schemas by name.
#include "gateway/http/openapi.h"

#include <algorithm>
#include <array>
#include <set>

#include "config/settings.h"
#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

struct Schema {
  std::string_view name, json;
};

// Bodies that are fixed. What clients send to models may hold further fields.
constexpr std::array
    kSchemas =
        std::
            to_array<Schema>(
                {
                    {"Error",
                     R"({"type":"object","required":["error"],"properties":{"error":{"type":"object","required":["message","type","param","code"],"properties":{"message":{"type":"string"},"type":{"type":"string"},"param":{"type":["string","null"]},"code":{"type":"string"}},"additionalProperties":false}},"additionalProperties":false})"},
                    {"Empty", R"({"type":"object","properties":{},"additionalProperties":false})"},
                    {"Status",
                     R"({"type":"object","required":["status"],"properties":{"status":{"enum":["live","ready"]},"usage_store":{"enum":["storing","failing"]},"quota_store":{"enum":["local","connected","settling","unavailable"]}},"additionalProperties":false})"},
                    {"ChatRequest",
                     R"({"type":"object","required":["messages"],"properties":{"model":{"type":"string"},"messages":{"type":"array"},"max_tokens":{"type":["integer","null"]},"max_completion_tokens":{"type":["integer","null"]},"stream":{"type":["boolean","null"]},"n":{"type":["integer","null"]}},"additionalProperties":true})"},
                    {"CompletionRequest",
                     R"({"type":"object","required":["prompt"],"properties":{"model":{"type":"string"},"prompt":{"type":["string","array"]},"max_tokens":{"type":["integer","null"]},"stream":{"type":["boolean","null"]},"n":{"type":["integer","null"]}},"additionalProperties":true})"},
                    {"EmbeddingRequest",
                     R"({"type":"object","required":["input"],"properties":{"model":{"type":"string"},"input":{"type":["string","array"]},"encoding_format":{"enum":["float","base64",null]},"dimensions":{"type":["integer","null"]}},"additionalProperties":true})"},
                    {"EmbeddingList",
                     R"({"type":"object","required":["object","data","model","usage"],"properties":{"object":{"enum":["list"]},"data":{"type":"array","items":{"type":"object","required":["object","index","embedding"],"properties":{"object":{"enum":["embedding"]},"index":{"type":"integer"},"embedding":{"type":["array","string"]}},"additionalProperties":false}},"model":{"type":"string"},"usage":{"type":"object"}},"additionalProperties":false})"},
                    {"ChatCompletion",
                     R"({"type":"object","required":["id","object","created","model","choices","usage"],"properties":{"id":{"type":"string"},"object":{"enum":["chat.completion"]},"created":{"type":"integer"},"model":{"type":"string"},"choices":{"type":"array"},"usage":{"type":"object"}},"additionalProperties":true})"},
                    {"Completion",
                     R"({"type":"object","required":["id","object","created","model","choices","usage"],"properties":{"id":{"type":"string"},"object":{"enum":["text_completion"]},"created":{"type":"integer"},"model":{"type":"string"},"choices":{"type":"array"},"usage":{"type":"object"}},"additionalProperties":true})"},
                    {"InputTokens",
                     R"({"type":"object","required":["object","input_tokens"],"properties":{"object":{"enum":["response.input_tokens"]},"input_tokens":{"type":"integer","minimum":0}},"additionalProperties":false})"},
                    {"TokenizeRequest",
                     R"({"type":"object","properties":{"model":{"type":"string"},"prompt":{"type":"string"},"messages":{"type":"array"},"add_special_tokens":{"type":["boolean","null"]}},"additionalProperties":true})"},
                    {"Tokens",
                     R"({"type":"object","required":["count","max_model_len","tokens"],"properties":{"count":{"type":"integer"},"max_model_len":{"type":"integer"},"tokens":{"type":"array","items":{"type":"integer"}},"token_strs":{"type":["array","null"]}},"additionalProperties":false})"},
                    {"DetokenizeRequest",
                     R"({"type":"object","required":["tokens"],"properties":{"model":{"type":"string"},"tokens":{"type":"array","items":{"type":"integer"}}},"additionalProperties":true})"},
                    {"Prompt",
                     R"({"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"}},"additionalProperties":false})"},
                    {"Model",
                     R"({"type":"object","required":["id","object","created","owned_by","max_model_len"],"properties":{"id":{"type":"string"},"object":{"enum":["model"]},"created":{"type":"integer"},"owned_by":{"type":"string"},"max_model_len":{"type":"integer"}},"additionalProperties":false})"},
                    {"ModelList",
                     R"({"type":"object","required":["object","data"],"properties":{"object":{"enum":["list"]},"data":{"type":"array","items":{"$ref":"#/components/schemas/Model"}}},"additionalProperties":false})"},
                    {"Counter",
                     R"({"type":"object","description":"reset_ms: until all that is charged now is free, null where nothing turns","required":["limit","used","reserved","remaining","reset_ms"],"properties":{"limit":{"type":["integer","null"]},"used":{"type":"integer","minimum":0},"reserved":{"type":"integer","minimum":0},"remaining":{"type":["integer","null"]},"reset_ms":{"type":["integer","null"]}},"additionalProperties":false})"},
                    {"Deleted",
                     R"({"type":"object","required":["object","id","deleted"],"properties":{"object":{"enum":["tenant"]},"id":{"type":"string"},"deleted":{"enum":[true]}},"additionalProperties":false})"},
                    {"Rotation",
                     R"({"type":"object","properties":{"overlap_seconds":{"type":["integer","null"],"minimum":0,"maximum":2592000}},"additionalProperties":false})"},
                    {"Breaker",
                     R"({"type":"object","required":["object","id","kind","subject","state","reason","is_forced","since_ms","retry_at_ms","openings","refused","history"],"properties":{"object":{"enum":["breaker"]},"id":{"type":"string"},"kind":{"enum":["tenant","worker"]},"subject":{"type":"string"},"state":{"enum":["closed","throttled","open","half_open"]},"reason":{"type":"string"},"is_forced":{"type":"boolean"},"since_ms":{"type":["integer","null"]},"retry_at_ms":{"type":["integer","null"]},"openings":{"type":"integer"},"refused":{"type":"integer"},"history":{"type":"array","items":{"type":"object","required":["from","to","reason","at_ms"],"properties":{"from":{"type":"string"},"to":{"type":"string"},"reason":{"type":"string"},"at_ms":{"type":["integer","null"]}},"additionalProperties":false}}},"additionalProperties":false})"},
                    {"Worker",
                     R"({"type":"object","required":["object","id","model","device","state","breaker","epoch","steps","step_ms","sequences_held","tenants"],"properties":{"object":{"enum":["worker"]},"id":{"type":"string"},"model":{"type":"string"},"device":{"enum":["cpu","cuda"]},"state":{"enum":["down","serving","draining","recycling"]},"breaker":{"type":"string"},"epoch":{"type":"integer"},"weights_digest":{"type":["string","null"]},"kernel_path":{"type":["string","null"]},"steps":{"type":"integer"},"step_ms":{"type":"number"},"sequences_held":{"type":"integer"},"sequences_running":{"type":"integer"},"sequences_waiting":{"type":"integer"},"kv_blocks":{"type":"integer"},"kv_blocks_free":{"type":"integer"},"kv_blocks_cached":{"type":"integer"},"tenants":{"type":"array","items":{"type":"string"}}},"additionalProperties":false})"},
                    {"UsageCounts",
                     R"({"type":"object","required":["requests","input_tokens","cached_tokens","output_tokens","cost","kv_token_seconds","device_seconds"],"properties":{"requests":{"type":"integer"},"input_tokens":{"type":"integer"},"cached_tokens":{"type":"integer"},"output_tokens":{"type":"integer"},"cost":{"type":"integer"},"kv_token_seconds":{"type":"number"},"device_seconds":{"type":"number"}},"additionalProperties":false})"},
                    {"Usage",
                     R"({"type":"object","description":"tenant, key, model: as grouped; key null: the tenant's own requests","required":["object","period","start","requests","input_tokens","cached_tokens","output_tokens","cost","kv_token_seconds","device_seconds"],"properties":{"object":{"enum":["usage"]},"period":{"enum":["minute","day","month"]},"start":{"type":"integer"},"tenant":{"type":["string","null"]},"key":{"type":["string","null"]},"model":{"type":["string","null"]},"requests":{"type":"integer"},"input_tokens":{"type":"integer"},"cached_tokens":{"type":"integer"},"output_tokens":{"type":"integer"},"cost":{"type":"integer"},"kv_token_seconds":{"type":"number"},"device_seconds":{"type":"number"}},"additionalProperties":false})"},
                    {"UsageList",
                     R"({"type":"object","required":["object","data","total","has_more","last_id"],"properties":{"object":{"enum":["list"]},"data":{"type":"array","items":{"$ref":"#/components/schemas/Usage"}},"total":{"$ref":"#/components/schemas/UsageCounts"},"has_more":{"type":"boolean"},"last_id":{"type":["string","null"]}},"additionalProperties":false})"},
                    {"AuditEvent",
                     R"({"type":"object","required":["object","id","created_at","actor","action","target","detail"],"properties":{"object":{"enum":["audit_event"]},"id":{"type":"string"},"created_at":{"type":"integer"},"actor":{"type":"string"},"action":{"type":"string"},"target":{"type":"string"},"detail":{"type":"object"}},"additionalProperties":false})"},
                    {"Config",
                     R"({"type":"object","required":["object","yaml"],"properties":{"object":{"enum":["config"]},"yaml":{"type":"string"}},"additionalProperties":false})"},
                });

constexpr std::string_view kNameSchema = R"({"type":"string","pattern":"^[A-Za-z0-9._-]{1,64}$"})";

void append_reference(std::string& out, std::string_view schema) {
  out.append(R"({"$ref":"#/components/schemas/)").append(schema).append("\"}");
}

// Members of a schema's `properties`; also a visitor of the settings' table, for which null resets.
class Properties {
 public:
  void add(std::string_view name, std::string_view json) {
    if (!text_.empty()) text_.push_back(',');
    append_json_string(text_, name);
    text_.append(":").append(json);
    if (!required_.empty()) required_.push_back(',');
    append_json_string(required_, name);
  }
  void add_whole(std::string_view name, std::int64_t low, std::uint64_t high) {
    add(name, R"({"type":["integer","null"],"minimum":)" + std::to_string(low) +
                  ",\"maximum\":" + std::to_string(high) + "}");
  }
  // `is_whole`: an answer, which has all members; else a body, which may leave out any.
  std::string object(bool is_whole) const {
    std::string out = R"({"type":"object",)";
    if (is_whole) out.append("\"required\":[").append(required_).append("],");
    return out.append("\"properties\":{")
        .append(text_)
        .append(R"(},"additionalProperties":false})");
  }

  std::string map() const { return "{" + text_ + "}"; }

  void limit(const char* key, const cfg::Limit&, std::uint64_t high) {
    const std::string_view name = limit_api_name(key);
    if (name != "tokens_per_minute") return add_whole(name, 0, high);
    Properties parts;
    for (const std::string_view part : {"input", "output", "total"}) parts.add_whole(part, 0, high);
    add(name, R"({"type":["integer","null","object"],"minimum":0,"maximum":)" +
                  std::to_string(high) + ",\"properties\":" + parts.map() +
                  R"(,"additionalProperties":false})");
  }
  template <class Int>
  void integer(const char* key, const Int&, std::uint64_t low, std::uint64_t high) {
    add_whole(limit_api_name(key), static_cast<std::int64_t>(low), high);
  }
  void boolean(const char* key, bool) { add(key, R"({"type":["boolean","null"]})"); }
  void text(const char* key, const std::string&, std::size_t bytes_max) {
    add(key, R"({"type":["string","null"],"maxLength":)" + std::to_string(bytes_max) + "}");
  }
  template <class Enum, std::size_t N>
  void choice(const char* key, const Enum&, const std::array<std::string_view, N>& names) {
    std::string json = "{\"enum\":[";
    for (const std::string_view name : names) {
      append_json_string(json, name);
      json.push_back(',');
    }
    add(key, json + "null]}");
  }
  template <class S>
  void list(const char* key, const std::vector<S>&, std::size_t count_max) {
    Properties item;
    const S defaults{};
    cfg::visit_settings(item, defaults);
    add(key, R"({"type":["array","null"],"maxItems":)" + std::to_string(count_max) +
                 ",\"items\":" + item.object(false) + "}");
  }

 private:
  std::string text_, required_;
};

std::string limits_of_tenants() {
  Properties limits;
  const cfg::TenantLimits defaults;
  cfg::visit_settings(limits, defaults);
  return limits.object(false);
}

std::string limits_of_keys() {
  Properties limits;
  const cfg::Limits defaults;
  cfg::visit_settings(limits, defaults);
  return limits.object(false);
}

std::string texts_schema(std::string_view item, std::size_t count_max) {
  return R"({"type":["array","null"],"maxItems":)" + std::to_string(count_max) +
         ",\"items\":" + std::string(item) + "}";
}

std::string scopes_schema() {
  std::string names;
  for (const std::string_view name : cfg::kScopeNames) {
    if (!names.empty()) names.push_back(',');
    append_json_string(names, name);
  }
  return texts_schema("{\"enum\":[" + names + "]}", cfg::kScopeNames.size());
}

constexpr std::string_view kTextOrNull = R"({"type":["string","null"],"maxLength":128})";
constexpr std::string_view kTimeOrNull =
    R"({"type":["integer","null"],"minimum":1,"maximum":253402300799})";

Properties tenant_properties() {
  Properties tenant;
  tenant.add("id", kNameSchema);
  tenant.add("name", kTextOrNull);
  tenant.add("parent", kTextOrNull);
  tenant.add("security_class", kTextOrNull);
  tenant.add_whole("weight", 1, cfg::kWeightMax);
  tenant.add("is_blocked", R"({"type":["boolean","null"]})");
  tenant.add("models", texts_schema(R"({"type":"string"})", kModelsMax));
  tenant.add_whole("priority_ceiling", 0, 1000);
  return tenant;
}

Properties key_properties() {
  Properties key;
  key.add("name", kNameSchema);
  key.add("expires_at", kTimeOrNull);
  key.add("scopes", scopes_schema());
  key.add("limits", R"({"$ref":"#/components/schemas/KeyLimits"})");
  return key;
}

// With the members that must be there.
std::string demanding(std::string object, std::string_view member) {
  const std::string_view head = R"({"type":"object",)";
  return object.insert(head.size(), "\"required\":[\"" + std::string(member) + "\"],");
}

Properties key_answer() {
  Properties key = key_properties();
  key.add("object", R"({"enum":["key"]})");
  key.add("id", R"({"type":"string"})");
  key.add("tenant", R"({"type":"string"})");
  key.add("state", R"({"enum":["active","expired","revoked"]})");
  key.add("created_at", kTimeOrNull);
  key.add("revoked_at", kTimeOrNull);
  return key;
}

std::string list_schema(std::string_view item) {
  Properties list;
  list.add("object", R"({"enum":["list"]})");
  std::string reference;
  append_reference(reference, item);
  list.add("data", R"({"type":"array","items":)" + reference + "}");
  list.add("has_more", R"({"type":"boolean"})");
  list.add("last_id", R"({"type":["string","null"]})");
  return list.object(true);
}

// One property per counted kind; `is_whole`: all of them.
std::string counters_schema(bool is_whole) {
  Properties counters;
  for (std::size_t i = 0; i < kCounterKinds; ++i)
    counters.add(limit_kind_name(static_cast<LimitKind>(i)),
                 R"({"$ref":"#/components/schemas/Counter"})");
  return counters.object(is_whole);
}

std::string quota_schema() {
  Properties quota;
  quota.add("object", R"({"enum":["quota"]})");
  quota.add("tenant", R"({"type":"string"})");
  quota.add("limits", R"({"$ref":"#/components/schemas/TenantLimits"})");
  quota.add("state", R"({"anyOf":[)" + counters_schema(true) + R"(,{"type":"null"}]})");
  Properties model;
  model.add("model", R"({"type":"string"})");
  model.add("state", counters_schema(false));
  quota.add("models", R"({"type":"array","items":)" + model.object(true) + "}");
  quota.add("shadow_refusals", R"({"type":"integer"})");
  return quota.object(true);
}

std::string caller_quota_schema() {
  Properties quota;
  quota.add("object", R"({"enum":["quota"]})");
  quota.add("tenant", R"({"type":"string"})");
  for (std::size_t i = 0; i < kCounterKinds; ++i)
    quota.add(limit_kind_name(static_cast<LimitKind>(i)),
              R"({"$ref":"#/components/schemas/Counter"})");
  quota.add("max_output_tokens", R"({"type":["integer","null"]})");
  quota.add("default_output_tokens", R"({"type":"integer"})");
  quota.add("reserve", R"({"enum":["exact","incremental","quantile"]})");
  quota.add("shadow", R"({"type":"boolean"})");
  return quota.object(true);
}

std::string schemas() {
  Properties all;  // here: name to schema
  for (const Schema& schema : kSchemas) all.add(schema.name, schema.json);
  all.add("TenantLimits", limits_of_tenants());
  all.add("KeyLimits", limits_of_keys());
  Properties tenant = tenant_properties();
  all.add("TenantFields", tenant.object(false));
  all.add("NewTenant", demanding(tenant.object(false), "id"));
  tenant.add("object", R"({"enum":["tenant"]})");
  tenant.add("source", R"({"enum":["rest","configuration"]})");
  tenant.add("created_at", kTimeOrNull);
  all.add("Tenant", tenant.object(true));
  all.add("KeyFields", key_properties().object(false));
  all.add("NewKey", demanding(key_properties().object(false), "name"));
  Properties key = key_answer();
  all.add("Key", key.object(true));
  key.add("key", R"({"type":["string","null"],"description":"null in a replay"})");
  all.add("SecretKey", key.object(true));
  all.add("Quota", quota_schema());
  all.add("CallerQuota", caller_quota_schema());
  for (const std::string_view item : {"Tenant", "Key", "Breaker", "Worker"})
    all.add(std::string(item) + "List", list_schema(item));
  all.add("AuditList", list_schema("AuditEvent"));
  return all.map();
}

}  // namespace

std::vector<std::uint16_t> error_statuses(const Operation& operation) {
  std::set<std::uint16_t> statuses{400, 431};
  if (operation.access != Access::anyone) statuses.insert({401, 403});
  if (operation.access == Access::tenant) statuses.insert(404);
  if (operation.path.find('{') != std::string_view::npos) statuses.insert(404);
  if (!operation.request.empty()) statuses.insert({408, 413, 415});
  const bool is_inference = operation.access == Access::tenant && operation.method == "POST";
  if (is_inference) statuses.insert({429, 500, 503, 504});
  if (operation.access == Access::admin) statuses.insert({404, 503});
  if (operation.access == Access::admin && operation.method != "GET") statuses.insert(409);
  if (operation.precondition == Precondition::if_match) statuses.insert(412);
  if (operation.endpoint == Endpoint::ready || operation.endpoint == Endpoint::health)
    statuses.insert(503);
  statuses.erase(operation.status);
  return {statuses.begin(), statuses.end()};
}

namespace {

constexpr std::string_view kETagHeader = R"("headers":{"ETag":{"schema":{"type":"string"}}},)";

void append_parameter(std::string& out, std::string_view where, std::string_view name,
                      std::string_view schema) {
  if (out.back() != '[') out.push_back(',');
  out.append("{\"name\":");
  append_json_string(out, name);
  out.append(",\"in\":\"").append(where).append("\",\"required\":");
  out.append(where == "path" ? "true" : "false");
  out.append(",\"schema\":").append(schema).append("}");
}

void append_parameters(std::string& out, const Operation& operation) {
  out.append("\"parameters\":[");
  if (const std::size_t begin = operation.path.find('{'); begin != std::string_view::npos) {
    const std::size_t end = operation.path.find('}');
    append_parameter(out, "path", operation.path.substr(begin + 1, end - begin - 1),
                     R"({"type":"string"})");
  }
  for (std::string_view rest = operation.query; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    append_parameter(out, "query", name,
                     name != "limit" ? R"({"type":"string"})"
                     : operation.response == "UsageList"
                         ? R"({"type":"integer","minimum":1,"maximum":1000})"
                         : R"({"type":"integer","minimum":1,"maximum":100})");
  }
  if (operation.precondition == Precondition::if_match)
    append_parameter(out, "header", "If-Match", R"({"type":"string"})");
  if (operation.access == Access::admin && operation.method == "POST")
    append_parameter(out, "header", "Idempotency-Key", R"({"type":"string","maxLength":255})");
  out.append("],");
}

void append_responses(std::string& out, const Operation& operation) {
  out.append("\"responses\":{\"").append(std::to_string(operation.status)).append("\":{");
  const bool has_etag =
      operation.precondition != Precondition::none && operation.response != "Deleted";
  if (has_etag) out.append(kETagHeader);
  out.append("\"description\":\"Success\",\"content\":{");
  if (operation.response.find('/') != std::string_view::npos) {
    append_json_string(out, operation.response);
    out.append(":{}");
  } else {
    out.append("\"application/json\":{\"schema\":");
    append_reference(out, operation.response);
    out.append("}");
    const bool is_generation = operation.endpoint == Endpoint::chat_completions ||
                               operation.endpoint == Endpoint::completions;
    if (is_generation) out.append(",\"text/event-stream\":{}");
    if (operation.response == "UsageList") out.append(",\"text/csv\":{}");
  }
  out.append("}}");
  for (const std::uint16_t status : error_statuses(operation)) {
    out.append(",\"").append(std::to_string(status));
    out.append(R"(":{"$ref":"#/components/responses/Error"})");
  }
  out.append("}");
}

void append_operation(std::string& out, const Operation& operation) {
  std::string method(operation.method);
  std::transform(method.begin(), method.end(), method.begin(),
                 [](char c) { return static_cast<char>(c + 32); });
  append_json_string(out, method);
  out.append(":{\"operationId\":");
  append_json_string(out, operation.id);
  out.append(",\"summary\":");
  append_json_string(out, operation.summary);
  out.append(",\"security\":[");
  if (operation.access == Access::tenant) out.append("{\"apiKey\":[]},{}");
  if (operation.access == Access::admin) out.append("{\"adminKey\":[]}");
  out.append("],");
  append_parameters(out, operation);
  if (!operation.request.empty()) {
    out.append("\"requestBody\":{\"required\":");
    out.append(is_body_optional(operation) ? "false" : "true");
    out.append(",\"content\":{\"application/json\":{\"schema\":");
    append_reference(out, operation.request);
    out.append("}}},");
  }
  append_responses(out, operation);
  out.append("}");
}

}  // namespace

std::string openapi_document() {
  std::string out =
      R"({"openapi":"3.1.0","info":{"title":"Sluice","version":")" SLUICE_VERSION
      R"("},"components":{"securitySchemes":{)"
      R"("apiKey":{"type":"http","scheme":"bearer","description":"sk-sluice-..."},)"
      R"("adminKey":{"type":"http","scheme":"bearer","description":"sk-sluice-admin-..."}},)"
      R"("responses":{"Error":{"description":"An error","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Error"}}}}},)"
      R"("schemas":)";
  out.append(schemas()).append("},\"paths\":{");
  std::set<std::string_view> done;
  for (const Operation& first : operations()) {
    if (!done.insert(first.path).second) continue;
    if (done.size() > 1) out.push_back(',');
    append_json_string(out, first.path);
    out.append(":{");
    for (const Operation& operation : operations()) {
      if (operation.path != first.path) continue;
      if (out.back() != '{') out.push_back(',');
      append_operation(out, operation);
    }
    out.push_back('}');
  }
  out.append("}}");
  return out;
}

}  // namespace sluice::gw
