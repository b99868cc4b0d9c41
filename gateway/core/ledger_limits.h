// What an account of the ledger may spend: plain values between the configuration, the ledger and
// its stores. An account is a tenant, the parent of tenants, or one API key of a tenant.
//
// "No limit" is a value of its own, kNoLimit; 0 is a limit that admits nothing. So an explicit zero
// is never taken for a missing one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "shared/ids.h"
#include "shared/limits.h"

namespace sluice::gw {

inline constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
inline constexpr std::uint64_t kAmountMax = std::uint64_t{1} << 62;  // what one counter may hold
inline constexpr std::size_t kAccountDepthMax = 8;                   // parents, tenant and key
inline constexpr std::uint64_t kPriceMax = 1'000'000;

enum class LimitKind : std::uint8_t {
  // Sliding minute (rate_limit.h).
  requests_per_minute,
  tokens_per_minute,  // prompt + output
  input_tokens_per_minute,
  output_tokens_per_minute,
  // Calendar periods in UTC.
  tokens_per_day,
  monthly_budget,  // cost units
  // Held while a request runs.
  concurrent_requests,
  concurrent_kv_tokens,  // choices * prompt + output of the running choices
  // Not counted: the most that one choice may ask for.
  output_tokens_max,
};
inline constexpr std::size_t kLimitKinds = 9;
inline constexpr std::size_t kCounterKinds = 8;  // all but output_tokens_max
inline constexpr std::size_t kMinuteKinds = 4;
std::string_view limit_kind_name(LimitKind kind);

constexpr bool is_concurrency(LimitKind kind) {  // held while a request runs
  return kind == LimitKind::concurrent_requests || kind == LimitKind::concurrent_kv_tokens;
}

constexpr std::size_t index_of(LimitKind kind) {
  return static_cast<std::size_t>(kind);
}
using Amounts = std::array<std::uint64_t, kCounterKinds>;

// Limits by kind; what is not named is unlimited in an account and inherited in an override.
class LimitSet {
 public:
  std::optional<std::uint64_t>& operator[](LimitKind kind) { return at_most_[index_of(kind)]; }
  const std::optional<std::uint64_t>& operator[](LimitKind kind) const {
    return at_most_[index_of(kind)];
  }
  bool operator==(const LimitSet&) const = default;

 private:
  std::array<std::optional<std::uint64_t>, kLimitKinds> at_most_;
};

// An override for one model. A kind that it names is counted for this model alone, against this
// limit, and no longer in the account's own counter: it may be higher or lower.
struct ModelLimits {
  std::uint32_t model = 0;
  LimitSet limits;
  bool operator==(const ModelLimits&) const = default;
};

// In force until `until_unix_s` (exclusive), in place of what the account (or the model) has.
struct TemporaryLimits {
  std::optional<std::uint32_t> model;
  LimitSet limits;
  std::int64_t until_unix_s = 0;
  bool operator==(const TemporaryLimits&) const = default;
};

enum class Standing : std::uint8_t {
  active,
  blocked,  // a tenant that its operator has blocked, with all below it
  revoked,  // a key or tenant that exists no more; its number may be live in running requests
};

// How much output a request holds before it has produced it.
enum class ReservationMode : std::uint8_t {
  exact,        // the whole bound: never overshoots, never stops in the middle
  incremental,  // kGrantTokens at a time: never overshoots, may stop at a border
  quantile,     // the predicted length: may overshoot (ledger.h says by how much)
};
inline constexpr std::size_t kReservationModes = 3;
std::string_view reservation_mode_name(ReservationMode mode);
inline constexpr std::uint32_t kGrantTokens = 64;

struct AccountSpec {
  std::optional<AccountId> parent;
  Standing standing = Standing::active;
  bool is_shadow = false;  // counts, never refuses
  ReservationMode mode = ReservationMode::exact;
  LimitSet limits;
  std::vector<ModelLimits> models;         // each model at most once
  std::vector<TemporaryLimits> temporary;  // later ones win
  bool operator==(const AccountSpec&) const = default;
};

// Cost units per token, at most kPriceMax each. What a unit is worth is the operator's choice: with
// billionths of a dollar, 150 is $0.15 for a million tokens.
struct Prices {
  std::uint64_t input = 0;
  std::uint64_t cached = 0;  // of prompt tokens found in the prefix cache; at most `input`
  std::uint64_t output = 0;
  bool operator==(const Prices&) const = default;
};

}  // namespace sluice::gw
