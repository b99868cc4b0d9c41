// ChatTemplate: messages to prompt ids, for the template families that Sluice knows. The frame
// (roles, turn ends) is written with special ids; the content of messages is encoded as user text and
// can never form one.
// Immutable; safe in any thread.
#pragma once

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
  bool continue_final_message = false;  // the last message stays open; excludes add_generation_prompt
};

class ChatTemplate {
 public:
  // Errors: bad_config when the vocabulary lacks the special tokens that the family's frame needs
  // (plain needs none).
  static Result<ChatTemplate> make(TemplateFamily family, const Tokenizer& tokenizer);

  // Appends the prompt's ids. Errors: invalid_value (no messages, a role order that the family
  // refuses), with param "messages" or "messages[i]".
  Result<void> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                      const ChatOptions& options, std::vector<TokenId>& ids) const;

  TemplateFamily family() const { return family_; }
  // Ids that end an assistant's turn (<|im_end|>, <|eot_id|>, eos): generation stops there.
  std::span<const TokenId> stop_ids() const { return stop_ids_; }

 private:
  TemplateFamily family_{};
  std::vector<TokenId> stop_ids_;
  std::vector<TokenId> frame_ids_;  // specials of the family, in the order that the source names
};

// By name ("chatml"), for the configuration; nothing: unknown.
std::optional<TemplateFamily> template_family(std::string_view name);
std::string_view template_family_name(TemplateFamily family);
// The family whose frame a published Jinja template writes, judged by its marker tokens.
std::optional<TemplateFamily> recognise_template(std::string_view jinja);

}  // namespace sluice::tok
