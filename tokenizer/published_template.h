// PublishedTemplate: the Jinja template that came with a model, rendered to prompt ids.
//
//   1. The prompt is what the template writes, as transformers has it: no bos is added, so none is
//      doubled. (llama.cpp puts one in front where the vocabulary says so.)
//   2. A special or user-defined piece stands in the prompt only where the template's own text, or
//      bos_token and eos_token, spell it: the rendered text says which bytes came with messages
//      (jinja/text.h), and a piece is matched in bytes of the frame alone. Roles are names of ours.
//   3. The text between two such pieces is encoded as one, whatever it is made of; the dummy prefix
//      goes to the first text and to that behind a bos.
//   4. With continue_final_message the prompt ends behind the last byte of the last message.
//
// The template sees messages (role, content, and name where given), add_generation_prompt,
// bos_token, eos_token; tools and documents are none. The role developer is "system" for templates
// that do not know it. Immutable; safe in any thread.
#pragma once

#include <span>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja/template.h"

namespace sluice::tok {

class PublishedTemplate {
 public:
  // Errors: bad_config (none, not parsed, or a user's message is not rendered).
  static Result<PublishedTemplate> make(const Tokenizer& tokenizer);

  // Appends the prompt's ids; nothing on an error. REQUIRES: messages, options that agree. Errors:
  // invalid_value, param "messages" (the template refuses them, or takes too much) or
  // "continue_final_message" (it does not write the last message).
  Result<void> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                      const ChatOptions& options, std::vector<TokenId>& ids) const;

  // eos, and the special id that the template writes behind an assistant's message.
  std::span<const TokenId> stop_ids() const { return stop_ids_; }

 private:
  explicit PublishedTemplate(jinja::Template parsed) : template_(std::move(parsed)) {}
  Result<jinja::Rendered> render(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 const ChatOptions& options) const;
  void find_stop_ids(const Tokenizer& tokenizer);

  jinja::Template template_;
  bool knows_developer_ = false;
  std::vector<TokenId> stop_ids_;
};

// Text with provenance to ids; rules 2 and 3.
void encode_rendered(const Tokenizer& tokenizer, const jinja::Text& text,
                     std::vector<TokenId>& ids);

}  // namespace sluice::tok
