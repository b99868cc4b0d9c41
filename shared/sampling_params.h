// SamplingParams: how the next token is chosen. Ranges are those of the OpenAI API and of vLLM for
// the extensions. A trivially copyable value: it travels in a submission record as it is.
#pragma once

#include <cstdint>
#include <type_traits>

#include "shared/ids.h"

namespace sluice {

struct SamplingParams {
  std::uint64_t seed = 0;           // with (choice, position) the only source of randomness
  float temperature = 1.0f;         // 0..2; 0 is greedy: lowest id among the largest logits
  float top_p = 1.0f;               // (0, 1]; 1 is off
  float min_p = 0.0f;               // [0, 1]; 0 is off
  float presence_penalty = 0.0f;    // -2..2, over output tokens
  float frequency_penalty = 0.0f;   // -2..2, over output tokens
  float repetition_penalty = 1.0f;  // (0, 2], over prompt and output tokens; 1 is off
  std::uint32_t top_k = 0;          // 0 is off
  std::uint32_t min_tokens = 0;     // no end-of-sequence or stop id before so many output tokens
  std::uint32_t ignore_eos = 0;     // 1: the model's own end-of-sequence ids do not end it
  std::uint16_t wants_logprob = 0;  // 1: step entries carry the log-probability; else it is 0
  // With wants_logprob, or for prompt ids: so many of the likeliest tokens beside it.
  std::uint16_t num_top_logprobs = 0;  // 0..kTopLogprobsMax
};
static_assert(std::is_trivially_copyable_v<SamplingParams> && sizeof(SamplingParams) == 48);

struct LogitBias {
  TokenId token;
  float bias;  // -100..100, added to the logit
};
static_assert(sizeof(LogitBias) == 8);

}  // namespace sluice
