// Admission: checks in the order of their cost, then charges; nothing is charged on an error.
#include "gateway/core/admission.h"

#include <algorithm>
#include <string>

#include "shared/check.h"

namespace sluice::gw {

namespace {

std::chrono::milliseconds ceil_ms(Duration duration) {
  return std::chrono::ceil<std::chrono::milliseconds>(duration);
}

Error limited(Errc code, std::string detail, Duration retry_after) {
  Error error = make_error(code, std::move(detail));
  error.retry_after = std::max(std::chrono::milliseconds{1}, ceil_ms(retry_after));
  return error;
}

}  // namespace

Admission::Admission(std::span<const TenantQuota> quotas) {
  set_quotas(quotas);
}

void Admission::set_quotas(std::span<const TenantQuota> quotas) {
  CHECK(quotas.size() >= tenants_.size());
  tenants_.resize(quotas.size());
  for (std::size_t i = 0; i < quotas.size(); ++i) {
    tenants_[i].quota = quotas[i];
    tenants_[i].requests.set_limit(quotas[i].requests_per_minute);
    tenants_[i].tokens.set_limit(quotas[i].tokens_per_minute);
  }
}

const Admission::Tenant& Admission::at(TenantId tenant) const {
  CHECK(tenant.value < tenants_.size());
  return tenants_[tenant.value];
}

Admission::Tenant& Admission::at(TenantId tenant) {
  CHECK(tenant.value < tenants_.size());
  return tenants_[tenant.value];
}

Result<void> Admission::check_request(TenantId id, Tick now, Duration typical_request) const {
  const Tenant& tenant = at(id);
  if (!tenant.requests.can_charge(1, now)) {
    return limited(Errc::requests_rate_limited,
                   "request limit of " + std::to_string(tenant.quota.requests_per_minute) +
                       " per minute reached",
                   tenant.requests.retry_after(1, now));
  }
  const std::uint32_t allowed = tenant.quota.concurrent_requests;
  if (allowed != 0 && tenant.running >= allowed) {
    // With `allowed` running side by side one ends every typical / allowed on average.
    return limited(Errc::concurrency_limit,
                   "limit of " + std::to_string(allowed) + " concurrent requests reached",
                   typical_request / allowed);
  }
  return {};
}

Result<void> Admission::count_request(TenantId id, Tick now) {
  Tenant& tenant = at(id);
  if (!tenant.requests.try_charge(1, now)) {
    return limited(Errc::requests_rate_limited,
                   "request limit of " + std::to_string(tenant.quota.requests_per_minute) +
                       " per minute reached",
                   tenant.requests.retry_after(1, now));
  }
  return {};
}

Result<Reservation> Admission::reserve(TenantId id, std::uint64_t prompt_tokens,
                                       std::uint32_t choices, std::uint32_t output_tokens_max,
                                       Tick now, Duration typical_request) {
  Tenant& tenant = at(id);
  const std::uint32_t cap = tenant.quota.output_tokens_max;
  if (cap != 0 && output_tokens_max > cap) {
    return make_error(Errc::invalid_value,
                      "at most " + std::to_string(cap) + " output tokens are allowed, " +
                          std::to_string(output_tokens_max) + " were asked for",
                      "max_tokens");
  }
  // Both factors are bounded far below 2^32 by limits.h, so the product cannot wrap.
  const std::uint64_t output_tokens = std::uint64_t{choices} * output_tokens_max;
  const std::uint64_t needed = prompt_tokens + output_tokens;
  const std::uint64_t allowed = tenant.quota.tokens_per_minute;
  if (allowed != 0 && needed > allowed) {
    return make_error(Errc::request_exceeds_quota_capacity,
                      "the request needs " + std::to_string(needed) +
                          " tokens (prompt and bounded output), the limit is " +
                          std::to_string(allowed) + " per minute");
  }
  if (const Result<void> checked = check_request(id, now, typical_request); !checked) {
    return checked.error();
  }
  const std::optional<RateWindow::Slot> slot = tenant.tokens.try_charge(needed, now);
  if (!slot) {
    return limited(Errc::tokens_rate_limited,
                   "token limit of " + std::to_string(allowed) +
                       " per minute: " + std::to_string(needed) + " needed, " +
                       std::to_string(tenant.tokens.remaining(now)) + " left",
                   tenant.tokens.retry_after(needed, now));
  }
  CHECK(tenant.requests.try_charge(1, now).has_value());
  ++tenant.running;
  return Reservation{id, *slot, prompt_tokens, output_tokens};
}

void Admission::settle(Reservation& reservation, std::uint64_t reserved, std::uint64_t used) {
  CHECK(used <= reserved && reserved <= reservation.output_tokens);
  at(reservation.tenant).tokens.give_back(reservation.slot, reserved - used);
  reservation.output_tokens -= reserved;
}

void Admission::release(Reservation& reservation, PromptUse prompt) {
  Tenant& tenant = at(reservation.tenant);
  CHECK(tenant.running > 0);
  --tenant.running;
  std::uint64_t unused = reservation.output_tokens;
  if (prompt == PromptUse::unused) unused += reservation.prompt_tokens;
  tenant.tokens.give_back(reservation.slot, unused);
  reservation.output_tokens = 0;
  reservation.prompt_tokens = 0;
}

LimitsView Admission::limits(TenantId id, Tick now) const {
  const Tenant& tenant = at(id);
  LimitsView view;
  view.requests_limit = tenant.quota.requests_per_minute;
  view.requests_remaining = tenant.requests.remaining(now);
  view.requests_reset = tenant.requests.reset_in(now);
  view.tokens_limit = tenant.quota.tokens_per_minute;
  view.tokens_remaining = tenant.tokens.remaining(now);
  view.tokens_reset = tenant.tokens.reset_in(now);
  return view;
}

}  // namespace sluice::gw
