// Sampler: one row of logits to one token. A function of its input alone: not of the batch, the
// order or the CPU (P2); randomness is the counter-based generator keyed by (seed, choice,
// position).
//
// Order, as vLLM has it: logit bias; min_tokens masks the stop ids; repetition penalty over prompt
// and output, frequency and presence penalty over the output; greedy at temperature 0 (lowest id
// among the largest); else temperature, min-p, top-k, top-p, draw. Among equal logits the lower id
// is first. A token more than kTailNats (scaled) below the largest has probability 0; error of any
// probability from this, for a vocabulary of 2^20, below 1e-11.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "shared/ids.h"
#include "shared/sampling_params.h"
#include "worker/core/row_loops.h"
#include "worker/core/step_plan.h"
#include "worker/core/token_counts.h"

namespace sluice::eng {

inline constexpr float kTailNats = 40.0f;

struct SampleInput {
  std::span<const float> logits;  // [vocab_size], any values
  const SamplingParams& sampling;
  std::span<const TokenCount> counts;  // empty when no penalty is set
  std::span<const LogitBias> bias;     // ids < vocab_size
  std::span<const TokenId> stop_ids;   // ids < vocab_size
  std::uint32_t choice;
  std::uint32_t position;  // index of the output token being drawn
  // Room for the likeliest tokens: sampling.num_top_logprobs of them, where a logprob is wanted.
  std::span<TopLogprob> top{};
};

// Holds the working memory: nothing allocates after construction. One per thread.
class Sampler {
 public:
  explicit Sampler(std::uint32_t vocab_size) : Sampler(vocab_size, row_loops()) {}
  Sampler(std::uint32_t vocab_size, const RowLoops& loops);

  // bad_logits when the row has a NaN or an infinity. The log-probability (under the unmodified
  // distribution) only where sampling.wants_logprob is set: it costs an exp per vocabulary entry.
  SampledToken sample(const SampleInput& input);
  // Of a row behind a prompt id: the log-probability of the id that follows, and as many of the
  // likeliest tokens as `top` has room for. Costs the same.
  SampledToken score(std::span<const float> logits, TokenId next, std::span<TopLogprob> top);

 private:
  struct Candidate {
    float weight;  // a logit, or exp of it scaled
    TokenId id;
  };

  static constexpr int kBinShift = 18;  // sign, exponent and five bits of the fraction
  static constexpr std::size_t kBins = (0x3f800000u >> kBinShift) + 1;  // up to 1.0

  const float* modified(const SampleInput& input);
  float row_max() const;
  double weigh(const float* row, float top, float inverse_temperature, float tail_nats,
               float weight_min);
  double log_sum(const float* row);
  std::span<const TopLogprob> write_top(const float* row, double log_total,
                                        std::span<TopLogprob> top);
  TokenId argmax(const float* row, float top) const;
  TokenId draw(const float* row, const SampleInput& input);
  TokenId draw_by_id(double unit, double total) const;
  TokenId draw_candidate(double unit) const;
  void collect_top_k(const float* row, std::uint32_t top_k, float floor);
  void weigh_candidates(float top, float inverse_temperature, float min_p);
  double candidates_mass() const;
  void keep_head(double mass);
  double keep_nucleus(double total, float top_p);
  double sums_total() const;
  template <class Visit>
  void for_weights_from(float least, Visit visit) const;
  static std::size_t bin_of(float weight);
  static bool sooner(const Candidate& a, const Candidate& b);

  const RowLoops& loops_;
  const std::uint32_t vocab_size_;
  std::vector<float> row_;             // [vocab_size] modified copy
  std::vector<float> weights_;         // [vocab_size]
  std::vector<float> maxima_;          // [blocks] of the row at hand
  std::vector<float> sums_;            // [blocks]
  std::vector<float> scratch_;         // [blocks]
  std::vector<Candidate> candidates_;  // capacity vocab_size
  std::array<double, kBins> bins_{};   // mass of the weights with the same leading bits
};

}  // namespace sluice::eng
