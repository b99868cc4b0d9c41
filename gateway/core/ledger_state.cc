// Ledger: its state as plain data, out and in again.
#include "gateway/core/ledger_state.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "gateway/core/ledger.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr std::int64_t kSecondMs = 1000;

Error unusable(const char* what) {
  return make_error(Errc::invalid_value, std::string("the ledger's state is unusable: ") + what);
}

}  // namespace

LedgerState Ledger::export_state(Tick now) const {
  const Tick at = std::max(now, now_);
  const auto slot_ms = [&](RateWindow::Slot slot) { return slot * kSecondMs + wall_offset_ms_; };
  const auto reserved_at = [&](const Mark& mark) {
    return ReservedAt{slot_ms(mark.slot), mark.day, mark.month};
  };
  LedgerState state;
  state.day = day_;
  state.month = month_;
  const auto add = [&](std::uint32_t account, std::optional<std::uint32_t> model,
                       const Counters& counters) {
    LedgerBalance balance{
        AccountId{account}, model, counters.day.day, counters.day.sum, counters.month.month,
        counters.month.sum, {}};
    const RateWindow::Slot newest = RateWindow::slot_of(at);
    for (std::int64_t age = RateWindow::kSlots - 1; age >= 0 && counters.minute != kNone; --age) {
      for (std::size_t kind = 0; kind < kMinuteKinds; ++kind) {
        const std::uint64_t amount = minutes_[counters.minute].windows[kind].in_slot(newest - age);
        if (amount == 0) continue;
        balance.minute.push_back({slot_ms(newest - age), static_cast<LimitKind>(kind), amount});
      }
    }
    const bool is_empty =
        balance.minute.empty() && balance.day_tokens == 0 && balance.month_cost == 0;
    if (!is_empty) state.balances.push_back(std::move(balance));
  };
  for (std::uint32_t i = 0; i < accounts_.size(); ++i) {
    add(i, std::nullopt, accounts_[i].own);
    for (std::uint32_t model = 0; model < params_.num_models; ++model) {
      for (const ModelSet& set : accounts_[i].models) {
        if (set.model == model) add(i, model, set.counters);
      }
    }
  }
  std::vector<Reservation::Key> keys = open_newest_first();
  std::reverse(keys.begin(), keys.end());
  for (const Reservation::Key key : keys) {
    const Open& open = open_[key.index];
    OpenReservation plain;
    plain.tag = open.tag;
    for (const Level& level : open.path.span()) {
      plain.path.push_back({AccountId{level.account}, level.in_model});
    }
    plain.model = open.model;
    plain.mode = open.mode;
    plain.prices = open.prices;
    plain.prompt_at = reserved_at(open.prompt_at);
    plain.output_at = reserved_at(open.output_at);
    plain.prompt_tokens = open.prompt_tokens;
    plain.unspent = open.unspent;
    plain.spent_running = open.spent_running;
    plain.ungranted = open.ungranted;
    plain.choices = open.choices;
    plain.is_prompt_settled = open.is_prompt_settled;
    state.open.push_back(std::move(plain));
  }
  return state;
}

Result<void> Ledger::check_state(const LedgerState& state) const {
  constexpr std::uint32_t kKindBits = (1u << kLimitKinds) - 1;
  const auto is_account = [&](AccountId id) { return id.value < accounts_.size(); };
  const auto is_period = [&](DayNumber day, MonthNumber month) {
    return day >= kEnded && day <= state.day && month >= kEnded && month <= state.month;
  };
  const auto is_time = [](std::int64_t unix_ms) {
    return unix_ms >= -kUnixMsMax && unix_ms <= kUnixMsMax;
  };
  if (state.day < 0 || state.day > day_number(kUnixMsMax)) return unusable("day");
  if (state.month < 0 || state.month > month_number(day_number(kUnixMsMax))) {
    return unusable("month");
  }
  const auto comes_before = [](const LedgerBalance& a, const LedgerBalance& b) {
    return std::tie(a.account.value, a.model) < std::tie(b.account.value, b.model);
  };
  for (std::size_t i = 1; i < state.balances.size(); ++i) {
    if (!comes_before(state.balances[i - 1], state.balances[i])) return unusable("order");
  }
  for (const LedgerBalance& balance : state.balances) {
    if (!is_account(balance.account)) return unusable("unknown account");
    if (balance.model && *balance.model >= params_.num_models) return unusable("unknown model");
    if (!is_period(balance.day, balance.month)) return unusable("period");
    std::uint64_t sum = 0;
    for (const MinuteCharge& charge : balance.minute) {
      if (index_of(charge.kind) >= kMinuteKinds || !is_time(charge.unix_ms)) {
        return unusable("minute");
      }
      if (charge.amount > kAmountMax - sum) return unusable("amount");
      sum += charge.amount;
    }
    if (std::max(balance.day_tokens, balance.month_cost) > kAmountMax) return unusable("amount");
  }
  if (state.open.size() > open_.size()) return unusable("too many reservations");
  for (const OpenReservation& open : state.open) {
    if (open.path.empty() || open.path.size() > kAccountDepthMax) return unusable("path");
    for (const LedgerLevel& level : open.path) {
      if (!is_account(level.account) || level.in_model > kKindBits) return unusable("path");
      const auto is_same = [&](const LedgerLevel& other) { return other.account == level.account; };
      if (std::count_if(open.path.begin(), open.path.end(), is_same) != 1) return unusable("path");
    }
    if (open.model >= params_.num_models) return unusable("unknown model");
    if (static_cast<std::size_t>(open.mode) >= kReservationModes) return unusable("mode");
    if (open.choices > kChoicesMax || open.prompt_tokens > kContextTokensMax) {
      return unusable("size");
    }
    // As many tokens as an ask can name: products with prices stay far below 2^64.
    constexpr std::uint64_t tokens_max = std::uint64_t{kChoicesMax} * kContextTokensMax;
    if (open.unspent > tokens_max || open.spent_running > tokens_max ||
        open.ungranted > tokens_max) {
      return unusable("size");
    }
    if (std::max(open.prices.input, open.prices.output) > kPriceMax ||
        open.prices.cached > open.prices.input) {
      return unusable("prices");
    }
    for (const ReservedAt& at : {open.prompt_at, open.output_at}) {
      if (!is_period(at.day, at.month) || !is_time(at.unix_ms)) return unusable("period");
    }
  }
  return {};
}

std::uint32_t Ledger::model_place(std::uint32_t account, std::uint32_t model) {
  std::vector<ModelSet>& models = accounts_[account].models;
  for (std::uint32_t i = 0; i < models.size(); ++i) {
    if (models[i].model == model) return i;
  }
  models.push_back({model, Counters{}});
  return static_cast<std::uint32_t>(models.size() - 1);
}

void Ledger::clear() {
  const auto empty = [](Counters& counters) {
    counters.minute = kNone;
    counters.day = {};
    counters.month = {};
    counters.requests = counters.kv_tokens = 0;
  };
  for (Account& account : accounts_) {
    empty(account.own);
    for (ModelSet& set : account.models) empty(set.counters);
  }
  minutes_.clear();
  minute_hand_ = 0;
  free_.clear();
  for (std::uint32_t i = static_cast<std::uint32_t>(open_.size()); i > 0; --i) {
    if (open_[i - 1].generation % 2 == 1) ++open_[i - 1].generation;
    free_.push_back(i - 1);
  }
  num_open_ = 0;
}

Reservation Ledger::restore(const OpenReservation& plain, const Mark& prompt_at,
                            const Mark& output_at) {
  const Reservation::Key key = take_place();
  Open& open = open_[key.index];
  for (const LedgerLevel& level : plain.path) {
    const std::uint32_t model_at =
        level.in_model == 0 ? kNone : model_place(level.account.value, plain.model);
    open.path.levels[open.path.depth++] = {level.account.value, model_at, level.in_model};
  }
  open.model = plain.model;
  open.mode = plain.mode;
  open.prices = plain.prices;
  open.prompt_at = prompt_at;
  open.output_at = output_at;
  open.prompt_tokens = plain.prompt_tokens;
  open.unspent = plain.unspent;
  open.spent_running = plain.spent_running;
  open.ungranted = plain.ungranted;
  open.choices = plain.choices;
  open.is_prompt_settled = plain.is_prompt_settled;
  open.order = next_order_++;
  open.tag = plain.tag;
  modes_[static_cast<std::size_t>(open.mode)].granted += open.unspent;
  Amounts held{};
  held[index_of(LimitKind::concurrent_requests)] = 1;
  held[index_of(LimitKind::concurrent_kv_tokens)] = open.kv_tokens();
  charge(open.path, held);
  return Reservation(key);
}

// A reservation returns only what its balances hold. Where they hold less (the state is input, and
// a clock may have moved meanwhile) it returns nothing: that opens no room.
void Ledger::expire_unbacked() {
  using Place = std::tuple<const Counters*, std::size_t, std::int64_t>;
  std::map<Place, std::uint64_t> claimed;
  const auto back = [&](const Open& open, Mark& mark, const Amounts& amounts) {
    std::vector<std::pair<Place, std::uint64_t>> claims;
    bool is_backed = true;
    const auto claim = [&](const Counters& counted, std::size_t kind, std::int64_t when,
                           std::uint64_t holds) {
      if (amounts[kind] == 0) return;
      const Place place{&counted, kind, when};
      is_backed &= holds >= amounts[kind] && claimed[place] <= holds - amounts[kind];
      claims.emplace_back(place, amounts[kind]);
    };
    for (const Level& level : open.path.span()) {
      for (std::size_t i = 0; i < kMinuteKinds; ++i) {
        const Counters& counted = counters(level, static_cast<LimitKind>(i));
        const std::uint64_t holds =
            counted.minute == kNone ? 0 : minutes_[counted.minute].windows[i].in_slot(mark.slot);
        if (RateWindow::slot_of(now_) - mark.slot >= RateWindow::kSlots) continue;
        claim(counted, i, mark.slot, holds);
      }
      const Counters& day = counters(level, LimitKind::tokens_per_day);
      if (day.day.day == mark.day) {
        claim(day, index_of(LimitKind::tokens_per_day), mark.day, day.day.sum);
      }
      const Counters& month = counters(level, LimitKind::monthly_budget);
      if (month.month.month == mark.month) {
        claim(month, index_of(LimitKind::monthly_budget), mark.month, month.month.sum);
      }
    }
    if (!is_backed) {
      mark = {RateWindow::slot_of(now_) - RateWindow::kSlots, kEnded, kEnded};
      return;
    }
    for (const auto& [place, amount] : claims) claimed[place] += amount;
  };
  for (Open& open : open_) {
    if (open.generation % 2 == 0) continue;
    if (!open.is_prompt_settled) back(open, open.prompt_at, prompt_amounts(open));
    back(open, open.output_at, extension_amounts(open, open.unspent));
  }
}

Result<std::vector<Reservation>> Ledger::import_state(const LedgerState& state, Tick now) {
  advance(now);
  if (const Result<void> checked = check_state(state); !checked) return checked.error();
  // Rounded up and never in the future: nothing is free sooner than it would have been.
  const auto slot_at = [&](std::int64_t at_unix_ms) {
    const std::int64_t ms = at_unix_ms - wall_offset_ms_;
    const std::int64_t slot = ms >= 0 ? (ms + kSecondMs - 1) / kSecondMs : -(-ms / kSecondMs);
    return std::min(slot, RateWindow::slot_of(now_));
  };
  const auto mark_at = [&](const ReservedAt& at) {
    return Mark{slot_at(at.unix_ms), at.day, at.month};
  };
  clear();
  for (const LedgerBalance& balance : state.balances) {
    Level level{balance.account.value, kNone, 0};
    if (balance.model) {
      level.model_at = model_place(balance.account.value, *balance.model);
      level.in_model = (1u << kCounterKinds) - 1;
    }
    Counters& counters = this->counters(level, LimitKind::tokens_per_day);
    counters.day = {balance.day, balance.day_tokens};
    counters.month = {balance.month, balance.month_cost};
    for (const MinuteCharge& charge : balance.minute) {
      minute_of(level, charge.kind)
          .windows[index_of(charge.kind)]
          .charge_at(slot_at(charge.unix_ms), charge.amount);
    }
  }
  std::vector<Reservation> restored;
  for (const OpenReservation& plain : state.open) {
    restored.push_back(restore(plain, mark_at(plain.prompt_at), mark_at(plain.output_at)));
  }
  expire_unbacked();
  for (std::uint32_t i = 0; i < accounts_.size(); ++i) refresh(i);
  // The state may be of a later day than this clock shows: as a clock that went back.
  const DayNumber today = day_number(unix_ms(now_));
  day_ = std::max(day_, state.day);
  month_ = std::max(month_, state.month);
  next_turn_ = Tick::min();
  if (is_calendar_set_) turn_calendar(today);
  advance(now);
  return restored;
}

Result<void> Ledger::charge_settled(const SettledCharge& settled, Tick now) {
  advance(now);
  if (settled.account.value >= accounts_.size()) return unusable("unknown account");
  if (settled.model && *settled.model >= params_.num_models) return unusable("unknown model");
  if (settled.unix_ms < 0 || settled.unix_ms > kUnixMsMax) return unusable("time");
  const Path path = path_of(settled.account, settled.model.value_or(kNone));
  for (std::size_t i = 0; i < kCounterKinds; ++i) {
    const auto kind = static_cast<LimitKind>(i);
    const bool is_held =
        kind == LimitKind::concurrent_requests || kind == LimitKind::concurrent_kv_tokens;
    if (is_held && settled.amounts[i] > 0) return unusable("kind");
    for (const Level& level : path.span()) {
      if (settled.amounts[i] > kAmountMax - used(counters(level, kind), kind, now_)) {
        return unusable("amount");
      }
    }
  }
  // Rounded up and never in the future: nothing is free sooner than it would have been.
  const std::int64_t ms = settled.unix_ms - wall_offset_ms_;
  const std::int64_t rounded = ms >= 0 ? (ms + kSecondMs - 1) / kSecondMs : -(-ms / kSecondMs);
  const RateWindow::Slot slot = std::min(rounded, RateWindow::slot_of(now_));
  const DayNumber day = day_number(settled.unix_ms);
  const MonthNumber month = month_number(day);
  for (const Level& level : path.span()) {
    for (std::size_t i = 0; i < kMinuteKinds; ++i) {
      if (settled.amounts[i] == 0 || RateWindow::slot_of(now_) - slot >= RateWindow::kSlots) {
        continue;
      }
      minute_of(level, static_cast<LimitKind>(i)).windows[i].charge_at(slot, settled.amounts[i]);
    }
    const std::uint64_t tokens = settled.amounts[index_of(LimitKind::tokens_per_day)];
    Counters& daily = counters(level, LimitKind::tokens_per_day);
    if (tokens > 0 && day >= day_) {
      if (daily.day.day != day_) daily.day = {day_, 0};
      daily.day.sum += tokens;
    }
    const std::uint64_t cost = settled.amounts[index_of(LimitKind::monthly_budget)];
    Counters& monthly = counters(level, LimitKind::monthly_budget);
    if (cost > 0 && month >= month_) {
      if (monthly.month.month != month_) monthly.month = {month_, 0};
      monthly.month.sum += cost;
    }
  }
  return {};
}

bool Ledger::is_limited(AccountId id) const {
  const auto has_any = [](const LimitSet& limits) {
    for (std::size_t i = 0; i < kLimitKinds; ++i) {
      if (limits[static_cast<LimitKind>(i)]) return true;
    }
    return false;
  };
  for (std::optional<AccountId> up = id; up; up = accounts_[up->value].spec.parent) {
    const AccountSpec& spec = accounts_[up->value].spec;
    if (spec.is_shadow) continue;
    if (has_any(spec.limits)) return true;
    for (const ModelLimits& model : spec.models) {
      if (has_any(model.limits)) return true;
    }
    for (const TemporaryLimits& temporary : spec.temporary) {
      if (has_any(temporary.limits)) return true;
    }
  }
  return false;
}

}  // namespace sluice::gw
