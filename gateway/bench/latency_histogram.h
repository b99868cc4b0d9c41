// LatencyHistogram: counts of durations in log-linear buckets (the layout of HdrHistogram), so that
// a run of any length takes fixed memory. A percentile is off by at most 1/1024 of its value;
// count, mean, least and largest value are exact. Values above kValueMax count as kValueMax. Plain
// value; no thread rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sluice::bench {

class LatencyHistogram {
 public:
  // Buckets [0, 2048) hold one value each; above, each power of two is split into 1024.
  //
  //   value   0 .. 2047 | 2048 .. 4095 | 4096 .. 8191 | ...
  //   width      1      |      2       |      4       | ...
  static constexpr std::uint32_t kSubBits = 10;
  static constexpr std::uint64_t kValueMax = (1ull << 42) - 1;  // nanoseconds: 73 minutes

  LatencyHistogram();
  void record(std::uint64_t value, std::uint64_t times = 1);
  void merge(const LatencyHistogram& other);

  std::uint64_t count() const { return count_; }
  std::uint64_t min() const { return count_ == 0 ? 0 : min_; }
  std::uint64_t max() const { return max_; }
  double mean() const;
  // The smallest value that at least `quantile` (0..1) of all values do not exceed, rounded up to
  // its bucket's end but never above max(). 0 without values.
  std::uint64_t quantile(double quantile) const;

 private:
  static std::size_t bucket_of(std::uint64_t value);
  static std::uint64_t bucket_end(std::size_t bucket);  // largest value in it

  std::vector<std::uint64_t> buckets_;
  std::uint64_t count_ = 0;
  std::uint64_t min_ = ~0ull;
  std::uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace sluice::bench
