// What a client asked for, after parsing and range checks: the bodies of the OpenAI API as plain
// structs. Optional fields that a client left out are nothing; everything else holds its default.
// Reused from request to request (reset() keeps the memory). No thread rule.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/ids.h"
#include "shared/sampling_params.h"
#include "tokenizer/chat_template.h"

namespace sluice::gw {

enum class ApiKind : std::uint8_t { chat, completion, embedding };

enum class EncodingFormat : std::uint8_t { floats, base64 };  // of embeddings

// One prompt of /v1/completions or input of /v1/embeddings: text, or token ids as they are.
struct PromptInput {
  std::string text;
  std::vector<TokenId> ids;
  bool is_ids = false;
};

struct StreamOptions {
  bool include_usage = false;           // one more chunk with the totals
  bool continuous_usage_stats = false;  // totals so far in every chunk
};

// The sampling parameters for which a model may bring defaults of its own (generation_config.h).
enum class SamplingField : std::uint8_t { temperature, top_p, min_p, top_k, repetition_penalty };

// Which of them the client gave.
class GivenFields {
 public:
  void add(SamplingField field) { bits_ |= bit(field); }
  bool has(SamplingField field) const { return (bits_ & bit(field)) != 0; }

 private:
  static std::uint32_t bit(SamplingField field) { return 1u << static_cast<unsigned>(field); }
  std::uint32_t bits_ = 0;
};

// POST /v1/chat/completions, /v1/completions and /v1/embeddings.
struct GenerationRequest {
  ApiKind kind = ApiKind::chat;
  std::string model;
  std::vector<tok::ChatMessage> messages;  // chat
  std::vector<PromptInput> prompts;        // completion, embedding; >= 1
  // Also max_completion_tokens, which wins. 0 only with `echo`.
  std::optional<std::uint32_t> max_tokens;
  std::uint32_t choices = 1;  // n
  std::uint32_t best_of = 1;  // sequences per prompt, >= choices; the likeliest are answered
  // Log-probabilities of the tokens, with so many of the likeliest beside each.
  std::optional<std::uint32_t> logprobs;
  SamplingParams sampling;  // seed is 0 unless has_seed
  bool has_seed = false;
  GivenFields given;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  std::vector<LogitBias> logit_bias;
  bool stream = false;
  StreamOptions stream_options;
  bool echo = false;                                   // completion
  std::optional<bool> add_special_tokens;              // completion: bos in front; default true
  std::optional<bool> add_generation_prompt;           // chat
  bool continue_final_message = false;                 // chat
  std::int64_t unix_s = 0;                             // chat: the time that a template may tell
  std::optional<std::int64_t> truncate_prompt_tokens;  // -1: to what the context holds
  bool return_token_ids = false;
  std::optional<std::int32_t> priority;                     // smaller is sooner
  bool wants_timing = false;                                // "sluice": {"timing": true}
  EncodingFormat encoding_format = EncodingFormat::floats;  // embedding
  std::optional<std::uint32_t> dimensions;                  // embedding

  void reset(ApiKind new_kind) {
    GenerationRequest fresh;
    fresh.kind = new_kind;
    // The containers keep what they allocated.
    fresh.model.swap(model);
    fresh.messages.swap(messages);
    fresh.prompts.swap(prompts);
    fresh.stop.swap(stop);
    fresh.stop_token_ids.swap(stop_token_ids);
    fresh.logit_bias.swap(logit_bias);
    *this = std::move(fresh);
    model.clear();
    messages.clear();
    prompts.clear();
    stop.clear();
    stop_token_ids.clear();
    logit_bias.clear();
  }

  tok::ChatOptions chat_options() const {
    return {.add_generation_prompt = add_generation_prompt.value_or(!continue_final_message),
            .continue_final_message = continue_final_message,
            .unix_s = unix_s};
  }
};

// POST /tokenize: either a prompt or messages.
struct TokenizeRequest {
  std::string model;  // empty: the first model served
  std::optional<std::string> prompt;
  std::vector<tok::ChatMessage> messages;
  bool add_special_tokens = true;
  std::optional<bool> add_generation_prompt;
  bool continue_final_message = false;
};

// POST /detokenize.
struct DetokenizeRequest {
  std::string model;  // empty: the first model served
  std::vector<TokenId> tokens;
};

}  // namespace sluice::gw
