// Admission: who may spend what. Before a request waits, its exact prompt and its bounded output
// are reserved against every limit of its tenant (P5); what a finished choice did not use is free
// at once.
//
//   reserve --> settle (once per choice, with what it used) --> release (once)
//
// Invariants: 1. used + reserved never passes a limit, at any instant and in any 60 s window;
// 2. a reservation is released exactly once, and then holds exactly what was used.
// Tenants are dense indices; limits may be swapped at any time and act on the next call.
// Pure; decision thread only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gateway/core/generation.h"
#include "gateway/core/rate_limit.h"
#include "shared/result.h"

namespace sluice::gw {

// Limits of one tenant; 0 means no limit.
struct TenantQuota {
  std::uint64_t requests_per_minute = 0;
  std::uint64_t tokens_per_minute = 0;  // prompt + output
  std::uint32_t concurrent_requests = 0;
  std::uint32_t output_tokens_max = 0;  // per choice
};

// What a request holds. A value; only Admission changes it.
struct Reservation {
  TenantId tenant;
  RateWindow::Slot slot = 0;  // of the token window: the charge's second
  std::uint64_t prompt_tokens = 0;
  std::uint64_t output_tokens = 0;  // reserved and not settled yet, all choices
};

enum class PromptUse : std::uint8_t { unused, computed };

class Admission {
 public:
  explicit Admission(std::span<const TenantQuota> quotas);
  // More tenants than before is fine; fewer is not: ids stay valid for running requests.
  void set_quotas(std::span<const TenantQuota> quotas);

  // `typical_request`: measured duration of a request, for the Retry-After of the concurrency
  // limit. Errors: requests_rate_limited, concurrency_limit (both with retry_after).
  Result<void> check_request(TenantId tenant, Tick now, Duration typical_request) const;
  // A request that generates nothing. Errors: requests_rate_limited.
  Result<void> count_request(TenantId tenant, Tick now);

  // All or nothing. Errors: those of check_request, invalid_value (output cap), tokens_rate_limited
  // (retry_after), request_exceeds_quota_capacity (never admissible: no retry_after).
  Result<Reservation> reserve(TenantId tenant, std::uint64_t prompt_tokens, std::uint32_t choices,
                              std::uint32_t output_tokens_max, Tick now, Duration typical_request);
  // One choice is over: of its `reserved` output tokens it used `used`.
  void settle(Reservation& reservation, std::uint64_t reserved, std::uint64_t used);
  // The request is over. Unsettled output returns, and the prompt too when no worker ever saw it.
  void release(Reservation& reservation, PromptUse prompt);

  LimitsView limits(TenantId tenant, Tick now) const;
  const TenantQuota& quota(TenantId tenant) const { return at(tenant).quota; }
  std::uint32_t running(TenantId tenant) const { return at(tenant).running; }
  std::size_t num_tenants() const { return tenants_.size(); }

 private:
  struct Tenant {
    TenantQuota quota;
    RateWindow requests;
    RateWindow tokens;
    std::uint32_t running = 0;
  };
  const Tenant& at(TenantId tenant) const;
  Tenant& at(TenantId tenant);

  std::vector<Tenant> tenants_;
};

}  // namespace sluice::gw
