// Template: a published chat template (the Jinja dialect of transformers, as far as node.h lists
// it), parsed once, rendered as often as wanted. Immutable; safe in any thread. Templates and their
// values are hostile: parsing and rendering are bounded and end in a result or an error, always.
//
// Checked against Python's Jinja2 (tests/integration/test_chat_templates.py). Known differences:
// numbers are 64 bits; upper() and its like know Latin, Greek and Cyrillic letters; escaped and
// `safe` text is like any other; lists that the template made can be changed (append, pop), as
// llama.cpp lets it; times are UTC.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shared/result.h"
#include "tokenizer/jinja/value.h"

namespace sluice::jinja {

inline constexpr std::size_t kTemplateBytesMax = 512u << 10;

struct Program;

struct Variable {
  std::string_view name;
  Value value;
};

struct Rendered {
  std::string bytes;
  std::vector<Run> runs;
  Text view() const { return {bytes, runs}; }
};

class Template {
 public:
  // Errors: bad_file, with "line N: reason".
  static Result<Template> parse(std::string_view source);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // `variables` live in `heap`, which is good for one rendering. `unix_s`: what strftime_now()
  // tells. Errors: invalid_value, with "line N: reason"; of raise_exception() only what the
  // template's author wrote is told.
  Result<Rendered> render(Heap& heap, std::span<const Variable> variables,
                          std::int64_t unix_s) const;

  // Whether some name or string constant contains `word`: what the template may look at.
  bool mentions(std::string_view word) const;

 private:
  explicit Template(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace sluice::jinja
