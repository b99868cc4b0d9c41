// Ledger: configuration, time, and the life of reservations. Every change of a counter is here.
#include "gateway/core/ledger.h"

#include <algorithm>
#include <string>

#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr std::int64_t kWallNoiseMs = 10;  // reading two clocks one after the other
constexpr std::int64_t kStepBackMs = 1000;
constexpr std::size_t kMinutesTried = 4;  // blocks looked at before a new one is made

std::int64_t tick_ms(Tick now) {
  return std::chrono::floor<std::chrono::milliseconds>(now.time_since_epoch()).count();
}

std::uint32_t bit(LimitKind kind) {
  return 1u << index_of(kind);
}

Error invalid(std::string detail, std::string param) {
  return make_error(Errc::invalid_value, std::move(detail), std::move(param));
}

// Of a caller that did not lease before.
Error not_leased() {
  Error error = make_error(Errc::quota_store_unavailable, "nothing is leased of a shared limit");
  error.retry_after = std::chrono::seconds(1);
  return error;
}

}  // namespace

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  CHECK(!*this);  // overwriting an open one would leak what it holds
  at_ = std::exchange(other.at_, {});
  return *this;
}

Ledger::Ledger(const LedgerParams& params) : params_(params), prices_(params.num_models) {
  CHECK(params.num_models > 0 && params.num_models <= kModelsMax);
  open_.resize(params.reservations_max);
  for (std::uint32_t i = params.reservations_max; i > 0; --i) free_.push_back(i - 1);
}

// ---- configuration

Result<void> Ledger::check_spec(AccountId id, const AccountSpec& spec) const {
  if (id.value > accounts_.size()) return invalid("account numbers are given out in order", "id");
  std::size_t depth = 1;
  for (std::optional<AccountId> up = spec.parent; up; up = accounts_[up->value].spec.parent) {
    if (up->value >= accounts_.size()) return invalid("the parent does not exist", "parent");
    if (*up == id) return invalid("an account cannot be above itself", "parent");
    if (++depth > kAccountDepthMax) {
      return invalid("at most " + std::to_string(kAccountDepthMax) + " levels are allowed",
                     "parent");
    }
  }
  for (std::size_t i = 0; i < spec.models.size(); ++i) {
    if (spec.models[i].model >= params_.num_models) return invalid("unknown model", "models");
    for (std::size_t j = 0; j < i; ++j) {
      if (spec.models[j].model == spec.models[i].model) {
        return invalid("a model is named twice", "models");
      }
    }
  }
  for (const TemporaryLimits& temporary : spec.temporary) {
    if (temporary.model && *temporary.model >= params_.num_models) {
      return invalid("unknown model", "temporary");
    }
  }
  // What hangs below moves with it.
  if (id.value == accounts_.size() || accounts_[id.value].spec.parent == spec.parent) return {};
  if (depth + levels_below(id.value) > kAccountDepthMax) {
    return invalid("at most " + std::to_string(kAccountDepthMax) + " levels are allowed", "parent");
  }
  return {};
}

std::size_t Ledger::levels_below(std::uint32_t account) const {
  std::size_t levels = 0;
  for (const std::uint32_t child : accounts_[account].below) {
    levels = std::max(levels, 1 + levels_below(child));
  }
  return levels;
}

void Ledger::hang(std::uint32_t account, std::optional<AccountId> parent) {
  const std::optional<AccountId> former = accounts_[account].spec.parent;
  if (former == parent) return;
  if (former) std::erase(accounts_[former->value].below, account);
  if (parent) accounts_[parent->value].below.push_back(account);
}

void Ledger::note_change(std::uint32_t account) {
  if (!std::exchange(accounts_[account].has_changed, true)) changed_.push_back(account);
}

Result<void> Ledger::set_account(AccountId id, const AccountSpec& spec) {
  if (const Result<void> checked = check_spec(id, spec); !checked) return checked.error();
  if (id.value == accounts_.size()) accounts_.emplace_back();
  Account& account = accounts_[id.value];
  if (account.spec == spec && spec.temporary.empty()) return {};
  for (const TemporaryLimits& old : account.spec.temporary) {
    ends_.erase({old.until_unix_s, id.value});
  }
  hang(id.value, spec.parent);
  account.spec = spec;
  for (const TemporaryLimits& fresh : spec.temporary) ends_.insert({fresh.until_unix_s, id.value});
  next_turn_ = Tick::min();  // ends in the past are dropped by the next advance()
  refresh(id.value);
  note_change(id.value);
  return {};
}

Result<void> Ledger::set_prices(std::uint32_t model, const Prices& prices) {
  if (model >= prices_.size()) return invalid("unknown model", "model");
  if (std::max(prices.input, prices.output) > kPriceMax) {
    return invalid("a token costs at most " + std::to_string(kPriceMax), "prices");
  }
  // Reserved is the uncached price: a dearer cached one would overshoot.
  if (prices.cached > prices.input) {
    return invalid("cached input cannot cost more than input", "prices");
  }
  prices_[model] = prices;
  return {};
}

Ledger::LimitAt Ledger::limit_at(const AccountSpec& spec, std::uint32_t model, LimitKind kind,
                                 std::int64_t unix_s) const {
  std::optional<std::uint64_t> general = spec.limits[kind], own;
  for (const ModelLimits& models : spec.models) {
    if (models.model == model && models.limits[kind]) own = models.limits[kind];
  }
  for (const TemporaryLimits& temporary : spec.temporary) {
    if (temporary.until_unix_s <= unix_s || !temporary.limits[kind]) continue;
    if (!temporary.model) general = temporary.limits[kind];
    if (temporary.model == model) own = temporary.limits[kind];
  }
  if (own) return {*own, true};
  return {general.value_or(kNoLimit), false};
}

// Recomputes the limits in force of one account.
void Ledger::refresh(std::uint32_t index) {
  Account& account = accounts_[index];
  const auto ensure = [&](std::uint32_t model) {
    const bool is_known = std::any_of(account.models.begin(), account.models.end(),
                                      [&](const ModelSet& set) { return set.model == model; });
    if (!is_known) account.models.push_back({model, Counters{}});
  };
  for (const ModelLimits& models : account.spec.models) ensure(models.model);
  for (const TemporaryLimits& temporary : account.spec.temporary) {
    if (temporary.model) ensure(*temporary.model);
  }
  const std::int64_t unix_s = now_ == Tick::min() ? 0 : unix_ms(now_) / 1000;
  for (std::size_t i = 0; i < kLimitKinds; ++i) {
    const auto kind = static_cast<LimitKind>(i);
    // No model has this number: the account's own limit.
    account.own.limit[i] = limit_at(account.spec, kNone, kind, unix_s).limit;
    for (ModelSet& set : account.models) {
      const LimitAt limit = limit_at(account.spec, set.model, kind, unix_s);
      set.counters.limit[i] = limit.limit;
      set.counters.owned &= ~bit(kind);
      if (limit.is_models) set.counters.owned |= bit(kind);
    }
  }
  recall_leases(account.own);
  for (const ModelSet& set : account.models) recall_leases(set.counters);
}

// ---- time

std::int64_t Ledger::unix_ms(Tick now) const {
  return std::clamp<std::int64_t>(tick_ms(now) + wall_offset_ms_, 0, kUnixMsMax);
}

Tick Ledger::tick_of(std::int64_t at_unix_ms) const {
  return Tick{std::chrono::milliseconds(at_unix_ms - wall_offset_ms_)};
}

void Ledger::set_wall(Tick now, std::int64_t at_unix_ms) {
  now_ = std::max(now_, now);
  const std::int64_t offset = std::clamp<std::int64_t>(at_unix_ms, 0, kUnixMsMax) - tick_ms(now_);
  const std::int64_t change = offset - wall_offset_ms_;
  if (is_calendar_set_ && change < kWallNoiseMs && change > -kWallNoiseMs) return advance(now);
  wall_offset_ms_ = offset;
  next_turn_ = Tick::min();
  if (change < -kStepBackMs || !is_calendar_set_) rebuild_ends();
  is_calendar_set_ = true;
  advance(now);
}

// The wall clock went back: what had ended may be in force again.
void Ledger::rebuild_ends() {
  for (std::uint32_t i = 0; i < accounts_.size(); ++i) {
    if (accounts_[i].spec.temporary.empty()) continue;
    for (const TemporaryLimits& temporary : accounts_[i].spec.temporary) {
      ends_.insert({temporary.until_unix_s, i});
    }
    refresh(i);
    note_change(i);
  }
}

void Ledger::advance(Tick now) {
  now_ = std::max(now_, now);
  if (now_ < next_turn_) return;
  const std::int64_t wall = unix_ms(now_);
  if (is_calendar_set_) turn_calendar(day_number(wall));
  while (!ends_.empty() && ends_.begin()->first <= wall / 1000) {
    const std::uint32_t account = ends_.begin()->second;
    ends_.erase(ends_.begin());
    refresh(account);
    note_change(account);
  }
  next_turn_ = is_calendar_set_ ? tick_of(day_start_unix_ms(day_ + 1)) : Tick::max();
  if (const std::optional<Tick> end = next_change()) next_turn_ = std::min(next_turn_, *end);
}

std::optional<Tick> Ledger::next_change() const {
  if (ends_.empty()) return std::nullopt;
  const std::int64_t end_ms = std::clamp<std::int64_t>(ends_.begin()->first, 0, kUnixMsMax / 1000);
  return tick_of(end_ms * 1000);
}

void Ledger::turn_calendar(DayNumber day) {
  if (day > day_) {
    if (leases_ != nullptr) leases_->end_periods();
    day_ = day;
    month_ = month_number(day);
  } else if (day < day_ - 1) {
    relabel(day);
  }
}

// The clock had been wrong: the present period goes on under an earlier label. Sums of others are
// over; what was reserved in them stays charged nowhere.
void Ledger::relabel(DayNumber day) {
  const MonthNumber month = month_number(day);
  if (leases_ != nullptr) leases_->end_periods();
  const auto fix = [&](Counters& counters) {
    if (counters.day.day == day_) {
      counters.day.day = day;
    } else if (counters.day.day > day) {
      counters.day = {day, 0};
    }
    if (counters.month.month == month_) {
      counters.month.month = month;
    } else if (counters.month.month > month) {
      counters.month = {month, 0};
    }
  };
  for (Account& account : accounts_) {
    fix(account.own);
    for (ModelSet& set : account.models) fix(set.counters);
  }
  for (Open& open : open_) {
    for (Mark* mark : {&open.prompt_at, &open.output_at}) {
      mark->day = mark->day == day_ ? day : kEnded;
      mark->month = mark->month == month_ ? month : kEnded;
    }
  }
  day_ = day;
  month_ = month;
}

// ---- counters

Ledger::Path Ledger::path_of(AccountId id, std::uint32_t model) const {
  CHECK(id.value < accounts_.size() && (model < params_.num_models || model == kNone));
  Path path;
  for (std::optional<AccountId> up = id; up; up = accounts_[up->value].spec.parent) {
    Level& level = path.levels[path.depth++];
    level.account = up->value;
    const std::vector<ModelSet>& models = accounts_[up->value].models;
    for (std::uint32_t i = 0; i < models.size(); ++i) {
      if (models[i].model != model) continue;
      level.model_at = i;
      level.in_model = models[i].counters.owned;
    }
  }
  return path;
}

const Ledger::Counters& Ledger::counters(const Level& level, LimitKind kind) const {
  const Account& account = accounts_[level.account];
  return (level.in_model & bit(kind)) != 0 ? account.models[level.model_at].counters : account.own;
}

Ledger::Counters& Ledger::counters(const Level& level, LimitKind kind) {
  return const_cast<Counters&>(std::as_const(*this).counters(level, kind));
}

// Blocks go round: one whose owner was idle for a minute holds nothing that counts.
Ledger::Minute& Ledger::minute_of(const Level& level, LimitKind kind) {
  Counters& wanting = counters(level, kind);
  if (wanting.minute != kNone) return minutes_[wanting.minute];
  std::uint32_t at = kNone;
  for (std::size_t tried = 0; tried < std::min(kMinutesTried, minutes_.size()); ++tried) {
    minute_hand_ = (minute_hand_ + 1) % minutes_.size();
    Minute& minute = minutes_[minute_hand_];
    const bool is_idle = std::none_of(
        minute.windows.begin(), minute.windows.end(),
        [&](const RateWindow& window) { return window.is_live(window.newest(), now_); });
    if (!is_idle) continue;
    Account& former = accounts_[minute.account];
    const_cast<Counters&>(counters_of(former, minute.model_at)).minute = kNone;
    minute = Minute{};
    at = static_cast<std::uint32_t>(minute_hand_);
    break;
  }
  if (at == kNone) {
    at = static_cast<std::uint32_t>(minutes_.size());
    minutes_.emplace_back();
  }
  minutes_[at].account = level.account;
  minutes_[at].model_at = (level.in_model & bit(kind)) != 0 ? level.model_at : kNone;
  wanting.minute = at;
  return minutes_[at];
}

void Ledger::charge(const Path& path, const Amounts& amounts) {
  for (const Level& level : path.span()) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (amounts[i] == 0) continue;
      spend_room(level, kind, amounts[i]);
      if (i < kMinuteKinds) {
        minute_of(level, kind).windows[i].charge(amounts[i], now_);
        continue;
      }
      Counters& to = counters(level, kind);
      if (kind == LimitKind::tokens_per_day) {
        if (to.day.day != day_) to.day = {day_, 0};
        to.day.sum += amounts[i];
      } else if (kind == LimitKind::monthly_budget) {
        if (to.month.month != month_) to.month = {month_, 0};
        to.month.sum += amounts[i];
      } else if (kind == LimitKind::concurrent_requests) {
        to.requests += amounts[i];
      } else {
        to.kv_tokens += amounts[i];
      }
    }
  }
}

// Returns to the periods of `mark`; what has ended is gone already.
void Ledger::give_back(const Path& path, const Amounts& amounts, const Mark& mark) {
  for (const Level& level : path.span()) {
    for (std::size_t i = 0; i < kMinuteKinds; ++i) {
      const Counters& from = counters(level, static_cast<LimitKind>(i));
      if (amounts[i] == 0 || from.minute == kNone) continue;
      RateWindow& window = minutes_[from.minute].windows[i];
      if (!window.is_live(mark.slot, now_)) continue;
      window.give_back(mark.slot, amounts[i]);
      give_back_room(level, static_cast<LimitKind>(i), amounts[i], credit_of(mark));
    }
    Counters& day = counters(level, LimitKind::tokens_per_day);
    if (const auto tokens = amounts[index_of(LimitKind::tokens_per_day)];
        tokens > 0 && day.day.day == mark.day) {
      CHECK(day.day.sum >= tokens);
      day.day.sum -= tokens;
      if (mark.day == day_)
        give_back_room(level, LimitKind::tokens_per_day, tokens, LeaseBook::Credit::room);
    }
    Counters& month = counters(level, LimitKind::monthly_budget);
    if (const auto cost = amounts[index_of(LimitKind::monthly_budget)];
        cost > 0 && month.month.month == mark.month) {
      CHECK(month.month.sum >= cost);
      month.month.sum -= cost;
      if (mark.month == month_)
        give_back_room(level, LimitKind::monthly_budget, cost, LeaseBook::Credit::room);
    }
  }
}

void Ledger::release(const Path& path, std::uint64_t requests, std::uint64_t kv_tokens) {
  for (const Level& level : path.span()) {
    Counters& running = counters(level, LimitKind::concurrent_requests);
    Counters& kv = counters(level, LimitKind::concurrent_kv_tokens);
    CHECK(running.requests >= requests && kv.kv_tokens >= kv_tokens);
    running.requests -= requests;
    kv.kv_tokens -= kv_tokens;
    give_back_room(level, LimitKind::concurrent_requests, requests, LeaseBook::Credit::room);
    give_back_room(level, LimitKind::concurrent_kv_tokens, kv_tokens, LeaseBook::Credit::room);
  }
}

// ---- reservations

const Ledger::Open& Ledger::at(const Reservation& reservation) const {
  CHECK(reservation && reservation.at_.index < open_.size());
  const Open& open = open_[reservation.at_.index];
  CHECK(open.generation == reservation.at_.generation);
  return open;
}

Ledger::Open& Ledger::at(const Reservation& reservation) {
  return const_cast<Open&>(std::as_const(*this).at(reservation));
}

// REQUIRES: a free place.
Reservation::Key Ledger::take_place() {
  const std::uint32_t index = free_.back();
  free_.pop_back();
  ++num_open_;
  const std::uint32_t generation = open_[index].generation + 1;
  open_[index] = Open{};
  open_[index].generation = generation;
  return {index, generation};
}

std::uint32_t Ledger::first_grant(const Ask& ask) const {
  switch (mode(ask.account)) {
    case ReservationMode::exact:
      break;
    case ReservationMode::incremental:
      return std::min(ask.output_tokens_max, kGrantTokens);
    case ReservationMode::quantile:
      if (ask.output_tokens_likely > 0) {
        return std::min(ask.output_tokens_max, ask.output_tokens_likely);
      }
      break;
  }
  return ask.output_tokens_max;
}

Result<void> Ledger::check_request(AccountId id, std::uint32_t model, Tick now,
                                   Duration typical) const {
  const Path path = path_of(id, model);
  if (std::optional<Error> standing = standing_error(path.span())) return std::move(*standing);
  Amounts needed{};
  needed[index_of(LimitKind::requests_per_minute)] = 1;
  needed[index_of(LimitKind::concurrent_requests)] = 1;
  const Tick at = std::max(now, now_);
  if (const auto shortfall = find_shortfall(path.span(), needed, at)) {
    return refusal(*shortfall, path.span(), model, needed, at, typical);
  }
  return {};
}

Result<void> Ledger::count_request(AccountId id, Tick now) {
  advance(now);
  const Path path = path_of(id, kNone);
  if (std::optional<Error> standing = standing_error(path.span())) return std::move(*standing);
  Amounts needed{};
  needed[index_of(LimitKind::requests_per_minute)] = 1;
  if (const auto shortfall = find_shortfall(path.span(), needed, now_)) {
    return refusal(*shortfall, path.span(), kNone, needed, now_, Duration{0});
  }
  if (!has_room(path, needed)) return not_leased();
  count_shadow_refusals(path, needed);
  charge(path, needed);
  return {};
}

Result<Reservation> Ledger::open(const Ask& ask, Tick now, Duration typical) {
  CHECK(ask.choices > 0 && ask.choices <= kChoicesMax);
  CHECK(ask.prompt_tokens <= kContextTokensMax && ask.output_tokens_max <= kContextTokensMax);
  advance(now);
  const Path path = path_of(ask.account, ask.model);
  if (std::optional<Error> standing = standing_error(path.span())) return std::move(*standing);
  for (const Level& level : path.span()) {
    const std::uint64_t cap =
        counters(level, LimitKind::output_tokens_max).limit[index_of(LimitKind::output_tokens_max)];
    if (accounts_[level.account].spec.is_shadow || ask.output_tokens_max <= cap) continue;
    return make_error(Errc::invalid_value,
                      "at most " + std::to_string(cap) + " output tokens are allowed, " +
                          std::to_string(ask.output_tokens_max) + " were asked for",
                      "max_tokens");
  }
  const std::uint64_t grant = std::uint64_t{ask.choices} * first_grant(ask);
  const std::uint64_t prompt = ask.prompt_tokens;
  const Prices& prices = prices_[ask.model];
  const Amounts needed = opening_amounts(ask);
  if (const auto shortfall = find_shortfall(path.span(), needed, now_)) {
    return refusal(*shortfall, path.span(), ask.model, needed, now_, typical);
  }
  if (free_.empty()) {
    Error error = make_error(Errc::overloaded, "too many requests hold a reservation");
    error.retry_after = std::chrono::ceil<std::chrono::milliseconds>(typical);
    return error;
  }
  if (!has_room(path, needed)) return not_leased();
  count_shadow_refusals(path, needed);
  charge(path, needed);

  const Reservation::Key key = take_place();
  Open& open = open_[key.index];
  open.path = path;
  open.model = ask.model;
  open.mode = mode(ask.account);
  open.prices = prices;
  open.prompt_at = open.output_at = mark();
  open.prompt_tokens = prompt;
  open.unspent = grant;
  open.ungranted = std::uint64_t{ask.choices} * ask.output_tokens_max - grant;
  open.choices = ask.choices;
  open.order = next_order_++;
  open.tag = ask.tag;
  ModeCounters& counted = modes_[static_cast<std::size_t>(open.mode)];
  ++counted.opened;
  counted.granted += grant;
  return Reservation(key);
}

// Moves what is unused to the present second and adds to it.
void Ledger::regrant(Open& open, std::uint64_t tokens) {
  CHECK(tokens <= open.ungranted);
  give_back(open.path, extension_amounts(open, open.unspent), open.output_at);
  Amounts fresh = extension_amounts(open, open.unspent + tokens);
  // Where the old period is over, what was unused there is charged again; concurrency is no period.
  fresh[index_of(LimitKind::concurrent_kv_tokens)] = tokens;
  charge(open.path, fresh);
  open.output_at = mark();
  open.unspent += tokens;
  open.ungranted -= tokens;
  modes_[static_cast<std::size_t>(open.mode)].granted += tokens;
}

Result<void> Ledger::extend(const Reservation& reservation, std::uint32_t tokens, Tick now,
                            Duration typical) {
  advance(now);
  Open& open = at(reservation);
  CHECK(tokens <= open.ungranted);
  if (std::optional<Error> standing = standing_error(open.path.span())) {
    return std::move(*standing);
  }
  if (const auto shortfall = find_extension_shortfall(open, tokens)) {
    return refusal(*shortfall, open.path.span(), open.model, extension_amounts(open, tokens), now_,
                   typical);
  }
  if (!has_room(open.path, extension_needs(open, tokens))) return not_leased();
  regrant(open, tokens);
  return {};
}

void Ledger::settle(const Reservation& reservation, std::uint32_t tokens, Tick now) {
  Open& open = at(reservation);
  if (tokens > open.unspent) {
    CHECK(open.mode == ReservationMode::quantile);
    advance(now);
    const std::uint64_t missing = tokens - open.unspent;
    const std::uint64_t grant =
        std::min(std::max<std::uint64_t>(missing, kGrantTokens), open.ungranted);
    CHECK(grant >= missing);
    if (find_extension_shortfall(open, grant)) {
      modes_[static_cast<std::size_t>(open.mode)].overshoot += grant;
    }
    regrant(open, grant);
  }
  open.unspent -= tokens;
  open.spent_running += tokens;
  modes_[static_cast<std::size_t>(open.mode)].spent += tokens;
}

void Ledger::settle_prompt(const Reservation& reservation, std::uint32_t cached_tokens) {
  Open& open = at(reservation);
  CHECK(!open.is_prompt_settled && cached_tokens <= open.prompt_tokens);
  open.is_prompt_settled = true;
  Amounts saved{};
  saved[index_of(LimitKind::monthly_budget)] =
      cached_tokens * (open.prices.input - open.prices.cached);
  give_back(open.path, saved, open.prompt_at);
}

void Ledger::give_back_output(Open& open, std::uint64_t tokens) {
  CHECK(tokens <= open.unspent);
  give_back(open.path, extension_amounts(open, tokens), open.output_at);
  release(open.path, 0, tokens);
  open.unspent -= tokens;
}

std::uint64_t Ledger::try_shrink(Reservation::Key key, Tick now) {
  advance(now);
  if (key.index >= open_.size() || key.generation % 2 == 0) return 0;
  Open& open = open_[key.index];
  if (open.generation != key.generation || open.mode == ReservationMode::quantile) return 0;
  if (standing_error(open.path.span())) return 0;
  const std::uint64_t excess = excess_output(open);
  if (excess == 0 || excess >= open.unspent) return 0;
  // What it goes on with is counted where it goes on.
  modes_[static_cast<std::size_t>(open.mode)].granted -= open.unspent;
  give_back_output(open, excess);
  open.ungranted += excess;
  open.mode = ReservationMode::incremental;
  modes_[static_cast<std::size_t>(open.mode)].granted += open.unspent;
  return excess;
}

void Ledger::close_choice(const Reservation& reservation, std::uint32_t granted,
                          std::uint32_t used) {
  Open& open = at(reservation);
  CHECK(open.choices > 0 && used <= open.spent_running);
  std::uint64_t unused = granted > used ? granted - used : 0;
  // Another choice may have outgrown its prediction on this one's share.
  if (open.mode == ReservationMode::quantile) unused = std::min(unused, open.unspent);
  give_back_output(open, unused);
  release(open.path, 0, open.prompt_tokens + used);
  open.spent_running -= used;
  --open.choices;
}

void Ledger::close(Reservation reservation, PromptUse prompt) {
  Open& open = at(reservation);
  give_back_output(open, open.unspent);
  release(open.path, 1, open.kv_tokens());
  if (prompt == PromptUse::unused) {
    CHECK(!open.is_prompt_settled);
    give_back(open.path, prompt_amounts(open), open.prompt_at);
  }
  ++open.generation;  // even: nothing is open here
  free_.push_back(reservation.at_.index);
  --num_open_;
  reservation.at_ = {};
}

}  // namespace sluice::gw
