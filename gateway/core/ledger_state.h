// What a ledger knows, as plain data for a store: balances of the current periods, charges of the
// last minute, open reservations. Times are Unix times, so that it outlives the process and its
// monotonic clock. A reader treats it as input: import_state() validates before it changes
// anything.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gateway/core/ledger_limits.h"
#include "gateway/core/utc_calendar.h"

namespace sluice::gw {

struct MinuteCharge {
  std::int64_t unix_ms = 0;  // start of its second
  LimitKind kind{};
  std::uint64_t amount = 0;
  bool operator==(const MinuteCharge&) const = default;
};

struct LedgerBalance {
  AccountId account;
  std::optional<std::uint32_t> model;  // nothing: the account's own counters
  DayNumber day = 0;
  std::uint64_t day_tokens = 0;
  MonthNumber month = 0;
  std::uint64_t month_cost = 0;
  std::vector<MinuteCharge> minute;  // oldest first
  bool operator==(const LedgerBalance&) const = default;
};

struct LedgerLevel {
  AccountId account;
  std::uint32_t in_model = 0;  // bit per LimitKind: counted for the model alone
  bool operator==(const LedgerLevel&) const = default;
};

struct ReservedAt {
  std::int64_t unix_ms = 0;  // start of its second
  DayNumber day = 0;
  MonthNumber month = 0;
  bool operator==(const ReservedAt&) const = default;
};

struct OpenReservation {
  std::uint64_t tag = 0;
  std::vector<LedgerLevel> path;  // from the asking account upwards
  std::uint32_t model = 0;
  ReservationMode mode{};
  Prices prices;
  ReservedAt prompt_at, output_at;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t unspent = 0, spent_running = 0, ungranted = 0;
  std::uint32_t choices = 0;
  bool is_prompt_settled = false;
  bool operator==(const OpenReservation&) const = default;
};

struct LedgerState {
  DayNumber day = 0;
  MonthNumber month = 0;
  std::vector<LedgerBalance> balances;  // by account, its own first, then by model
  std::vector<OpenReservation> open;    // oldest first
  bool operator==(const LedgerState&) const = default;
};

}  // namespace sluice::gw
