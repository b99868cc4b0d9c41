// Tick and Duration: time as the cores see it, always passed in. Clock is the seam through which
// the shells read it. SystemClock is CLOCK_MONOTONIC, so ticks of all our processes on one machine
// compare; ManualClock moves only when told.
#pragma once

#include <chrono>

namespace sluice {

using Duration = std::chrono::nanoseconds;

// A clock without now(): nothing in a core can ask for the time.
struct TickClock {
  using duration = Duration;
  using rep = Duration::rep;
  using period = Duration::period;
  using time_point = std::chrono::time_point<TickClock, Duration>;
  static constexpr bool is_steady = true;
};
using Tick = TickClock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Tick now() const = 0;
};

class SystemClock final : public Clock {
 public:
  Tick now() const override;
};

class ManualClock final : public Clock {
 public:
  Tick now() const override { return now_; }
  void advance(Duration by) { now_ += by; }
  void set(Tick tick) { now_ = tick; }

 private:
  Tick now_{};
};

}  // namespace sluice
