// NaiveBreaker: TenantBreaker by brute force. Every amount is kept with its time, sums are made by
// looking at all of them, who waits is asked of every tenant. Slow and obvious.
#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "gateway/core/tenant_breaker.h"

namespace sluice::gw {

class NaiveBreaker {
 public:
  NaiveBreaker(const TenantBreakerParams& params, std::size_t num_tenants)
      : params_(params), tenants_(num_tenants) {}

  std::optional<Duration> arrive(std::uint32_t id, const TenantArrival& arrival, Tick now) {
    Tenant& tenant = look(id, now);
    if (tenant.is_forced) return refused(params_.open_max);
    const bool is_long =
        arrival.context_tokens > 0 &&
        arrival.prompt_tokens * 1000.0 / arrival.context_tokens >= params_.long_prompt_permille;
    if (is_long) tenant.long_prompts.push_back({now_, 1});
    const bool has_burst = sum(tenant.long_prompts) > params_.long_prompts_max;
    const bool is_burst = is_long && has_burst;
    tenant.has_arrived = tenant.has_arrived || has_burst;
    judge(id);
    if (tenant.state == BreakerState::open && now_ >= tenant.retry_at) {
      become(tenant, BreakerState::half_open, BreakerReason::retry_due);
    }
    if (tenant.state == BreakerState::open) return refused(tenant.retry_at - now_);
    if (tenant.state == BreakerState::half_open) {
      if (is_burst) return refused(params_.window);
      if (tenant.probing.contains(arrival.size)) return refused(params_.open_min);
      return std::nullopt;
    }
    if (is_burst && others_wait(id)) {
      open(id, BreakerReason::long_prompts);
      return refused(tenant.retry_at - now_);
    }
    if (tenant.state != BreakerState::throttled) return std::nullopt;
    if (num_sharing(id) < 2) return std::nullopt;
    const std::uint64_t sharing = weight_sharing(id);
    const std::uint64_t most =
        std::max<std::uint64_t>(1, arrival.sequences_max * tenant.weight / sharing);
    const bool is_out = (arrival.sequences_max > 0 && tenant.live >= most) ||
                        sum(tenant.prefill) * sharing > sum(all_prefill_) * tenant.weight;
    if (!is_out) return std::nullopt;
    const Duration slot = params_.window / 8;
    return refused(slot - now_.time_since_epoch() % slot);
  }

  ProbeTicket admit(std::uint32_t id, SizeClass size, Tick now) {
    Tenant& tenant = look(id, now);
    ++tenant.live;
    if (tenant.state != BreakerState::half_open) return {};
    tenant.probing.insert(size);
    return {tenant.opening, size};
  }

  void end(std::uint32_t id, TenantEnd end, const ProbeTicket& ticket, Tick now) {
    Tenant& tenant = look(id, now);
    --tenant.live;
    if (tenant.state == BreakerState::half_open && ticket.opening == tenant.opening) {
      tenant.probing.erase(ticket.size);
      if (end == TenantEnd::bad) open(id, BreakerReason::probe_failed);
      if (end == TenantEnd::good && ++tenant.passed == params_.probes) {
        become(tenant, BreakerState::closed, BreakerReason::probes_passed);
      }
      return;
    }
    if (end == TenantEnd::neutral) return;
    tenant.ends.push_back({now_, 1});
    if (end == TenantEnd::bad) tenant.bad_ends.push_back({now_, 1});
    bool others_work = false;
    for (std::uint32_t i = 0; i < tenants_.size(); ++i)
      others_work |= i != id && tenants_[i].live > 0;
    if (!is_well(tenant) || !others_work || sum(tenant.ends) < params_.bad_ends_min) return;
    if (sum(tenant.bad_ends) * 1000 >= sum(tenant.ends) * params_.bad_ends_permille) {
      open(id, BreakerReason::bad_ends);
    }
  }

  void set_weight(std::uint32_t id, std::uint32_t weight) { tenants_[id].weight = weight; }
  void queued(std::uint32_t id, Tick now) {
    ++look(id, now).waiting;
    for (std::uint32_t i = 0; i < tenants_.size(); ++i) {
      Tenant& other = tenants_[i];
      if (!other.has_arrived) continue;
      const bool is_burst =
          is_well(other) && other.live > 0 && sum(other.long_prompts) > params_.long_prompts_max;
      if (is_burst && (i == id || !others_wait(i))) continue;
      other.has_arrived = false;  // once for each arrival
      if (is_burst) open(i, BreakerReason::long_prompts);
    }
  }
  void left_queue(std::uint32_t id, Tick now) { --look(id, now).waiting; }
  void prefilled(std::uint32_t id, std::uint64_t tokens, Tick now) {
    Tenant& tenant = look(id, now);
    if (!waits(id) && !others_wait(id)) return;
    all_prefill_.push_back({now_, tokens});
    if (!others_wait(id)) return;
    tenant.prefill.push_back({now_, tokens});
    judge(id);
  }
  void hold(std::uint32_t id, std::int64_t tokens, Tick now) {
    Tenant& tenant = look(id, now);
    tenant.held = static_cast<std::uint64_t>(static_cast<std::int64_t>(tenant.held) + tokens);
    judge(id);
  }
  void force_open(std::uint32_t id, Tick now) {
    Tenant& tenant = look(id, now);
    if (tenant.is_forced) return;
    tenant.is_forced = true;
    open(id, BreakerReason::operator_open);
  }
  void reset(std::uint32_t id, Tick now) {
    Tenant& tenant = look(id, now);
    tenant.is_forced = false;
    tenant.openings = 0;
    tenant.long_prompts.clear();
    if (tenant.state != BreakerState::closed) {
      become(tenant, BreakerState::closed, BreakerReason::operator_reset);
    }
  }

  BreakerState state(std::uint32_t id) const { return tenants_[id].state; }
  BreakerReason reason(std::uint32_t id) const { return tenants_[id].reason; }
  Tick retry_at(std::uint32_t id) const { return tenants_[id].retry_at; }
  std::vector<TenantId> to_stop;

 private:
  struct Amount {
    Tick at;
    std::uint64_t amount;
  };
  using Amounts = std::vector<Amount>;
  struct Tenant {
    BreakerState state{};
    BreakerReason reason{};
    bool is_forced = false, has_arrived = false;
    std::uint64_t weight = 1;
    std::uint32_t openings = 0, opening = 0, passed = 0;
    std::set<SizeClass> probing;
    Tick since{}, retry_at{}, closed_at{};
    std::uint64_t live = 0, waiting = 0, held = 0;
    Duration unsettled{};
    Amounts kv, prefill, ends, bad_ends, long_prompts;
  };

  std::uint64_t sum(const Amounts& amounts) const {
    const Duration slot = params_.window / 8;
    std::uint64_t made = 0;
    for (const Amount& amount : amounts) {
      const auto age = now_.time_since_epoch() / slot - amount.at.time_since_epoch() / slot;
      if (age < 8) made += amount.amount;
    }
    return made;
  }
  static bool is_well(const Tenant& tenant) {
    return tenant.state == BreakerState::closed || tenant.state == BreakerState::throttled;
  }
  bool waits(std::uint32_t id) const {
    return tenants_[id].waiting > 0 && tenants_[id].state == BreakerState::closed;
  }
  bool others_wait(std::uint32_t id) const {
    for (std::uint32_t i = 0; i < tenants_.size(); ++i)
      if (i != id && waits(i)) return true;
    return false;
  }
  std::uint64_t num_sharing(std::uint32_t id) const {
    std::uint64_t made = 0;
    for (std::uint32_t i = 0; i < tenants_.size(); ++i)
      made += i == id || tenants_[i].live > 0 ? 1 : 0;
    return made;
  }
  std::uint64_t weight_sharing(std::uint32_t id) const {
    std::uint64_t made = 0;
    for (std::uint32_t i = 0; i < tenants_.size(); ++i)
      made += i == id || tenants_[i].live > 0 ? tenants_[i].weight : 0;
    return made;
  }
  Tenant& look(std::uint32_t id, Tick now) {
    if (now > now_) {
      const Duration passed = now_ == Tick{} ? Duration{0} : now - now_;
      now_ = now;
      bool anybody = false;
      std::uint64_t held = 0;
      for (std::uint32_t i = 0; i < tenants_.size(); ++i) {
        anybody |= waits(i);
        held += tenants_[i].held;
        if (others_wait(i)) tenants_[i].unsettled += passed;
      }
      if (anybody) {
        contended_.push_back({now_, static_cast<std::uint64_t>(passed.count())});
        all_kv_.push_back({now_, held * static_cast<std::uint64_t>(passed.count() / 1000)});
      }
    }
    Tenant& tenant = tenants_[id];
    tenant.kv.push_back(
        {now_, tenant.held * static_cast<std::uint64_t>(tenant.unsettled.count() / 1000)});
    tenant.unsettled = {};
    return tenant;
  }
  BreakerReason over(std::uint32_t id) const {
    if (num_sharing(id) < 2) return BreakerReason::none;
    const std::uint64_t sharing = weight_sharing(id), weight = tenants_[id].weight;
    if (sum(contended_) < static_cast<std::uint64_t>(params_.contended_min.count())) {
      return BreakerReason::none;
    }
    const auto is_over = [&](const Amounts& own_amounts, const Amounts& all_amounts) {
      const std::uint64_t own = sum(own_amounts), all = std::max(own, sum(all_amounts));
      return own > 0 && (own * sharing * 1000 > all * params_.share_permille * weight ||
                         own * 2 * sharing > all * (sharing + weight));
    };
    if (is_over(tenants_[id].kv, all_kv_)) return BreakerReason::kv_share;
    if (is_over(tenants_[id].prefill, all_prefill_)) return BreakerReason::prefill_share;
    return BreakerReason::none;
  }
  void judge(std::uint32_t id) {
    Tenant& tenant = tenants_[id];
    const BreakerReason reason = over(id);
    if (tenant.state == BreakerState::closed) {
      if (others_wait(id) && reason != BreakerReason::none) {
        become(tenant, BreakerState::throttled, reason);
      }
    } else if (tenant.state == BreakerState::throttled && now_ - tenant.since >= params_.window) {
      if (reason == BreakerReason::none) {
        become(tenant, BreakerState::closed, BreakerReason::calm);
      } else if (others_wait(id)) {
        open(id, reason);
      }
    }
  }
  void become(Tenant& tenant, BreakerState state, BreakerReason reason) {
    tenant.state = state;
    tenant.reason = reason;
    tenant.since = now_;
    if (state != BreakerState::closed) return;
    tenant.closed_at = now_;
    for (Amounts* amounts : {&tenant.kv, &tenant.prefill, &tenant.ends, &tenant.bad_ends})
      amounts->clear();
  }
  void open(std::uint32_t id, BreakerReason reason) {
    Tenant& tenant = tenants_[id];
    if (is_well(tenant) && now_ - tenant.closed_at >= params_.open_max) tenant.openings = 0;
    Duration wait = params_.open_min;
    for (std::uint32_t i = 0; i < std::min(tenant.openings, 20u); ++i) wait *= 2;
    tenant.openings = tenant.openings + 1;
    tenant.retry_at = now_ + std::min(wait, params_.open_max);
    tenant.passed = 0;
    tenant.probing.clear();
    ++tenant.opening;
    become(tenant, BreakerState::open, reason);
    if (reason != BreakerReason::bad_ends && reason != BreakerReason::probe_failed) {
      to_stop.push_back(TenantId{id});
    }
  }
  static std::optional<Duration> refused(Duration after) {
    return std::max(after, Duration{std::chrono::milliseconds(1)});
  }

  TenantBreakerParams params_;
  std::vector<Tenant> tenants_;
  Tick now_{};
  Amounts contended_, all_kv_, all_prefill_;
};

}  // namespace sluice::gw
