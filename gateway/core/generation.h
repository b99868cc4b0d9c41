// What a handler asks the decision thread for, and what it gets back. Plain values between the HTTP
// side (api, http) and the serving core; no thread rule of their own.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shared/clock.h"
#include "shared/ids.h"
#include "shared/messages.h"
#include "shared/sampling_params.h"

namespace sluice::gw {

// Names one submitted request; 0 is none. Calls with a handle that has ended are ignored.
struct GenerationHandle {
  std::uint64_t value = 0;
  explicit operator bool() const { return value != 0; }
  friend bool operator==(GenerationHandle, GenerationHandle) = default;
};

// Who calls, as places in the current configuration.
inline constexpr std::uint32_t kNoKey = 0xffffffffu;
struct Caller {
  TenantId tenant;
  std::uint32_t key = kNoKey;  // of that tenant; kNoKey where no keys are configured
  friend bool operator==(Caller, Caller) = default;
};

// For the x-ratelimit headers and admission errors.
struct LimitsView {
  std::uint64_t requests_limit = 0, requests_remaining = 0;
  std::uint64_t tokens_limit = 0, tokens_remaining = 0;
  Duration requests_reset{}, tokens_reset{};  // until full again
  // False: the tenant has none of its own, what stands above is the server's bound (0: none).
  bool has_requests_limit = false, has_tokens_limit = false;
};

enum class Delivery : std::uint8_t {
  streamed,  // tokens are billed when their write starts
  whole,     // tokens are billed as they arrive; the answer is one write
};

// Whether the log-probabilities of the prompt are wanted: of choice 0, once.
enum class PromptScores : std::uint8_t { none, wanted };

// One request after parsing, templating and tokenizing. Immutable once submitted.
struct GenerationSpec {
  TenantId tenant;
  std::uint32_t key = kNoKey;     // see Caller
  AccountId account;              // who pays: of tenant and key; the decision loop fills it in
  std::uint32_t model = 0;        // index into the configured models
  std::vector<TokenId> prompt;    // exact: what usage.prompt_tokens says
  SamplingParams sampling;        // seed drawn already when the client gave none
  std::vector<TokenId> stop_ids;  // end-of-sequence and turn-end ids included unless ignore_eos
  std::vector<LogitBias> bias;
  std::uint32_t choices = 1;            // n
  std::uint32_t output_tokens_max = 0;  // per choice; 0: the prompt is all (or an embedding)
  SequenceTask task = SequenceTask::generate;
  PromptScores prompt_scores = PromptScores::none;
  std::uint32_t priority = 0;  // smaller is sooner
  Delivery delivery = Delivery::whole;
  Tick arrival{};
  std::optional<Tick> deadline;
};

// A validated token of one choice, drained from the ring, in order.
struct OutputToken {
  TokenId id;
  float logprob;
  FinishReason finish;  // not `none`: the last one of its choice
};

// What is known of a prompt. Spans hold until the next call.
struct PromptResult {
  std::span<const float> logprobs;   // of ids 1, 2, ...; complete before the first token
  std::span<const TopLogprob> top;   // [logprobs.size(), num_top]
  std::span<const float> embedding;  // once finish is set
  FinishReason finish{};             // length: the prompt was all; accept(0) ends the choice
};

enum class CancelCause : std::uint8_t { client_gone, stop_string, deadline, shutdown, failed };

// A terminal state without a further token (cancel acknowledged, worker could not go on).
struct GenerationStats {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t cached_tokens = 0;
  std::uint32_t completion_tokens = 0;  // accepted, all choices
  Duration queued{};                    // admission to dispatch
  Duration prefill{};                   // dispatch to first token
  Duration decode{};                    // first to last token
  WorkerId worker{};
  std::uint32_t num_failovers = 0;  // times that a sequence moved to another epoch
  bool exact = true;                // continuity: every continuation was bitwise equal by P2
};

}  // namespace sluice::gw
