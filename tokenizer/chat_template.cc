// Writes the frames of the known template families; see chat_template.h for their grammar.
#include "tokenizer/chat_template.h"

#include <algorithm>
#include <array>

#include "shared/check.h"
#include "tokenizer/jinja/text.h"
#include "tokenizer/published_template.h"

namespace sluice::tok {
namespace {

struct FamilyRow {
  TemplateFamily family;
  std::string_view name;
  std::array<std::string_view, 4> specials;  // of the frame, in the order of frame_ids_
};

constexpr std::array<FamilyRow, 4> kFamilies{{
    {TemplateFamily::plain, "plain", {}},
    {TemplateFamily::chatml, "chatml", {"<|im_start|>", "<|im_end|>"}},
    {TemplateFamily::llama2, "llama2", {}},  // bos and eos, whatever their text is
    {TemplateFamily::llama3,
     "llama3",
     {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
}};

bool is_system(Role role) {
  return role == Role::system || role == Role::developer;
}

std::string concat(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

Result<void> check_llama2_order(std::span<const ChatMessage> messages) {
  const std::size_t first = is_system(messages[0].role) ? 1 : 0;
  if (first == messages.size())
    return make_error(Errc::invalid_value,
                      "messages: only a system message; allowed: a user message behind it",
                      "messages");
  for (std::size_t i = first; i < messages.size(); ++i) {
    const Role wanted = (i - first) % 2 == 0 ? Role::user : Role::assistant;
    if (messages[i].role == wanted) continue;
    const std::string param = concat({"messages[", std::to_string(i), "]"});
    return make_error(
        Errc::invalid_value,
        concat({param, ": role ", role_name(messages[i].role, "tool"),
                "; this model allows a system message first, then user and assistant ", "in turn"}),
        param);
  }
  return {};
}

}  // namespace

std::string_view role_name(Role role, std::string_view tool_name) {
  switch (role) {
    case Role::system:
    case Role::developer:
      return "system";
    case Role::user:
      return "user";
    case Role::assistant:
      return "assistant";
    case Role::tool:
      return tool_name;
  }
  CHECK(false);
}

ChatTemplate::ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::make(TemplateFamily family, const Tokenizer& tokenizer) {
  ChatTemplate result;
  result.family_ = family;
  const auto lacks = [&](std::string_view what) {
    return make_error(Errc::bad_config,
                      concat({"chat_template: ", template_family_name(family),
                              " needs a special token that the vocabulary lacks: ", what}),
                      "chat_template");
  };
  for (const std::string_view text : kFamilies[static_cast<std::size_t>(family)].specials) {
    if (text.empty()) break;
    const auto id = tokenizer.special_id(text);
    if (!id) return lacks(text);
    result.frame_ids_.push_back(*id);
  }
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (family == TemplateFamily::llama2) {
    if (!vocabulary.bos) return lacks("beginning of sequence");
    if (!vocabulary.eos) return lacks("end of sequence");
    result.frame_ids_ = {*vocabulary.bos, *vocabulary.eos};
  }
  if (family == TemplateFamily::chatml || family == TemplateFamily::llama3)
    result.stop_ids_.push_back(result.frame_ids_.back());
  if (vocabulary.eos && std::ranges::count(result.stop_ids_, *vocabulary.eos) == 0)
    result.stop_ids_.push_back(*vocabulary.eos);
  return result;
}

Result<ChatTemplate> ChatTemplate::make_published(const Tokenizer& tokenizer) {
  Result<PublishedTemplate> published = PublishedTemplate::make(tokenizer);
  if (!published) return published.error();
  ChatTemplate result;
  result.stop_ids_.assign(published->stop_ids().begin(), published->stop_ids().end());
  result.published_ = std::make_unique<const PublishedTemplate>(std::move(*published));
  return result;
}

Result<ChatTemplate> ChatTemplate::choose(std::string_view configured, const Tokenizer& tokenizer) {
  if (!configured.empty()) {
    if (const auto family = template_family(configured)) return make(*family, tokenizer);
    return make_error(Errc::bad_config, concat({"unknown chat template '", configured, "'"}),
                      "chat_template");
  }
  if (tokenizer.chat_template_source().empty()) return make(recognise_family(tokenizer), tokenizer);
  Result<ChatTemplate> published = make_published(tokenizer);
  if (published) return published;
  return make_error(Errc::bad_config,
                    concat({published.error().detail,
                            "; chat_template: plain, chatml, llama2 or llama3 in the configuration "
                            "serves the model with a frame of Sluice's own"}),
                    "chat_template");
}

Result<void> ChatTemplate::encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                  const ChatOptions& options, std::vector<TokenId>& ids) const {
  if (messages.empty())
    return make_error(Errc::invalid_value, "messages: empty; allowed: at least one", "messages");
  if (options.add_generation_prompt && options.continue_final_message)
    return make_error(
        Errc::invalid_value,
        "continue_final_message: excludes add_generation_prompt; allowed: one of them",
        "continue_final_message");
  if (published_ != nullptr) return published_->encode(tokenizer, messages, options, ids);
  switch (family_) {
    case TemplateFamily::plain:
      encode_plain(tokenizer, messages, options, ids);
      break;
    case TemplateFamily::chatml:
      encode_chatml(tokenizer, messages, options, ids);
      break;
    case TemplateFamily::llama3:
      encode_llama3(tokenizer, messages, options, ids);
      break;
    case TemplateFamily::llama2:
      if (auto r = check_llama2_order(messages); !r) return r;
      encode_llama2(tokenizer, messages, options, ids);
      break;
  }
  return {};
}

void ChatTemplate::encode_chatml(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 const ChatOptions& options, std::vector<TokenId>& ids) const {
  const TokenId im_start = frame_ids_[0], im_end = frame_ids_[1];
  for (const ChatMessage& message : messages) {
    const bool stays_open = options.continue_final_message && &message == &messages.back();
    ids.push_back(im_start);
    tokenizer.encode(concat({role_name(message.role, "tool"), "\n", message.content}),
                     Segment::following, ids);
    if (stays_open) return;
    ids.push_back(im_end);
    tokenizer.encode("\n", Segment::following, ids);
  }
  if (!options.add_generation_prompt) return;
  ids.push_back(im_start);
  tokenizer.encode("assistant\n", Segment::following, ids);
}

void ChatTemplate::encode_llama3(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 const ChatOptions& options, std::vector<TokenId>& ids) const {
  const TokenId begin = frame_ids_[0], eot = frame_ids_[3];
  const auto open_turn = [&](std::string_view role, std::string_view content) {
    ids.push_back(frame_ids_[1]);
    tokenizer.encode(role, Segment::following, ids);
    ids.push_back(frame_ids_[2]);
    tokenizer.encode(concat({"\n\n", content}), Segment::following, ids);
  };
  ids.push_back(begin);
  for (const ChatMessage& message : messages) {
    open_turn(role_name(message.role, "ipython"), jinja::without_outer_space(message.content));
    if (options.continue_final_message && &message == &messages.back()) return;
    ids.push_back(eot);
  }
  if (options.add_generation_prompt) open_turn("assistant", "");
}

void ChatTemplate::encode_llama2(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 const ChatOptions& options, std::vector<TokenId>& ids) const {
  const TokenId bos = frame_ids_[0], eos = frame_ids_[1];
  std::string system;
  if (is_system(messages[0].role)) {
    system = concat({"<<SYS>>\n", messages[0].content, "\n<</SYS>>\n\n"});
    messages = messages.subspan(1);
  }
  // A turn is one text from BOS to EOS: question and answer are encoded together.
  for (std::size_t i = 0; i < messages.size(); i += 2) {
    const std::string question = concat({i == 0 ? system : "", messages[i].content});
    const bool has_answer = i + 1 < messages.size();
    const bool is_last = i + 2 >= messages.size();
    std::string turn = concat({"[INST] ", jinja::without_outer_space(question)});
    if (has_answer || !options.continue_final_message) turn += " [/INST]";
    if (has_answer) turn.append(" ").append(jinja::without_outer_space(messages[i + 1].content));
    const bool stays_open = !has_answer || (is_last && options.continue_final_message);
    if (!stays_open) turn += ' ';
    ids.push_back(bos);
    tokenizer.encode(turn, Segment::first, ids);
    if (!stays_open) ids.push_back(eos);
  }
}

void ChatTemplate::encode_plain(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                const ChatOptions& options, std::vector<TokenId>& ids) const {
  std::string text;
  for (const ChatMessage& message : messages)
    text.append(role_name(message.role, "tool")).append(": ").append(message.content).append("\n");
  if (options.continue_final_message) text.pop_back();
  if (options.add_generation_prompt) text += "assistant:";
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.adds_bos) ids.push_back(*vocabulary.bos);
  tokenizer.encode(text, Segment::first, ids);
}

std::optional<TemplateFamily> template_family(std::string_view name) {
  for (const FamilyRow& row : kFamilies)
    if (row.name == name) return row.family;
  return std::nullopt;
}

std::string_view template_family_name(TemplateFamily family) {
  const FamilyRow& row = kFamilies[static_cast<std::size_t>(family)];
  CHECK(row.family == family);
  return row.name;
}

TemplateFamily recognise_family(const Tokenizer& tokenizer) {
  for (const TemplateFamily family : {TemplateFamily::chatml, TemplateFamily::llama3})
    if (ChatTemplate::make(family, tokenizer)) return family;
  return TemplateFamily::plain;
}

}  // namespace sluice::tok
