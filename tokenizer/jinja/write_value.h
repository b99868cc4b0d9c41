// Values as text: str(), repr() and json.dumps() of Python.
#pragma once

#include <optional>
#include <string>

#include "tokenizer/jinja/value.h"

namespace sluice::jinja {

// str(value): a string keeps its origins, everything else is content.
void write_str(Heap& heap, Value value, TextBuilder& out);
// The same as a value; a string is itself.
Value to_string(Heap& heap, Value value);
void write_repr(Heap& heap, Value value, std::string& out, std::uint32_t depth = 0);

struct JsonStyle {
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ensure_ascii = false;
};
void write_json(Heap& heap, Value value, const JsonStyle& style, std::string& out,
                std::uint32_t depth = 0);

std::string real_text(double value);  // as Python writes a float

}  // namespace sluice::jinja
