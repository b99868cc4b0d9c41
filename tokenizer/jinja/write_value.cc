// str(), repr(), json.dumps(); see write_value.h.
#include "tokenizer/jinja/write_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "tokenizer/jinja/operators.h"

namespace sluice::jinja {
namespace {

std::string hex(std::uint32_t value, std::size_t digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(digits, '0');
  for (std::size_t i = digits; i-- > 0; value >>= 4) text[i] = kDigits[value & 15];
  return text;
}

// Characters that repr() escapes: controls, separators other than the space, format characters,
// private use. (Unassigned characters are shown as they are.)
bool is_printable(std::uint32_t code) {
  if (code < 0x20 || (code >= 0x7F && code <= 0xA0) || code == 0xAD) return false;
  if (code == 0x1680 || (code >= 0x2000 && code <= 0x200F) || (code >= 0x2028 && code <= 0x202F))
    return false;
  if (code >= 0x205F && code <= 0x206F) return false;
  return code != 0x3000 && code != 0xFEFF && !(code >= 0xE000 && code <= 0xF8FF) &&
         !(code >= 0xFFF0 && code <= 0xFFFB) && code < 0xE0000;
}

void write_string_repr(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out += quote;
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_bytes(text));
    text.remove_prefix(character.size());
    const std::uint32_t code = code_point(character);
    if (code == static_cast<unsigned char>(quote) || code == '\\') {
      out.append("\\").append(character);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\t') {
      out += "\\t";
    } else if (is_printable(code)) {
      out += character;
    } else if (code < 0x100) {
      out += "\\x" + hex(code, 2);
    } else if (code < 0x10000) {
      out += "\\u" + hex(code, 4);
    } else {
      out += "\\U" + hex(code, 8);
    }
  }
  out += quote;
}

void write_json_string(std::string_view text, bool ensure_ascii, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_bytes(text));
    text.remove_prefix(character.size());
    const char c = character.front();
    if (character.size() > 1) {
      const std::uint32_t code = code_point(character);
      if (!ensure_ascii)
        out += character;
      else if (code < 0x10000)
        out += "\\u" + hex(code, 4);
      else
        out += "\\u" + hex(0xD800 + ((code - 0x10000) >> 10), 4) + "\\u" +
               hex(0xDC00 + ((code - 0x10000) & 0x3FF), 4);
    } else if (c == '"' || c == '\\') {
      out.append("\\").append(character);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\b') {
      out += "\\b";
    } else if (c == '\f') {
      out += "\\f";
    } else if (static_cast<unsigned char>(c) < 0x20 || (ensure_ascii && c == '\x7f')) {
      if (c == '\x7f')
        out += c;
      else
        out += "\\u" + hex(static_cast<unsigned char>(c), 4);
    } else {
      out += c;
    }
  }
  out += '"';
}

bool enters(Heap& heap, std::uint32_t depth) {
  if (depth > kValueDepthMax) heap.fail("writes a value that is nested too deeply");
  return heap.step();
}

// Charges what `out` grew by since `before`.
bool charge(Heap& heap, const std::string& out, std::size_t before) {
  return heap.can_grow(before, out.size() - before);
}

std::string json_key(Heap& heap, Value key) {
  switch (key.kind) {
    case Kind::none:
      return "null";
    case Kind::boolean:
      return key.boolean ? "true" : "false";
    case Kind::integer:
      return std::to_string(key.integer);
    case Kind::real:
      return real_text(key.real);
    default:
      if (!key.is_string()) heap.fail(std::string("writes a key of type ") + type_name(key));
      return key.is_string() ? std::string(key.bytes()) : std::string();
  }
}

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style, std::string& out)
      : heap_(heap), style_(style), out_(out) {}

  void write(Value value, std::uint32_t depth) {
    if (!enters(heap_, depth)) return;
    const std::size_t before = out_.size();
    switch (value.kind) {
      case Kind::none:
        out_ += "null";
        break;
      case Kind::boolean:
        out_ += value.boolean ? "true" : "false";
        break;
      case Kind::integer:
        out_ += std::to_string(value.integer);
        break;
      case Kind::real:
        write_real(value.real);
        break;
      case Kind::string:
        write_json_string(value.bytes(), style_.ensure_ascii, out_);
        break;
      case Kind::dict:
        return write_dict(*value.dict, depth);
      case Kind::list:
        if (value.list->kind == ListKind::list || value.list->kind == ListKind::tuple)
          return write_list(*value.list, depth);
        [[fallthrough]];
      default:
        heap_.fail(std::string("an object of type ") + type_name(value) +
                   " can't be written as JSON");
    }
    charge(heap_, out_, before);
  }

 private:
  void write_real(double value) {
    if (std::isnan(value))
      out_ += "NaN";
    else if (std::isinf(value))
      out_ += value < 0 ? "-Infinity" : "Infinity";
    else
      out_ += real_text(value);
  }

  void new_line(std::uint32_t depth) {
    if (!style_.indent) return;
    if (!heap_.can_grow(out_.size(), 1 + style_.indent->size() * depth)) return;
    out_ += '\n';
    for (std::uint32_t i = 0; i < depth; ++i) out_ += *style_.indent;
  }

  void write_list(const List& list, std::uint32_t depth) {
    out_ += '[';
    for (std::uint32_t i = 0; i < list.size && !heap_.failed(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(depth + 1);
      write(list.items[i], depth + 1);
    }
    if (list.size > 0) new_line(depth);
    out_ += ']';
  }

  void write_dict(const Dict& dict, std::uint32_t depth) {
    std::vector<DictEntry> entries(dict.span().begin(), dict.span().end());
    if (style_.sort_keys)
      std::ranges::stable_sort(entries, [&](const DictEntry& left, const DictEntry& right) {
        return is_less(heap_, left.key, right.key);
      });
    out_ += '{';
    bool is_first = true;
    for (const DictEntry& entry : entries) {
      if (heap_.failed()) return;
      if (!std::exchange(is_first, false)) out_ += style_.item_separator;
      new_line(depth + 1);
      write_json_string(json_key(heap_, entry.key), style_.ensure_ascii, out_);
      out_ += style_.key_separator;
      write(entry.value, depth + 1);
    }
    if (!entries.empty()) new_line(depth);
    out_ += '}';
  }

  Heap& heap_;
  const JsonStyle& style_;
  std::string& out_;
};

void write_items_repr(Heap& heap, const List& list, std::string& out, std::uint32_t depth) {
  const bool is_tuple = list.kind == ListKind::tuple;
  out += is_tuple ? '(' : '[';
  for (std::uint32_t i = 0; i < list.size && !heap.failed(); ++i) {
    if (i > 0) out += ", ";
    write_repr(heap, list.items[i], out, depth + 1);
  }
  if (is_tuple && list.size == 1) out += ',';
  out += is_tuple ? ')' : ']';
}

}  // namespace

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t e = text.find('e');
  int exponent = 0;
  const char* digits = text.data() + e + 1;
  if (*digits == '+') ++digits;
  std::from_chars(digits, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::array<char, 64> fixed;
  const auto fixed_end =
      std::to_chars(fixed.data(), fixed.data() + fixed.size(), value, std::chars_format::fixed).ptr;
  std::string written(fixed.data(), fixed_end);
  if (written.find('.') == std::string::npos) written += ".0";
  return written;
}

void write_repr(Heap& heap, Value value, std::string& out, std::uint32_t depth) {
  if (!enters(heap, depth)) return;
  const std::size_t before = out.size();
  switch (value.kind) {
    case Kind::undefined:
      out += "Undefined";
      break;
    case Kind::none:
      out += "None";
      break;
    case Kind::boolean:
      out += value.boolean ? "True" : "False";
      break;
    case Kind::integer:
      out += std::to_string(value.integer);
      break;
    case Kind::real:
      out += real_text(value.real);
      break;
    case Kind::string:
      write_string_repr(value.bytes(), out);
      break;
    case Kind::list:
      if (value.list->kind == ListKind::list || value.list->kind == ListKind::tuple)
        return write_items_repr(heap, *value.list, out, depth);
      heap.fail("writes a view or generator as text; a list can be written");
      break;
    case Kind::dict: {
      out += '{';
      bool is_first = true;
      for (const DictEntry& entry : value.dict->span()) {
        if (heap.failed()) return;
        if (!std::exchange(is_first, false)) out += ", ";
        write_repr(heap, entry.key, out, depth + 1);
        out += ": ";
        write_repr(heap, entry.value, out, depth + 1);
      }
      out += '}';
      return;
    }
    default:
      heap.fail(std::string("writes a ") + type_name(value) + " as text");
  }
  charge(heap, out, before);
}

void write_str(Heap& heap, Value value, TextBuilder& out) {
  if (value.is_undefined()) return;
  if (value.is_string()) {
    if (heap.can_grow(out.size(), value.bytes().size())) out.append(*value.text);
    return;
  }
  std::string text;
  write_repr(heap, value, text);
  if (heap.can_grow(out.size(), text.size())) out.append(text, Origin::content);
}

Value to_string(Heap& heap, Value value) {
  if (value.is_string()) return value;
  TextBuilder builder;
  write_str(heap, value, builder);
  return heap.string(builder);
}

void write_json(Heap& heap, Value value, const JsonStyle& style, std::string& out,
                std::uint32_t depth) {
  JsonWriter(heap, style, out).write(value, depth);
}

}  // namespace sluice::jinja
