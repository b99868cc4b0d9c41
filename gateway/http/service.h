// Service: what all connections of a gateway share, wired once by the gateway role. Plain members:
// the sessions and handlers use them directly. Event loop only (the models are also read by the
// tokenizing pool).
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "gateway/admin/admin_service.h"
#include "gateway/api/parse_request.h"
#include "gateway/http/auth.h"
#include "gateway/http/http_metrics.h"
#include "gateway/http/prompt_encoding.h"
#include "gateway/http/response_head.h"
#include "gateway/http/tokenize_pool.h"
#include "gateway/link/decision_loop.h"
#include "shared/clock.h"
#include "shared/random.h"

namespace sluice::gw {

// All bodies that are being read may hold so many times the largest one together.
inline constexpr std::uint64_t kBodiesHeldMax = 32;

// Process-unique, unguessable-enough names for requests and responses; not secrets.
class IdSource {
 public:
  explicit IdSource(std::uint64_t seed) : seed_(seed) {}
  std::uint64_t next() { return mix64(seed_ ^ mix64(counter_++)); }
  void append_hex(std::string& out, int words);

 private:
  std::uint64_t seed_;
  std::uint64_t counter_ = 0;
};

struct Service {
  // `seed`: random bits of the operating system; drives ids, seeds and the parser's hash.
  Service(cfg::Config configuration, std::vector<ServedModel> served, DecisionLoop& decisions,
          const Clock& time, std::uint64_t seed, std::int64_t unix_s_now);

  cfg::Config config;
  const std::vector<ServedModel> models;  // in the order of config.models
  DecisionLoop& loop;
  const Clock& clock;
  Auth auth;
  RequestParser parser;
  IdSource ids;
  HttpMetrics metrics;
  DateLine date;
  const std::int64_t started_unix_s;
  const Tick started;
  std::unique_ptr<TokenizePool> pool;
  // Appends what the decision loop and the workers have to say to the metrics page.
  std::function<void(std::string&)> append_core_metrics;
  AdminService* admin = nullptr;  // null: no admin routes
  std::string scratch;            // bodies are built here before their head; empty between uses
  std::string openapi;            // the document, once somebody asked for it
  bool is_draining = false;

  // Keys, limits and CORS of a new configuration; the rest stays as it was at the start.
  void reload(const cfg::Config& fresh);
  // One tenant of it, behind its parent. A tenant that is gone keeps its number, with an empty name
  // and without keys.
  void update(TenantId number, const cfg::TenantUpdate& update);
  // By name, ascending; those of config.tenants that are not gone.
  const std::map<std::string, TenantId>& tenant_numbers() const { return tenant_numbers_; }
  void set_admin(AdminService& service);

  // Seconds since 1970 by the monotonic clock: never runs backwards.
  std::int64_t unix_s() const {
    return started_unix_s +
           std::chrono::duration_cast<std::chrono::seconds>(clock.now() - started).count();
  }
  const cfg::Tenant& tenant(TenantId id) const;
  const cfg::TenantLimits& limits(TenantId id) const;
  // Errors: model_not_found, model_not_allowed, classification_denied. An empty name is the first
  // model.
  Result<std::uint32_t> find_model(std::string_view name, TenantId tenant) const;
  Result<void> check_model_allowed(std::uint32_t model, TenantId tenant) const;
  // What the configuration allows and the workers can hold.
  std::uint32_t context_tokens(std::uint32_t model) const;

 private:
  void number_tenants();
  bool is_blocked(const cfg::Tenant& tenant) const;

  cfg::Tenant default_tenant_;  // without configured tenants
  std::map<std::string, TenantId> tenant_numbers_;
};

}  // namespace sluice::gw
