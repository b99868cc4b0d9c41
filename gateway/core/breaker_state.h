// What the circuit breakers of tenants and of workers share: the states, and the doubling back-off.
// Plain values.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "shared/clock.h"

namespace sluice::gw {

enum class BreakerState : std::uint8_t { closed, throttled, open, half_open };
inline constexpr std::size_t kBreakerStates = 4;
inline std::string_view breaker_state_name(BreakerState state) {
  constexpr std::array<std::string_view, kBreakerStates> kNames{"closed", "throttled", "open",
                                                                "half_open"};
  return kNames[static_cast<std::size_t>(state)];
}

inline constexpr std::size_t kBreakerEventsMax = 1024;  // kept until taken; the oldest go first
inline constexpr std::uint32_t kOpeningsMax = 32;       // counted in a row
inline constexpr std::size_t kBreakerHistory = 8;       // last transitions that a view shows

// least * 2^openings, at most `most`. REQUIRES: least > 0.
inline Duration back_off(Duration least, Duration most, std::uint32_t openings) {
  Duration wait = least;
  for (std::uint32_t i = 0; i < openings && wait < most; ++i) wait *= 2;
  return std::min(wait, most);
}

}  // namespace sluice::gw
