// StepTime: predicts how long a step will take from its tokens, by an exponential average per power
// of two. Telemetry for the stall detector and Retry-After; no decision of the scheduler reads it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "shared/clock.h"

namespace sluice::eng {

class StepTime {
 public:
  void observe(std::uint32_t num_tokens, Duration duration) {
    Duration& average = averages_[bucket(num_tokens)];
    average = average == Duration::zero() ? duration : average + (duration - average) / kWeight;
  }

  // Zero: nothing known. A size never seen is taken from the nearest smaller one in proportion,
  // else from the nearest larger one.
  Duration predict(std::uint32_t num_tokens) const {
    const std::size_t wanted = bucket(num_tokens);
    for (std::size_t i = wanted + 1; i > 0; --i)
      if (averages_[i - 1] != Duration::zero()) return averages_[i - 1] * (1 << (wanted - (i - 1)));
    for (std::size_t i = wanted + 1; i < averages_.size(); ++i)
      if (averages_[i] != Duration::zero()) return averages_[i];
    return Duration::zero();
  }

 private:
  static constexpr int kWeight = 8;  // a new duration counts one eighth
  static constexpr std::size_t bucket(std::uint32_t num_tokens) {
    const auto width = static_cast<std::size_t>(std::bit_width(num_tokens));
    return width < kBuckets ? width : kBuckets - 1;
  }
  static constexpr std::size_t kBuckets = 22;  // up to 2^21 tokens

  std::array<Duration, kBuckets> averages_{};
};

}  // namespace sluice::eng
