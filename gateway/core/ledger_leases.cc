// Ledger: limits that are shared with other gateways - what a request needs of its leases, and what
// the store hears of each counter (lease_book.h).
#include <algorithm>
#include <string>

#include "gateway/core/ledger.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

// What returns to a second older than this leaves its counter and is not spent again here: the
// store may forget that second before it hears of the return. With leases of at most 30 s a room
// ends before the second does.
constexpr std::int64_t kCreditSeconds = 30;

Error store_unavailable(std::string detail, Duration after) {
  Error error = make_error(Errc::quota_store_unavailable, std::move(detail));
  error.retry_after =
      std::max(std::chrono::milliseconds{1}, std::chrono::ceil<std::chrono::milliseconds>(after));
  return error;
}

}  // namespace

Amounts Ledger::opening_amounts(const Ask& ask) const {
  // 2^27 tokens at a price below 2^20: no product comes near 2^64.
  const std::uint64_t grant = std::uint64_t{ask.choices} * first_grant(ask);
  const std::uint64_t prompt = ask.prompt_tokens;
  const Prices& prices = prices_[ask.model];
  return {1,
          prompt + grant,
          prompt,
          grant,
          prompt + grant,
          prompt * prices.input + grant * prices.output,
          1,
          ask.choices * prompt + grant};
}

// ---- rooms

bool Ledger::is_shared(const Level& level, LimitKind kind) const {
  return leases_ != nullptr && !accounts_[level.account].spec.is_shadow &&
         counters(level, kind).limit[index_of(kind)] != kNoLimit;
}

std::uint32_t Ledger::room_of(const Level& level, LimitKind kind) {
  Counters& counted = counters(level, kind);
  if (counted.lease == kNone) {
    std::optional<std::uint32_t> model;
    if (is_models(level, kind)) model = accounts_[level.account].models[level.model_at].model;
    counted.lease = leases_->add(AccountId{level.account}, model);
  }
  return counted.lease + static_cast<std::uint32_t>(index_of(kind));
}

void Ledger::spend_room(const Level& level, LimitKind kind, std::uint64_t amount) {
  if (is_shared(level, kind)) leases_->spend(room_of(level, kind), amount, now_);
}

void Ledger::give_back_room(const Level& level, LimitKind kind, std::uint64_t amount,
                            LeaseBook::Credit credit) {
  if (amount > 0 && is_shared(level, kind))
    leases_->give_back(room_of(level, kind), amount, credit, now_);
}

LeaseBook::Credit Ledger::credit_of(const Mark& mark) const {
  const bool is_young = RateWindow::slot_of(now_) - mark.slot <= kCreditSeconds;
  return is_young ? LeaseBook::Credit::room : LeaseBook::Credit::none;
}

void Ledger::recall_leases(const Counters& counters) {
  if (leases_ == nullptr || counters.lease == kNone) return;
  for (std::uint32_t i = 0; i < kCounterKinds; ++i) leases_->recall(counters.lease + i, now_);
}

bool Ledger::has_room(const Path& path, const Amounts& needed) {
  if (leases_ == nullptr) return true;
  for (const Level& level : path.span()) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (needed[i] == 0 || !is_shared(level, kind)) continue;
      if (leases_->room(room_of(level, kind), now_) < needed[i]) return false;
    }
  }
  return true;
}

// ---- leasing

Result<LeaseState> Ledger::lease(const Path& path, const Amounts& needed, std::uint64_t since) {
  bool is_missing = false;
  for (const Level& level : path.span()) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (needed[i] == 0 || !is_shared(level, kind)) continue;
      const std::uint32_t room = room_of(level, kind);
      if (leases_->room(room, now_) >= needed[i]) continue;
      if (const std::optional<Tick> settled = leases_->settles_at(now_))
        return store_unavailable("the store of shared limits still hears of what was charged",
                                 *settled - now_);
      if (const auto refusal = leases_->refusal_since(room, since))
        return shared_refusal(level, kind, needed[i], *refusal);
      is_missing = true;
    }
  }
  if (!is_missing) return LeaseState::ready;
  if (!leases_->is_connected())
    return store_unavailable("the store of shared limits cannot be reached",
                             std::chrono::seconds(1));
  for (const Level& level : path.span()) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (needed[i] == 0 || !is_shared(level, kind)) continue;
      const std::uint32_t room = room_of(level, kind);
      // A synchronous grant is for this moment: all of them in one exchange.
      if (!leases_->returns_room() || leases_->room(room, now_) < needed[i])
        leases_->want(room, needed[i], now_);
    }
  }
  return LeaseState::pending;
}

Result<LeaseState> Ledger::lease(const Ask& ask, std::uint64_t since, Tick now) {
  advance(now);
  if (leases_ == nullptr) return LeaseState::ready;
  const Path path = path_of(ask.account, ask.model);
  const Amounts needed = opening_amounts(ask);
  const bool is_refused =
      standing_error(path.span()) || find_shortfall(path.span(), needed, now_) || free_.empty();
  if (is_refused) return LeaseState::ready;
  return lease(path, needed, since);
}

Result<LeaseState> Ledger::lease_request(AccountId id, std::uint64_t since, Tick now) {
  advance(now);
  if (leases_ == nullptr) return LeaseState::ready;
  const Path path = path_of(id, kNone);
  Amounts needed{};
  needed[index_of(LimitKind::requests_per_minute)] = 1;
  if (standing_error(path.span()) || find_shortfall(path.span(), needed, now_))
    return LeaseState::ready;
  return lease(path, needed, since);
}

// What is unused moves to the present second: it is leased anew where its return gives no room.
Amounts Ledger::extension_needs(const Open& open, std::uint64_t tokens) const {
  Amounts needed = extension_amounts(open, tokens);
  const Amounts moved = extension_amounts(open, open.unspent);
  for (std::size_t i = 0; i < kCounterKinds; ++i) {
    const auto kind = static_cast<LimitKind>(i);
    if (needed[i] == 0 || kind == LimitKind::concurrent_kv_tokens) continue;
    const bool returns_room =
        leases_ != nullptr && leases_->returns_room() && holds(open, kind, now_) &&
        (i >= kMinuteKinds || credit_of(open.output_at) == LeaseBook::Credit::room);
    if (!returns_room) needed[i] += moved[i];
  }
  return needed;
}

Result<LeaseState> Ledger::lease_extension(const Reservation& reservation, std::uint32_t tokens,
                                           std::uint64_t since, Tick now) {
  advance(now);
  if (leases_ == nullptr) return LeaseState::ready;
  const Open& open = at(reservation);
  if (standing_error(open.path.span()) || find_extension_shortfall(open, tokens))
    return LeaseState::ready;
  return lease(open.path, extension_needs(open, tokens), since);
}

// ---- exchanges

void Ledger::report_leases(Duration settling, Tick now) {
  advance(now);
  CHECK(leases_ != nullptr);
  const auto ensure = [&](const Level& level) {
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (is_shared(level, kind) && used(counters(level, kind), kind, now_) > 0)
        room_of(level, kind);
    }
  };
  for (std::uint32_t account = 0; account < accounts_.size(); ++account) {
    ensure({account, kNone, 0});
    for (std::uint32_t place = 0; place < accounts_[account].models.size(); ++place)
      ensure({account, place, (1u << kCounterKinds) - 1});
  }
  leases_->connected(settling, now_);
}

std::vector<LeaseCharge> Ledger::charges(const Counters& counted, LimitKind kind) const {
  std::vector<LeaseCharge> charges;
  if (index_of(kind) >= kMinuteKinds) {
    if (const std::uint64_t has = used(counted, kind, now_); has > 0)
      charges.push_back({0, std::min(has, kSharedAmountMax)});
    return charges;
  }
  if (counted.minute == kNone) return charges;
  const RateWindow& window = minutes_[counted.minute].windows[index_of(kind)];
  const RateWindow::Slot current = RateWindow::slot_of(now_);
  const auto now_ms =
      std::chrono::floor<std::chrono::milliseconds>(now_.time_since_epoch()).count();
  for (RateWindow::Slot slot = current - RateWindow::kSlots + 1; slot <= current; ++slot) {
    const std::uint64_t amount = window.in_slot(slot);
    if (amount == 0 || !window.is_live(slot, now_)) continue;
    const std::int64_t age_ms = std::max<std::int64_t>(now_ms - (slot + 1) * 1000, 0);
    charges.push_back({static_cast<std::uint32_t>(age_ms), std::min(amount, kSharedAmountMax)});
  }
  return charges;
}

std::vector<LeaseAsk> Ledger::begin_exchange(std::size_t asks_max, Tick now) {
  advance(now);
  CHECK(leases_ != nullptr);
  std::vector<LeaseAsk> asks;
  for (const std::uint32_t room : leases_->begin_exchange(asks_max, now_)) {
    LeaseAsk& ask = asks.emplace_back();
    ask.room = room;
    ask.place = leases_->place(room);
    const Account& account = accounts_[ask.place.account.value];
    std::uint32_t model_at = kNone;
    for (std::uint32_t i = 0; ask.place.model && i < account.models.size(); ++i)
      if (account.models[i].model == *ask.place.model) model_at = i;
    const Counters& counted = counters_of(account, model_at);
    ask.limit = counted.limit[index_of(ask.place.kind)];
    ask.period = ask.place.kind == LimitKind::monthly_budget ? month_ : day_;
    ask.charges = charges(counted, ask.place.kind);
    leases_->complete(ask);
  }
  return asks;
}

std::uint64_t Ledger::others(const Counters& counted, LimitKind kind, Tick now) const {
  if (leases_ == nullptr || counted.lease == kNone) return 0;
  return leases_->others(counted.lease + static_cast<std::uint32_t>(index_of(kind)), now);
}

}  // namespace sluice::gw
