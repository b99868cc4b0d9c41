// LogprobList: the log-probabilities of some tokens as the API shows them, built token by token.
//
//   chat        {"content":[{"token","logprob","bytes","top_logprobs":[..]}],"refusal":null}
//   completion  {"tokens":[..],"token_logprobs":[..],"top_logprobs":[{token:
//   logprob}],"text_offset":[..]}
//
// A token that is no whole UTF-8 has its bytes; its text is U+FFFD in chat, "bytes:\xe2\x80" in
// completions, where texts are keys. A logarithm below -9999 reads as -9999, for JSON has no
// infinity. One per choice, reused: memory grows with the tokens between two clear().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "gateway/api/openai_types.h"
#include "shared/messages.h"
#include "tokenizer/tokenizer.h"

namespace sluice::gw {

struct TokenLogprob {
  TokenId id;
  std::optional<float> logprob;     // nothing for the first token of a prompt
  std::span<const TopLogprob> top;  // the likeliest first
};

class LogprobList {
 public:
  // `num_top`: how many alternatives were asked for.
  void begin(ApiKind kind, std::uint32_t num_top);
  // `offset`: characters of the text before the token (completion).
  void add(const tok::Tokenizer& tokenizer, const TokenLogprob& token, std::uint64_t offset);
  bool is_empty() const { return num_tokens_ == 0; }
  void clear();
  void append_to(std::string& out) const;

 private:
  void add_chat(const tok::Tokenizer& tokenizer, const TokenLogprob& token);
  void add_alternatives(const tok::Tokenizer& tokenizer, const TokenLogprob& token);

  ApiKind kind_ = ApiKind::chat;
  std::uint32_t num_top_ = 0;
  std::uint32_t num_tokens_ = 0;
  std::string tokens_;  // chat: the content
  std::string logprobs_;
  std::string top_;
  std::string offsets_;
};

}  // namespace sluice::gw
