// RateWindow: the ring of one-second slots.
#include "gateway/core/rate_limit.h"

#include <algorithm>
#include <numeric>

#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

Tick end_of_life(RateWindow::Slot slot) {
  return Tick{Duration{(slot + RateWindow::kSlots) * kSecondNs}};
}

}  // namespace

RateWindow::Slot RateWindow::slot_of(Tick now) {
  // Floor division, so that ticks before the clock's zero do not share a slot with those after it.
  const std::int64_t ns = now.time_since_epoch().count();
  return ns >= 0 ? ns / kSecondNs : -((-ns + kSecondNs - 1) / kSecondNs);
}

RateWindow::Slot RateWindow::current(Tick now) const {
  return std::max(slot_of(now), newest_);
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
  const Slot slot = current(now);
  if (slot == newest_) return sum_;
  std::uint64_t sum = 0;
  for (Slot live = slot - kSlots + 1; live <= newest_; ++live) sum += at(live);
  return sum;
}

RateWindow::Slot RateWindow::charge(std::uint64_t amount, Tick now) {
  advance(current(now));
  at(newest_) += amount;
  sum_ += amount;
  return newest_;
}

void RateWindow::charge_at(Slot slot, std::uint64_t amount) {
  if (slot > newest_) advance(slot);
  if (newest_ - slot >= kSlots) return;
  at(slot) += amount;
  sum_ += amount;
}

void RateWindow::give_back(Slot slot, std::uint64_t amount) {
  CHECK(slot <= newest_);
  if (newest_ - slot >= kSlots) return;
  CHECK(at(slot) >= amount);
  at(slot) -= amount;
  sum_ -= amount;
}

Duration RateWindow::retry_after(std::uint64_t amount, std::uint64_t limit, Tick now) const {
  CHECK(amount <= limit);
  const std::uint64_t allowed = limit - amount;
  std::uint64_t sum = used(now);
  if (sum <= allowed) return Duration{0};
  for (Slot slot = current(now) - kSlots + 1; slot <= newest_; ++slot) {
    sum -= at(slot);
    if (sum <= allowed) return std::max(Duration{0}, end_of_life(slot) - now);
  }
  return Duration{0};
}

Duration RateWindow::reset_in(Tick now) const {
  for (Slot slot = newest_; slot > current(now) - kSlots; --slot) {
    if (at(slot) != 0) return std::max(Duration{0}, end_of_life(slot) - now);
  }
  return Duration{0};
}

std::uint64_t RateWindow::in_slot(Slot slot) const {
  return slot <= newest_ && newest_ - slot < kSlots ? at(slot) : 0;
}

void RateWindow::check_invariants() const {
  CHECK(std::accumulate(slots_.begin(), slots_.end(), std::uint64_t{0}) == sum_);
}

}  // namespace sluice::gw
