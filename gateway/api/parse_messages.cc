// Messages: roles, names and content, with errors that name the place.
#include "gateway/api/parse_messages.h"

#include <optional>

#include "shared/limits.h"

namespace sluice::gw {
namespace {

namespace dom = simdjson::dom;

std::string at(std::size_t index, std::string_view field) {
  return "messages[" + std::to_string(index) + "]" + std::string(field);
}

std::optional<tok::Role> role_of(std::string_view name) {
  if (name == "user") return tok::Role::user;
  if (name == "assistant") return tok::Role::assistant;
  if (name == "system") return tok::Role::system;
  if (name == "developer") return tok::Role::developer;
  if (name == "tool") return tok::Role::tool;
  return std::nullopt;
}

bool read_part(FieldReader& reader, dom::element part, std::size_t message, std::size_t index,
               std::string& content) {
  const auto param = [&](std::string_view field) {
    return at(message, ".content[" + std::to_string(index) + "]" + std::string(field));
  };
  dom::object object;
  if (part.get(object) != simdjson::SUCCESS) return reader.wrong(param(""), "an object");
  std::string_view type;
  if (object["type"].get(type) != simdjson::SUCCESS) return reader.wrong(param(".type"), "'text'");
  if (type == "refusal" || type == "image_url" || type == "input_audio" || type == "file")
    return reader.unsupported(param(".type"));
  if (type != "text") return reader.wrong(param(".type"), "'text'");
  std::string_view text;
  if (object["text"].get(text) != simdjson::SUCCESS)
    return reader.wrong(param(".text"), "a string");
  if (index > 0) content.push_back('\n');
  content.append(text);
  return true;
}

bool read_content(FieldReader& reader, dom::element value, std::size_t message,
                  std::string& content) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) {
    content.assign(text);
    return true;
  }
  dom::array parts;
  if (value.get(parts) != simdjson::SUCCESS || parts.size() == 0)
    return reader.wrong(at(message, ".content"), "a string or a list of text parts");
  content.clear();
  std::size_t index = 0;
  for (dom::element part : parts)
    if (!read_part(reader, part, message, index++, content)) return false;
  return true;
}

bool read_message(FieldReader& reader, dom::element value, std::size_t index,
                  tok::ChatMessage& out) {
  dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return reader.wrong(at(index, ""), "an object");
  bool has_role = false;
  bool has_content = false;
  for (const dom::key_value_pair field : object) {
    if (field.value.is_null()) continue;
    if (field.key == "role") {
      std::string_view name;
      const bool is_text = field.value.get(name) == simdjson::SUCCESS;
      const std::optional<tok::Role> role = is_text ? role_of(name) : std::nullopt;
      if (!role)
        return reader.wrong(at(index, ".role"),
                            "'system', 'developer', 'user', 'assistant' or 'tool'");
      out.role = *role;
      has_role = true;
    } else if (field.key == "content") {
      if (!read_content(reader, field.value, index, out.content)) return false;
      has_content = true;
    } else if (field.key == "name") {
      if (!reader.text(field.value, at(index, ".name"), out.name)) return false;
    } else if (field.key == "tool_call_id") {
      if (!field.value.is_string()) return reader.wrong(at(index, ".tool_call_id"), "a string");
    } else if (field.key == "tool_calls") {
      dom::array calls;
      if (field.value.get(calls) != simdjson::SUCCESS)
        return reader.wrong(at(index, ".tool_calls"), "a list");
      if (calls.size() > 0) return reader.unsupported(at(index, ".tool_calls"));
    } else if (field.key == "function_call" || field.key == "audio") {
      return reader.unsupported(at(index, field.key == "audio" ? ".audio" : ".function_call"));
    }
  }
  if (!has_role)
    return reader.wrong(at(index, ".role"), "'system', 'developer', 'user', 'assistant' or 'tool'");
  if (!has_content) return reader.wrong(at(index, ".content"), "a string or a list of text parts");
  return true;
}

}  // namespace

bool read_messages(FieldReader& reader, dom::element value, std::vector<tok::ChatMessage>& out) {
  dom::array array;
  if (value.get(array) != simdjson::SUCCESS || array.size() == 0)
    return reader.wrong("messages", "a list of at least one message");
  // Each message costs template tokens, so more than a context of them can never fit.
  if (array.size() > kContextTokensMax) return reader.wrong("messages", "a shorter list");
  for (dom::element element : array) {
    tok::ChatMessage& message = out.emplace_back();
    if (!read_message(reader, element, out.size() - 1, message)) return false;
  }
  return true;
}

}  // namespace sluice::gw
