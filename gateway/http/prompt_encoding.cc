// Templating and tokenizing of requests.
#include "gateway/http/prompt_encoding.h"

namespace sluice::gw {

std::size_t text_bytes(const GenerationRequest& request) {
  std::size_t bytes = 0;
  for (const tok::ChatMessage& message : request.messages)
    bytes += message.content.size() + message.name.size();
  for (const PromptInput& prompt : request.prompts) bytes += prompt.text.size();
  return bytes;
}

std::size_t encoding_cost(const GenerationRequest& request) {
  constexpr std::size_t kMessageBytes = 64;
  return text_bytes(request) + kMessageBytes * request.messages.size();
}

Result<void> check_text_bytes(const ServedModel& model, std::uint32_t context_tokens,
                              const GenerationRequest& request) {
  const std::uint64_t bytes_max = std::uint64_t{context_tokens} *
                                  std::max(1u, model.tokenizer.vocabulary().longest_piece_bytes);
  const char* const param = prompt_field(request.kind);
  const auto check = [&](std::size_t bytes) -> Result<void> {
    if (bytes <= bytes_max) return {};
    return make_error(Errc::context_length_exceeded,
                      "the model's context is " + std::to_string(context_tokens) +
                          " tokens; a text of " + std::to_string(bytes) +
                          " bytes cannot fit into it",
                      param);
  };
  if (request.kind == ApiKind::chat) return check(text_bytes(request));
  for (const PromptInput& prompt : request.prompts)
    if (const Result<void> fits = check(prompt.text.size()); !fits) return fits.error();
  return {};
}

namespace {

Result<void> encode_prompt(const ServedModel& model, const GenerationRequest& request,
                           std::size_t index, std::vector<TokenId>& ids) {
  const PromptInput& prompt = request.prompts[index];
  const tok::Vocabulary& vocabulary = model.tokenizer.vocabulary();
  std::string param = prompt_field(request.kind);
  if (request.prompts.size() > 1) param += "[" + std::to_string(index) + "]";
  if (prompt.is_ids) {
    for (std::size_t i = 0; i < prompt.ids.size(); ++i)
      if (prompt.ids[i] >= vocabulary.size)
        return make_error(Errc::invalid_value,
                          "token ids are below " + std::to_string(vocabulary.size),
                          param + "[" + std::to_string(i) + "]");
    ids = prompt.ids;
  } else {
    if (request.add_special_tokens.value_or(true) && vocabulary.adds_bos && vocabulary.bos)
      ids.push_back(*vocabulary.bos);
    model.tokenizer.encode(prompt.text, tok::Segment::first, ids);
  }
  return {};
}

}  // namespace

Result<void> encode_prompts(const ServedModel& model, const GenerationRequest& request,
                            std::vector<std::vector<TokenId>>& ids) {
  if (request.kind == ApiKind::chat) {
    ids.resize(1);
    ids[0].clear();
    return model.chat_template.encode(model.tokenizer, request.messages, request.chat_options(),
                                      ids[0]);
  }
  ids.resize(request.prompts.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i].clear();
    if (const Result<void> encoded = encode_prompt(model, request, i, ids[i]); !encoded)
      return encoded.error();
  }
  return {};
}

}  // namespace sluice::gw
