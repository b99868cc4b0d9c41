// TenantBreaker: circuit breakers that keep one tenant from starving the others.
//
//              over its share            still over it a window later
//   closed ------------------> throttled ---------------------------> open
//      ^  \-- bad ends, burst of long prompts ---------------------->  |  ^
//      |<-- a calm window --------+                          retry due |  | a bad probe
//      +<------------------------- enough good probes -- half_open <---+--+
//
// What trips, over a window of eight slots, and never while no other tenant is there to protect:
//   share         use of KV memory (token-seconds) or prefill (prompt tokens dispatched) above
//                 `share_permille` of the fair share (by weight, among tenants that have work), or
//                 above half-way between it and everything.
//                 Only use counts that was made while another tenant waited in the queue;
//   bad ends      most requests ended in cancel, deadline or limit, and other tenants have work;
//   long prompts  more than `long_prompts_max` arrived, refused ones included, and others wait:
//                 judged when a long one arrives, and when another tenant begins to wait.
//
// throttled: admission is bounded to the fair share of sequences and prefill. open: all is refused
// until `retry_at`, which doubles with each opening up to `open_max`. half_open: one probe per size
// class at a time; a long prompt only once the burst is over, so a flood that goes on gets none.
// Opened for share, long prompts or by the operator: what the tenant runs is stopped
// (take_to_stop), for it is what hurts the others. Opened for bad ends or a bad probe: what runs
// may finish.
//
// Invariants: 1. a tenant alone never trips by itself; 2. a queue of a tenant that is not closed
// makes nobody else's use count; 3. every transition is an event. Time must not go back; if it
// does, it stands still. Pure; decision thread only; O(1) per event; memory bounded by the tenants.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "gateway/core/breaker_state.h"
#include "gateway/core/request_queue.h"
#include "gateway/core/slot_sum.h"
#include "shared/clock.h"
#include "shared/ids.h"

namespace sluice::gw {

enum class BreakerReason : std::uint8_t {
  none,
  kv_share,
  prefill_share,
  bad_ends,
  long_prompts,
  calm,       // throttled and below its share for a window
  retry_due,  // open long enough
  probe_failed,
  probes_passed,
  operator_open,
  operator_reset,
};
inline constexpr std::size_t kBreakerReasons = 11;
std::string_view breaker_reason_name(BreakerReason reason);

struct TenantBreakerParams {
  bool is_enabled = true;
  Duration window{std::chrono::seconds{10}};
  std::uint32_t share_permille = 3000;              // of the fair share
  Duration contended_min{std::chrono::seconds{1}};  // others waited so long within the window
  std::uint32_t bad_ends_permille = 800;
  std::uint32_t bad_ends_min = 50;             // ends in the window, good ones too
  std::uint32_t long_prompt_permille = 500;    // of the longest context: long from here on
  std::uint32_t long_prompts_max = 8;          // in the window
  Duration open_min{std::chrono::seconds{5}};  // first opening
  Duration open_max{std::chrono::minutes{5}};  // also: closed for so long forgets the doubling
  std::uint32_t probes = 2;                    // good ones in a row that close
};

struct BreakerEvent {
  TenantId tenant;
  BreakerState from{}, to{};
  BreakerReason reason{};
  Tick at{};
  Tick retry_at{};  // of `open`
};

// How a request ended, as far as the tenant is to blame. `neutral`: it is not (a failed worker,
// shutdown, the breaker itself).
enum class TenantEnd : std::uint8_t { good, bad, neutral };

struct TenantArrival {
  SizeClass size{};
  std::uint32_t prompt_tokens = 0;
  std::uint32_t context_tokens = 0;  // longest that a worker takes; 0: not known
  std::uint64_t sequences_max = 0;   // that all workers together run; 0: not known
};

// What a request must hand back when it ends.
struct ProbeTicket {
  std::uint32_t opening = 0;  // 0: no probe
  SizeClass size{};
};

struct TenantBreakerView {
  BreakerState state{};
  BreakerReason reason{};  // of the last transition
  Tick since{}, retry_at{};
  std::uint32_t openings = 0;  // in a row: the exponent of the back-off
  std::uint64_t refused = 0;
  bool is_forced = false;
  std::vector<BreakerEvent> history;  // oldest first, at most kBreakerHistory
};

class TenantBreaker {
 public:
  TenantBreaker(const TenantBreakerParams& params, std::size_t num_tenants);
  void set_params(const TenantBreakerParams& params);
  void set_tenants(std::size_t num_tenants);               // never fewer
  void set_weight(TenantId tenant, std::uint32_t weight);  // > 0; 1 at first

  // ---- questions; a value means: refused, ask again after that time
  std::optional<Duration> check(TenantId tenant, Tick now) const;  // whatever its size
  void count_refusal(TenantId tenant);                             // what check() refused
  // Counts the arrival; may trip.
  std::optional<Duration> arrive(TenantId tenant, const TenantArrival& arrival, Tick now);
  // It was admitted everywhere. REQUIRES: arrive() let it pass just before.
  ProbeTicket admit(TenantId tenant, SizeClass size, Tick now);
  void end(TenantId tenant, TenantEnd end, const ProbeTicket& ticket, Tick now);

  // ---- its sequences
  void queued(TenantId tenant, Tick now);
  void left_queue(TenantId tenant, Tick now);
  void prefilled(TenantId tenant, std::uint64_t prompt_tokens, Tick now);  // dispatched, first time
  void took_kv(TenantId tenant, std::uint64_t tokens, Tick now);
  void gave_kv(TenantId tenant, std::uint64_t tokens, Tick now);

  // ---- operator
  void force_open(TenantId tenant, Tick now);  // until reset
  void reset(TenantId tenant, Tick now);

  // Tenants whose sequences must stop; each once per opening.
  std::vector<TenantId> take_to_stop();
  bool has_to_stop() const { return !to_stop_.empty(); }
  std::deque<BreakerEvent>& events() { return events_; }
  TenantBreakerView view(TenantId tenant) const;
  BreakerState state(TenantId tenant) const { return tenants_[tenant.value].state; }
  std::size_t num_tenants() const { return tenants_.size(); }
  std::uint64_t num_in(BreakerState state) const {
    return num_in_[static_cast<std::size_t>(state)];
  }
  // Into the state, for the reason.
  std::uint64_t transitions(BreakerState state, BreakerReason reason) const {
    return transitions_[static_cast<std::size_t>(state)][static_cast<std::size_t>(reason)];
  }
  std::uint64_t refused_in(BreakerState state) const {
    return refused_[static_cast<std::size_t>(state)];
  }
  void check_invariants() const;  // O(tenants)

 private:
  enum Resource : std::uint8_t { kv, prefill };
  struct Tenant {
    BreakerState state{};
    BreakerReason reason{};
    bool is_forced = false;
    bool is_counted = false;  // among those that wait
    std::uint32_t weight = 1;
    std::uint32_t openings = 0;
    std::uint32_t opening = 0;  // of the probes under way
    std::uint32_t passed = 0;
    std::array<bool, kSizeClasses> probing{};
    Tick since{}, retry_at{}, closed_at{};
    std::uint64_t live = 0, waiting = 0, held = 0;  // requests, sequences, KV tokens
    Duration sole{}, seen{};      // time as the only one that waits; contended time settled up to
    std::array<SlotSum, 2> used;  // while others waited, by Resource: token-microseconds, tokens
    SlotSum ends, bad_ends, long_prompts;
    std::uint64_t refused = 0;
    std::vector<BreakerEvent> history;
  };

  std::int64_t slot() const { return now_.time_since_epoch() / slot_length_; }
  Duration until_slots_turned() const;
  bool do_others_wait(const Tenant& tenant) const {
    return num_waiting_ > (tenant.is_counted ? 1u : 0u);
  }
  bool do_others_work(const Tenant& tenant) const {
    return num_active_ > (tenant.live > 0 ? 1u : 0u);
  }
  std::uint64_t num_sharing(const Tenant& tenant) const {
    return num_active_ + (tenant.live > 0 ? 0u : 1u);
  }
  // The fair share of this tenant is its weight over this.
  std::uint64_t weight_sharing(const Tenant& tenant) const {
    return weight_active_ + (tenant.live > 0 ? 0u : tenant.weight);
  }
  void advance(Tick now);
  Tenant& settle(TenantId tenant, Tick now);
  void recount(Tenant& tenant, std::uint32_t id);
  BreakerReason over_share(Tenant& tenant);
  void judge(TenantId tenant);
  void judge_bursts(TenantId waiting);
  Duration refuse(Tenant& tenant, Duration after);
  bool is_throttled_out(Tenant& tenant, const TenantArrival& arrival);
  void move(TenantId tenant, BreakerState to, BreakerReason reason);
  void open(TenantId tenant, BreakerReason reason);

  TenantBreakerParams params_;
  Duration slot_length_{};
  std::vector<Tenant> tenants_;
  Tick now_ = Tick{};
  std::uint64_t num_waiting_ = 0, waiting_ids_ = 0;   // tenants that wait; the sum of their ids
  std::uint64_t num_active_ = 0, weight_active_ = 0;  // tenants with live requests; their weights
  std::uint64_t held_ = 0;
  Duration contended_{};  // time while anybody waited
  Duration charged_{};    // of it, charged to total_
  SlotSum contended_window_;
  std::array<SlotSum, 2> total_;  // used while anybody waited
  std::set<TenantId> bursting_;   // had too many long prompts when it was last looked at
  std::vector<TenantId> to_stop_;
  std::deque<BreakerEvent> events_;
  std::array<std::uint64_t, kBreakerStates> num_in_{}, refused_{};
  std::array<std::array<std::uint64_t, kBreakerReasons>, kBreakerStates> transitions_{};
};

}  // namespace sluice::gw
