// Filters by name, with the meaning of Jinja2's; tojson is that of transformers (no HTML escapes).
// `safe` text is text like any other: nothing is escaped.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/write_value.h"

namespace sluice::jinja {
namespace {

bool is_given(Value value) {
  return !value.is_absent;
}

bool flag_argument(const BuiltinCall& call, std::size_t index, bool absent) {
  return is_given(call.args[index]) ? is_true(call.args[index]) : absent;
}

Value fail_with(Heap& heap, std::string reason) {
  heap.fail(std::move(reason));
  return Value::undefined();
}

// value.a.b or value.0 for "a.b" and "0".
Value attribute_path(Heap& heap, Value value, Value path) {
  if (path.is_integer()) return element(heap, value, path);
  if (!path.is_string()) return fail_with(heap, "an attribute must be named by a string");
  std::string_view rest = path.bytes();
  for (;;) {
    const std::size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    std::int64_t index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_number = error == std::errc() && end == name.data() + name.size() && index >= 0;
    value = element(heap, value, is_number ? Value::of(index) : heap.view(name, Origin::content));
    if (dot == std::string_view::npos || !heap.step()) return value;
    rest.remove_prefix(dot + 1);
  }
}

// What sorting and comparing look at: the item or its attribute, letters made small unless
// `case_sensitive`.
Value sort_key(Heap& heap, Value item, Value path, bool case_sensitive) {
  if (is_given(path) && path.kind != Kind::none) item = attribute_path(heap, item, path);
  if (item.is_string() && !case_sensitive) return change_case(heap, item, CaseChange::lower);
  return item;
}

struct Keyed {
  Value key;
  Value item;
};

Value sorted(Heap& heap, std::vector<Keyed>& items, bool reverse) {
  heap.step(items.size());
  const auto less = [&](const Keyed& left, const Keyed& right) {
    return reverse ? is_less(heap, right.key, left.key) : is_less(heap, left.key, right.key);
  };
  std::ranges::stable_sort(items, less);
  const Value list = heap.list(ListKind::list, items.size());
  for (const Keyed& item : items) heap.append(*list.list, item.item);
  return list;
}

std::vector<Keyed> keyed_items(const BuiltinCall& call, Value path, bool case_sensitive) {
  std::vector<Keyed> items;
  for (const Value item : items_of(call.heap, call.input)) {
    if (!call.heap.step()) break;
    items.push_back({sort_key(call.heap, item, path, case_sensitive), item});
  }
  return items;
}

Value sort(const BuiltinCall& call) {
  std::vector<Keyed> items = keyed_items(call, call.args[2], flag_argument(call, 1, false));
  // Keys are compared as lists, as Jinja2 has it: equal ones need no order.
  for (Keyed& item : items) {
    const Value key = call.heap.list(ListKind::list, 1);
    call.heap.append(*key.list, item.key);
    item.key = key;
  }
  return sorted(call.heap, items, flag_argument(call, 0, false));
}

Value dictsort(const BuiltinCall& call) {
  if (!call.input.is_dict())
    return fail_with(call.heap, std::string("dictsort needs a dict, not ") + type_name(call.input));
  const bool by_value = is_given(call.args[1]) && call.args[1].is_text("value");
  if (is_given(call.args[1]) && !by_value && !call.args[1].is_text("key"))
    return fail_with(call.heap, "dictsort sorts by 'key' or 'value'");
  std::vector<Keyed> items;
  for (const DictEntry& entry : call.input.dict->span())
    items.push_back({sort_key(call.heap, by_value ? entry.value : entry.key, Value::absent(),
                              flag_argument(call, 0, false)),
                     call.heap.pair(entry.key, entry.value)});
  return sorted(call.heap, items, flag_argument(call, 2, false));
}

template <bool Greatest>
Value extreme(const BuiltinCall& call) {
  const std::vector<Keyed> items = keyed_items(call, call.args[1], flag_argument(call, 0, false));
  const Keyed* best = nullptr;
  for (const Keyed& item : items)
    if (best == nullptr || (Greatest ? is_less(call.heap, best->key, item.key)
                                     : is_less(call.heap, item.key, best->key)))
      best = &item;
  return best != nullptr ? best->item : Value::undefined();
}

Value unique(const BuiltinCall& call) {
  std::vector<Value> seen;
  const Value list = call.heap.list(ListKind::generator);
  for (const Keyed& item : keyed_items(call, call.args[1], flag_argument(call, 0, false))) {
    const bool is_list = item.key.is_list() && item.key.list->kind != ListKind::tuple;
    if (is_list || item.key.is_dict())
      return fail_with(call.heap, std::string("unique needs items that can be keys, not ") +
                                      type_name(item.key));
    const auto is_item = [&](Value other) { return are_equal(call.heap, other, item.key); };
    if (std::ranges::any_of(seen, is_item)) continue;
    seen.push_back(item.key);
    call.heap.append(*list.list, item.item);
  }
  return list;
}

Value sum(const BuiltinCall& call) {
  Value total = is_given(call.args[1]) ? call.args[1] : Value::of(std::int64_t{0});
  for (Value item : items_of(call.heap, call.input)) {
    if (!call.heap.step()) break;
    if (is_given(call.args[0]) && call.args[0].kind != Kind::none)
      item = attribute_path(call.heap, item, call.args[0]);
    total = arithmetic(call.heap, Operator::add, total, item);
  }
  return total;
}

Value default_value(const BuiltinCall& call) {
  const bool is_missing =
      call.input.is_undefined() || (flag_argument(call, 1, false) && !is_true(call.input));
  if (!is_missing) return call.input;
  return is_given(call.args[0]) ? call.args[0] : call.heap.view({}, Origin::content);
}

Value join(const BuiltinCall& call) {
  TextBuilder builder;
  const Value separator = is_given(call.args[0]) ? to_string(call.heap, call.args[0])
                                                 : call.heap.view({}, Origin::content);
  bool is_first = true;
  for (Value item : items_of(call.heap, call.input)) {
    if (!call.heap.step()) break;
    if (!std::exchange(is_first, false)) write_str(call.heap, separator, builder);
    if (is_given(call.args[1]) && call.args[1].kind != Kind::none)
      item = attribute_path(call.heap, item, call.args[1]);
    write_str(call.heap, item, builder);
  }
  return call.heap.string(builder);
}

Value first(const BuiltinCall& call) {
  const auto items = items_of(call.heap, call.input);
  return items.empty() ? Value::undefined() : items.front();
}

Value last(const BuiltinCall& call) {
  if (call.input.is_list() && call.input.list->kind == ListKind::generator)
    return fail_with(call.heap, "the last item of a generator; a list has one");
  const auto items = items_of(call.heap, call.input);
  return items.empty() ? Value::undefined() : items.back();
}

Value length(const BuiltinCall& call) {
  return Value::of(length_of(call.heap, call.input));
}

Value list_of(const BuiltinCall& call) {
  const auto items = items_of(call.heap, call.input);
  const Value list = call.heap.list(ListKind::list, items.size());
  for (const Value item : items) call.heap.append(*list.list, item);
  return list;
}

Value reverse(const BuiltinCall& call) {
  const auto items = items_of(call.heap, call.input);
  if (call.input.is_string()) {
    TextBuilder builder;
    for (auto item = items.rbegin(); item != items.rend(); ++item)
      write_str(call.heap, *item, builder);
    return call.heap.string(builder);
  }
  const Value list = call.heap.list(ListKind::generator, items.size());
  for (auto item = items.rbegin(); item != items.rend(); ++item)
    call.heap.append(*list.list, *item);
  return list;
}

Value items(const BuiltinCall& call) {
  const Value list = call.heap.list(ListKind::generator);
  if (call.input.is_undefined()) return list;
  if (!call.input.is_dict())
    return fail_with(call.heap, std::string("items needs a dict, not ") + type_name(call.input));
  for (const DictEntry& entry : call.input.dict->span()) {
    if (!call.heap.step()) break;
    call.heap.append(*list.list, call.heap.pair(entry.key, entry.value));
  }
  return list;
}

Arguments behind(const Arguments& all, std::size_t count) {
  return {all.positional.subspan(std::min(count, all.positional.size())), all.named};
}

Value map(const BuiltinCall& call) {
  const auto& positional = call.all.positional;
  const Value result = call.heap.list(ListKind::generator);
  Value path = Value::absent(), fallback = Value::absent();
  for (const NamedValue& named : call.all.named) {
    if (named.name == "attribute") path = named.value;
    if (named.name == "default") fallback = named.value;
  }
  if (!is_true(call.input)) return result;
  const Builtin* filter = nullptr;
  if (!positional.empty()) {
    if (positional[0].is_string()) filter = find_filter(positional[0].bytes());
    if (filter == nullptr) return fail_with(call.heap, "map of a filter that does not exist");
  } else if (!is_given(path)) {
    return fail_with(call.heap, "map needs a filter or an attribute");
  }
  for (const Value item : items_of(call.heap, call.input)) {
    if (!call.heap.step()) break;
    Value mapped = filter != nullptr
                       ? run_builtin(*filter, call.heap, item, behind(call.all, 1), call.unix_s)
                       : attribute_path(call.heap, item, path);
    if (filter == nullptr && mapped.is_undefined() && is_given(fallback)) mapped = fallback;
    call.heap.append(*result.list, mapped);
  }
  return result;
}

template <bool Keeps, bool ByAttribute>
Value select(const BuiltinCall& call) {
  const auto& positional = call.all.positional;
  const Value result = call.heap.list(ListKind::generator);
  constexpr std::size_t kTestIndex = ByAttribute ? 1 : 0;
  if (!is_true(call.input)) return result;
  if (ByAttribute && positional.empty())
    return fail_with(call.heap, "selectattr and rejectattr need an attribute");
  const Builtin* test = nullptr;
  if (positional.size() > kTestIndex) {
    if (positional[kTestIndex].is_string()) test = find_test(positional[kTestIndex].bytes());
    if (test == nullptr) return fail_with(call.heap, "selects by a test that does not exist");
  }
  for (const Value item : items_of(call.heap, call.input)) {
    if (!call.heap.step()) break;
    const Value looked_at = ByAttribute ? attribute_path(call.heap, item, positional[0]) : item;
    const Value verdict = test == nullptr
                              ? looked_at
                              : run_builtin(*test, call.heap, looked_at,
                                            behind(call.all, kTestIndex + 1), call.unix_s);
    if (is_true(verdict) == Keeps) call.heap.append(*result.list, item);
  }
  return result;
}

Value string_of(const BuiltinCall& call) {
  return to_string(call.heap, call.input);
}

template <CaseChange Change>
Value case_filter(const BuiltinCall& call) {
  return change_case(call.heap, to_string(call.heap, call.input), Change);
}

Value trim(const BuiltinCall& call) {
  return strip(call.heap, to_string(call.heap, call.input), call.args[0], Ends::both);
}

Value replace_filter(const BuiltinCall& call) {
  if (!is_given(call.args[0]) || !is_given(call.args[1]))
    return fail_with(call.heap, "replace needs two strings");
  return replace(call.heap, to_string(call.heap, call.input), to_string(call.heap, call.args[0]),
                 to_string(call.heap, call.args[1]), call.args[2]);
}

Value format_filter(const BuiltinCall& call) {
  const Value values = call.heap.list(ListKind::tuple, call.all.positional.size());
  for (const Value value : call.all.positional) call.heap.append(*values.list, value);
  const Value text = to_string(call.heap, call.input);
  return format_percent(call.heap, *text.text, values);
}

Value escape(const BuiltinCall& call) {
  const Value value = to_string(call.heap, call.input);
  const Text& text = *value.text;
  TextBuilder builder;
  for (std::size_t i = 0; i < text.bytes.size() && call.heap.can_grow(builder.size(), 6); ++i) {
    const std::size_t found = std::string_view("&<>'\"").find(text.bytes[i]);
    constexpr std::array<std::string_view, 5> kEscapes{"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    if (found == std::string_view::npos)
      builder.append_part(text, i, 1);
    else
      builder.append(kEscapes[found], Origin::content);
  }
  return call.heap.string(builder);
}

Value indent(const BuiltinCall& call) {
  const Value value = call.input;
  if (!value.is_string())
    return fail_with(call.heap, std::string("indent needs a string, not ") + type_name(value));
  TextBuilder indention;
  if (call.args[0].is_string()) {
    indention.append(*call.args[0].text);
  } else {
    const std::int64_t width = call.args[0].is_integer() ? call.args[0].as_integer() : 4;
    if (width > 0 && call.heap.can_grow(0, static_cast<std::size_t>(width)))
      indention.append(std::string(static_cast<std::size_t>(width), ' '), Origin::content);
  }
  TextBuilder builder;
  const auto append = [&](const Text& text) {
    if (call.heap.can_grow(builder.size(), text.bytes.size())) builder.append(text);
  };
  // A closing line break counts as the start of one more line.
  const Value ended =
      arithmetic(call.heap, Operator::add, value, call.heap.view("\n", Origin::content));
  const Builtin* const splitlines = find_method(call.heap, ended, "splitlines").method->builtin;
  const Value lines = run_builtin(*splitlines, call.heap, ended, {}, call.unix_s);
  if (flag_argument(call, 1, false)) append(indention.view());
  for (std::uint32_t i = 0; i < lines.list->size && call.heap.step(); ++i) {
    const Text& line = *lines.list->items[i].text;
    if (i > 0) append(uniform_text("\n", Origin::content));
    if (i > 0 && (!line.bytes.empty() || flag_argument(call, 2, false))) append(indention.view());
    append(line);
  }
  return call.heap.string(builder);
}

std::string_view without_prefix_of(std::string_view digits, int base) {
  const std::string_view prefixes = base == 16 ? "xX" : base == 8 ? "oO" : base == 2 ? "bB" : "";
  if (digits.size() > 2 && digits[0] == '0' && prefixes.find(digits[1]) != std::string_view::npos)
    digits.remove_prefix(2);
  return digits;
}

// As Python reads numbers from text: white space around, a sign, single underscores between digits.
std::string plain_number(std::string_view text) {
  std::string plain;
  text = without_outer_space(text);
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_joint =
        text[i] == '_' && i > 0 && i + 1 < text.size() && text[i - 1] != '_' && text[i + 1] != '_';
    if (!is_joint) plain += text[i];
  }
  return plain;
}

std::optional<double> read_real(std::string_view text) {
  const std::string plain = plain_number(text);
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (error != std::errc() || end != plain.data() + plain.size()) return std::nullopt;
  return value;
}

std::optional<Value> whole_part(Heap& heap, double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (value < -9.2e18 || value > 9.2e18) return fail_with(heap, "computes a number beyond 64 bits");
  return Value::of(static_cast<std::int64_t>(value));
}

Value int_filter(const BuiltinCall& call) {
  const Value fallback = is_given(call.args[0]) ? call.args[0] : Value::of(std::int64_t{0});
  const Value value = call.input;
  if (value.is_undefined()) return fail_with(call.heap, "a value is undefined");
  if (value.is_integer()) return Value::of(value.as_integer());
  if (value.kind == Kind::real) return whole_part(call.heap, value.real).value_or(fallback);
  if (!value.is_string()) return fallback;
  const std::int64_t base = call.args[1].is_integer() ? call.args[1].as_integer() : 10;
  if (base < 2 || base > 36) return fail_with(call.heap, "a base of numbers outside 2..36");
  const std::string plain = plain_number(value.bytes());
  const bool is_negative = plain.starts_with('-');
  const std::string_view digits = without_prefix_of(
      std::string_view(plain).substr(is_negative ? 1 : 0), static_cast<int>(base));
  std::int64_t number = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), number, static_cast<int>(base));
  if (error == std::errc::result_out_of_range)
    return fail_with(call.heap, "computes a number beyond 64 bits");
  if (error == std::errc() && end == digits.data() + digits.size() && digits.front() != '-')
    return Value::of(is_negative ? -number : number);
  const std::optional<double> real = read_real(value.bytes());
  return real ? whole_part(call.heap, *real).value_or(fallback) : fallback;
}

Value float_filter(const BuiltinCall& call) {
  const Value fallback = is_given(call.args[0]) ? call.args[0] : Value::of(0.0);
  if (call.input.is_undefined()) return fail_with(call.heap, "a value is undefined");
  if (call.input.is_number()) return Value::of(call.input.as_real());
  if (!call.input.is_string()) return fallback;
  const std::optional<double> real = read_real(call.input.bytes());
  return real ? Value::of(*real) : fallback;
}

Value abs(const BuiltinCall& call) {
  if (!call.input.is_number())
    return fail_with(call.heap, std::string("abs of a value of type ") + type_name(call.input));
  if (call.input.kind == Kind::real) return Value::of(std::fabs(call.input.real));
  return negate(call.heap, call.input, call.input.as_integer() < 0);
}

Value round(const BuiltinCall& call) {
  constexpr std::int64_t kPrecisionMax = 15;
  const Value value = call.input;
  if (!value.is_number())
    return fail_with(call.heap, std::string("round of a value of type ") + type_name(value));
  const std::int64_t precision = call.args[0].is_integer() ? call.args[0].as_integer() : 0;
  if (precision < 0 || precision > kPrecisionMax)
    return fail_with(call.heap, "round to a precision outside 0..15");
  const Value method = call.args[1];
  const double real = value.as_real();
  if (!is_given(method) || method.is_text("common")) {
    if (value.is_integer()) return Value::of(value.as_integer());
    if (!std::isfinite(real)) return value;
    std::array<char, 400> buffer;
    const auto written = std::to_chars(buffer.data(), buffer.data() + buffer.size(), real,
                                       std::chars_format::fixed, static_cast<int>(precision));
    double rounded = 0;
    std::from_chars(buffer.data(), written.ptr, rounded);
    return Value::of(rounded);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method.is_text("ceil")) return Value::of(std::ceil(real * scale) / scale);
  if (method.is_text("floor")) return Value::of(std::floor(real * scale) / scale);
  return fail_with(call.heap, "round by a method other than common, ceil and floor");
}

Value tojson(const BuiltinCall& call) {
  constexpr std::int64_t kIndentMax = 100;
  JsonStyle style;
  style.ensure_ascii = flag_argument(call, 0, false);
  if (call.args[1].is_string()) style.indent = std::string(call.args[1].bytes());
  if (call.args[1].is_integer())
    style.indent = std::string(static_cast<std::size_t>(std::clamp(call.args[1].as_integer(),
                                                                   std::int64_t{0}, kIndentMax)),
                               ' ');
  if (style.indent) style.item_separator = ",";
  if (call.args[2].is_list()) {
    const auto separators = call.args[2].list->span();
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      return fail_with(call.heap, "tojson needs two separators");
    style.item_separator = separators[0].bytes();
    style.key_separator = separators[1].bytes();
  }
  style.sort_keys = flag_argument(call, 3, false);
  std::string out;
  write_json(call.heap, call.input, style, out);
  return call.heap.string(out, Origin::content);
}

// Sorted by name.
constexpr std::array kFilters = std::to_array<Builtin>({
    {"abs", abs, {}},
    {"capitalize", case_filter<CaseChange::capitalize>, {}},
    {"count", length, {}},
    {"d", default_value, {"default_value", "boolean"}},
    {"default", default_value, {"default_value", "boolean"}},
    {"dictsort", dictsort, {"case_sensitive", "by", "reverse"}},
    {"e", escape, {}},
    {"escape", escape, {}},
    {"first", first, {}},
    {"float", float_filter, {"default"}},
    {"format", format_filter, {"*"}},
    {"indent", indent, {"width", "first", "blank"}},
    {"int", int_filter, {"default", "base"}},
    {"items", items, {}},
    {"join", join, {"d", "attribute"}},
    {"last", last, {}},
    {"length", length, {}},
    {"list", list_of, {}},
    {"lower", case_filter<CaseChange::lower>, {}},
    {"map", map, {"*"}},
    {"max", extreme<true>, {"case_sensitive", "attribute"}},
    {"min", extreme<false>, {"case_sensitive", "attribute"}},
    {"reject", select<false, false>, {"*"}},
    {"rejectattr", select<false, true>, {"*"}},
    {"replace", replace_filter, {"old", "new", "count"}},
    {"reverse", reverse, {}},
    {"round", round, {"precision", "method"}},
    {"safe", string_of, {}},
    {"select", select<true, false>, {"*"}},
    {"selectattr", select<true, true>, {"*"}},
    {"sort", sort, {"reverse", "case_sensitive", "attribute"}},
    {"string", string_of, {}},
    {"sum", sum, {"attribute", "start"}},
    {"title", case_filter<CaseChange::title_filter>, {}},
    {"tojson", tojson, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", trim, {"chars"}},
    {"unique", unique, {"case_sensitive", "attribute"}},
    {"upper", case_filter<CaseChange::upper>, {}},
});
static_assert(std::ranges::is_sorted(kFilters, {}, &Builtin::name));

}  // namespace

const Builtin* find_filter(std::string_view name) {
  const auto at = std::ranges::lower_bound(kFilters, name, {}, &Builtin::name);
  return at != kFilters.end() && at->name == name ? &*at : nullptr;
}

}  // namespace sluice::jinja
