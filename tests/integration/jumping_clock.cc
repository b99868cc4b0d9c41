// A library to preload: the wall clock jumps ten years ahead, back and behind, a jump each 200 ms
// of the monotonic clock, which is left alone. For test_endurance.py.
#include <dlfcn.h>
#include <sys/time.h>

#include <ctime>

namespace {

constexpr std::time_t kTenYears = 10L * 365 * 86'400;
constexpr std::time_t kOffsets[] = {0, kTenYears, -kTenYears};

using ClockGetTime = int (*)(clockid_t, timespec*);

int real_clock_gettime(clockid_t clock, timespec* time) {
  static const auto real = reinterpret_cast<ClockGetTime>(::dlsym(RTLD_NEXT, "clock_gettime"));
  return real(clock, time);
}

std::time_t offset() {
  timespec now{};
  real_clock_gettime(CLOCK_MONOTONIC, &now);
  return kOffsets[static_cast<unsigned>(now.tv_sec * 5 + now.tv_nsec / 200'000'000) % 3];
}

std::time_t jumping_seconds() {
  timespec now{};
  real_clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec + offset();
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = real_clock_gettime(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    time->tv_sec += offset();
  return result;
}

int gettimeofday(timeval* time, void*) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  *time = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

std::time_t time(std::time_t* out) noexcept {
  const std::time_t now = jumping_seconds();
  if (out != nullptr) *out = now;
  return now;
}

}  // extern "C"
