// ChatTemplate: messages to prompt ids, by the template that the model was published with
// (published_template.h), or for a model without one (or by configuration) by a family that Sluice
// knows. Special ids are written by the frame (roles, turn ends) alone; the content of messages is
// encoded as user text and can never form one.
//
// The families (names in capitals are special ids, the text between two of them is encoded as one
// piece; `content` is as given, `trimmed` without white space around it):
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

#include <memory>
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
      false;                // the last message stays open; excludes add_generation_prompt
  std::int64_t unix_s = 0;  // the time that a template may tell
};

class PublishedTemplate;

class ChatTemplate {
 public:
  // Errors: bad_config when the vocabulary lacks the special tokens that the family's frame needs
  // (plain needs none).
  static Result<ChatTemplate> make(TemplateFamily family, const Tokenizer& tokenizer);
  // The template that the model brings. Errors: bad_config (it has none, or one that cannot be
  // parsed or does not render a user's message), with line and reason.
  static Result<ChatTemplate> make_published(const Tokenizer& tokenizer);
  // What serves a model: the family that the configuration names; without a name the published
  // template, and where there is none the family that the vocabulary's special tokens are of.
  static Result<ChatTemplate> choose(std::string_view configured, const Tokenizer& tokenizer);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // Appends the prompt's ids; nothing on an error. Errors: invalid_value (no messages, a role order
  // that the family or template refuses, options that exclude each other), with param "messages",
  // "messages[i]" or "continue_final_message".
  Result<void> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                      const ChatOptions& options, std::vector<TokenId>& ids) const;

  bool is_published() const { return published_ != nullptr; }
  TemplateFamily family() const { return family_; }  // unless is_published()
  // Ids that end an assistant's turn (<|im_end|>, <|eot_id|>, eos): generation stops there.
  std::span<const TokenId> stop_ids() const { return stop_ids_; }

 private:
  ChatTemplate();
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
  std::unique_ptr<const PublishedTemplate> published_;
};

// By name ("chatml"), for the configuration; nothing: unknown.
std::optional<TemplateFamily> template_family(std::string_view name);
std::string_view template_family_name(TemplateFamily family);
// The family for a vocabulary without a template: by its special tokens, else plain.
TemplateFamily recognise_family(const Tokenizer& tokenizer);
// How a role is written; developer is "system".
std::string_view role_name(Role role, std::string_view tool_name);

}  // namespace sluice::tok
