// Methods of strings, lists, dicts and loops, and the two ways to format a string.
#include <algorithm>
#include <charconv>
#include <utility>

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/write_value.h"

namespace sluice::jinja {
namespace {

bool is_upper_letter(char c) {
  return c >= 'A' && c <= 'Z';
}
bool is_lower_letter(char c) {
  return c >= 'a' && c <= 'z';
}

// The other case of letters of Latin (to U+017E), Greek and Cyrillic whose cases are one character
// each; others stay.
std::uint32_t to_case(std::uint32_t code, bool raises) {
  struct Range {
    std::uint32_t upper_first, upper_last, distance;  // the small letters are so far behind
  };
  constexpr std::array<Range, 7> kRanges{{{'A', 'Z', 32},
                                          {0xC0, 0xD6, 32},
                                          {0xD8, 0xDE, 32},
                                          {0x391, 0x3A1, 32},
                                          {0x3A3, 0x3AB, 32},
                                          {0x410, 0x42F, 32},
                                          {0x400, 0x40F, 80}}};
  for (const Range& range : kRanges) {
    const std::uint32_t offset = raises ? range.distance : 0;
    if (code < range.upper_first + offset || code > range.upper_last + offset) continue;
    return raises ? code - range.distance : code + range.distance;
  }
  // Pairs of a large and a small letter behind each other.
  const bool starts_even = (code >= 0x100 && code <= 0x137 && code != 0x130 && code != 0x131) ||
                           (code >= 0x14A && code <= 0x177);
  const bool starts_odd = (code >= 0x139 && code <= 0x148) || (code >= 0x179 && code <= 0x17E);
  if (!starts_even && !starts_odd) return code;
  const bool is_upper = (code % 2 == 0) == starts_even;
  if (is_upper == raises) return code;
  return raises ? code - 1 : code + 1;
}

// The text of a string argument; fails for another type.
std::string_view text_argument(const BuiltinCall& call, std::size_t index, const char* what) {
  const Value value = call.args[index];
  if (value.is_string()) return value.bytes();
  call.heap.fail(std::string(what) + " needs a string, not " + type_name(value));
  return {};
}

// An optional integer argument; `absent` for none.
std::int64_t integer_argument(const BuiltinCall& call, std::size_t index, std::int64_t absent) {
  const Value value = call.args[index];
  if (value.is_integer()) return value.as_integer();
  if (!value.is_absent && value.kind != Kind::none)
    call.heap.fail(std::string("a number is needed, not ") + type_name(value));
  return absent;
}

Value part_of(const BuiltinCall& call, std::string_view part) {
  const Text& text = *call.input.text;
  return call.heap.part(text, static_cast<std::size_t>(part.data() - text.bytes.data()),
                        part.size());
}

// The next run of characters that are not white space, taken from the front of `rest`.
std::string_view take_word(std::string_view& rest) {
  while (const std::size_t size = leading_space_bytes(rest)) rest.remove_prefix(size);
  std::size_t size = 0;
  while (size < rest.size() && leading_space_bytes(rest.substr(size)) == 0)
    size += character_bytes(rest.substr(size));
  const std::string_view word = rest.substr(0, size);
  rest.remove_prefix(size);
  return word;
}

Value split_on_space(const BuiltinCall& call, std::int64_t splits_max) {
  const Value list = call.heap.list();
  std::string_view rest = call.input.bytes();
  while (call.heap.step()) {
    while (const std::size_t size = leading_space_bytes(rest)) rest.remove_prefix(size);
    if (rest.empty()) break;
    if (splits_max >= 0 && list.list->size >= static_cast<std::uint64_t>(splits_max)) {
      call.heap.append(*list.list, part_of(call, rest));
      break;
    }
    call.heap.append(*list.list, part_of(call, take_word(rest)));
  }
  return list;
}

Value split(const BuiltinCall& call) {
  const std::int64_t splits_max = integer_argument(call, 1, -1);
  call.heap.step(call.input.bytes().size() / 64);
  if (call.args[0].is_absent || call.args[0].kind == Kind::none)
    return split_on_space(call, splits_max);
  const std::string_view separator = text_argument(call, 0, "split()");
  const Value list = call.heap.list();
  if (separator.empty()) call.heap.fail("split() with an empty separator");
  std::string_view rest = call.input.bytes();
  while (call.heap.step()) {
    const bool may_split =
        splits_max < 0 || list.list->size < static_cast<std::uint64_t>(splits_max);
    const std::size_t at = may_split ? rest.find(separator) : std::string_view::npos;
    call.heap.append(*list.list, part_of(call, rest.substr(0, at)));
    if (at == std::string_view::npos) break;
    rest.remove_prefix(at + separator.size());
  }
  return list;
}

Value rsplit(const BuiltinCall& call) {
  const std::int64_t splits_max = integer_argument(call, 1, -1);
  const std::string_view separator = text_argument(call, 0, "rsplit()");
  if (separator.empty()) call.heap.fail("rsplit() with an empty separator");
  std::string_view rest = call.input.bytes();
  call.heap.step(rest.size() / 64);
  const Value list = call.heap.list();
  while (call.heap.step()) {
    const bool may_split =
        splits_max < 0 || list.list->size < static_cast<std::uint64_t>(splits_max);
    const std::size_t at = may_split ? rest.rfind(separator) : std::string_view::npos;
    const std::size_t begin = at == std::string_view::npos ? 0 : at + separator.size();
    call.heap.append(*list.list, part_of(call, rest.substr(begin)));
    if (at == std::string_view::npos) break;
    rest = rest.substr(0, at);
  }
  std::reverse(list.list->items, list.list->items + list.list->size);
  return list;
}

// Bytes of the line's end at the front of `text`, as str.splitlines() knows them; 0: none.
std::size_t line_end_bytes(std::string_view text) {
  if (text.starts_with("\r\n")) return 2;
  const char c = text.front();
  if (c == '\n' || c == '\r' || c == '\v' || c == '\f' || (c >= '\x1c' && c <= '\x1e')) return 1;
  for (const std::string_view end : {"\xC2\x85", "\xE2\x80\xA8", "\xE2\x80\xA9"})
    if (text.starts_with(end)) return end.size();
  return 0;
}

Value splitlines(const BuiltinCall& call) {
  const Value list = call.heap.list();
  std::string_view rest = call.input.bytes();
  call.heap.step(rest.size() / 64);
  std::size_t size = 0;
  while (size < rest.size()) {
    const std::size_t end = line_end_bytes(rest.substr(size));
    if (end == 0) {
      ++size;
      continue;
    }
    if (!call.heap.step()) break;
    call.heap.append(*list.list, part_of(call, rest.substr(0, size)));
    rest.remove_prefix(size + end);
    size = 0;
  }
  if (!rest.empty()) call.heap.append(*list.list, part_of(call, rest));
  return list;
}

template <bool AtStart>
Value has_affix(const BuiltinCall& call) {
  const std::string_view text = call.input.bytes();
  const auto has = [&](Value affix) {
    if (!affix.is_string()) {
      call.heap.fail(std::string("startswith() and endswith() need a string, not ") +
                     type_name(affix));
      return false;
    }
    return AtStart ? text.starts_with(affix.bytes()) : text.ends_with(affix.bytes());
  };
  const Value affix = call.args[0];
  if (!affix.is_list() || affix.list->kind != ListKind::tuple) return Value::of(has(affix));
  return Value::of(std::ranges::any_of(affix.list->span(), has));
}

template <bool AtStart>
Value without_affix(const BuiltinCall& call) {
  const std::string_view affix = text_argument(call, 0, "removeprefix() and removesuffix()");
  std::string_view text = call.input.bytes();
  if (AtStart && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!AtStart && text.ends_with(affix)) text.remove_suffix(affix.size());
  return part_of(call, text);
}

template <bool FromEnd>
Value find_in_text(const BuiltinCall& call) {
  const std::string_view wanted = text_argument(call, 0, "find()");
  const std::string_view text = call.input.bytes();
  call.heap.step(text.size() / 64);
  const std::size_t at = FromEnd ? text.rfind(wanted) : text.find(wanted);
  if (at == std::string_view::npos) return Value::of(std::int64_t{-1});
  return Value::of(static_cast<std::int64_t>(count_characters(text.substr(0, at))));
}

Value count_in_text(const BuiltinCall& call) {
  const std::string_view wanted = text_argument(call, 0, "count()");
  const std::string_view text = call.input.bytes();
  call.heap.step(text.size() / 64);
  if (wanted.empty()) return Value::of(static_cast<std::int64_t>(count_characters(text) + 1));
  std::int64_t count = 0;
  for (std::size_t at = text.find(wanted); at != std::string_view::npos;
       at = text.find(wanted, at + wanted.size()))
    ++count;
  return Value::of(count);
}

Value join_text(const BuiltinCall& call) {
  TextBuilder builder;
  bool is_first = true;
  for (const Value item : items_of(call.heap, call.args[0])) {
    if (!item.is_string()) {
      call.heap.fail(std::string("join() needs strings, not ") + type_name(item));
      break;
    }
    if (!call.heap.can_grow(builder.size(), item.bytes().size() + call.input.bytes().size())) break;
    if (!std::exchange(is_first, false)) builder.append(*call.input.text);
    builder.append(*item.text);
  }
  return call.heap.string(builder);
}

// True when there are characters and all of them satisfy.
template <bool (*Satisfies)(char)>
Value all_characters(const BuiltinCall& call) {
  const std::string_view text = call.input.bytes();
  return Value::of(!text.empty() && std::ranges::all_of(text, Satisfies));
}
bool is_letter(char c) {
  return is_upper_letter(c) || is_lower_letter(c);
}
bool is_alphanumeric(char c) {
  return is_digit(c) || is_letter(c);
}

Value is_space_text(const BuiltinCall& call) {
  const std::string_view text = call.input.bytes();
  return Value::of(!text.empty() && without_outer_space(text).empty());
}

template <CaseChange Change>
Value change_case_of(const BuiltinCall& call) {
  return change_case(call.heap, call.input, Change);
}
template <Ends At>
Value strip_of(const BuiltinCall& call) {
  return strip(call.heap, call.input, call.args[0], At);
}
Value replace_of(const BuiltinCall& call) {
  text_argument(call, 0, "replace()");
  text_argument(call, 1, "replace()");
  return replace(call.heap, call.input, call.args[0], call.args[1], call.args[2]);
}
Value format_of(const BuiltinCall& call) {
  return format_braces(call.heap, *call.input.text, call.all);
}

constexpr std::array kStringMethods = std::to_array<Builtin>({
    {"capitalize", change_case_of<CaseChange::capitalize>, {}},
    {"count", count_in_text, {"sub"}},
    {"endswith", has_affix<false>, {"suffix"}},
    {"find", find_in_text<false>, {"sub"}},
    {"format", format_of, {"*"}},
    {"isalnum", all_characters<is_alphanumeric>, {}},
    {"isalpha", all_characters<is_letter>, {}},
    {"isdigit", all_characters<is_digit>, {}},
    {"isspace", is_space_text, {}},
    {"join", join_text, {"iterable"}},
    {"lower", change_case_of<CaseChange::lower>, {}},
    {"lstrip", strip_of<Ends::left>, {"chars"}},
    {"removeprefix", without_affix<true>, {"prefix"}},
    {"removesuffix", without_affix<false>, {"suffix"}},
    {"replace", replace_of, {"old", "new", "count"}},
    {"rfind", find_in_text<true>, {"sub"}},
    {"rsplit", rsplit, {"sep", "maxsplit"}},
    {"rstrip", strip_of<Ends::right>, {"chars"}},
    {"split", split, {"sep", "maxsplit"}},
    {"splitlines", splitlines, {}},
    {"startswith", has_affix<true>, {"prefix"}},
    {"strip", strip_of<Ends::both>, {"chars"}},
    {"title", change_case_of<CaseChange::title_method>, {}},
    {"upper", change_case_of<CaseChange::upper>, {}},
});

Value get_of(const BuiltinCall& call) {
  const Value key = call.args[0];
  const bool can_hash = key.is_string() || key.is_number() || key.kind == Kind::none;
  if (can_hash)
    if (const Value* found = call.heap.find(*call.input.dict, key)) return *found;
  return call.args[1].is_absent ? Value::none() : call.args[1];
}

enum class View : std::uint8_t { keys, values, items };
template <View What>
Value view_of(const BuiltinCall& call) {
  const Dict& dict = *call.input.dict;
  const Value view = call.heap.list(ListKind::view, dict.size);
  for (const DictEntry& entry : dict.span()) {
    if (!call.heap.step()) break;
    call.heap.append(*view.list, What == View::keys     ? entry.key
                                 : What == View::values ? entry.value
                                                        : call.heap.pair(entry.key, entry.value));
  }
  return view;
}

Value update_dict(const BuiltinCall& call) {
  const Value from = call.args[0];
  if (!from.is_dict()) call.heap.fail("update() needs a dict");
  if (from.is_dict())
    for (const DictEntry& entry : from.dict->span())
      call.heap.set(*call.input.dict, entry.key, entry.value);
  return Value::none();
}

constexpr std::array kDictMethods = std::to_array<Builtin>({
    {"get", get_of, {"key", "default"}},
    {"items", view_of<View::items>, {}},
    {"keys", view_of<View::keys>, {}},
    {"update", update_dict, {"other"}},
    {"values", view_of<View::values>, {}},
});

Value append_item(const BuiltinCall& call) {
  call.heap.append(*call.input.list, call.args[0]);
  return Value::none();
}

Value extend_list(const BuiltinCall& call) {
  const auto items = items_of(call.heap, call.args[0]);
  const std::size_t count = items.size();  // of itself, too
  for (std::size_t i = 0; i < count && call.heap.step(); ++i)
    call.heap.append(*call.input.list, items[i]);
  return Value::none();
}

Value pop_item(const BuiltinCall& call) {
  List& list = *call.input.list;
  const std::int64_t wanted = integer_argument(call, 0, -1);
  const std::int64_t index = wanted < 0 ? wanted + std::int64_t{list.size} : wanted;
  if (index < 0 || index >= std::int64_t{list.size}) {
    call.heap.fail("pop() of an item that does not exist");
    return Value::undefined();
  }
  const Value item = list.items[index];
  std::move(list.items + index + 1, list.items + list.size, list.items + index);
  --list.size;
  return item;
}

Value index_of_item(const BuiltinCall& call) {
  const auto items = call.input.list->span();
  for (std::size_t i = 0; i < items.size(); ++i)
    if (are_equal(call.heap, items[i], call.args[0]))
      return Value::of(static_cast<std::int64_t>(i));
  call.heap.fail("index() of an item that does not exist");
  return Value::undefined();
}

Value count_items(const BuiltinCall& call) {
  return Value::of(std::int64_t{std::ranges::count_if(call.input.list->span(), [&](Value item) {
    return are_equal(call.heap, item, call.args[0]);
  })});
}

constexpr std::array kListMethods = std::to_array<Builtin>({
    {"append", append_item, {"item"}},
    {"count", count_items, {"item"}},
    {"extend", extend_list, {"items"}},
    {"index", index_of_item, {"item"}},
    {"pop", pop_item, {"index"}},
});

constexpr std::array kTupleMethods = std::to_array<Builtin>({
    {"count", count_items, {"item"}},
    {"index", index_of_item, {"item"}},
});

Value cycle(const BuiltinCall& call) {
  const auto items = call.all.positional;
  if (!items.empty()) return items[call.input.loop->index0 % items.size()];
  call.heap.fail("loop.cycle() without items");
  return Value::undefined();
}

Value changed(const BuiltinCall& call) {
  Loop& loop = *call.input.loop;
  const Value now = call.heap.list(ListKind::tuple, call.all.positional.size());
  for (const Value item : call.all.positional) call.heap.append(*now.list, item);
  const bool is_changed =
      loop.last_changed.is_absent || !are_equal(call.heap, loop.last_changed, now);
  loop.last_changed = now;
  return Value::of(is_changed);
}

constexpr std::array kLoopMethods = std::to_array<Builtin>({
    {"changed", changed, {"*"}},
    {"cycle", cycle, {"*"}},
});

std::span<const Builtin> methods_of(Value self) {
  switch (self.kind) {
    case Kind::string:
      return kStringMethods;
    case Kind::dict:
      return kDictMethods;
    case Kind::loop:
      return kLoopMethods;
    case Kind::list:
      if (self.list->kind == ListKind::list) return kListMethods;
      if (self.list->kind == ListKind::tuple) return kTupleMethods;
      return {};
    default:
      return {};
  }
}

bool is_word_break_of_title(std::string_view text) {
  return leading_space_bytes(text) != 0 || text.front() == '-' || text.front() == '(' ||
         text.front() == '{' || text.front() == '[' || text.front() == '<';
}

// One conversion of a format: %[-0][width][.precision]type
struct Conversion {
  bool is_left = false;
  bool has_zeros = false;
  std::size_t width = 0;
  int precision = -1;
  char type = '\0';
};

// Reads what follows a '%'; the type stays 0 when it is cut off.
Conversion take_conversion(std::string_view& rest) {
  constexpr std::size_t kWidthMax = 1000;
  constexpr int kPrecisionMax = 30;
  Conversion c;
  const auto next_is = [&](char wanted) { return !rest.empty() && rest.front() == wanted; };
  for (; next_is('-') || next_is('0'); rest.remove_prefix(1))
    (rest.front() == '-' ? c.is_left : c.has_zeros) = true;
  for (; !rest.empty() && is_digit(rest.front()) && c.width < kWidthMax; rest.remove_prefix(1))
    c.width = c.width * 10 + static_cast<std::size_t>(rest.front() - '0');
  if (next_is('.')) {
    rest.remove_prefix(1);
    c.precision = 0;
    for (; !rest.empty() && is_digit(rest.front()) && c.precision < kPrecisionMax;
         rest.remove_prefix(1))
      c.precision = c.precision * 10 + (rest.front() - '0');
  }
  if (rest.empty()) return c;
  c.type = rest.front();
  rest.remove_prefix(1);
  return c;
}

std::string number_text(Heap& heap, const Conversion& c, Value value) {
  if (!value.is_number()) {
    heap.fail(std::string("%") + c.type + " needs a number, not " + type_name(value));
    return {};
  }
  if (c.type != 'f') {
    const double real = value.as_real();
    if (value.kind == Kind::real && !(real > -9e18 && real < 9e18)) {
      heap.fail("computes a number beyond 64 bits");
      return {};
    }
    return std::to_string(value.is_integer() ? value.as_integer()
                                             : static_cast<std::int64_t>(real));
  }
  std::array<char, 400> buffer;
  const auto written =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value.as_real(),
                    std::chars_format::fixed, c.precision < 0 ? 6 : std::min(c.precision, 30));
  return {buffer.data(), written.ptr};
}

void append_conversion(Heap& heap, const Conversion& c, Value value, TextBuilder& out) {
  TextBuilder field;
  if (c.type == 's') {
    write_str(heap, value, field);
  } else if (c.type == 'r') {
    std::string text;
    write_repr(heap, value, text);
    field.append(text, Origin::content);
  } else if (c.type == 'd' || c.type == 'i' || c.type == 'f') {
    std::string text = number_text(heap, c, value);
    const std::size_t sign = text.starts_with('-') ? 1 : 0;
    if (c.has_zeros && !c.is_left && text.size() < c.width)
      text.insert(sign, c.width - text.size(), '0');
    field.append(text, Origin::content);
  } else {
    return heap.fail("a % format other than %s, %r, %d, %i, %f and %%");
  }
  const std::size_t characters = count_characters(field.view().bytes);
  const std::string spaces(characters < c.width ? c.width - characters : 0, ' ');
  if (!heap.can_grow(out.size(), field.size() + spaces.size())) return;
  if (!c.is_left) out.append(spaces, Origin::content);
  out.append(field.view());
  if (c.is_left) out.append(spaces, Origin::content);
}

}  // namespace

Value find_method(Heap& heap, Value self, std::string_view name) {
  for (const Builtin& builtin : methods_of(self)) {
    if (builtin.name != name) continue;
    auto* const method = heap.make<Method>();
    *method = {self, &builtin};
    Value value;
    value.kind = Kind::method;
    value.method = method;
    return value;
  }
  return Value::undefined();
}

Value change_case(Heap& heap, Value value, CaseChange change) {
  const Text& text = *value.text;
  if (!heap.can_grow(0, text.bytes.size())) return value;
  TextBuilder builder;
  std::string changed;
  bool is_word_start = true;
  for (std::size_t i = 0; i < text.bytes.size();) {
    const std::string_view rest = text.bytes.substr(i);
    const std::size_t size = character_bytes(rest);
    const bool raises =
        change == CaseChange::upper || (change != CaseChange::lower && is_word_start);
    const std::uint32_t code = code_point(rest.substr(0, size));
    const std::uint32_t mapped = to_case(code, raises);
    changed.clear();
    if (mapped != code) append_code_point(mapped, changed);
    if (mapped != code)
      builder.append(changed, text.origin_at(i));
    else
      builder.append_part(text, i, size);
    const bool has_case = to_case(code, true) != code || to_case(code, false) != code;
    if (change == CaseChange::title_method)
      is_word_start = !has_case;
    else
      is_word_start = change == CaseChange::title_filter && is_word_break_of_title(rest);
    i += size;
  }
  return heap.string(builder);
}

Value strip(Heap& heap, Value value, Value characters, Ends ends) {
  std::string_view text = value.bytes();
  std::string_view set;
  if (characters.is_string()) {
    set = characters.bytes();
  } else if (!characters.is_absent && characters.kind != Kind::none) {
    heap.fail(std::string("strip() needs a string, not ") + type_name(characters));
    return value;
  }
  const bool is_space = !characters.is_string();
  heap.step(1 + text.size() / 64);
  const auto in_set = [&](std::string_view character) {
    heap.step(set.size() / 64);
    return set.find(character) != std::string_view::npos;
  };
  while (ends != Ends::right && !text.empty()) {
    const std::size_t size = is_space ? leading_space_bytes(text) : character_bytes(text);
    if (size == 0 || (!is_space && !in_set(text.substr(0, size)))) break;
    text.remove_prefix(size);
  }
  while (ends != Ends::left && !text.empty()) {
    std::size_t size = is_space ? trailing_space_bytes(text) : 1;
    if (!is_space)
      while (size < text.size() && (text[text.size() - size] & '\xC0') == '\x80') ++size;
    if (size == 0 || (!is_space && !in_set(text.substr(text.size() - size)))) break;
    text.remove_suffix(size);
  }
  if (text.size() == value.bytes().size()) return value;
  return heap.part(*value.text, static_cast<std::size_t>(text.data() - value.bytes().data()),
                   text.size());
}

Value replace(Heap& heap, Value value, Value from, Value to, Value count) {
  if (!value.is_string() || !from.is_string() || !to.is_string()) return value;
  const Text& text = *value.text;
  std::int64_t left = count.is_integer() && count.as_integer() >= 0 ? count.as_integer() : -1;
  TextBuilder builder;
  std::size_t at = 0;
  heap.step(text.bytes.size() / 64);
  // An empty text is found before each character and at the end.
  const std::string_view wanted = from.bytes();
  while (left != 0 && heap.step()) {
    const std::size_t found = wanted.empty() ? at : text.bytes.find(wanted, at);
    if (found == std::string_view::npos) break;
    if (!heap.can_grow(builder.size(), found - at + to.bytes().size() + 4)) break;
    builder.append_part(text, at, found - at);
    builder.append(*to.text);
    at = found + wanted.size();
    if (left > 0) --left;
    if (!wanted.empty()) continue;
    if (at == text.bytes.size()) break;
    const std::size_t size = character_bytes(text.bytes.substr(at));
    builder.append_part(text, at, size);
    at += size;
  }
  if (heap.can_grow(builder.size(), text.bytes.size() - at))
    builder.append_part(text, at, text.bytes.size() - at);
  return heap.string(builder);
}

Value format_percent(Heap& heap, const Text& text, Value right) {
  const bool is_tuple = right.is_list() && right.list->kind == ListKind::tuple;
  const std::span<const Value> values =
      is_tuple ? right.list->span() : std::span<const Value>(&right, 1);
  std::size_t used = 0;
  TextBuilder out;
  std::string_view rest = text.bytes;
  while (!rest.empty() && heap.step()) {
    const std::size_t at = std::min(rest.find('%'), rest.size());
    if (!heap.can_grow(out.size(), at)) break;
    out.append_part(text, text.bytes.size() - rest.size(), at);
    rest.remove_prefix(at);
    if (rest.empty()) break;
    rest.remove_prefix(1);
    const Conversion conversion = take_conversion(rest);
    if (conversion.type == '%') {
      out.append("%", Origin::content);
    } else if (used == values.size()) {
      heap.fail("a format has more places than values");
    } else {
      append_conversion(heap, conversion, values[used++], out);
    }
  }
  const bool may_be_left =
      right.is_dict() || right.is_undefined() || (right.is_list() && !is_tuple);
  if (used < values.size() && !may_be_left) heap.fail("a format has fewer places than values");
  return heap.string(out);
}

Value format_braces(Heap& heap, const Text& text, const Arguments& arguments) {
  std::size_t used = 0;
  TextBuilder out;
  std::string_view rest = text.bytes;
  bool is_numbered = false;
  const auto value_of = [&](std::string_view field) {
    std::size_t index = used;
    if (field.empty()) {
      ++used;
    } else if (is_digit(field.front())) {
      is_numbered = true;
      const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), index);
      if (error != std::errc() || end != field.data() + field.size()) index = kArgumentsMax;
    } else {
      for (const NamedValue& named : arguments.named)
        if (named.name == field) return named.value;
      index = kArgumentsMax;
    }
    if (index < arguments.positional.size()) return arguments.positional[index];
    heap.fail("format() has no value for a place, or the place is of a kind that is not supported");
    return Value::undefined();
  };
  while (!rest.empty() && heap.step()) {
    const std::size_t at = std::min(rest.find_first_of("{}"), rest.size());
    if (!heap.can_grow(out.size(), at + 1)) break;
    out.append_part(text, text.bytes.size() - rest.size(), at);
    rest.remove_prefix(at);
    if (rest.empty()) break;
    if (rest.size() > 1 && rest[1] == rest[0]) {
      out.append_part(text, text.bytes.size() - rest.size(), 1);
      rest.remove_prefix(2);
      continue;
    }
    const std::size_t end = rest.find('}');
    if (rest.front() == '}' || end == std::string_view::npos) {
      heap.fail("format() with a single brace");
      break;
    }
    write_str(heap, value_of(rest.substr(1, end - 1)), out);
    if (is_numbered && used > 0) heap.fail("format() with places both with and without a number");
    rest.remove_prefix(end + 1);
  }
  return heap.string(out);
}

}  // namespace sluice::jinja
