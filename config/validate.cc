// Relations between settings; ranges of single ones are in settings.h.
#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>

#include "config/load_config.h"
#include "config/settings.h"
#include "shared/ids.h"
#include "shared/messages.h"

namespace sluice::cfg {
namespace {

Error wrong(const std::string& key, const std::string& what, const std::string& allowed) {
  return make_error(Errc::bad_config, key + ": " + what + "; allowed: " + allowed, key);
}

std::string element(const char* list, std::size_t index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

bool is_address(std::string_view address) {
  const std::string text(address);
  in_addr four{};
  in6_addr six{};
  return ::inet_pton(AF_INET, text.c_str(), &four) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &six) == 1;
}

Result<void> check_file(const std::string& key, const std::string& path, int mode) {
  if (path.empty() || ::access(path.c_str(), mode) == 0) return {};
  return wrong(key, "'" + path + "': " + std::strerror(errno),
               "a path that exists and may be read");
}

Result<void> check_listen(const Config& config) {
  const Listen& listen = config.listen;
  if (!is_address(listen.address))
    return wrong("listen.address", "not an IP address", "an IPv4 or IPv6 address");
  if (config.tenants.empty() && !is_loopback(listen.address))
    return wrong("listen.address", "a non-loopback address without keys",
                 "127.0.0.1 or ::1, or tenants with keys");
  if (listen.tls_certificate.empty() != listen.tls_key.empty())
    return wrong(listen.tls_key.empty() ? "listen.tls_key" : "listen.tls_certificate", "missing",
                 "certificate and key together, or neither");
  if (auto r = check_file("listen.tls_certificate", listen.tls_certificate, R_OK); !r) return r;
  return check_file("listen.tls_key", listen.tls_key, R_OK);
}

bool is_origin(std::string_view origin) {
  if (origin == "*") return true;
  const bool secure = origin.starts_with("https://");
  if (!secure && !origin.starts_with("http://")) return false;
  const std::string_view host = origin.substr(secure ? 8 : 7);
  return !host.empty() && host.find_first_of("/?# ") == std::string_view::npos;
}

Result<void> check_model(const Model& model, const std::string& key, std::size_t ring_bytes) {
  if (model.name.empty()) return wrong(key + ".name", "empty", "a name");
  if (!std::has_single_bit(model.block_tokens))
    return wrong(key + ".block_tokens", "not a power of two", "8, 16, 32, 64");
  const std::uint64_t slots = std::uint64_t{model.num_blocks} * model.block_tokens;
  if (model.context_tokens > slots)
    return wrong(key + ".context_tokens", "one sequence would not fit the KV memory",
                 "at most num_blocks * block_tokens = " + std::to_string(slots));
  // A submission carries all ids of a sequence, and a record takes at most half of its ring.
  constexpr std::size_t kSubmissionRest = 64u << 10;
  constexpr std::size_t kRecordRest = 16;  // a record's own header
  const std::size_t record = model.context_tokens * sizeof(TokenId);
  const std::size_t record_max = ring_bytes / 2 - std::min(ring_bytes / 4, kSubmissionRest);
  if (record > record_max)
    return wrong(key + ".context_tokens", "a full context would not fit the submit ring",
                 "at most " + std::to_string(record_max / sizeof(TokenId)) +
                     " with ring_bytes = " + std::to_string(ring_bytes));
  // A step record too; log-probabilities make it long.
  const std::size_t step = step_bytes_max(model.sequences_max) + kRecordRest;
  if (step > ring_bytes / 2)
    return wrong(key + ".sequences_max", "a step's record would not fit the step ring",
                 "fewer, or ring_bytes of at least " + std::to_string(std::bit_ceil(2 * step)));
  if (model.step_tokens_max < model.sequences_max)
    return wrong(key + ".step_tokens_max", "smaller than sequences_max",
                 "at least " + std::to_string(model.sequences_max));
  if (model.price_cached > model.price_input)
    return wrong(key + ".price_cached", "dearer than price_input",
                 "at most " + std::to_string(model.price_input));
  std::error_code failed;
  const bool is_file = std::filesystem::is_regular_file(model.path, failed);
  if (auto r = check_file(key + ".path", model.path, is_file ? R_OK : R_OK | X_OK); !r) return r;
  if (model.kind != ModelKind::llama && model.device != DeviceKind::cpu)
    return wrong(key + ".device", "not the CPU", "cpu where kind is not llama");
  if (model.device == DeviceKind::cuda && model.kv_type != KvType::f32)
    return wrong(key + ".kv_type", "not what a GPU holds", "f32 where device is cuda");
  return check_file(key + ".tokenizer", model.tokenizer, R_OK);
}

Result<void> check_models(const Config& config) {
  if (config.models.empty()) return wrong("models", "empty", "at least one model");
  std::set<std::string_view> names;
  std::uint32_t workers = 0;
  for (std::size_t i = 0; i < config.models.size(); ++i) {
    const std::string key = element("models", i);
    const Model& model = config.models[i];
    if (auto r = check_model(model, key, config.ring_bytes); !r) return r;
    if (!names.insert(model.name).second)
      return wrong(key + ".name", "given twice", "each name once");
    workers += model.workers;
    if (workers > kWorkersMax)
      return wrong(key + ".workers", "too many workers in all",
                   "a sum of at most " + std::to_string(kWorkersMax));
  }
  return {};
}

using Names = std::set<std::string_view>;

Result<void> check_overrides(const Limits& limits, const std::string& key, const Names& models) {
  Names named;
  for (std::size_t i = 0; i < limits.model_overrides.size(); ++i) {
    const std::string& model = limits.model_overrides[i].model;
    const std::string at = key + "." + element("model_overrides", i) + ".model";
    if (!models.contains(model)) return wrong(at, "not a configured model", "names from models");
    if (!named.insert(model).second) return wrong(at, "given twice", "each model once");
  }
  for (std::size_t i = 0; i < limits.temporary_overrides.size(); ++i) {
    const TemporaryOverride& temporary = limits.temporary_overrides[i];
    const std::string at = key + "." + element("temporary_overrides", i);
    if (!temporary.model.empty() && !models.contains(temporary.model))
      return wrong(at + ".model", "not a configured model", "names from models, or none");
    if (temporary.until == 0)
      return wrong(at + ".until", "missing", "the Unix time in seconds at which it ends");
  }
  return {};
}

Result<void> check_limits(const TenantLimits& limits, const std::string& key, const Names& models) {
  const Limit most = limits.output_tokens_max;
  if (most && *most > 0 && limits.output_tokens_default > *most)
    return wrong(key + ".output_tokens_default", "larger than output_tokens_max",
                 "at most " + std::to_string(*most));
  return check_overrides(limits, key, models);
}

// Names unique within a tenant, digests unique in the whole file: a key has one owner.
Result<void> check_keys(const Tenant& tenant, const std::string& key,
                        std::set<std::array<std::uint8_t, 32>>& digests, const Names& models,
                        const Names& parents) {
  if (tenant.keys.empty() && !parents.contains(tenant.name))
    return wrong(key + ".keys", "a tenant without keys can't be reached", "at least one key");
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < tenant.keys.size(); ++i) {
    const ApiKey& api_key = tenant.keys[i];
    const std::string at = key + "." + element("keys", i);
    if (api_key.name.empty()) return wrong(at + ".name", "empty", "a name");
    if (!names.insert(api_key.name).second)
      return wrong(at + ".name", "given twice", "each name once per tenant");
    if (api_key.sha256 == std::array<std::uint8_t, 32>{})
      return wrong(at + ".sha256", "missing or zero", "64 hex digits (SHA-256 of the key)");
    if (!digests.insert(api_key.sha256).second)
      return wrong(at + ".sha256", "given twice", "each key once");
    for (std::size_t s = 0; s < api_key.scopes.size(); ++s)
      if (std::ranges::find(kScopeNames, api_key.scopes[s]) == kScopeNames.end())
        return wrong(at + "." + element("scopes", s), "not a scope",
                     "model.request, model.read, quota.read");
    if (auto r = check_overrides(api_key.limits, at + ".limits", models); !r) return r;
  }
  return {};
}

Result<void> check_parents(const Config& config, std::size_t index) {
  const std::string key = element("tenants", index) + ".parent";
  const Tenant* tenant = &config.tenants[index];
  for (std::size_t depth = 1; !tenant->parent.empty(); ++depth) {
    const auto up = std::ranges::find(config.tenants, tenant->parent, &Tenant::name);
    if (up == config.tenants.end()) return wrong(key, "not a tenant", "names of tenants");
    if (depth == kTenantDepthMax)
      return wrong(key, "a cycle, or too deep",
                   "at most " + std::to_string(kTenantDepthMax) + " levels of tenants");
    tenant = &*up;
  }
  return {};
}

Result<void> check_tenants(const Config& config) {
  Names models;
  for (const Model& model : config.models) models.insert(model.name);
  Names names, parents;
  for (const Tenant& tenant : config.tenants) parents.insert(tenant.parent);
  std::set<std::array<std::uint8_t, 32>> digests;
  for (std::size_t i = 0; i < config.tenants.size(); ++i) {
    const Tenant& tenant = config.tenants[i];
    const std::string key = element("tenants", i);
    if (tenant.name.empty()) return wrong(key + ".name", "empty", "a name");
    if (!names.insert(tenant.name).second)
      return wrong(key + ".name", "given twice", "each name once");
    if (auto r = check_keys(tenant, key, digests, models, parents); !r) return r;
    for (std::size_t m = 0; m < tenant.models.size(); ++m)
      if (!models.contains(tenant.models[m]))
        return wrong(key + "." + element("models", m), "not a configured model",
                     "names from models");
    if (auto r = check_limits(tenant.limits, key + ".limits", models); !r) return r;
  }
  for (std::size_t i = 0; i < config.tenants.size(); ++i)
    if (auto r = check_parents(config, i); !r) return r;
  return check_limits(config.default_limits, "default_limits", models);
}

Result<void> check_quota_store(const QuotaStore& store) {
  if (store.kind == QuotaStoreKind::local) return {};
  if (store.address.empty())
    return wrong("quota_store.address", "empty", "an address, a host name or an absolute path");
  if (store.command_timeout >= store.lease_time)
    return wrong("quota_store.command_timeout", "not below lease_time", "less than lease_time");
  if (store.mode == QuotaMode::synchronous && store.command_timeout > milliseconds(1000))
    return wrong("quota_store.command_timeout", "too long for mode synchronous", "at most 1s");
  return check_file("quota_store.password_file", store.password_file, R_OK);
}

}  // namespace

bool is_loopback(std::string_view address) {
  const std::string text(address);
  in_addr four{};
  if (::inet_pton(AF_INET, text.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six{};
  return ::inet_pton(AF_INET6, text.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

Result<void> validate(const Config& config) {
  if (auto r = check_listen(config); !r) return r;
  if (!std::has_single_bit(config.ring_bytes))
    return wrong("ring_bytes", "not a power of two", "64KiB, 128KiB, ... 64MiB");
  if (config.supervision.restart_delay > config.supervision.restart_delay_max)
    return wrong("supervision.restart_delay", "larger than restart_delay_max",
                 "at most restart_delay_max");
  const TenantBreakers& breakers = config.breakers.tenants;
  if (breakers.open_min > breakers.open_max)
    return wrong("breakers.tenants.open_min", "larger than open_max", "at most open_max");
  if (config.breakers.workers.open_min > config.breakers.workers.open_max)
    return wrong("breakers.workers.open_min", "larger than open_max", "at most open_max");
  if (breakers.contended_min > breakers.window)
    return wrong("breakers.tenants.contended_min", "longer than the window", "at most window");
  for (std::size_t i = 0; i < config.cors.origins.size(); ++i)
    if (!is_origin(config.cors.origins[i]))
      return wrong("cors." + element("origins", i), "not an origin",
                   "scheme://host[:port] or \"*\"");
  if (auto r = check_quota_store(config.quota_store); !r) return r;
  if (auto r = check_models(config); !r) return r;
  return check_tenants(config);
}

}  // namespace sluice::cfg
