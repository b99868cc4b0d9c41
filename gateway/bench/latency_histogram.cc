// Bucket arithmetic of the histogram; see latency_histogram.h for the layout.
#include "gateway/bench/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sluice::bench {
namespace {

constexpr std::uint64_t kSubCount = 1ull << LatencyHistogram::kSubBits;  // per power of two
constexpr std::uint32_t kValueBits = 42;
static_assert((1ull << kValueBits) - 1 == LatencyHistogram::kValueMax);
// The linear part covers two powers' worth, then one group of kSubCount per further bit.
constexpr std::size_t kBuckets =
    2 * kSubCount + (kValueBits - LatencyHistogram::kSubBits - 1) * kSubCount;

}  // namespace

LatencyHistogram::LatencyHistogram() : buckets_(kBuckets) {}

std::size_t LatencyHistogram::bucket_of(std::uint64_t value) {
  if (value < 2 * kSubCount) return value;
  // value >> shift lies in [kSubCount, 2 * kSubCount): groups join without a gap.
  const auto shift = static_cast<std::uint32_t>(std::bit_width(value)) - kSubBits - 1;
  return shift * kSubCount + (value >> shift);
}

std::uint64_t LatencyHistogram::bucket_end(std::size_t bucket) {
  if (bucket < 2 * kSubCount) return bucket;
  const std::uint64_t shift = bucket / kSubCount - 1;
  const std::uint64_t start = (kSubCount + bucket % kSubCount) << shift;
  return start + (1ull << shift) - 1;
}

void LatencyHistogram::record(std::uint64_t value, std::uint64_t times) {
  if (times == 0) return;
  value = std::min(value, kValueMax);
  buckets_[bucket_of(value)] += times;
  count_ += times;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value) * static_cast<double>(times);
}

void LatencyHistogram::merge(const LatencyHistogram& other) {
  for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

double LatencyHistogram::mean() const {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

std::uint64_t LatencyHistogram::quantile(double quantile) const {
  if (count_ == 0) return 0;
  const double wanted = std::ceil(std::clamp(quantile, 0.0, 1.0) * static_cast<double>(count_));
  const std::uint64_t rank =
      std::clamp<std::uint64_t>(static_cast<std::uint64_t>(wanted), 1, count_);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::min(bucket_end(i), max_);
  }
  return max_;
}

}  // namespace sluice::bench
