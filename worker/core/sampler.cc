// Sampling with partial selection: a row is passed twice (maxima by block, weights by block), and
// only what can still be chosen is collected and sorted.
#include "worker/core/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "shared/check.h"
#include "shared/random.h"

namespace sluice::eng {
namespace {

constexpr float kMasked = -1.0e30f;  // the logit of a token that may not be chosen
constexpr float kNoFloor = -std::numeric_limits<float>::infinity();
constexpr float kGreedyBelow = 1.0e-5f;  // temperatures below are greedy, as in vLLM

constexpr std::size_t num_row_blocks(std::size_t n) {
  return (n + kRowBlock - 1) / kRowBlock;
}

// At most 0: the sum in the logarithm is rounded.
float logprob_of(float logit, double log_total) {
  return std::min(static_cast<float>(double{logit} - log_total), 0.0f);
}

bool modifies(const SampleInput& input) {
  return !input.bias.empty() || !input.counts.empty() ||
         (input.position < input.sampling.min_tokens && !input.stop_ids.empty());
}

}  // namespace

// Weights lie in [0, 1]: the leading bits of the float order them.
std::size_t Sampler::bin_of(float weight) {
  return std::bit_cast<std::uint32_t>(weight) >> kBinShift;
}

// Calls visit(i) for each weight >= least and > 0, in the order of ids.
template <class Visit>
void Sampler::for_weights_from(float least, Visit visit) const {
  for (std::size_t b = 0; b < sums_.size(); ++b) {
    if (sums_[b] < least || sums_[b] <= 0.0f) continue;
    const std::size_t end = std::min<std::size_t>(vocab_size_, (b + 1) * kRowBlock);
    for (std::size_t i = b * kRowBlock; i < end; ++i)
      if (weights_[i] >= least && weights_[i] > 0.0f) visit(i);
  }
}

bool Sampler::sooner(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

Sampler::Sampler(std::uint32_t vocab_size, const RowLoops& loops)
    : loops_(loops),
      vocab_size_(vocab_size),
      row_(vocab_size),
      weights_(vocab_size),
      maxima_(num_row_blocks(vocab_size)),
      sums_(maxima_.size()),
      scratch_(maxima_.size()) {
  candidates_.reserve(vocab_size);
}

SampledToken Sampler::sample(const SampleInput& input) {
  CHECK(input.logits.size() == vocab_size_ && vocab_size_ > 0);
  const float* row = input.logits.data();
  SampledToken sampled;
  sampled.status = SampleStatus::bad_logits;
  if (!loops_.block_maxima(row, vocab_size_, maxima_.data())) return sampled;
  double log_total = 0.0;
  if (input.sampling.wants_logprob != 0) {
    log_total = log_sum(row);
    CHECK(input.top.size() >= input.sampling.num_top_logprobs);
    sampled.top = write_top(row, log_total, input.top.first(input.sampling.num_top_logprobs));
  }
  if (modifies(input)) {
    row = modified(input);
    loops_.block_maxima(row, vocab_size_, maxima_.data());
  }
  if (row_max() <= kMasked) return sampled;  // nothing may be chosen
  sampled.token = draw(row, input);
  sampled.status = SampleStatus::ok;
  if (input.sampling.wants_logprob != 0)
    sampled.logprob = logprob_of(input.logits[sampled.token], log_total);
  return sampled;
}

SampledToken Sampler::score(std::span<const float> logits, TokenId next,
                            std::span<TopLogprob> top) {
  CHECK(logits.size() == vocab_size_ && next < vocab_size_);
  const float* const row = logits.data();
  SampledToken scored;
  scored.token = next;
  scored.status = SampleStatus::bad_logits;
  if (!loops_.block_maxima(row, vocab_size_, maxima_.data())) return scored;
  const double log_total = log_sum(row);
  scored.logprob = logprob_of(row[next], log_total);
  scored.top = write_top(row, log_total, top);
  scored.status = SampleStatus::ok;
  return scored;
}

// The likeliest tokens of the row at hand, into `top`; what of it was filled.
std::span<const TopLogprob> Sampler::write_top(const float* row, double log_total,
                                               std::span<TopLogprob> top) {
  if (top.empty()) return {};
  collect_top_k(row, static_cast<std::uint32_t>(top.size()), kNoFloor);
  for (std::size_t i = 0; i < candidates_.size(); ++i)
    top[i] = {candidates_[i].id, logprob_of(candidates_[i].weight, log_total)};
  return top.first(candidates_.size());
}

// The penalties, into a copy of the row.
const float* Sampler::modified(const SampleInput& input) {
  const SamplingParams& sampling = input.sampling;
  std::copy(input.logits.begin(), input.logits.end(), row_.begin());
  for (const LogitBias& bias : input.bias) row_[bias.token] += bias.bias;
  if (input.position < sampling.min_tokens)
    for (const TokenId id : input.stop_ids) row_[id] = kMasked;
  for (const TokenCount& count : input.counts) {
    float& logit = row_[count.token];
    if (logit <= kMasked) continue;
    logit =
        logit > 0.0f ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
    if (count.num_output > 0)
      logit -= sampling.frequency_penalty * static_cast<float>(count.num_output) +
               sampling.presence_penalty;
    logit = std::clamp(logit, kMasked, -kMasked);  // a tiny repetition penalty overflows
  }
  return row_.data();
}

float Sampler::row_max() const {
  return *std::ranges::max_element(maxima_);
}

// weights_ and sums_ of the row at hand; their total, block after block.
double Sampler::weigh(const float* row, float top, float inverse_temperature, float tail_nats,
                      float weight_min) {
  const float cut = top - tail_nats / inverse_temperature;
  loops_.block_weights(row, vocab_size_, maxima_.data(), cut, top, inverse_temperature, weight_min,
                       weights_.data(), sums_.data());
  return sums_total();
}

double Sampler::log_sum(const float* row) {
  const float top = row_max();
  return double{top} + std::log(weigh(row, top, 1.0f, 2 * kTailNats, 0.0f));
}

TokenId Sampler::argmax(const float* row, float top) const {
  const auto block = static_cast<std::size_t>(std::ranges::find(maxima_, top) - maxima_.begin());
  const float* const first = row + block * kRowBlock;
  const float* const end = row + std::min<std::size_t>(vocab_size_, (block + 1) * kRowBlock);
  return static_cast<TokenId>(std::find(first, end, top) - row);
}

TokenId Sampler::draw(const float* row, const SampleInput& input) {
  const SamplingParams& sampling = input.sampling;
  const float top = row_max();
  if (sampling.temperature < kGreedyBelow) return argmax(row, top);
  const float inverse_temperature = 1.0f / sampling.temperature;
  const double unit = random_unit({sampling.seed, input.choice, input.position}, 0);
  if (sampling.top_k > 0 && sampling.top_k < vocab_size_) {
    collect_top_k(row, sampling.top_k, kMasked);
    weigh_candidates(top, inverse_temperature, sampling.min_p);
    if (sampling.top_p < 1.0f) keep_head(candidates_mass() * double{sampling.top_p});
    return draw_candidate(unit);
  }
  const double total = weigh(row, top, inverse_temperature, kTailNats, sampling.min_p);
  return draw_by_id(unit, sampling.top_p < 1.0f ? keep_nucleus(total, sampling.top_p) : total);
}

// Inverse of the cumulative distribution in the order of ids: by block, then within it.
TokenId Sampler::draw_by_id(double unit, double total) const {
  double left = unit * total;
  std::size_t last_block = 0;
  std::size_t block = 0;
  for (; block < sums_.size(); ++block) {
    if (sums_[block] <= 0.0f) continue;
    last_block = block;
    if (left < double{sums_[block]}) break;
    left -= double{sums_[block]};
  }
  // Rounding may leave a rest after the last block, or after the last weight of one.
  const std::size_t first = last_block * kRowBlock;
  const std::size_t end = std::min<std::size_t>(vocab_size_, first + kRowBlock);
  std::size_t chosen = first;
  for (std::size_t i = first; i < end; ++i) {
    if (weights_[i] <= 0.0f) continue;
    chosen = i;
    if (left < double{weights_[i]}) break;
    left -= double{weights_[i]};
  }
  return static_cast<TokenId>(chosen);
}

// The k largest logits as candidates. Each block's maximum is an element: so at least k elements
// reach the k-th largest maximum, and what is below it needs no look. Logits at `floor` are none.
void Sampler::collect_top_k(const float* row, std::uint32_t top_k, float floor) {
  float threshold = floor;
  if (top_k <= maxima_.size()) {
    std::ranges::copy(maxima_, scratch_.begin());
    const auto kth = scratch_.begin() + (top_k - 1);
    std::nth_element(scratch_.begin(), kth, scratch_.end(), std::greater{});
    threshold = std::max(*kth, floor);
  }
  candidates_.clear();
  for (std::size_t b = 0; b < maxima_.size(); ++b) {
    if (maxima_[b] < threshold) continue;
    const std::size_t end = std::min<std::size_t>(vocab_size_, (b + 1) * kRowBlock);
    for (std::size_t i = b * kRowBlock; i < end; ++i)
      if (row[i] >= threshold && row[i] > floor)
        candidates_.push_back({row[i], static_cast<TokenId>(i)});
  }
  if (candidates_.size() > top_k) {
    std::nth_element(candidates_.begin(), candidates_.begin() + top_k, candidates_.end(), sooner);
    candidates_.resize(top_k);
  }
  std::sort(candidates_.begin(), candidates_.end(), sooner);
}

// Logits of the (sorted) candidates become weights; min-p cuts the end.
void Sampler::weigh_candidates(float top, float inverse_temperature, float min_p) {
  for (std::size_t i = 0; i < candidates_.size(); ++i) weights_[i] = candidates_[i].weight;
  loops_.scaled_exp(weights_.data(), static_cast<std::uint32_t>(candidates_.size()), top,
                    inverse_temperature);
  std::size_t num_kept = 0;
  while (num_kept < candidates_.size() && weights_[num_kept] >= min_p &&
         weights_[num_kept] > 0.0f) {
    candidates_[num_kept].weight = weights_[num_kept];
    ++num_kept;
  }
  candidates_.resize(num_kept);
}

double Sampler::candidates_mass() const {
  double mass = 0.0;
  for (const Candidate& candidate : candidates_) mass += double{candidate.weight};
  return mass;
}

// Cuts the (sorted) candidates to the shortest head that has the mass.
void Sampler::keep_head(double mass) {
  double reached = 0.0;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    reached += double{candidates_[i].weight};
    if (reached < mass) continue;
    candidates_.resize(i + 1);
    return;
  }
}

// Zeroes the weights outside the smallest set of mass `top_p`; the total of the rest. Weights are
// binned by their leading bits; bins are taken from the top while the mass is not reached, and only
// the bin in which it is reached gets sorted. A weight below the mass outside divided by the
// vocabulary needs no bin: all such weights together do not make up that mass.
double Sampler::keep_nucleus(double total, float top_p) {
  const double mass = total * double{top_p};
  const auto least = static_cast<float>(total * (1.0 - double{top_p}) / vocab_size_ / 2);
  bins_.fill(0.0);
  for_weights_from(least,
                   [this](std::size_t i) { bins_[bin_of(weights_[i])] += double{weights_[i]}; });
  std::size_t bin = kBins - 1;
  double reached = 0.0;
  for (; bin > 0 && reached + bins_[bin] < mass; --bin) reached += bins_[bin];
  const float bin_low = std::bit_cast<float>(static_cast<std::uint32_t>(bin) << kBinShift);
  candidates_.clear();
  for_weights_from(bin_low, [&](std::size_t i) {
    if (bin_of(weights_[i]) == bin) candidates_.push_back({weights_[i], static_cast<TokenId>(i)});
  });
  std::sort(candidates_.begin(), candidates_.end(), sooner);
  for (const Candidate& candidate : candidates_) {
    if (reached >= mass) weights_[candidate.id] = 0.0f;
    reached += double{candidate.weight};
  }
  loops_.keep_weights(weights_.data(), vocab_size_, bin_low, sums_.data());
  return sums_total();
}

double Sampler::sums_total() const {
  double total = 0.0;
  for (const float sum : sums_) total += double{sum};
  return total;
}

// REQUIRES: a candidate.
TokenId Sampler::draw_candidate(double unit) const {
  double left = unit * candidates_mass();
  for (const Candidate& candidate : candidates_) {
    if (left < double{candidate.weight}) return candidate.id;
    left -= double{candidate.weight};
  }
  return candidates_.back().id;  // rounding left a rest
}

}  // namespace sluice::eng
