// JSON bodies and stream chunks.
#include "gateway/api/write_response.h"

#include <algorithm>
#include <bit>

#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

void append_timing(std::string& out, const TimingInfo& timing) {
  const GenerationStats& stats = timing.stats;
  const auto ms = [](Duration d) { return static_cast<double>(d.count()) / 1e6; };
  out.append(",\"sluice\":{\"queue_ms\":");
  append_milliseconds(out, ms(stats.queued));
  out.append(",\"prefill_ms\":");
  append_milliseconds(out, ms(stats.prefill));
  out.append(",\"decode_ms\":");
  append_milliseconds(out, ms(stats.decode));
  out.append(",\"cached\":");
  append_integer(out, stats.cached_tokens);
  out.append(",\"worker\":");
  append_integer(out, stats.worker.value);
  out.append(",\"failovers\":");
  append_integer(out, stats.num_failovers);
  out.append(stats.exact ? ",\"continuity\":\"exact\"" : ",\"continuity\":\"tokens\"");
  // A signed number, as the client's own `seed` field is.
  out.append(",\"seed\":");
  append_integer(out, static_cast<std::int64_t>(timing.seed));
  out.push_back('}');
}

void append_floats(std::string& out, std::span<const float> values) {
  out.push_back('[');
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_float(out, values[i]);
  }
  out.push_back(']');
}

// Three bytes, four characters.
void append_base64(std::string& out, std::span<const unsigned char> bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) group = group << 8 | (j < count ? bytes[i + j] : 0u);
    for (std::size_t j = 0; j < 4; ++j)
      out.push_back(j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=');
  }
}

}  // namespace

void append_embeddings(std::string& out, std::string_view model,
                       std::span<const EmbeddingResult> results, EncodingFormat format,
                       std::uint32_t prompt_tokens) {
  static_assert(std::endian::native == std::endian::little);
  out.append("{\"object\":\"list\",\"data\":[");
  for (std::size_t i = 0; i < results.size(); ++i) {
    out.append(i > 0 ? ",{" : "{").append("\"object\":\"embedding\",\"index\":");
    append_integer(out, i);
    out.append(",\"embedding\":");
    const std::span<const float> values = results[i].values;
    if (format == EncodingFormat::base64) {
      out.push_back('"');
      append_base64(out,
                    {reinterpret_cast<const unsigned char*>(values.data()), values.size_bytes()});
      out.push_back('"');
    } else {
      append_floats(out, values);
    }
    out.push_back('}');
  }
  out.append("],\"model\":");
  append_json_string(out, model);
  out.append(",\"usage\":{\"prompt_tokens\":");
  append_integer(out, prompt_tokens);
  out.append(",\"total_tokens\":");
  append_integer(out, prompt_tokens);
  out.append("}}");
}

std::string_view finish_reason_name(FinishReason finish) {
  return finish == FinishReason::length ? "\"length\"" : "\"stop\"";
}

void append_usage(std::string& out, const Usage& usage) {
  out.append("{\"prompt_tokens\":");
  append_integer(out, usage.prompt_tokens);
  out.append(",\"completion_tokens\":");
  append_integer(out, usage.completion_tokens);
  out.append(",\"total_tokens\":");
  append_integer(out, std::uint64_t{usage.prompt_tokens} + usage.completion_tokens);
  out.append(",\"prompt_tokens_details\":{\"cached_tokens\":");
  append_integer(out, usage.cached_tokens);
  out.append("}}");
}

void append_token_ids(std::string& out, std::span<const TokenId> ids) {
  out.push_back('[');
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_integer(out, ids[i]);
  }
  out.push_back(']');
}

void append_model(std::string& out, const ModelCard& card) {
  out.append("{\"id\":");
  append_json_string(out, card.name);
  out.append(",\"object\":\"model\",\"created\":");
  append_integer(out, card.created);
  out.append(",\"owned_by\":\"sluice\",\"max_model_len\":");
  append_integer(out, card.max_model_len);
  out.push_back('}');
}

void ResponseWriter::begin(const ResponseIdentity& identity, const ChunkOptions& options) {
  kind_ = identity.kind;
  options_ = options;
  const bool is_chat = kind_ == ApiKind::chat;
  const auto append_identity = [&](std::string& out, std::string_view object) {
    out.append("{\"id\":");
    append_json_string(out, identity.id);
    out.append(",\"object\":\"").append(object).append("\",\"created\":");
    append_integer(out, identity.created);
    out.append(",\"model\":");
    append_json_string(out, identity.model);
    out.append(",\"system_fingerprint\":");
    append_json_string(out, identity.fingerprint);
    out.append(",\"service_tier\":\"default\",\"choices\":[");
  };
  body_head_.clear();
  append_identity(body_head_, is_chat ? "chat.completion" : "text_completion");
  chunk_head_.assign("data: ");
  append_identity(chunk_head_, is_chat ? "chat.completion.chunk" : "text_completion");
  text_open_.assign(is_chat ? ",\"delta\":{\"content\":\"" : ",\"text\":\"");
  text_close_.assign(is_chat ? "\"}" : "\"");
  text_close_.append(",\"logprobs\":null,\"finish_reason\":null");
}

void ResponseWriter::end_choice(std::string& out, const Usage& usage) const {
  out.append("}]");
  if (options_.continuous_usage) {
    out.append(",\"usage\":");
    append_usage(out, usage);
  } else if (options_.include_usage) {
    out.append(",\"usage\":null");
  }
}

void ResponseWriter::role_chunk(std::string& out, std::uint32_t choice,
                                std::span<const TokenId> prompt_ids, const Usage& usage) const {
  out.append(chunk_head_).append("{\"index\":");
  append_integer(out, choice);
  if (kind_ == ApiKind::chat)
    out.append(
        ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
        "\"finish_reason\":null");
  else
    out.append(",\"text\":\"\",\"logprobs\":null,\"finish_reason\":null");
  // Chat has one prompt and says it at the top level, completions have one for each choice.
  const auto append_prompt_ids = [&] {
    if (!options_.token_ids) return;
    out.append(",\"prompt_token_ids\":");
    append_token_ids(out, prompt_ids);
  };
  if (kind_ == ApiKind::completion) append_prompt_ids();
  end_choice(out, usage);
  if (kind_ == ApiKind::chat) append_prompt_ids();
  out.append("}\n\n");
}

void ResponseWriter::text_chunk(std::string& out, std::uint32_t choice, const TextPiece& piece,
                                const Usage& usage) const {
  constexpr std::string_view kNoLogprobs = "null,\"finish_reason\":null";
  out.append(chunk_head_).append("{\"index\":");
  append_integer(out, choice);
  if (piece.text.empty() && kind_ == ApiKind::chat) {
    out.append(",\"delta\":{},\"logprobs\":null,\"finish_reason\":null");
  } else {
    out.append(text_open_);
    append_json_escaped(out, piece.text);
    out.append(text_close_);
  }
  if (piece.logprobs != nullptr && !piece.logprobs->is_empty()) {
    out.resize(out.size() - kNoLogprobs.size());
    piece.logprobs->append_to(out);
    out.append(",\"finish_reason\":null");
  }
  if (piece.finish != FinishReason::none) {
    out.resize(out.size() - 4);  // the null
    out.append(finish_reason_name(piece.finish));
  }
  if (options_.token_ids) {
    out.append(",\"token_ids\":");
    append_token_ids(out, piece.ids);
  }
  end_choice(out, usage);
  out.append("}\n\n");
}

void ResponseWriter::closing_chunk(std::string& out, const Usage& usage,
                                   const TimingInfo* timing) const {
  out.append(chunk_head_);
  out.push_back(']');
  if (options_.include_usage) {
    out.append(",\"usage\":");
    append_usage(out, usage);
  }
  if (timing != nullptr) append_timing(out, *timing);
  out.append("}\n\n");
}

void ResponseWriter::body(std::string& out, std::span<const ChoiceResult> choices,
                          std::span<const TokenId> prompt_ids, const Usage& usage,
                          const TimingInfo* timing) const {
  out.append(body_head_);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const ChoiceResult& choice = choices[i];
    out.append(i > 0 ? ",{\"index\":" : "{\"index\":");
    append_integer(out, i);
    if (kind_ == ApiKind::chat) {
      out.append(",\"message\":{\"role\":\"assistant\",\"content\":");
      append_json_string(out, choice.text);
      out.append(",\"refusal\":null}");
    } else {
      out.append(",\"text\":");
      append_json_string(out, choice.text);
    }
    out.append(",\"logprobs\":");
    if (choice.logprobs != nullptr)
      choice.logprobs->append_to(out);
    else
      out.append("null");
    out.append(",\"finish_reason\":").append(finish_reason_name(choice.finish));
    if (options_.token_ids) {
      out.append(",\"token_ids\":");
      append_token_ids(out, choice.token_ids);
      if (kind_ == ApiKind::completion) {
        out.append(",\"prompt_token_ids\":");
        append_token_ids(out, choice.prompt_token_ids);
      }
    }
    out.push_back('}');
  }
  out.append("],\"usage\":");
  append_usage(out, usage);
  if (options_.token_ids && kind_ == ApiKind::chat) {
    out.append(",\"prompt_token_ids\":");
    append_token_ids(out, prompt_ids);
  }
  if (timing != nullptr) append_timing(out, *timing);
  out.push_back('}');
}

}  // namespace sluice::gw
