// Parsing and rendering with their bounds; see template.h.
#include "tokenizer/jinja/template.h"

#include <algorithm>

#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/parser.h"
#include "tokenizer/utf8.h"

namespace sluice::jinja {

Template::Template(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

Result<Template> Template::parse(std::string_view source) {
  const auto refuse = [](const std::string& reason) {
    return make_error(Errc::bad_file, reason, "chat_template");
  };
  if (source.size() > kTemplateBytesMax)
    return refuse("longer than " + std::to_string(kTemplateBytesMax) + " bytes");
  if (!tok::is_valid_utf8(source)) return refuse("not valid UTF-8");
  auto program = parse_template(source);
  if (!program) return program.error();
  return Template(std::move(*program));
}

Result<Rendered> Template::render(Heap& heap, std::span<const Variable> variables,
                                  std::int64_t unix_s) const {
  Interpreter interpreter(*program_, heap, unix_s);
  for (const Variable& variable : variables) interpreter.define(variable.name, variable.value);
  TextBuilder out;
  interpreter.run(out);
  if (heap.failed())
    return make_error(Errc::invalid_value,
                      "line " + std::to_string(heap.failed_line()) + ": " + heap.reason());
  return Rendered{out.take_bytes(), out.take_runs()};
}

bool Template::mentions(std::string_view word) const {
  return std::ranges::any_of(
             program_->nodes,
             [&](const Node& node) { return node.text.find(word) != std::string::npos; }) ||
         program_->symbols.contains(word);
}

}  // namespace sluice::jinja
