// OutputPredictor: how long the answers of one tenant and model have been, as a quantile. Counts in
// buckets that grow by a quarter: a quantile is too high by at most 25 %, never too low for what
// was seen. Old answers fade: counts are halved whenever kForgetAt were seen. Pure values; decision
// thread only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace sluice::gw {

class OutputPredictor {
 public:
  static constexpr std::uint32_t kSeenMin = 16;  // fewer say nothing
  static constexpr std::uint32_t kForgetAt = 1024;

  void observe(std::uint32_t tokens) {
    ++counts_[bucket_of(tokens)];
    if (++seen_ < kForgetAt) return;
    for (std::uint16_t& count : counts_) count = static_cast<std::uint16_t>(count / 2);
    seen_ = std::accumulate(counts_.begin(), counts_.end(), 0u);
  }

  // At least `permille` of the answers seen had at most so many tokens; 0: too few were seen.
  std::uint32_t quantile_tokens(std::uint32_t permille) const {
    if (seen_ < kSeenMin) return 0;
    std::uint64_t left = (std::uint64_t{seen_} * permille + 999) / 1000;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] >= left) return kEnds[i];
      left -= counts_[i];
    }
    return kEnds.back();
  }

 private:
  static constexpr std::size_t kBuckets = 62;
  static constexpr std::array<std::uint32_t, kBuckets> kEnds = [] {
    std::array<std::uint32_t, kBuckets> ends{};
    std::uint64_t end = 1;
    for (std::uint32_t& entry : ends) {
      entry = static_cast<std::uint32_t>(end);
      end += end / 4 > 0 ? end / 4 : 1;
    }
    return ends;
  }();
  static std::size_t bucket_of(std::uint32_t tokens) {
    std::size_t at = 0;
    while (at + 1 < kBuckets && kEnds[at] < tokens) ++at;
    return at;
  }

  std::array<std::uint16_t, kBuckets> counts_{};
  std::uint32_t seen_ = 0;
};

}  // namespace sluice::gw
