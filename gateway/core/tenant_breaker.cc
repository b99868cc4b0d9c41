// TenantBreaker: contended time, shares, and the state machine.
#include "gateway/core/tenant_breaker.h"

#include <algorithm>
#include <utility>

#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr Duration kUnit = std::chrono::microseconds(1);  // of token-time

bool stops_what_runs(BreakerReason reason) {
  return reason == BreakerReason::kv_share || reason == BreakerReason::prefill_share ||
         reason == BreakerReason::long_prompts || reason == BreakerReason::operator_open;
}

// a * b > c * d, exactly.
bool is_greater(std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d) {
  using Wide = unsigned __int128;
  return Wide{a} * b > Wide{c} * d;
}

}  // namespace

std::string_view breaker_reason_name(BreakerReason reason) {
  constexpr std::array<std::string_view, kBreakerReasons> kNames{
      "none",      "kv_share",     "prefill_share", "bad_ends",      "long_prompts",  "calm",
      "retry_due", "probe_failed", "probes_passed", "operator_open", "operator_reset"};
  return kNames[static_cast<std::size_t>(reason)];
}

TenantBreaker::TenantBreaker(const TenantBreakerParams& params, std::size_t num_tenants) {
  set_params(params);
  set_tenants(num_tenants);
}

// With another slot length the sums start anew: their slots are numbered differently.
void TenantBreaker::set_params(const TenantBreakerParams& params) {
  CHECK(params.window >= SlotSum::kSlots * kUnit && params.open_min > Duration{0});
  CHECK(params.open_max >= params.open_min && params.probes > 0);
  params_ = params;
  const Duration length = params.window / SlotSum::kSlots;
  if (length == slot_length_) return;
  slot_length_ = length;
  contended_window_.clear();
  for (SlotSum& sum : total_) sum.clear();
  for (Tenant& tenant : tenants_) {
    for (SlotSum& sum : tenant.used) sum.clear();
    tenant.ends.clear();
    tenant.bad_ends.clear();
    tenant.long_prompts.clear();
  }
}

void TenantBreaker::set_tenants(std::size_t num_tenants) {
  CHECK(num_tenants >= tenants_.size());
  num_in_[0] += num_tenants - tenants_.size();
  tenants_.resize(num_tenants);
}

void TenantBreaker::set_weight(TenantId id, std::uint32_t weight) {
  CHECK(id.value < tenants_.size() && weight > 0);
  Tenant& tenant = tenants_[id.value];
  if (tenant.live > 0) weight_active_ += weight - std::uint64_t{tenant.weight};
  tenant.weight = weight;
}

// When the oldest slot of the window leaves.
Duration TenantBreaker::until_slots_turned() const {
  return slot_length_ - now_.time_since_epoch() % slot_length_;
}

void TenantBreaker::advance(Tick now) {
  if (now <= now_) return;
  const Duration passed = now_ == Tick{} ? Duration{0} : now - now_;
  now_ = now;
  if (num_waiting_ == 0) return;
  contended_ += passed;
  contended_window_.add(slot(), static_cast<std::uint64_t>(passed.count()));
  const auto since = static_cast<std::uint64_t>((contended_ - charged_) / kUnit);
  total_[kv].add(slot(), held_ * since);
  charged_ += kUnit * static_cast<std::int64_t>(since);
  if (num_waiting_ == 1) tenants_[waiting_ids_].sole += passed;
}

// Charges the tenant for what it held since it was last looked at.
TenantBreaker::Tenant& TenantBreaker::settle(TenantId id, Tick now) {
  CHECK(id.value < tenants_.size());
  advance(now);
  Tenant& tenant = tenants_[id.value];
  const Duration contended = contended_ - tenant.sole;
  const auto since = static_cast<std::uint64_t>((contended - tenant.seen) / kUnit);
  if (since > 0) {
    if (tenant.held > 0) tenant.used[kv].add(slot(), tenant.held * since);
    tenant.seen += kUnit * static_cast<std::int64_t>(since);
  }
  return tenant;
}

void TenantBreaker::recount(Tenant& tenant, std::uint32_t id) {
  const bool counts = tenant.waiting > 0 && tenant.state == BreakerState::closed;
  if (counts == tenant.is_counted) return;
  tenant.is_counted = counts;
  num_waiting_ += counts ? 1 : std::uint64_t(-1);
  waiting_ids_ += counts ? id : -std::uint64_t{id};
}

BreakerReason TenantBreaker::over_share(Tenant& tenant) {
  if (num_sharing(tenant) < 2) return BreakerReason::none;
  const std::uint64_t sharing = weight_sharing(tenant);
  const std::uint64_t contended = contended_window_.sum(slot());
  if (contended < static_cast<std::uint64_t>(params_.contended_min.count())) {
    return BreakerReason::none;
  }
  for (const Resource resource : {kv, prefill}) {
    const std::uint64_t own = tenant.used[resource].sum(slot());
    const std::uint64_t total = std::max(own, total_[resource].sum(slot()));
    const std::uint64_t permille = std::uint64_t{params_.share_permille} * tenant.weight;
    const bool is_over = is_greater(own, sharing * 1000, total, permille) ||
                         is_greater(own, 2 * sharing, total, sharing + tenant.weight);
    if (own > 0 && is_over) {
      return resource == kv ? BreakerReason::kv_share : BreakerReason::prefill_share;
    }
  }
  return BreakerReason::none;
}

// REQUIRES: settled.
void TenantBreaker::judge(TenantId id) {
  Tenant& tenant = tenants_[id.value];
  if (!params_.is_enabled) return;
  if (tenant.state == BreakerState::closed) {
    if (num_waiting_ == 0 || !do_others_wait(tenant)) return;
    const BreakerReason reason = over_share(tenant);
    if (reason != BreakerReason::none) move(id, BreakerState::throttled, reason);
  } else if (tenant.state == BreakerState::throttled && now_ - tenant.since >= params_.window) {
    const BreakerReason reason = over_share(tenant);
    if (reason == BreakerReason::none) {
      move(id, BreakerState::closed, BreakerReason::calm);
    } else if (do_others_wait(tenant)) {
      open(id, reason);
    }
  }
}

void TenantBreaker::move(TenantId id, BreakerState to, BreakerReason reason) {
  Tenant& tenant = tenants_[id.value];
  const BreakerEvent event{id, tenant.state, to, reason, now_, tenant.retry_at};
  --num_in_[static_cast<std::size_t>(tenant.state)];
  ++num_in_[static_cast<std::size_t>(to)];
  ++transitions_[static_cast<std::size_t>(to)][static_cast<std::size_t>(reason)];
  tenant.state = to;
  tenant.reason = reason;
  tenant.since = now_;
  if (to == BreakerState::closed) {
    tenant.closed_at = now_;
    tenant.ends.clear();
    tenant.bad_ends.clear();
    for (SlotSum& sum : tenant.used) sum.clear();
  }
  recount(tenant, id.value);
  if (tenant.history.size() == kBreakerHistory) tenant.history.erase(tenant.history.begin());
  tenant.history.push_back(event);
  if (events_.size() == kBreakerEventsMax) events_.pop_front();
  events_.push_back(event);
}

void TenantBreaker::open(TenantId id, BreakerReason reason) {
  Tenant& tenant = tenants_[id.value];
  const bool was_well =
      tenant.state == BreakerState::closed || tenant.state == BreakerState::throttled;
  if (was_well && now_ - tenant.closed_at >= params_.open_max) tenant.openings = 0;
  const Duration wait = back_off(params_.open_min, params_.open_max, tenant.openings);
  tenant.openings = std::min(tenant.openings + 1, kOpeningsMax);
  tenant.retry_at = now_ + wait;
  tenant.passed = 0;
  tenant.probing.fill(false);
  if (++tenant.opening == 0) tenant.opening = 1;
  move(id, BreakerState::open, reason);
  if (stops_what_runs(reason)) to_stop_.push_back(id);
}

Duration TenantBreaker::refuse(Tenant& tenant, Duration after) {
  ++tenant.refused;
  ++refused_[static_cast<std::size_t>(tenant.state)];
  return std::max(after, Duration{std::chrono::milliseconds(1)});
}

std::optional<Duration> TenantBreaker::check(TenantId id, Tick now) const {
  CHECK(id.value < tenants_.size());
  const Tenant& tenant = tenants_[id.value];
  if (tenant.state != BreakerState::open) return std::nullopt;
  if (tenant.is_forced) return params_.open_max;
  if (!params_.is_enabled || now >= tenant.retry_at) return std::nullopt;
  return tenant.retry_at - now;
}

// Nobody knows its size yet. After a burst of long prompts it is taken for one more of them: else
// the first one behind the back-off would be let in as a probe while the flood goes on.
void TenantBreaker::count_refusal(TenantId id) {
  Tenant& tenant = tenants_[id.value];
  ++tenant.refused;
  ++refused_[static_cast<std::size_t>(tenant.state)];
  if (tenant.reason == BreakerReason::long_prompts) tenant.long_prompts.add(slot(), 1);
}

bool TenantBreaker::is_throttled_out(Tenant& tenant, const TenantArrival& arrival) {
  if (num_sharing(tenant) < 2) return false;
  const std::uint64_t sharing = weight_sharing(tenant);
  const std::uint64_t most = arrival.sequences_max * tenant.weight / sharing;
  if (arrival.sequences_max > 0 && tenant.live >= std::max<std::uint64_t>(1, most)) return true;
  return is_greater(tenant.used[prefill].sum(slot()), sharing, total_[prefill].sum(slot()),
                    tenant.weight);
}

std::optional<Duration> TenantBreaker::arrive(TenantId id, const TenantArrival& arrival, Tick now) {
  Tenant& tenant = settle(id, now);
  if (tenant.is_forced) return refuse(tenant, params_.open_max);
  if (!params_.is_enabled) return std::nullopt;
  const bool is_long = arrival.context_tokens > 0 &&
                       std::uint64_t{arrival.prompt_tokens} * 1000 >=
                           std::uint64_t{arrival.context_tokens} * params_.long_prompt_permille;
  if (is_long) tenant.long_prompts.add(slot(), 1);
  const bool has_burst = tenant.long_prompts.sum(slot()) > params_.long_prompts_max;
  const bool is_burst = is_long && has_burst;
  if (has_burst) bursting_.insert(id);
  judge(id);
  if (tenant.state == BreakerState::open && now_ >= tenant.retry_at) {
    move(id, BreakerState::half_open, BreakerReason::retry_due);
  }
  switch (tenant.state) {
    case BreakerState::open:
      return refuse(tenant, tenant.retry_at - now_);
    case BreakerState::half_open:
      if (is_burst) return refuse(tenant, params_.window);
      if (tenant.probing[static_cast<std::size_t>(arrival.size)]) {
        return refuse(tenant, params_.open_min);
      }
      return std::nullopt;
    case BreakerState::closed:
    case BreakerState::throttled:
      break;
  }
  if (is_burst && do_others_wait(tenant)) {
    open(id, BreakerReason::long_prompts);
    return refuse(tenant, tenant.retry_at - now_);
  }
  if (tenant.state == BreakerState::throttled && is_throttled_out(tenant, arrival)) {
    return refuse(tenant, until_slots_turned());
  }
  return std::nullopt;
}

ProbeTicket TenantBreaker::admit(TenantId id, SizeClass size, Tick now) {
  Tenant& tenant = settle(id, now);
  if (tenant.live++ == 0) {
    ++num_active_;
    weight_active_ += tenant.weight;
  }
  if (tenant.state != BreakerState::half_open) return {};
  tenant.probing[static_cast<std::size_t>(size)] = true;
  return {tenant.opening, size};
}

void TenantBreaker::end(TenantId id, TenantEnd end, const ProbeTicket& ticket, Tick now) {
  Tenant& tenant = settle(id, now);
  CHECK(tenant.live > 0);
  if (--tenant.live == 0) {
    --num_active_;
    weight_active_ -= tenant.weight;
  }
  const bool is_probe = tenant.state == BreakerState::half_open && ticket.opening == tenant.opening;
  if (is_probe) {
    tenant.probing[static_cast<std::size_t>(ticket.size)] = false;
    if (end == TenantEnd::bad) {
      open(id, BreakerReason::probe_failed);
    } else if (end == TenantEnd::good && ++tenant.passed >= params_.probes) {
      move(id, BreakerState::closed, BreakerReason::probes_passed);
    }
    return;
  }
  if (end == TenantEnd::neutral || !params_.is_enabled) return;
  tenant.ends.add(slot(), 1);
  if (end == TenantEnd::bad) tenant.bad_ends.add(slot(), 1);
  const bool is_well =
      tenant.state == BreakerState::closed || tenant.state == BreakerState::throttled;
  const std::uint64_t ends = tenant.ends.sum(slot());
  if (is_well && ends >= params_.bad_ends_min && do_others_work(tenant) &&
      tenant.bad_ends.sum(slot()) * 1000 >= ends * params_.bad_ends_permille) {
    open(id, BreakerReason::bad_ends);
  }
}

void TenantBreaker::queued(TenantId id, Tick now) {
  Tenant& tenant = settle(id, now);
  ++tenant.waiting;
  recount(tenant, id.value);
  if (!bursting_.empty()) judge_bursts(id);
}

// Whoever floods may have sent all that it will before the first of the others waits. A tenant is
// looked at once for each of its arrivals: it is opened here, or no candidate any more.
void TenantBreaker::judge_bursts(TenantId waiting) {
  for (auto next = bursting_.begin(); next != bursting_.end();) {
    const TenantId id = *next;
    Tenant& tenant = tenants_[id.value];
    const bool is_well =
        tenant.state == BreakerState::closed || tenant.state == BreakerState::throttled;
    const bool is_burst = is_well && tenant.live > 0 && params_.is_enabled &&
                          tenant.long_prompts.sum(slot()) > params_.long_prompts_max;
    if (is_burst && (id == waiting || !do_others_wait(tenant))) {
      ++next;
      continue;
    }
    next = bursting_.erase(next);
    if (is_burst) open(id, BreakerReason::long_prompts);
  }
}

void TenantBreaker::left_queue(TenantId id, Tick now) {
  Tenant& tenant = settle(id, now);
  CHECK(tenant.waiting > 0);
  --tenant.waiting;
  recount(tenant, id.value);
}

void TenantBreaker::prefilled(TenantId id, std::uint64_t prompt_tokens, Tick now) {
  Tenant& tenant = settle(id, now);
  if (num_waiting_ == 0) return;
  total_[prefill].add(slot(), prompt_tokens);
  if (!do_others_wait(tenant)) return;
  tenant.used[prefill].add(slot(), prompt_tokens);
  judge(id);
}

void TenantBreaker::took_kv(TenantId id, std::uint64_t tokens, Tick now) {
  Tenant& tenant = settle(id, now);
  tenant.held += tokens;
  held_ += tokens;
  judge(id);
}

void TenantBreaker::gave_kv(TenantId id, std::uint64_t tokens, Tick now) {
  Tenant& tenant = settle(id, now);
  CHECK(tenant.held >= tokens);
  tenant.held -= tokens;
  held_ -= tokens;
  judge(id);
}

void TenantBreaker::force_open(TenantId id, Tick now) {
  Tenant& tenant = settle(id, now);
  if (std::exchange(tenant.is_forced, true)) return;
  open(id, BreakerReason::operator_open);
}

void TenantBreaker::reset(TenantId id, Tick now) {
  Tenant& tenant = settle(id, now);
  tenant.is_forced = false;
  tenant.openings = 0;
  tenant.long_prompts.clear();
  if (tenant.state != BreakerState::closed) {
    move(id, BreakerState::closed, BreakerReason::operator_reset);
  }
}

std::vector<TenantId> TenantBreaker::take_to_stop() {
  return std::exchange(to_stop_, {});
}

TenantBreakerView TenantBreaker::view(TenantId id) const {
  CHECK(id.value < tenants_.size());
  const Tenant& tenant = tenants_[id.value];
  return {tenant.state,    tenant.reason,  tenant.since,     tenant.retry_at,
          tenant.openings, tenant.refused, tenant.is_forced, tenant.history};
}

void TenantBreaker::check_invariants() const {
  std::uint64_t waiting = 0, ids = 0, active = 0, weights = 0, held = 0;
  std::array<std::uint64_t, kBreakerStates> in{};
  for (std::uint32_t i = 0; i < tenants_.size(); ++i) {
    const Tenant& tenant = tenants_[i];
    CHECK(tenant.is_counted == (tenant.waiting > 0 && tenant.state == BreakerState::closed));
    waiting += tenant.is_counted ? 1 : 0;
    ids += tenant.is_counted ? i : 0;
    active += tenant.live > 0 ? 1 : 0;
    weights += tenant.live > 0 ? tenant.weight : 0;
    held += tenant.held;
    ++in[static_cast<std::size_t>(tenant.state)];
    CHECK(!tenant.is_forced || tenant.state == BreakerState::open);
    CHECK(tenant.seen <= contended_ - tenant.sole);
    CHECK(tenant.history.size() <= kBreakerHistory);
  }
  CHECK(waiting == num_waiting_ && ids == waiting_ids_ && active == num_active_ && held == held_);
  CHECK(weights == weight_active_);
  CHECK(in == num_in_);
}

}  // namespace sluice::gw
