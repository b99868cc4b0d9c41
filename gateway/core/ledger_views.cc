// Ledger: what an operator or a caller may see of its counters. O(open reservations): not for the
// path of requests.
#include <algorithm>

#include "gateway/core/ledger.h"
#include "shared/check.h"

namespace sluice::gw {

// What open reservations hold of the account's counters: its own first, then those of its models.
std::vector<Amounts> Ledger::reserved_by(std::uint32_t account, Tick at) const {
  std::vector<Amounts> held(1 + accounts_[account].models.size(), Amounts{});
  for (const Open& open : open_) {
    if (open.generation % 2 == 0 || open.unspent == 0) continue;
    for (const Level& level : open.path.span()) {
      if (level.account != account) continue;
      const Amounts amounts = extension_amounts(open, open.unspent);
      for (std::size_t i = 0; i < kCounterKinds; ++i) {
        const auto kind = static_cast<LimitKind>(i);
        if (!holds(open, kind, at)) continue;
        held[is_models(level, kind) ? 1 + level.model_at : 0][i] += amounts[i];
      }
    }
  }
  return held;
}

CounterView Ledger::view(std::uint32_t account, std::uint32_t model_at, LimitKind kind, Tick at,
                         std::uint64_t reserved) const {
  const Counters& counted = counters_of(accounts_[account], model_at);
  CounterView view;
  view.limit = counted.limit[index_of(kind)];
  const std::uint64_t has = used(counted, kind, at);
  view.reserved = std::min(has, reserved);
  view.spent = has - view.reserved + others(counted, kind, at);
  const DayNumber day = std::max(day_, day_number(unix_ms(at)));
  switch (kind) {
    case LimitKind::concurrent_requests:
    case LimitKind::concurrent_kv_tokens:
    case LimitKind::output_tokens_max:
      break;
    case LimitKind::tokens_per_day:
      view.reset = tick_of(day_start_unix_ms(day + 1)) - at;
      break;
    case LimitKind::monthly_budget:
      view.reset = tick_of(day_start_unix_ms(month_start(month_number(day) + 1))) - at;
      break;
    default:
      view.reset = counted.minute == kNone
                       ? Duration{0}
                       : minutes_[counted.minute].windows[index_of(kind)].reset_in(at);
  }
  return view;
}

QuotaView Ledger::own_quota(AccountId id, Tick now) const {
  const Tick at = std::max(now, now_);
  const std::vector<Amounts> reserved = reserved_by(id.value, at);
  QuotaView quota;
  for (std::size_t i = 0; i < kCounterKinds; ++i)
    quota[i] = view(id.value, kNone, static_cast<LimitKind>(i), at, reserved[0][i]);
  return quota;
}

std::vector<ModelQuotaView> Ledger::model_quotas(AccountId id, Tick now) const {
  const Tick at = std::max(now, now_);
  const std::vector<Amounts> reserved = reserved_by(id.value, at);
  const Account& account = accounts_[id.value];
  std::vector<ModelQuotaView> quotas;
  for (std::uint32_t place = 0; place < account.models.size(); ++place) {
    const ModelSet& set = account.models[place];
    if (set.counters.owned == 0) continue;
    ModelQuotaView& quota = quotas.emplace_back();
    quota.model = set.model;
    for (std::size_t i = 0; i < kCounterKinds; ++i)
      if ((set.counters.owned & (1u << i)) != 0)
        quota.counters[i] =
            view(id.value, place, static_cast<LimitKind>(i), at, reserved[1 + place][i]);
  }
  return quotas;
}

QuotaView Ledger::quota(AccountId id, Tick now) const {
  QuotaView binding = own_quota(id, now);
  if (accounts_[id.value].spec.is_shadow)
    for (CounterView& counter : binding) counter.limit = kNoLimit;
  for (std::optional<AccountId> up = accounts_[id.value].spec.parent; up;
       up = accounts_[up->value].spec.parent) {
    if (accounts_[up->value].spec.is_shadow) continue;
    const QuotaView above = own_quota(*up, now);
    for (std::size_t i = 0; i < kCounterKinds; ++i)
      if (above[i].limit != kNoLimit && above[i].remaining() < binding[i].remaining())
        binding[i] = above[i];
  }
  return binding;
}

}  // namespace sluice::gw
