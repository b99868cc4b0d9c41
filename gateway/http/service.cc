// Look-ups over the configuration.
#include "gateway/http/service.h"

#include <algorithm>

#include "config/settings.h"

namespace sluice::gw {

void IdSource::append_hex(std::string& out, int words) {
  constexpr char kHex[] = "0123456789abcdef";
  for (int word = 0; word < words; ++word) {
    std::uint64_t bits = next();
    for (int digit = 0; digit < 16; ++digit) {
      out.push_back(kHex[bits & 15]);
      bits >>= 4;
    }
  }
}

Service::Service(cfg::Config configuration, std::vector<ServedModel> served,
                 DecisionLoop& decisions, const Clock& time, std::uint64_t seed,
                 std::int64_t unix_s_now)
    : config(std::move(configuration)),
      models(std::move(served)),
      loop(decisions),
      clock(time),
      auth(config),
      parser(mix64(seed)),
      ids(mix64(seed + 1)),
      started_unix_s(unix_s_now),
      started(time.now()) {
  default_tenant_.limits = config.default_limits;
  number_tenants();
}

void Service::number_tenants() {
  tenant_numbers_.clear();
  for (std::uint32_t i = 0; i < config.tenants.size(); ++i)
    tenant_numbers_.emplace(config.tenants[i].name, TenantId{i});
}

bool Service::is_blocked(const cfg::Tenant& tenant) const {
  const cfg::Tenant* at = &tenant;
  for (std::size_t depth = 0; depth < cfg::kTenantDepthMax && !at->blocked; ++depth) {
    const auto up = tenant_numbers_.find(at->parent);
    if (up == tenant_numbers_.end()) return false;
    at = &config.tenants[up->second.value];
  }
  return at->blocked;
}

void Service::update(TenantId number, const cfg::TenantUpdate& update) {
  if (number.value >= config.tenants.size()) config.tenants.resize(number.value + 1);
  cfg::Tenant& tenant = config.tenants[number.value];
  if (update.tenant) {
    tenant = *update.tenant;
    tenant_numbers_.insert_or_assign(update.name, number);
  } else {
    tenant = {};
    tenant.name.clear();
    tenant.blocked = true;
    tenant_numbers_.erase(update.name);
  }
  auth.set_tenant(number, tenant.keys, is_blocked(tenant));
}

void Service::reload(const cfg::Config& fresh) {
  config.tenants = fresh.tenants;
  config.default_limits = fresh.default_limits;
  config.cors = fresh.cors;
  config.http = fresh.http;
  default_tenant_.limits = fresh.default_limits;
  number_tenants();
  auth = Auth(config, admin == nullptr ? std::string() : admin->hash_secret());
}

void Service::set_admin(AdminService& service) {
  admin = &service;
  auth = Auth(config, service.hash_secret());
}

const cfg::Tenant& Service::tenant(TenantId id) const {
  // A reload may have removed tenants whose requests still run.
  return id.value < config.tenants.size() ? config.tenants[id.value] : default_tenant_;
}

const cfg::TenantLimits& Service::limits(TenantId id) const {
  return tenant(id).limits;
}

Result<void> Service::check_model_allowed(std::uint32_t model, TenantId id) const {
  const auto allows = [](const std::vector<std::string>& list, const std::string& name) {
    return list.empty() || std::find(list.begin(), list.end(), name) != list.end();
  };
  const cfg::Model& served = models[model].config;
  const cfg::Tenant& caller = tenant(id);
  if (!allows(caller.models, served.name))
    return make_error(Errc::model_not_allowed,
                      "this API key may not use the model '" + served.name + "'", "model");
  if (!allows(served.security_classes, caller.security_class))
    return make_error(
        Errc::classification_denied,
        "the security class of this tenant may not use the model '" + served.name + "'", "model");
  return {};
}

Result<std::uint32_t> Service::find_model(std::string_view name, TenantId id) const {
  for (std::uint32_t i = 0; i < models.size(); ++i) {
    const std::string& served = models[i].config.name;
    if (!name.empty() && served != name) continue;
    if (const Result<void> allowed = check_model_allowed(i, id); !allowed) return allowed.error();
    return i;
  }
  return make_error(Errc::model_not_found,
                    "the model '" + std::string(name.substr(0, 128)) + "' is not served here",
                    "model");
}

std::uint32_t Service::context_tokens(std::uint32_t model) const {
  const std::uint32_t configured = models[model].config.context_tokens;
  const std::uint32_t held = loop.model_facts(model).context_tokens;
  return held == 0 ? configured : std::min(configured, held);
}

}  // namespace sluice::gw
