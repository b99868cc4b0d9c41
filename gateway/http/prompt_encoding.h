// Prompts to exact token ids, with the template and tokenizer of their model. Pure functions of
// their arguments: they run on the event loop or on the tokenizing pool.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "gateway/api/generation_config.h"
#include "gateway/api/openai_types.h"
#include "shared/result.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace sluice::gw {

// A model with what turns text into its tokens and back. Constant after loading.
struct ServedModel {
  cfg::Model config;
  tok::Tokenizer tokenizer;
  tok::ChatTemplate chat_template;
  GenerationConfig generation{};
};

// The field that holds the prompt, for errors.
constexpr const char* prompt_field(ApiKind kind) {
  switch (kind) {
    case ApiKind::chat:
      return "messages";
    case ApiKind::completion:
      return "prompt";
    case ApiKind::embedding:
      return "input";
  }
  return "prompt";
}

// Bytes of text that the request would tokenize.
std::size_t text_bytes(const GenerationRequest& request);
// The same with a share for each message, which costs a template its time even when it is empty.
std::size_t encoding_cost(const GenerationRequest& request);

// The cheap bound before tokenizing: no token is longer than the longest piece, so a text of more
// than context x longest piece bytes cannot fit. Errors: context_length_exceeded.
Result<void> check_text_bytes(const ServedModel& model, std::uint32_t context_tokens,
                              const GenerationRequest& request);

// One list of ids per prompt (chat: one). Errors: invalid_value (an id outside the vocabulary, an
// empty prompt, a role order that the template refuses).
Result<void> encode_prompts(const ServedModel& model, const GenerationRequest& request,
                            std::vector<std::vector<TokenId>>& ids);

}  // namespace sluice::gw
