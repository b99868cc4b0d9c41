// Bodies of successful answers, whole and as stream events, appended to a reused buffer.
//
// A stream's chunks differ only in index, text and finish reason: ResponseWriter builds what is
// equal once per request, so that a token's event is a few copies and one escaping pass. Nothing
// here allocates per token beyond the growth of the buffer (held by a test that counts).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/logprob_list.h"
#include "gateway/api/openai_types.h"
#include "gateway/core/generation.h"

namespace sluice::gw {

struct Usage {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;
  std::uint32_t cached_tokens = 0;
};

// What every chunk or body of one response says.
struct ResponseIdentity {
  ApiKind kind = ApiKind::chat;
  std::string_view id;  // "chatcmpl-..." or "cmpl-..."
  std::string_view model;
  std::string_view fingerprint;  // "fp_..."
  std::int64_t created = 0;      // unix seconds
};

struct ChunkOptions {
  bool include_usage = false;     // "usage": null in every chunk but the last
  bool continuous_usage = false;  // totals so far in every chunk
  bool token_ids = false;         // "token_ids" beside the text
};

// The opt-in object "sluice".
struct TimingInfo {
  GenerationStats stats;
  std::uint64_t seed = 0;
};

// What one stream event says of a choice.
struct TextPiece {
  std::string_view text;  // may be empty
  FinishReason finish = FinishReason::none;
  std::span<const TokenId> ids{};         // written when the request asked
  const LogprobList* logprobs = nullptr;  // or empty: null
};

struct ChoiceResult {
  std::string_view text;
  FinishReason finish = FinishReason::none;
  std::span<const TokenId> token_ids;         // written when the request asked
  std::span<const TokenId> prompt_token_ids;  // completions; likewise
  const LogprobList* logprobs = nullptr;      // none: null
};

// One input of /v1/embeddings.
struct EmbeddingResult {
  std::span<const float> values;
};

class ResponseWriter {
 public:
  // Builds the constant parts; memory is kept between requests.
  void begin(const ResponseIdentity& identity, const ChunkOptions& options);

  // Chat: the first chunk of a choice. `prompt_ids` is written when token ids were asked for.
  void role_chunk(std::string& out, std::uint32_t choice, std::span<const TokenId> prompt_ids,
                  const Usage& usage) const;
  // Text and, on the last one, the finish reason.
  void text_chunk(std::string& out, std::uint32_t choice, const TextPiece& piece,
                  const Usage& usage) const;
  // The chunk without choices: totals and, opt-in, the timing.
  void closing_chunk(std::string& out, const Usage& usage, const TimingInfo* timing) const;
  void done(std::string& out) const { out.append("data: [DONE]\n\n"); }

  // The whole answer at once. `prompt_ids` (chat, opt-in) goes to the top level.
  void body(std::string& out, std::span<const ChoiceResult> choices,
            std::span<const TokenId> prompt_ids, const Usage& usage,
            const TimingInfo* timing) const;

 private:
  void end_choice(std::string& out, const Usage& usage) const;

  ApiKind kind_ = ApiKind::chat;
  ChunkOptions options_;
  std::string chunk_head_;  // from "data: " to the choice's index
  std::string text_open_;   // between index and text
  std::string text_close_;  // after the text of an unfinished choice, without usage
  std::string body_head_;   // of the whole answer, up to the choices
};

std::string_view finish_reason_name(FinishReason finish);
void append_usage(std::string& out, const Usage& usage);
void append_token_ids(std::string& out, std::span<const TokenId> ids);

// The answer of /v1/embeddings. Floats are written with the digits that read back as the same
// value; base64 is of little-endian float32 (RFC 4648).
void append_embeddings(std::string& out, std::string_view model,
                       std::span<const EmbeddingResult> results, EncodingFormat format,
                       std::uint32_t prompt_tokens);

struct ModelCard {
  std::string_view name;
  std::int64_t created = 0;
  std::uint32_t max_model_len = 0;
};
void append_model(std::string& out, const ModelCard& card);

}  // namespace sluice::gw
