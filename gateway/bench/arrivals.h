// PoissonArrivals: the schedule of an open loop. Gaps are exponential with mean 1/rate, drawn from
// a counter-based generator, so that equal seeds give equal schedules. Pure.
#pragma once

#include <cmath>
#include <cstdint>

#include "shared/clock.h"
#include "shared/random.h"

namespace sluice::bench {

class PoissonArrivals {
 public:
  // rate: arrivals per second, > 0.
  PoissonArrivals(double rate, std::uint64_t seed) : rate_(rate), seed_(seed) {}

  // Of arrival `index` after arrival `index - 1` (after the start for 0).
  Duration gap(std::uint32_t index) const {
    const double unit = random_unit(RandomKey{seed_, 0, index}, 0);  // [0, 1): the log is finite
    return Duration(static_cast<Duration::rep>(-std::log1p(-unit) / rate_ * 1e9));
  }
  // The next one in order.
  Duration next() { return gap(index_++); }

 private:
  double rate_;
  std::uint64_t seed_;
  std::uint32_t index_ = 0;
};

}  // namespace sluice::bench
