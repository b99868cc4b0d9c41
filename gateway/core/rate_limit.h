// RateWindow: at most `limit` units in any 60 seconds, exactly. Time is cut into slots of one
// second; an interval of 60 s touches at most 61 of them, so the sum over the current slot and the
// 60 before it is what may not pass the limit:
//
//   slot    now-60 | now-59 | ... | now-1 | now          a unit is free again 60..61 s after its
//   charge
//
// Units are charged to the slot of their reservation; what was not used returns to that same slot,
// so a later, smaller truth never opens room that the past did not have.
//
// Not a token bucket: a bucket lets twice its size pass within one window.
// Invariants: 1. sum of the live slots == used(); 2. used() <= limit unless the limit was lowered.
// Pure; one owner (the decision thread). Time that runs backwards counts as standing still.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "shared/clock.h"

namespace sluice::gw {

class RateWindow {
 public:
  static constexpr std::int64_t kSlots = 61;

  // Which slot a charge went to; needed to give units back.
  using Slot = std::int64_t;  // absolute second

  explicit RateWindow(std::uint64_t limit = 0)
      : limit_(limit) {}  // 0: no limit, units still counted

  bool can_charge(std::uint64_t amount, Tick now) const;
  // Nothing: it would pass the limit.
  std::optional<Slot> try_charge(std::uint64_t amount, Tick now);
  // Units of an expired slot are gone already: then nothing happens. REQUIRES: amount was charged
  // to `slot` and not given back before.
  void give_back(Slot slot, std::uint64_t amount);

  // How long until `amount` fits if nobody else charges; 0 when it fits now. REQUIRES: it fits an
  // empty window.
  Duration retry_after(std::uint64_t amount, Tick now) const;
  // How long until the window is empty.
  Duration reset_in(Tick now) const;

  std::uint64_t used(Tick now) const;
  std::uint64_t remaining(Tick now) const;
  std::uint64_t limit() const { return limit_; }
  void set_limit(std::uint64_t limit) { limit_ = limit; }

 private:
  Slot slot_of(Tick now) const;
  std::uint64_t& at(Slot slot);
  std::uint64_t at(Slot slot) const;
  void advance(Slot slot);

  std::uint64_t limit_;
  std::array<std::uint64_t, kSlots> slots_{};  // [slot mod kSlots]; live: newest_ - 60 .. newest_
  Slot newest_ = 0;
  std::uint64_t sum_ = 0;  // of the live slots
};

}  // namespace sluice::gw
