// The values that a template sees, and its text as ids; see published_template.h.
#include "tokenizer/published_template.h"

#include <algorithm>

#include "shared/check.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

using jinja::Heap;
using jinja::Origin;
using jinja::Text;
using jinja::Value;

// Content of messages as the template's text: shared where it is valid UTF-8, else repaired.
Value content_value(Heap& heap, std::string_view content, Origin origin) {
  if (is_valid_utf8(content)) return heap.view(content, origin);
  std::string repaired;
  append_valid_utf8(content, repaired);
  return heap.string(repaired, origin);
}

// Bytes up to the last one of the final message's content; 0: none of it is there.
std::size_t final_content_end(const Text& text) {
  for (std::size_t i = text.runs.size(); i-- > 0;) {
    if (text.runs[i].origin != Origin::final_content) continue;
    return i + 1 < text.runs.size() ? text.runs[i + 1].begin : text.bytes.size();
  }
  return 0;
}

// The first `size` bytes.
Text first_bytes(const Text& text, std::size_t size) {
  const auto begins_before = [size](const jinja::Run& run) { return run.begin < size; };
  const auto num_runs = std::ranges::count_if(text.runs, begins_before);
  return {text.bytes.substr(0, size), text.runs.first(static_cast<std::size_t>(num_runs))};
}

Error refused(const std::string& reason) {
  return make_error(Errc::bad_config, "the model's chat template " + reason, "chat_template");
}

}  // namespace

void encode_rendered(const Tokenizer& tokenizer, const Text& text, std::vector<TokenId>& ids) {
  const std::optional<TokenId> bos = tokenizer.vocabulary().bos;
  std::size_t encoded = 0;  // bytes before it are in `ids`
  const auto encode_until = [&](std::size_t end) {
    const bool is_first = ids.empty() || (bos && ids.back() == *bos);
    tokenizer.encode(text.bytes.substr(encoded, end - encoded),
                     is_first ? Segment::first : Segment::following, ids);
    encoded = end;
  };
  for (std::size_t i = 0; i < text.runs.size(); ++i) {
    if (text.runs[i].origin != Origin::frame) continue;
    const std::size_t end = i + 1 < text.runs.size() ? text.runs[i + 1].begin : text.bytes.size();
    for (std::size_t at = text.runs[i].begin; at < end;) {
      const auto match = tokenizer.special_at(text.bytes.substr(at, end - at));
      if (!match) {
        ++at;
        continue;
      }
      encode_until(at);
      ids.push_back(match->id);
      at += match->bytes;
      encoded = at;
    }
  }
  encode_until(text.bytes.size());
}

Result<PublishedTemplate> PublishedTemplate::make(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template_source().empty()) return refused("does not exist");
  auto parsed = jinja::Template::parse(tokenizer.chat_template_source());
  if (!parsed) return refused("cannot be parsed: " + parsed.error().detail);
  PublishedTemplate result(std::move(*parsed));
  result.knows_developer_ = result.template_.mentions("developer");
  const std::vector<ChatMessage> question{{Role::user, "Hi", {}}};
  if (const auto rendered = result.render(tokenizer, question, {}); !rendered)
    return refused("does not render a user's message: " + rendered.error().detail);
  result.find_stop_ids(tokenizer);
  return result;
}

// A conversation shows what stands behind an answer: white space at most, then a special id.
void PublishedTemplate::find_stop_ids(const Tokenizer& tokenizer) {
  if (const auto eos = tokenizer.vocabulary().eos) stop_ids_.push_back(*eos);
  const std::vector<ChatMessage> turns{{Role::user, "Hi", {}}, {Role::assistant, "Yes", {}}};
  const auto rendered =
      render(tokenizer, turns,
             {.add_generation_prompt = false, .continue_final_message = true, .unix_s = 0});
  if (!rendered) return;
  std::string_view rest = rendered->bytes;
  rest.remove_prefix(final_content_end(rendered->view()));
  while (const std::size_t size = jinja::leading_space_bytes(rest)) rest.remove_prefix(size);
  const auto match = tokenizer.special_at(rest);
  if (match && tokenizer.is_special(match->id) && std::ranges::count(stop_ids_, match->id) == 0)
    stop_ids_.insert(stop_ids_.begin(), match->id);
}

Result<jinja::Rendered> PublishedTemplate::render(const Tokenizer& tokenizer,
                                                  std::span<const ChatMessage> messages,
                                                  const ChatOptions& options) const {
  Heap heap({});
  const Value list = heap.list(jinja::ListKind::list, messages.size());
  for (const ChatMessage& message : messages) {
    const bool is_final = options.continue_final_message && &message == &messages.back();
    const bool is_developer = message.role == Role::developer && knows_developer_;
    const Value dict = heap.dict();
    heap.set(
        *dict.dict, "role",
        heap.view(is_developer ? "developer" : role_name(message.role, "tool"), Origin::frame));
    heap.set(
        *dict.dict, "content",
        content_value(heap, message.content, is_final ? Origin::final_content : Origin::content));
    if (!message.name.empty())
      heap.set(*dict.dict, "name", content_value(heap, message.name, Origin::content));
    heap.append(*list.list, dict);
  }
  const std::vector<jinja::Variable> variables{
      {"messages", list},
      {"add_generation_prompt", Value::of(options.add_generation_prompt)},
      {"bos_token", heap.view(tokenizer.bos_text(), Origin::frame)},
      {"eos_token", heap.view(tokenizer.eos_text(), Origin::frame)},
      {"tools", Value::none()},
      {"documents", Value::none()},
  };
  return template_.render(heap, variables, options.unix_s);
}

Result<void> PublishedTemplate::encode(const Tokenizer& tokenizer,
                                       std::span<const ChatMessage> messages,
                                       const ChatOptions& options,
                                       std::vector<TokenId>& ids) const {
  CHECK(!messages.empty());
  ChatOptions effective = options;
  const ChatMessage& last = messages.back();
  // An answer that has not begun is where the template's own opening of an answer ends.
  if (options.continue_final_message && last.role == Role::assistant &&
      jinja::without_outer_space(last.content).empty() && messages.size() > 1) {
    messages = messages.first(messages.size() - 1);
    effective.continue_final_message = false;
    effective.add_generation_prompt = true;
  }
  const auto rendered = render(tokenizer, messages, effective);
  if (!rendered)
    return make_error(
        Errc::invalid_value,
        "messages: the model's chat template refuses them: " + rendered.error().detail, "messages");
  Text text = rendered->view();
  if (effective.continue_final_message) {
    const std::size_t size = final_content_end(text);
    if (size == 0)
      return make_error(Errc::invalid_value,
                        "continue_final_message: the model's chat template does not write the "
                        "last message; allowed: a last message with text",
                        "continue_final_message");
    text = first_bytes(text, size);
  }
  // Apart, since the first text of a prompt is told by what is before it.
  std::vector<TokenId> prompt;
  encode_rendered(tokenizer, text, prompt);
  ids.insert(ids.end(), prompt.begin(), prompt.end());
  return {};
}

}  // namespace sluice::tok
