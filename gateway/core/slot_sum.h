// SlotSum: how much was added during the last while, in eight slots of equal length: the current
// one and the seven before it. Amounts leave slot by slot. O(1); plain value; saturates.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

namespace sluice::gw {

class SlotSum {
 public:
  static constexpr std::int64_t kSlots = 8;

  // `slot`: number of the current slot; smaller ones than the newest seen count as the newest.
  void add(std::int64_t slot, std::uint64_t amount) {
    turn(slot);
    const std::uint64_t room = std::numeric_limits<std::uint64_t>::max() / 4 - sum_;
    if (amount > room) amount = room;
    slots_[static_cast<std::size_t>(newest_ % kSlots)] += amount;
    sum_ += amount;
  }
  std::uint64_t sum(std::int64_t slot) {
    turn(slot);
    return sum_;
  }
  void clear() { *this = SlotSum{}; }

 private:
  void turn(std::int64_t slot) {
    if (slot <= newest_) return;
    const std::int64_t stale = slot - newest_ < kSlots ? slot - newest_ : kSlots;
    for (std::int64_t i = 1; i <= stale; ++i) {
      std::uint64_t& old = slots_[static_cast<std::size_t>((slot - stale + i) % kSlots)];
      sum_ -= old;
      old = 0;
    }
    newest_ = slot;
  }
  std::array<std::uint64_t, kSlots> slots_{};
  std::int64_t newest_ = 0;
  std::uint64_t sum_ = 0;
};

}  // namespace sluice::gw
