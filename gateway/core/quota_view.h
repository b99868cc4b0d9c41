// What is left of limits, as plain values for the REST surface: made by the ledger, shown by
// others.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "gateway/core/ledger_limits.h"
#include "shared/clock.h"

namespace sluice::gw {

// One counter beside the limit in force.
struct CounterView {
  std::uint64_t limit = kNoLimit;
  std::uint64_t spent = 0;        // of concurrency: in use; of shared limits by others, too
  std::uint64_t reserved = 0;     // held by open requests, not spent yet
  std::optional<Duration> reset;  // until what is charged now is free; nothing: concurrency
  std::uint64_t remaining() const { return limit - std::min(limit, spent + reserved); }
};
using QuotaView = std::array<CounterView, kCounterKinds>;
struct ModelQuotaView {
  std::uint32_t model = 0;
  std::array<std::optional<CounterView>, kCounterKinds> counters;  // what is counted for it alone
};

// All that an account has.
struct AccountQuota {
  QuotaView own;
  std::vector<ModelQuotaView> models;
  std::uint64_t shadow_refusals = 0;  // what would have been refused
};

}  // namespace sluice::gw
