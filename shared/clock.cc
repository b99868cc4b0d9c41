// Reading the machine's monotonic clock.
#include "shared/clock.h"

#include <ctime>

namespace sluice {

Tick SystemClock::now() const {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return Tick(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

}  // namespace sluice
