// From journal to book, from book to ledger.
#include "gateway/store/usage_recovery.h"

#include <algorithm>
#include <optional>

#include "gateway/core/utc_calendar.h"

namespace sluice::gw {
namespace {

constexpr std::int64_t kMinuteS = 61;  // an interval of 60 s touches so many seconds

std::optional<AccountId> account_of(const UsageSum& sum, const LedgerNames& names) {
  if (const auto found = names.accounts.find(sum.account); found != names.accounts.end())
    return found->second;
  if (sum.tenant.empty()) return std::nullopt;
  if (const auto found = names.tenants.find(sum.tenant); found != names.tenants.end())
    return found->second;
  return std::nullopt;
}

void set_amounts(Amounts& amounts, UsagePeriod period, const UsageSum& sum) {
  const auto set = [&](LimitKind kind, std::uint64_t amount) {
    amounts[index_of(kind)] = std::min(amount, kAmountMax);
  };
  if (period == UsagePeriod::second) {
    set(LimitKind::requests_per_minute, sum.requests);
    set(LimitKind::tokens_per_minute, sum.prompt + sum.output);
    set(LimitKind::input_tokens_per_minute, sum.prompt);
    set(LimitKind::output_tokens_per_minute, sum.output);
  } else if (period == UsagePeriod::day) {
    set(LimitKind::tokens_per_day, sum.prompt + sum.output);
  } else {
    set(LimitKind::monthly_budget, sum.cost);
  }
}

}  // namespace

Result<UsageRecovery> recover_usage(UsageBook& book, Journal& journal,
                                    std::span<const Journal::Recovered> left,
                                    std::int64_t now_unix_s) {
  // Nobody opened this journal before: its ids begin again.
  if (journal.gateway_epoch() == Epoch(1)) {
    if (const Result<void> forgotten = book.forget_ids(); !forgotten) return forgotten.error();
  }
  std::vector<UsageEntry> entries;
  UsageRecovery recovery;
  for (const Journal::Recovered& slot : left) {
    entries.push_back(journal.is_power_lost() ? usage_in_full(slot) : usage_of(slot));
    recovery.output += entries.back().output;
    ++recovery.slots;
  }
  if (!entries.empty()) {
    const Result<std::uint64_t> added = book.add(entries, now_unix_s);
    if (!added) return added.error();
  }
  for (const Journal::Recovered& slot : left) journal.absorb(slot.slot);
  journal.confirm_boot();
  return recovery;
}

Result<std::vector<Ledger::SettledCharge>> ledger_charges(UsageBook& book, const LedgerNames& names,
                                                          std::int64_t now_unix_s) {
  std::vector<Ledger::SettledCharge> charges;
  const std::int64_t now_ms = std::clamp<std::int64_t>(now_unix_s, 0, kUnixMsMax / 1000) * 1000;
  const DayNumber today = day_number(now_ms);
  const std::int64_t month_ms = day_start_unix_ms(month_start(month_number(today)));
  const std::pair<UsagePeriod, std::int64_t> periods[] = {
      {UsagePeriod::second, now_ms / 1000 - kMinuteS},
      {UsagePeriod::day, day_start_unix_ms(today) / 1000},
      {UsagePeriod::month, month_ms / 1000}};
  for (const auto& [period, from_unix_s] : periods) {
    const Result<std::vector<UsageSum>> sums = book.sums(period, from_unix_s);
    if (!sums) return sums.error();
    for (const UsageSum& sum : *sums) {
      const std::optional<AccountId> account = account_of(sum, names);
      if (!account) continue;
      Ledger::SettledCharge& charge = charges.emplace_back();
      charge.account = *account;
      if (const auto model = names.models.find(sum.model); model != names.models.end())
        charge.model = model->second;
      charge.unix_ms = std::min(sum.start_unix_s, kUnixMsMax / 1000) * 1000;
      set_amounts(charge.amounts, period, sum);
    }
  }
  return charges;
}

}  // namespace sluice::gw
