// RateWindow: units charged in the last 60 seconds, exactly. Time is cut into slots of one second;
// an interval of 60 s touches at most 61 of them, so the sum over the current slot and the 60
// before it is what may not pass a limit:
//
//   slot    now-60 | now-59 | ... | now-1 | now      a unit is free again 60..61 s after its charge
//
// Units are charged to the slot of their reservation; what was not used returns to that same slot,
// so a later, smaller truth never opens room that the past did not have. Whoever charges has
// compared used() + amount with the limit before: the window knows none.
//
// Not a token bucket: a bucket lets twice its size pass within one window.
// Invariant: the sum of the live slots == used(). Pure; one owner (the decision thread). Time that
// runs backwards counts as standing still.
#pragma once

#include <array>
#include <cstdint>

#include "shared/clock.h"

namespace sluice::gw {

class RateWindow {
 public:
  static constexpr std::int64_t kSlots = 61;

  // Which slot a charge went to; needed to give units back.
  using Slot = std::int64_t;  // absolute second
  static Slot slot_of(Tick now);

  Slot charge(std::uint64_t amount, Tick now);
  // Units charged earlier, put back in order after a restart. Slots that have expired are dropped.
  void charge_at(Slot slot, std::uint64_t amount);
  // Units of an expired slot are gone already: then nothing happens. REQUIRES: amount was charged
  // to `slot` and not given back before.
  void give_back(Slot slot, std::uint64_t amount);

  std::uint64_t used(Tick now) const;
  // What charge() to `slot` would still return to the window: 0 once it has expired.
  bool is_live(Slot slot, Tick now) const { return current(now) - slot < kSlots; }
  // How long until used() + amount <= limit if nobody else charges; 0: now. REQUIRES: amount <=
  // limit.
  Duration retry_after(std::uint64_t amount, std::uint64_t limit, Tick now) const;
  // How long until the window is empty.
  Duration reset_in(Tick now) const;

  Slot newest() const { return newest_; }
  std::uint64_t in_slot(Slot slot) const;  // 0 where it has expired
  void check_invariants() const;

 private:
  Slot current(Tick now) const;
  std::uint64_t& at(Slot slot);
  std::uint64_t at(Slot slot) const;
  void advance(Slot slot);

  std::array<std::uint64_t, kSlots> slots_{};  // [slot mod kSlots]; live: newest_ - 60 .. newest_
  Slot newest_ = 0;
  std::uint64_t sum_ = 0;  // of the live slots
};

}  // namespace sluice::gw
