// ChatTemplate: messages to prompt ids, for the template families that Sluice knows. The frame
// (roles, turn ends) is written with special ids; the content of messages is encoded as user text
// and can never form one. (Names in capitals are special ids, the text between two of them is
// encoded as one piece; `content` is as given, `trimmed` without white space around it.)
//
//   chatml   IM_START "ROLE\n{content}" IM_END "\n" ... IM_START "assistant\n"
//   llama3   BEGIN_OF_TEXT START_HEADER "ROLE" END_HEADER "\n\n{trimmed}" EOT ...
//            START_HEADER "assistant" END_HEADER "\n\n"              (tool is written "ipython")
//   llama2   BOS "[INST] <<SYS>>\n{content}\n<</SYS>>\n\n{content} [/INST]" " {trimmed} " EOS ...
//            a turn is one text with the dummy prefix, as the reference code encodes it; system
//            only first, then user and assistant in turn; [INST] is text, so users can write it,
//            too
//   plain    [bos if the vocabulary adds it] "ROLE: {content}\n" ... "assistant:"
//
// developer is written "system". Names of participants have no place in these frames and are
// ignored. Immutable; safe in any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace sluice::tok {

enum class TemplateFamily : std::uint8_t { plain, chatml, llama2, llama3 };

enum class Role : std::uint8_t { system, developer, user, assistant, tool };

struct ChatMessage {
  Role role;
  std::string content;
  std::string name;  // optional
};

struct ChatOptions {
  bool add_generation_prompt = true;
  bool continue_final_message =
      false;  // the last message stays open; excludes add_generation_prompt
};

class ChatTemplate {
 public:
  // Errors: bad_config when the vocabulary lacks the special tokens that the family's frame needs
  // (plain needs none).
  static Result<ChatTemplate> make(TemplateFamily family, const Tokenizer& tokenizer);

  // Appends the prompt's ids; nothing on an error. Errors: invalid_value (no messages, a role order
  // that the family refuses, options that exclude each other), with param "messages", "messages[i]"
  // or "continue_final_message".
  Result<void> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                      const ChatOptions& options, std::vector<TokenId>& ids) const;

  TemplateFamily family() const { return family_; }
  // Ids that end an assistant's turn (<|im_end|>, <|eot_id|>, eos): generation stops there.
  std::span<const TokenId> stop_ids() const { return stop_ids_; }

 private:
  void encode_chatml(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                     const ChatOptions& options, std::vector<TokenId>& ids) const;
  void encode_llama3(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                     const ChatOptions& options, std::vector<TokenId>& ids) const;
  void encode_llama2(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                     const ChatOptions& options, std::vector<TokenId>& ids) const;
  void encode_plain(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                    const ChatOptions& options, std::vector<TokenId>& ids) const;

  TemplateFamily family_{};
  std::vector<TokenId> stop_ids_;
  std::vector<TokenId> frame_ids_;  // specials of the family, in the order of its frame above
};

// By name ("chatml"), for the configuration; nothing: unknown.
std::optional<TemplateFamily> template_family(std::string_view name);
std::string_view template_family_name(TemplateFamily family);
// The family whose frame a published Jinja template writes, judged by its marker tokens.
std::optional<TemplateFamily> recognise_template(std::string_view jinja);
// The family for a vocabulary whose configuration names none: by its published template, else by
// its special tokens, else plain.
TemplateFamily recognise_family(const Tokenizer& tokenizer);

}  // namespace sluice::tok
