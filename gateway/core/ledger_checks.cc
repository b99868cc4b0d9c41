// Ledger: the questions - does it fit, when will it, what is overdrawn, what is left.
#include <algorithm>
#include <string>

#include "gateway/core/ledger.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr int kLooksMax = 512;  // each look at a later moment passes a slot, a period or an end

struct KindFacts {
  std::string_view name;
  std::string_view unit;  // of a refusal's text
  Errc code;
};
constexpr std::array<KindFacts, kLimitKinds> kKinds{{
    {"requests_per_minute", "requests per minute", Errc::requests_rate_limited},
    {"tokens_per_minute", "tokens per minute", Errc::tokens_rate_limited},
    {"input_tokens_per_minute", "input tokens per minute", Errc::tokens_rate_limited},
    {"output_tokens_per_minute", "output tokens per minute", Errc::tokens_rate_limited},
    {"tokens_per_day", "tokens per day", Errc::tokens_rate_limited},
    {"monthly_budget", "cost units per month", Errc::insufficient_quota},
    {"concurrent_requests", "concurrent requests", Errc::concurrency_limit},
    {"concurrent_kv_tokens", "concurrent KV tokens", Errc::concurrency_limit},
    {"output_tokens_max", "output tokens", Errc::invalid_value},
}};

bool exceeds(std::uint64_t used, std::uint64_t needed, std::uint64_t limit) {
  const std::uint64_t most = std::min(limit, kAmountMax);
  return needed > 0 && (needed > most || used > most - needed);
}

}  // namespace

std::string_view limit_kind_name(LimitKind kind) {
  return kKinds[index_of(kind)].name;
}

std::string_view reservation_mode_name(ReservationMode mode) {
  constexpr std::array<std::string_view, kReservationModes> kNames{"exact", "incremental",
                                                                   "quantile"};
  return kNames[static_cast<std::size_t>(mode)];
}

std::uint64_t Ledger::used(const Counters& counters, LimitKind kind, Tick now) const {
  switch (kind) {
    case LimitKind::tokens_per_day:
      return counters.day.day == std::max(day_, day_number(unix_ms(now))) ? counters.day.sum : 0;
    case LimitKind::monthly_budget: {
      const MonthNumber month = std::max(month_, month_number(day_number(unix_ms(now))));
      return counters.month.month == month ? counters.month.sum : 0;
    }
    case LimitKind::concurrent_requests:
      return counters.requests;
    case LimitKind::concurrent_kv_tokens:
      return counters.kv_tokens;
    case LimitKind::output_tokens_max:
      return 0;
    default:
      return counters.minute == kNone ? 0
                                      : minutes_[counters.minute].windows[index_of(kind)].used(now);
  }
}

bool Ledger::is_models(const Level& level, LimitKind kind) {
  return (level.in_model & (1u << index_of(kind))) != 0;
}

Ledger::Shortfall Ledger::shortfall_of(const Level& level, LimitKind kind, std::uint64_t limit,
                                       std::uint64_t used, bool is_models) const {
  const Counters& counted =
      counters_of(accounts_[level.account], is_models ? level.model_at : kNone);
  return {&level, kind, limit, used, counted.requests, is_models};
}

std::optional<Ledger::Shortfall> Ledger::find_shortfall(std::span<const Level> path,
                                                        const Amounts& needed, Tick now) const {
  for (const Level& level : path) {
    const bool is_shadow = accounts_[level.account].spec.is_shadow;
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      if (needed[i] == 0) continue;
      const auto kind = static_cast<LimitKind>(i);
      const Counters& counted = counters(level, kind);
      // A counter without a limit is still bounded by kAmountMax.
      const std::uint64_t limit = is_shadow ? kNoLimit : counted.limit[i];
      const std::uint64_t has = used(counted, kind, now);
      if (!exceeds(has, needed[i], limit)) continue;
      return shortfall_of(level, kind, limit, has, is_models(level, kind));
    }
  }
  return std::nullopt;
}

void Ledger::count_shadow_refusals(const Path& path, const Amounts& needed) {
  for (const Level& level : path.span()) {
    Account& account = accounts_[level.account];
    if (!account.spec.is_shadow) continue;
    bool is_short = false;
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      const Counters& counted = counters(level, kind);
      is_short |= exceeds(used(counted, kind, now_), needed[i], counted.limit[i]);
    }
    account.shadow_refusals += is_short ? 1 : 0;
  }
}

Amounts Ledger::prompt_amounts(const Open& open) {
  const std::uint64_t tokens = open.prompt_tokens;
  return {0, tokens, tokens, 0, tokens, tokens * open.prices.input, 0, 0};
}

Amounts Ledger::extension_amounts(const Open& open, std::uint64_t tokens) {
  return {0, tokens, 0, tokens, tokens, tokens * open.prices.output, 0, tokens};
}

// What is unused moves along: it counts again only where its period has ended.
std::optional<Ledger::Shortfall> Ledger::find_extension_shortfall(const Open& open,
                                                                  std::uint64_t tokens) const {
  const Amounts more = extension_amounts(open, tokens);
  const Amounts moved = extension_amounts(open, open.unspent);
  for (const Level& level : open.path.span()) {
    const bool is_shadow = accounts_[level.account].spec.is_shadow;
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      if (more[i] == 0) continue;
      const auto kind = static_cast<LimitKind>(i);
      const Counters& counted = counters(level, kind);
      const std::uint64_t limit = is_shadow ? kNoLimit : counted.limit[i];
      const std::uint64_t has = used(counted, kind, now_);
      const std::uint64_t needed = more[i] + (holds(open, kind, now_) ? 0 : moved[i]);
      if (!exceeds(has, needed, limit)) continue;
      return shortfall_of(level, kind, limit, has, is_models(level, kind));
    }
  }
  return std::nullopt;
}

// Is its unused output part of that counter now?
bool Ledger::holds(const Open& open, LimitKind kind, Tick now) const {
  switch (kind) {
    case LimitKind::requests_per_minute:
    case LimitKind::input_tokens_per_minute:
    case LimitKind::output_tokens_max:
      return false;  // spent when it was reserved
    case LimitKind::tokens_per_minute:
    case LimitKind::output_tokens_per_minute:
      return open.unspent > 0 &&
             RateWindow::slot_of(now) - open.output_at.slot < RateWindow::kSlots;
    case LimitKind::tokens_per_day:
      return open.unspent > 0 && open.output_at.day == day_;
    case LimitKind::monthly_budget:
      return open.unspent * open.prices.output > 0 && open.output_at.month == month_;
    case LimitKind::concurrent_requests:
      return true;
    case LimitKind::concurrent_kv_tokens:
      return open.kv_tokens() > 0;
  }
  return false;
}

// ---- when will it fit

std::optional<Ledger::Shortfall> Ledger::find_shortfall_at(std::span<const Level> path,
                                                           std::uint32_t model,
                                                           const Amounts& needed, Tick at) const {
  const std::int64_t unix_s = unix_ms(at) / 1000;
  for (const Level& level : path) {
    const Account& account = accounts_[level.account];
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      if (needed[i] == 0) continue;
      const auto kind = static_cast<LimitKind>(i);
      const LimitAt limit = limit_at(account.spec, model, kind, unix_s);
      const std::uint64_t most = account.spec.is_shadow ? kNoLimit : limit.limit;
      const Counters& counted = counters_of(account, limit.is_models ? level.model_at : kNone);
      const std::uint64_t has = used(counted, kind, at);
      if (!exceeds(has, needed[i], most)) continue;
      return shortfall_of(level, kind, most, has, limit.is_models);
    }
  }
  return std::nullopt;
}

// The earliest moment at which this counter alone has room; Tick::max() where it never has.
Tick Ledger::release_of(const Shortfall& shortfall, std::uint64_t needed, Tick at) const {
  if (needed > std::min(shortfall.limit, kAmountMax)) return Tick::max();
  if (shortfall.kind == LimitKind::tokens_per_day || shortfall.kind == LimitKind::monthly_budget) {
    const DayNumber day = std::max(day_, day_number(unix_ms(at)));
    const DayNumber next =
        shortfall.kind == LimitKind::tokens_per_day ? day + 1 : month_start(month_number(day) + 1);
    return tick_of(day_start_unix_ms(next));
  }
  const Account& account = accounts_[shortfall.level->account];
  const Counters& counted =
      counters_of(account, shortfall.is_models ? shortfall.level->model_at : kNone);
  CHECK(counted.minute != kNone);  // what is used was charged
  const RateWindow& window = minutes_[counted.minute].windows[index_of(shortfall.kind)];
  return at + window.retry_after(needed, std::min(shortfall.limit, kAmountMax), at);
}

Tick Ledger::next_end(std::span<const Level> path, Tick after) const {
  Tick next = Tick::max();
  for (const Level& level : path) {
    for (const TemporaryLimits& temporary : accounts_[level.account].spec.temporary) {
      if (temporary.until_unix_s < 0 || temporary.until_unix_s > kUnixMsMax / 1000) continue;
      const Tick end = tick_of(temporary.until_unix_s * 1000);
      if (end > after) next = std::min(next, end);
    }
  }
  return next;
}

std::optional<Tick> Ledger::fits_at(std::span<const Level> path, std::uint32_t model,
                                    Amounts needed, Tick now, Duration typical) const {
  Tick at = now;
  Tick running_done = now;  // by estimate
  Amounts asked = needed;
  for (int look = 0; look < kLooksMax; ++look) {
    const std::optional<Shortfall> shortfall = find_shortfall_at(path, model, asked, at);
    if (!shortfall) return std::max(at, running_done);
    const std::size_t kind = index_of(shortfall->kind);
    Tick next = Tick::max();
    if (!is_concurrency(shortfall->kind)) {
      next = release_of(*shortfall, asked[kind], at);
    } else if (asked[kind] <= shortfall->limit) {
      // Of those that run side by side one ends every typical / running on average.
      const auto side_by_side =
          static_cast<Duration::rep>(std::max<std::uint64_t>(shortfall->running, 1));
      running_done = std::max(running_done, now + typical / side_by_side);
      asked[kind] = 0;
      continue;
    }
    next = std::min(next, next_end(path, at));
    if (next == Tick::max()) return std::nullopt;
    at = std::max(next, at + Duration{1});
  }
  return std::nullopt;
}

Error Ledger::refusal(const Shortfall& shortfall, std::span<const Level> path, std::uint32_t model,
                      const Amounts& needed, Tick now, Duration typical) const {
  const KindFacts& facts = kKinds[index_of(shortfall.kind)];
  const std::uint64_t asked = needed[index_of(shortfall.kind)];
  const std::uint64_t limit = std::min(shortfall.limit, kAmountMax);
  const std::uint64_t left = limit > shortfall.used ? limit - shortfall.used : 0;
  const std::optional<Tick> fits = fits_at(path, model, needed, now, typical);
  if (!fits) {
    return make_error(Errc::request_exceeds_quota_capacity,
                      "the request needs " + std::to_string(asked) + ", the limit is " +
                          std::to_string(limit) + " " + std::string(facts.unit));
  }
  Error error = make_error(facts.code, "limit of " + std::to_string(limit) + " " +
                                           std::string(facts.unit) + ": " + std::to_string(asked) +
                                           " needed, " + std::to_string(left) + " left");
  if (facts.code != Errc::insufficient_quota) {
    error.retry_after = std::max(std::chrono::milliseconds{1},
                                 std::chrono::ceil<std::chrono::milliseconds>(*fits - now));
  }
  return error;
}

// The store had too little, over all gateways.
Error Ledger::shared_refusal(const Level& level, LimitKind kind, std::uint64_t needed,
                             const LeaseBook::Refusal& refusal) const {
  const KindFacts& facts = kKinds[index_of(kind)];
  const std::uint64_t limit = counters(level, kind).limit[index_of(kind)];
  Error error =
      make_error(facts.code, "limit of " + std::to_string(limit) + " " + std::string(facts.unit) +
                                 ", of all gateways: " + std::to_string(needed) + " needed");
  if (facts.code == Errc::insufficient_quota) return error;
  const Tick next_day = tick_of(day_start_unix_ms(day_ + 1));
  error.retry_after = std::max(
      std::chrono::milliseconds{1},
      std::chrono::ceil<std::chrono::milliseconds>(refusal.fits_at.value_or(next_day) - now_));
  return error;
}

// ---- what may not go on

std::optional<Error> Ledger::standing_error(std::span<const Level> path) const {
  for (const Level& level : path) {
    switch (accounts_[level.account].spec.standing) {
      case Standing::active:
        break;
      case Standing::blocked:
        return make_error(Errc::invalid_api_key, "the tenant of this API key is blocked");
      case Standing::revoked:
        return make_error(Errc::invalid_api_key, "the API key was revoked");
    }
  }
  return std::nullopt;
}

std::vector<Reservation::Key> Ledger::open_newest_first() const {
  std::vector<std::pair<std::uint64_t, Reservation::Key>> found;
  for (std::uint32_t i = 0; i < open_.size(); ++i) {
    if (open_[i].generation % 2 == 1) found.push_back({open_[i].order, {i, open_[i].generation}});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<Reservation::Key> keys;
  for (const auto& [order, key] : found) keys.push_back(key);
  return keys;
}

std::vector<Reservation::Key> Ledger::take_affected_newest_first() {
  if (changed_.empty()) return {};
  const auto is_affected = [&](const Reservation::Key& key) {
    const std::span<const Level> path = open_[key.index].path.span();
    return std::any_of(path.begin(), path.end(),
                       [&](const Level& level) { return accounts_[level.account].has_changed; });
  };
  std::vector<Reservation::Key> keys;
  for (std::uint32_t i = 0; i < open_.size(); ++i) {
    const Reservation::Key key{i, open_[i].generation};
    if (open_[i].generation % 2 == 1 && is_affected(key)) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end(), [&](const Reservation::Key& a, const Reservation::Key& b) {
    return open_[a.index].order > open_[b.index].order;
  });
  for (const std::uint32_t account : changed_) accounts_[account].has_changed = false;
  changed_.clear();
  return keys;
}

std::optional<Error> Ledger::fault(Reservation::Key key, Tick now) const {
  if (key.index >= open_.size() || key.generation % 2 == 0) return std::nullopt;
  const Open& open = open_[key.index];
  if (open.generation != key.generation) return std::nullopt;
  if (std::optional<Error> standing = standing_error(open.path.span())) return standing;
  const Tick at = std::max(now, now_);
  for (const Level& level : open.path.span()) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (!is_overdrawn(open, level, kind, at)) continue;
      return make_error(kKinds[i].code, "the limit was lowered to " +
                                            std::to_string(counters(level, kind).limit[i]) + " " +
                                            std::string(kKinds[i].unit) + " while this ran");
    }
  }
  return std::nullopt;
}

// Is that counter above its limit, with a part that this one holds?
bool Ledger::is_overdrawn(const Open& open, const Level& level, LimitKind kind, Tick now) const {
  if (accounts_[level.account].spec.is_shadow) return false;
  const Counters& counted = counters(level, kind);
  return used(counted, kind, now) > counted.limit[index_of(kind)] && holds(open, kind, now);
}

// So many tokens of output less, and its limits hold; kNoLimit: output alone does not help.
std::uint64_t Ledger::excess_output(const Open& open) const {
  const Amounts of_one = extension_amounts(open, 1);
  std::uint64_t excess = 0;
  for (const Level& level : open.path.span()) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (!is_overdrawn(open, level, kind, now_)) continue;
      if (of_one[i] == 0) return kNoLimit;
      const Counters& counted = counters(level, kind);
      const std::uint64_t over = used(counted, kind, now_) - counted.limit[i];
      excess = std::max(excess, over / of_one[i] + (over % of_one[i] != 0 ? 1 : 0));
    }
  }
  return excess;
}

std::uint64_t Ledger::tag(Reservation::Key key) const {
  CHECK(key.index < open_.size() && open_[key.index].generation == key.generation);
  return open_[key.index].tag;
}

// ---- views

std::uint64_t Ledger::used(AccountId id, LimitKind kind, Tick now) const {
  const Tick at = std::max(now, now_);
  const Account& account = accounts_[id.value];
  std::uint64_t sum = used(account.own, kind, at);
  for (const ModelSet& set : account.models) sum += used(set.counters, kind, at);
  return sum;
}

std::uint64_t Ledger::used(AccountId id, std::uint32_t model, LimitKind kind, Tick now) const {
  for (const ModelSet& set : accounts_[id.value].models) {
    if (set.model == model) return used(set.counters, kind, std::max(now, now_));
  }
  return 0;
}

std::uint64_t Ledger::limit(AccountId id, LimitKind kind) const {
  return accounts_[id.value].own.limit[index_of(kind)];
}

const ModeCounters& Ledger::mode_counters(ReservationMode mode) const {
  return modes_[static_cast<std::size_t>(mode)];
}

LimitsView Ledger::limits(AccountId id, Tick now) const {
  const Tick at = std::max(now, now_);
  LimitsView view;
  const auto look = [&](LimitKind kind, std::uint64_t& limit, std::uint64_t& remaining,
                        Duration& reset) {
    bool is_first = true;
    for (std::optional<AccountId> up = id; up; up = accounts_[up->value].spec.parent) {
      const Counters& own = accounts_[up->value].own;
      const std::uint64_t most = own.limit[index_of(kind)];
      if (most == kNoLimit || accounts_[up->value].spec.is_shadow) continue;
      const std::uint64_t has = used(own, kind, at) + others(own, kind, at);
      const std::uint64_t left = most > has ? most - has : 0;
      if (!is_first && left >= remaining) continue;
      is_first = false;
      limit = most;
      remaining = left;
      reset = own.minute == kNone ? Duration{0}
                                  : minutes_[own.minute].windows[index_of(kind)].reset_in(at);
    }
    return !is_first;
  };
  view.has_requests_limit = look(LimitKind::requests_per_minute, view.requests_limit,
                                 view.requests_remaining, view.requests_reset);
  view.has_tokens_limit = look(LimitKind::tokens_per_minute, view.tokens_limit,
                               view.tokens_remaining, view.tokens_reset);
  return view;
}

void Ledger::check_invariants() const {
  struct Held {
    std::uint64_t requests = 0, kv_tokens = 0;
  };
  std::vector<std::vector<Held>> held(accounts_.size());
  for (std::size_t i = 0; i < accounts_.size(); ++i) held[i].resize(1 + accounts_[i].models.size());
  std::size_t num_open = 0;
  for (const Open& open : open_) {
    if (open.generation % 2 == 0) continue;
    ++num_open;
    for (const Level& level : open.path.span()) {
      const auto of = [&](LimitKind kind) -> Held& {
        return held[level.account][is_models(level, kind) ? 1 + level.model_at : 0];
      };
      of(LimitKind::concurrent_requests).requests += 1;
      of(LimitKind::concurrent_kv_tokens).kv_tokens += open.kv_tokens();
    }
  }
  CHECK(num_open == num_open_ && num_open + free_.size() == open_.size());
  const auto check = [&](const Counters& counters, const Held& expected) {
    CHECK(counters.requests == expected.requests && counters.kv_tokens == expected.kv_tokens);
    CHECK(counters.day.day <= day_ && counters.month.month <= month_);
  };
  std::size_t num_hanging = 0, num_with_parent = 0;
  for (std::size_t i = 0; i < accounts_.size(); ++i) {
    check(accounts_[i].own, held[i][0]);
    for (const std::uint32_t child : accounts_[i].below)
      CHECK(accounts_[child].spec.parent == AccountId{static_cast<std::uint32_t>(i)});
    num_hanging += accounts_[i].below.size();
    num_with_parent += accounts_[i].spec.parent ? 1 : 0;
    for (std::size_t m = 0; m < accounts_[i].models.size(); ++m) {
      check(accounts_[i].models[m].counters, held[i][1 + m]);
    }
  }
  CHECK(num_hanging == num_with_parent);
  for (std::size_t i = 0; i < minutes_.size(); ++i) {
    const Account& owner = accounts_[minutes_[i].account];
    const Counters& counters =
        minutes_[i].model_at == kNone ? owner.own : owner.models[minutes_[i].model_at].counters;
    CHECK(counters.minute == i);
    for (const RateWindow& window : minutes_[i].windows) window.check_invariants();
  }
}

}  // namespace sluice::gw
