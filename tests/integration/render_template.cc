// Renders templates for test_chat_templates.py: each line of standard input is a JSON object with
// "template", "context" and "now"; each line of standard output {"text": ...} or {"error": ...}.
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include "tests/support/json_value.h"
#include "tokenizer/jinja/template.h"
#include "tokenizer/jinja/write_value.h"

namespace {

using namespace sluice;

std::string answer(std::string_view key, std::string_view text) {
  jinja::Heap heap({});
  const jinja::Value dict = heap.dict();
  heap.set(*dict.dict, key, heap.string(text, jinja::Origin::content));
  std::string out;
  jinja::JsonStyle style;
  style.ensure_ascii = true;
  jinja::write_json(heap, dict, style, out);
  return out;
}

class Renderer {
 public:
  std::string render(const std::string& line) {
    simdjson::dom::element request;
    if (const auto error = parser_.parse(line).get(request))
      return answer("error", simdjson::error_message(error));
    const std::string_view source = request["template"];
    if (!template_ || source != source_) {
      auto parsed = jinja::Template::parse(source);
      if (!parsed) return answer("error", parsed.error().detail);
      template_.emplace(std::move(*parsed));
      source_ = source;
    }
    jinja::Heap heap({});
    std::vector<jinja::Variable> variables;
    for (const auto& [key, value] : simdjson::dom::object(request["context"]))
      variables.push_back({key, test::json_value(heap, value)});
    const auto rendered = template_->render(heap, variables, std::int64_t(request["now"]));
    if (!rendered) return answer("error", rendered.error().detail);
    return answer("text", rendered->bytes);
  }

 private:
  simdjson::dom::parser parser_;
  std::string source_;
  std::optional<jinja::Template> template_;
};

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  Renderer renderer;
  for (std::string line; std::getline(std::cin, line);) std::cout << renderer.render(line) << "\n";
  return 0;
}
