// RateWindow: the ring of one-second slots.
#include "gateway/core/rate_limit.h"

#include <algorithm>

#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

Tick end_of_life(RateWindow::Slot slot) {
  return Tick{Duration{(slot + RateWindow::kSlots) * kSecondNs}};
}

}  // namespace

RateWindow::Slot RateWindow::slot_of(Tick now) const {
  // Floor division, so that ticks before the clock's zero do not share a slot with those after it.
  const std::int64_t ns = now.time_since_epoch().count();
  const Slot slot = ns >= 0 ? ns / kSecondNs : -((-ns + kSecondNs - 1) / kSecondNs);
  return std::max(slot, newest_);
}

std::uint64_t& RateWindow::at(Slot slot) {
  return slots_[static_cast<std::size_t>(((slot % kSlots) + kSlots) % kSlots)];
}

std::uint64_t RateWindow::at(Slot slot) const {
  return slots_[static_cast<std::size_t>(((slot % kSlots) + kSlots) % kSlots)];
}

void RateWindow::advance(Slot slot) {
  if (slot - newest_ >= kSlots) {
    slots_.fill(0);
    sum_ = 0;
    newest_ = slot;
    return;
  }
  while (newest_ < slot) {
    ++newest_;
    sum_ -= at(newest_);  // the slot that this one replaces has left the window
    at(newest_) = 0;
  }
}

std::uint64_t RateWindow::used(Tick now) const {
  const Slot current = slot_of(now);
  if (current == newest_) return sum_;
  std::uint64_t sum = 0;
  for (Slot slot = current - kSlots + 1; slot <= newest_; ++slot) sum += at(slot);
  return sum;
}

std::uint64_t RateWindow::remaining(Tick now) const {
  const std::uint64_t sum = used(now);
  return sum < limit_ ? limit_ - sum : 0;
}

bool RateWindow::can_charge(std::uint64_t amount, Tick now) const {
  return limit_ == 0 || amount <= remaining(now);
}

std::optional<RateWindow::Slot> RateWindow::try_charge(std::uint64_t amount, Tick now) {
  advance(slot_of(now));
  if (limit_ != 0 && (amount > limit_ || sum_ > limit_ - amount)) return std::nullopt;
  at(newest_) += amount;
  sum_ += amount;
  return newest_;
}

void RateWindow::give_back(Slot slot, std::uint64_t amount) {
  CHECK(slot <= newest_);
  if (newest_ - slot >= kSlots) return;
  CHECK(at(slot) >= amount);
  at(slot) -= amount;
  sum_ -= amount;
}

Duration RateWindow::retry_after(std::uint64_t amount, Tick now) const {
  if (can_charge(amount, now)) return Duration{0};
  CHECK(amount <= limit_);
  const std::uint64_t allowed = limit_ - amount;
  std::uint64_t sum = used(now);
  for (Slot slot = slot_of(now) - kSlots + 1; slot <= newest_; ++slot) {
    sum -= at(slot);
    if (sum <= allowed) return std::max(Duration{0}, end_of_life(slot) - now);
  }
  return Duration{0};
}

Duration RateWindow::reset_in(Tick now) const {
  for (Slot slot = newest_; slot > slot_of(now) - kSlots; --slot) {
    if (at(slot) != 0) return std::max(Duration{0}, end_of_life(slot) - now);
  }
  return Duration{0};
}

}  // namespace sluice::gw
