// Models, quota, probes and metrics.
#include "gateway/http/endpoints.h"

#include <array>

#include "gateway/admin/admin_json.h"
#include "gateway/api/json_text.h"
#include "gateway/api/percent_decode.h"
#include "gateway/api/write_response.h"
#include "gateway/http/openapi.h"
#include "gateway/http/session.h"

namespace sluice::gw {
namespace {

ModelCard card_of(const Service& service, std::uint32_t model) {
  return {.name = service.models[model].config.name,
          .created = service.started_unix_s,
          .max_model_len = service.context_tokens(model)};
}

void answer_models(Session& session) {
  Service& service = session.service();
  std::string& out = service.scratch;
  out.assign("{\"object\":\"list\",\"data\":[");
  bool is_first = true;
  for (std::uint32_t i = 0; i < service.models.size(); ++i) {
    if (!service.check_model_allowed(i, session.tenant())) continue;
    if (!is_first) out.push_back(',');
    is_first = false;
    append_model(out, card_of(service, i));
  }
  out.append("]}");
  session.respond_json(out);
}

void answer_model(Session& session) {
  Service& service = session.service();
  std::string name;
  if (!percent_decode(session.route().tail, name) || name.empty())
    return session.respond_error(
        make_error(Errc::model_not_found, "the path does not name a model", "model"));
  const Result<std::uint32_t> model = service.find_model(name, session.tenant());
  if (!model) return session.respond_error(model.error());
  std::string& out = service.scratch;
  out.clear();
  append_model(out, card_of(service, *model));
  session.respond_json(out);
}

void answer_quota(Session& session) {
  Service& service = session.service();
  std::string& out = service.scratch;
  out.clear();
  append_caller_quota(out, service.tenant(session.tenant()), service.loop.quota(session.caller()));
  session.respond_json(out);
}

void answer_openapi(Session& session) {
  Service& service = session.service();
  if (service.openapi.empty()) service.openapi = openapi_document();
  session.respond_json(service.openapi);
}

std::string_view quota_store_name(QuotaStoreState state) {
  constexpr std::array<std::string_view, 4> kNames{"local", "connected", "settling", "unavailable"};
  return kNames[static_cast<std::size_t>(state)];
}

void answer_ready(Session& session) {
  Service& service = session.service();
  if (service.is_draining)
    return session.respond_error(make_error(Errc::overloaded, "the server is shutting down"));
  for (std::uint32_t i = 0; i < service.models.size(); ++i) {
    if (service.loop.model_facts(i).workers_ready > 0) continue;
    Error error = make_error(Errc::model_loading, "the model '" + service.models[i].config.name +
                                                      "' has no ready worker");
    error.retry_after = std::chrono::seconds(1);
    return session.respond_error(error);
  }
  // Ready as long as someone is served: a store that fails refuses accounts with limits only.
  const UsageStoreState usage = service.loop.usage_store_state();
  if (usage != UsageStoreState::full) {
    const std::string_view quota = quota_store_name(service.loop.quota_store_state());
    std::string& out = service.scratch;
    out.assign("{\"status\":\"ready\",\"usage_store\":\"")
        .append(usage == UsageStoreState::storing ? "storing" : "failing")
        .append("\",\"quota_store\":\"")
        .append(quota)
        .append("\"}");
    return session.respond_json(out);
  }
  Error error =
      make_error(Errc::quota_store_unavailable, "the usage store has failed for too long");
  error.retry_after = std::chrono::seconds(1);
  session.respond_error(error);
}

void answer_metrics(Session& session) {
  Service& service = session.service();
  std::string& out = service.scratch;
  out.clear();
  append_http_metrics(out, service.metrics);
  if (service.append_core_metrics) service.append_core_metrics(out);
  session.respond(200, "text/plain; version=0.0.4; charset=utf-8", out);
}

}  // namespace

void answer_endpoint(Session& session) {
  switch (session.route().endpoint) {
    case Endpoint::models:
      return answer_models(session);
    case Endpoint::model:
      return answer_model(session);
    case Endpoint::quota:
      return answer_quota(session);
    case Endpoint::openapi:
      return answer_openapi(session);
    case Endpoint::live:
      return session.respond_json("{\"status\":\"live\"}");
    case Endpoint::ready:
    case Endpoint::health:
      return answer_ready(session);
    case Endpoint::metrics:
      return answer_metrics(session);
    default:
      CHECK(false && "an endpoint with a handler of its own");
  }
}

}  // namespace sluice::gw
