// What the decision thread counts: the three token counters (P4) and the distributions that
// dashboards expect, with the bucket borders of vLLM. Plain values, read by the metrics page on the
// same thread.
//
// Invariant, per model: generated == accepted + discarded (all causes) + pending.
#pragma once

#include <array>
#include <cstdint>
#include <numeric>

#include "gateway/core/histogram.h"
#include "gateway/core/request_state.h"

namespace sluice::gw {

inline constexpr std::int64_t kMs = 1'000'000;
inline constexpr std::int64_t kSecond = 1'000'000'000;

// Nanoseconds.
inline constexpr std::array<std::int64_t, 22> kTtftBorders{
    1 * kMs,      5 * kMs,       10 * kMs,      20 * kMs,      40 * kMs,     60 * kMs,
    80 * kMs,     100 * kMs,     250 * kMs,     500 * kMs,     750 * kMs,    1 * kSecond,
    2500 * kMs,   5 * kSecond,   7500 * kMs,    10 * kSecond,  20 * kSecond, 40 * kSecond,
    80 * kSecond, 160 * kSecond, 640 * kSecond, 2560 * kSecond};
inline constexpr std::array<std::int64_t, 19> kItlBorders{
    10 * kMs,   25 * kMs,     50 * kMs,     75 * kMs,     100 * kMs,   150 * kMs,  200 * kMs,
    300 * kMs,  400 * kMs,    500 * kMs,    750 * kMs,    1 * kSecond, 2500 * kMs, 5 * kSecond,
    7500 * kMs, 10 * kSecond, 20 * kSecond, 40 * kSecond, 80 * kSecond};
inline constexpr std::array<std::int64_t, 21> kRequestTimeBorders{
    300 * kMs,     500 * kMs,      800 * kMs,     1 * kSecond,   1500 * kMs,    2 * kSecond,
    2500 * kMs,    5 * kSecond,    10 * kSecond,  15 * kSecond,  20 * kSecond,  30 * kSecond,
    40 * kSecond,  50 * kSecond,   60 * kSecond,  120 * kSecond, 240 * kSecond, 480 * kSecond,
    960 * kSecond, 1920 * kSecond, 7680 * kSecond};
// Of engine steps.
inline constexpr std::array<std::int64_t, 16> kStepTimeBorders{
    kMs / 10, kMs / 4,   kMs / 2,   1 * kMs,   2500'000,    5 * kMs,    10 * kMs,    25 * kMs,
    50 * kMs, 100 * kMs, 250 * kMs, 500 * kMs, 1 * kSecond, 2500 * kMs, 5 * kSecond, 10 * kSecond};
// Tokens.
inline constexpr std::array<std::int64_t, 14> kStepTokensBorders{
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};

enum class EndReason : std::uint8_t { stop, length, abort, error };  // label finished_reason
inline constexpr std::size_t kEndReasons = 4;

struct ModelCounters {
  std::uint64_t generated = 0;
  std::uint64_t accepted = 0;
  std::array<std::uint64_t, kDiscardCauses> discarded{};
  std::uint64_t pending = 0;  // drained, neither accepted nor discarded yet

  std::uint64_t prompt_tokens = 0;  // of requests that reached a worker; once per request
  std::uint64_t requests = 0;       // admitted
  std::array<std::uint64_t, kEndReasons> ended{};  // choices, by EndReason
  std::uint64_t failovers = 0;                     // resubmissions after the end of an epoch
  std::uint64_t condemned = 0;                     // poisoned requests

  Histogram ttft{kTtftBorders};                 // arrival to first token drained, per choice
  Histogram itl{kItlBorders};                   // between consecutive tokens of a choice
  Histogram e2e{kRequestTimeBorders};           // arrival to the end of a choice
  Histogram queue_time{kRequestTimeBorders};    // admission to first dispatch
  Histogram prefill_time{kRequestTimeBorders};  // first dispatch to first token
  Histogram decode_time{kRequestTimeBorders};   // first to last token

  std::uint64_t discarded_total() const {
    return std::accumulate(discarded.begin(), discarded.end(), std::uint64_t{0});
  }
  bool is_balanced() const { return generated == accepted + discarded_total() + pending; }
};

}  // namespace sluice::gw
