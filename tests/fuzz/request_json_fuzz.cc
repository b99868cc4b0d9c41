// Any bytes as a request body, of clients or of admins: parsing must neither crash nor accept what
// breaks its own bounds, and what it accepts must be accepted again (no state is left behind).
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "config/settings.h"
#include "gateway/api/parse_admin.h"
#include "gateway/api/parse_request.h"
#include "shared/check.h"
#include "shared/limits.h"

using namespace sluice;
using namespace sluice::gw;

namespace {

void check_bounds(const GenerationRequest& request) {
  CHECK(!request.model.empty());
  CHECK(request.choices >= 1 && request.choices <= kChoicesMax);
  CHECK(request.stop.size() <= kStopStringsMax);
  CHECK(request.stop_token_ids.size() <= kStopIdsMax);
  CHECK(request.logit_bias.size() <= kLogitBiasMax);
  CHECK(request.sampling.temperature >= 0 && request.sampling.temperature <= 2);
  CHECK(request.sampling.top_p > 0 && request.sampling.top_p <= 1);
  if (request.kind == ApiKind::embedding) {
    CHECK(!request.prompts.empty() && request.prompts.size() <= kEmbeddingInputsMax);
    return;
  }
  CHECK(request.best_of >= request.choices);
  CHECK(request.prompts.size() * request.best_of <= kChoicesMax);
  CHECK(request.logprobs.value_or(0) <= kTopLogprobsMax);
  if (request.kind == ApiKind::chat) CHECK(!request.messages.empty());
  if (request.max_tokens)
    CHECK(*request.max_tokens >= (request.echo ? 0u : 1u) &&
          *request.max_tokens <= kContextTokensMax);
}

void check_bounds(const cfg::LimitValues& limits) {
  CHECK(limits.requests_per_minute.value_or(0) <= 1'000'000'000);
  CHECK(limits.monthly_budget.value_or(0) <= cfg::kBudgetMax);
  CHECK(limits.output_tokens_max.value_or(0) <= kContextTokensMax);
}

void check_bounds(const cfg::Limits& limits) {
  check_bounds(static_cast<const cfg::LimitValues&>(limits));
  CHECK(limits.model_overrides.size() <= kModelsMax);
  CHECK(limits.temporary_overrides.size() <= cfg::kTemporaryOverridesMax);
  for (const cfg::ModelOverride& model : limits.model_overrides) check_bounds(model);
  for (const cfg::TemporaryOverride& temporary : limits.temporary_overrides) {
    check_bounds(temporary);
    CHECK(temporary.until >= 0 && temporary.until <= cfg::kUnixSecondsMax);
  }
}

void parse_as_admin(const std::string& text) {
  static AdminParser parser(1);
  std::string body = text;
  TenantFields tenant;
  if (parser.read_tenant(body, tenant)) {
    CHECK(tenant.id.empty() || is_admin_name(tenant.id));
    CHECK(tenant.weight >= 1 && tenant.weight <= cfg::kWeightMax);
  }
  cfg::TenantLimits limits, again;
  body = text;
  const bool is_accepted = parser.read_quota(body, limits).has_value();
  if (is_accepted) check_bounds(limits);
  body = text;
  CHECK(parser.read_quota(body, again).has_value() == is_accepted);
  CHECK(!is_accepted || limits == again);
  KeyFields key;
  body = text;
  if (parser.read_key(body, key)) check_bounds(key.limits);
  std::int64_t overlap_seconds = 0;
  body = text;
  if (parser.read_rotation(body, overlap_seconds))
    CHECK(overlap_seconds >= 0 && overlap_seconds <= kOverlapSecondsMax);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static RequestParser parser(1);
  static GenerationRequest request;
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const ApiKind kind : {ApiKind::chat, ApiKind::completion, ApiKind::embedding}) {
    std::string body = text;
    const bool is_accepted = parser.parse_generation(body, kind, request).has_value();
    if (is_accepted) check_bounds(request);
    body = text;
    CHECK(parser.parse_generation(body, kind, request).has_value() == is_accepted);
  }
  std::string body = text;
  TokenizeRequest tokenize;
  (void)parser.parse_tokenize(body, tokenize).has_value();
  body = text;
  DetokenizeRequest detokenize;
  (void)parser.parse_detokenize(body, detokenize).has_value();
  parse_as_admin(text);
  return 0;
}
