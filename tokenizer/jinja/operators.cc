// Operators with Python's meaning; see operators.h.
#include "tokenizer/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/write_value.h"

namespace sluice::jinja {
namespace {

using Compared = std::int64_t;

std::string types(const char* what, Value left, Value right) {
  return std::string(what) + " is not possible between " + type_name(left) + " and " +
         type_name(right);
}

// Reads what is undefined as a failure, as Python's Undefined does in most places.
bool fail_if_undefined(Heap& heap, Value value) {
  if (!value.is_undefined()) return false;
  heap.fail(value.name != nullptr ? "'" + *value.name + "' is undefined" : "a value is undefined");
  return true;
}

bool are_lists_equal(Heap& heap, const List& left, const List& right, std::uint32_t depth) {
  if (left.kind != right.kind || left.size != right.size) return false;
  for (std::uint32_t i = 0; i < left.size; ++i)
    if (!are_equal(heap, left.items[i], right.items[i], depth + 1)) return false;
  return true;
}

bool are_dicts_equal(Heap& heap, const Dict& left, const Dict& right, std::uint32_t depth) {
  if (left.size != right.size) return false;
  for (const DictEntry& entry : left.span()) {
    const Value* other = heap.find(right, entry.key);
    if (other == nullptr || !are_equal(heap, entry.value, *other, depth + 1)) return false;
  }
  return true;
}

Value repeated(Heap& heap, Value value, std::int64_t count) {
  if (value.is_string()) {
    TextBuilder builder;
    for (; count > 0 && heap.step() && heap.can_grow(builder.size(), value.bytes().size()); --count)
      builder.append(*value.text);
    return heap.string(builder);
  }
  const Value list = heap.list(value.list->kind);
  for (; count > 0 && heap.step(); --count)
    for (const Value item : value.list->span()) heap.append(*list.list, item);
  return list;
}

// Strings and lists under + and *; true when they are meant.
bool sequence_arithmetic(Heap& heap, Operator op, Value left, Value right, Value& out) {
  const auto is_sequence = [](Value v) {
    return v.is_string() ||
           (v.is_list() && (v.list->kind == ListKind::list || v.list->kind == ListKind::tuple));
  };
  if (op == Operator::add && left.is_string() && right.is_string()) {
    TextBuilder builder;
    if (heap.can_grow(left.bytes().size(), right.bytes().size())) {
      builder.append(*left.text);
      builder.append(*right.text);
    }
    out = heap.string(builder);
    return true;
  }
  if (op == Operator::add && left.is_list() && right.is_list() && is_sequence(left) &&
      left.list->kind == right.list->kind) {
    out = heap.list(left.list->kind, std::size_t{left.list->size} + right.list->size);
    for (const Value list : {left, right})
      for (const Value item : list.list->span()) heap.append(*out.list, item);
    return true;
  }
  if (op == Operator::multiply && is_sequence(left) && right.is_integer()) {
    out = repeated(heap, left, right.as_integer());
    return true;
  }
  if (op == Operator::multiply && left.is_integer() && is_sequence(right)) {
    out = repeated(heap, right, left.as_integer());
    return true;
  }
  return false;
}

Value overflow(Heap& heap) {
  heap.fail("computes a number beyond 64 bits");
  return Value::of(std::int64_t{0});
}

Value power(Heap& heap, std::int64_t base, std::int64_t exponent) {
  if (exponent < 0)
    return base == 0
               ? overflow(heap)
               : Value::of(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  std::int64_t result = 1;
  for (; exponent > 0 && heap.step(); --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) return overflow(heap);
    if (base == 0 || base == 1) break;
    if (base == -1) return Value::of(exponent % 2 == 0 ? std::int64_t{1} : std::int64_t{-1});
  }
  return Value::of(result);
}

Value integer_arithmetic(Heap& heap, Operator op, std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  switch (op) {
    case Operator::add:
      return __builtin_add_overflow(left, right, &result) ? overflow(heap) : Value::of(result);
    case Operator::subtract:
      return __builtin_sub_overflow(left, right, &result) ? overflow(heap) : Value::of(result);
    case Operator::multiply:
      return __builtin_mul_overflow(left, right, &result) ? overflow(heap) : Value::of(result);
    case Operator::power:
      return power(heap, left, right);
    default:
      break;
  }
  if (right == 0) {
    heap.fail("divides by zero");
    return Value::of(result);
  }
  if (op == Operator::divide)
    return Value::of(static_cast<double>(left) / static_cast<double>(right));
  if (right == -1)  // the only quotient that may not fit
    return op == Operator::modulo ? Value::of(std::int64_t{0})
                                  : negate(heap, Value::of(left), true);
  const bool rounds_down = left % right != 0 && (left < 0) != (right < 0);
  if (op == Operator::floor_divide) return Value::of(left / right - (rounds_down ? 1 : 0));
  return Value::of(left % right + (rounds_down ? right : 0));
}

Value real_arithmetic(Heap& heap, Operator op, double left, double right) {
  switch (op) {
    case Operator::add:
      return Value::of(left + right);
    case Operator::subtract:
      return Value::of(left - right);
    case Operator::multiply:
      return Value::of(left * right);
    case Operator::power:
      return Value::of(std::pow(left, right));
    default:
      break;
  }
  if (right == 0) {
    heap.fail("divides by zero");
    return Value::of(0.0);
  }
  if (op == Operator::divide) return Value::of(left / right);
  double rest = std::fmod(left, right);
  if (rest != 0 && (rest < 0) != (right < 0)) rest += right;
  if (op == Operator::modulo) return Value::of(rest == 0 ? std::copysign(0.0, right) : rest);
  const double quotient = (left - rest) / right;
  if (quotient == 0) return Value::of(std::copysign(0.0, left / right));
  const double floored = std::floor(quotient);
  return Value::of(quotient - floored > 0.5 ? floored + 1 : floored);
}

// Python's indices of a slice. `size` is the length, `step` is not 0.
struct SliceRange {
  std::int64_t begin, end, step;
};

SliceRange slice_range(std::int64_t size, Value begin, Value end, std::int64_t step) {
  const auto bound = [&](Value value, std::int64_t open) {
    if (!value.is_integer()) return open;
    std::int64_t at = value.as_integer();
    if (at < 0) at = at < -size ? -1 : at + size;
    const std::int64_t low = step < 0 ? -1 : 0;
    return std::clamp(value.as_integer() < 0 && at < 0 ? low : at, low, step < 0 ? size - 1 : size);
  };
  return {bound(begin, step < 0 ? size - 1 : 0), bound(end, step < 0 ? -1 : size), step};
}

Value slice_text(Heap& heap, const Text& text, const SliceRange& range) {
  if (range.step == 1) {
    if (range.begin >= range.end) return heap.view({}, Origin::content);
    std::size_t at = 0, from = 0;
    for (std::int64_t i = 0; i < range.end; ++i) {
      if (i == range.begin) from = at;
      at += character_bytes(text.bytes.substr(at));
    }
    heap.step(at / 64);
    return heap.part(text, from, at - from);
  }
  std::vector<std::uint32_t> begins;
  if (!heap.can_grow(0, text.bytes.size() * sizeof(std::uint32_t))) return Value::undefined();
  for (std::size_t at = 0; at < text.bytes.size(); at += character_bytes(text.bytes.substr(at)))
    begins.push_back(static_cast<std::uint32_t>(at));
  begins.push_back(static_cast<std::uint32_t>(text.bytes.size()));
  TextBuilder builder;
  for (std::int64_t i = range.begin; range.step > 0 ? i < range.end : i > range.end;
       i += range.step) {
    const auto index = static_cast<std::size_t>(i);
    if (!heap.can_grow(builder.size(), 1)) break;
    builder.append_part(text, begins[index], begins[index + 1] - begins[index]);
  }
  return heap.string(builder);
}

Value character(Heap& heap, const Text& text, std::int64_t index) {
  const auto length = static_cast<std::int64_t>(count_characters(text.bytes));
  heap.step(text.bytes.size() / 64);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return Value::undefined();
  std::size_t at = 0;
  for (; index > 0; --index) at += character_bytes(text.bytes.substr(at));
  return heap.part(text, at, character_bytes(text.bytes.substr(at)));
}

Value loop_attribute(Heap& heap, Loop& loop, std::string_view name) {
  const auto number = [](std::size_t n) { return Value::of(static_cast<std::int64_t>(n)); };
  const std::size_t size = loop.items.size();
  if (name == "index") return number(loop.index0 + 1);
  if (name == "index0") return number(loop.index0);
  if (name == "first") return Value::of(loop.index0 == 0);
  if (name == "last") return Value::of(loop.index0 + 1 == size);
  if (name == "length") return number(size);
  if (name == "revindex") return number(size - loop.index0);
  if (name == "revindex0") return number(size - loop.index0 - 1);
  if (name == "depth") return number(1);  // it counts recursion
  if (name == "depth0") return number(0);
  if (name == "previtem") return loop.index0 > 0 ? loop.items[loop.index0 - 1] : Value::undefined();
  if (name == "nextitem")
    return loop.index0 + 1 < size ? loop.items[loop.index0 + 1] : Value::undefined();
  Value self;
  self.kind = Kind::loop;
  self.loop = &loop;
  return find_method(heap, self, name);
}

}  // namespace

const char* type_name(Value value) {
  switch (value.kind) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return "str";
    case Kind::dict:
      return "dict";
    case Kind::name_space:
      return "namespace";
    case Kind::loop:
      return "loop";
    case Kind::macro:
      return "macro";
    case Kind::function:
    case Kind::method:
      return "function";
    case Kind::list:
      break;
  }
  switch (value.list->kind) {
    case ListKind::list:
      return "list";
    case ListKind::tuple:
      return "tuple";
    case ListKind::view:
      return "view";
    case ListKind::generator:
      return "generator";
  }
  return "";
}

bool is_true(Value value) {
  switch (value.kind) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return value.boolean;
    case Kind::integer:
      return value.integer != 0;
    case Kind::real:
      return value.real != 0;
    case Kind::string:
      return !value.bytes().empty();
    case Kind::list:
      return value.list->size > 0 || value.list->kind == ListKind::generator;
    case Kind::dict:
      return value.dict->size > 0;
    default:
      return true;
  }
}

bool are_equal(Heap& heap, Value left, Value right, std::uint32_t depth) {
  if (depth > kValueDepthMax) heap.fail("compares values that are nested too deeply");
  if (!heap.step()) return false;
  if (left.is_number() && right.is_number()) {
    if (left.is_integer() && right.is_integer()) return left.as_integer() == right.as_integer();
    return left.as_real() == right.as_real();
  }
  if (left.kind != right.kind) return false;
  switch (left.kind) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return left.bytes() == right.bytes();
    case Kind::list:
      return left.list == right.list || are_lists_equal(heap, *left.list, *right.list, depth);
    case Kind::dict:
      return left.dict == right.dict || are_dicts_equal(heap, *left.dict, *right.dict, depth);
    case Kind::function:
      return left.function == right.function;
    default:
      return left.dict == right.dict;  // all of them pointers
  }
}

bool is_less(Heap& heap, Value left, Value right, std::uint32_t depth) {
  if (depth > kValueDepthMax) heap.fail("compares values that are nested too deeply");
  if (!heap.step()) return false;
  if (left.is_number() && right.is_number()) {
    if (left.is_integer() && right.is_integer()) return left.as_integer() < right.as_integer();
    return left.as_real() < right.as_real();
  }
  if (left.is_string() && right.is_string()) return left.bytes() < right.bytes();
  const bool are_lists = left.is_list() && right.is_list() && left.list->kind == right.list->kind &&
                         left.list->kind <= ListKind::tuple;
  if (are_lists) {
    for (std::uint32_t i = 0; i < left.list->size && i < right.list->size; ++i)
      if (!are_equal(heap, left.list->items[i], right.list->items[i], depth + 1))
        return is_less(heap, left.list->items[i], right.list->items[i], depth + 1);
    return left.list->size < right.list->size;
  }
  if (!fail_if_undefined(heap, left) && !fail_if_undefined(heap, right))
    heap.fail(types("a comparison by order", left, right));
  return false;
}

bool contains(Heap& heap, Value container, Value item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      if (!fail_if_undefined(heap, item)) heap.fail(types("'in'", item, container));
      return false;
    }
    heap.step(container.bytes().size() / 64);
    return container.bytes().find(item.bytes()) != std::string_view::npos;
  }
  if (container.is_dict()) {
    if (item.is_list() || item.is_dict()) {
      if (!(item.is_list() && item.list->kind == ListKind::tuple))
        heap.fail(std::string("a key of a dict can't be ") + type_name(item));
      return false;
    }
    return heap.find(*container.dict, item) != nullptr;
  }
  for (const Value each : items_of(heap, container))
    if (are_equal(heap, each, item)) return true;
  return false;
}

bool compare(Heap& heap, Operator op, Value left, Value right) {
  switch (op) {
    case Operator::equal:
      return are_equal(heap, left, right);
    case Operator::not_equal:
      return !are_equal(heap, left, right);
    case Operator::less:
      return is_less(heap, left, right);
    case Operator::greater:
      return is_less(heap, right, left);
    case Operator::less_equal:
      return is_less(heap, left, right) || are_equal(heap, left, right);
    case Operator::greater_equal:
      return is_less(heap, right, left) || are_equal(heap, left, right);
    case Operator::in:
      return contains(heap, right, left);
    default:
      return !contains(heap, right, left);
  }
}

Value arithmetic(Heap& heap, Operator op, Value left, Value right) {
  const bool formats = op == Operator::modulo && left.is_string();
  if (fail_if_undefined(heap, left) || (!formats && fail_if_undefined(heap, right)))
    return Value::undefined();
  Value result;
  if (sequence_arithmetic(heap, op, left, right, result)) return result;
  if (formats) return format_percent(heap, *left.text, right);
  if (!left.is_number() || !right.is_number()) {
    heap.fail(types("arithmetic", left, right));
    return Value::undefined();
  }
  if (left.is_integer() && right.is_integer())
    return integer_arithmetic(heap, op, left.as_integer(), right.as_integer());
  return real_arithmetic(heap, op, left.as_real(), right.as_real());
}

Value negate(Heap& heap, Value value, bool is_minus) {
  if (fail_if_undefined(heap, value)) return value;
  if (value.kind == Kind::real) return Value::of(is_minus ? -value.real : value.real);
  if (!value.is_integer()) {
    heap.fail(std::string("a sign before a value of type ") + type_name(value));
    return Value::undefined();
  }
  std::int64_t result = value.as_integer();
  if (is_minus && __builtin_sub_overflow(std::int64_t{0}, result, &result)) return overflow(heap);
  return Value::of(result);
}

std::span<const Value> items_of(Heap& heap, Value value) {
  if (value.is_list()) {
    if (value.list->kind != ListKind::generator) return value.list->span();
    if (value.list->is_spent) return {};
    value.list->is_spent = true;
    return value.list->span();
  }
  if (value.is_undefined()) return {};
  if (value.is_dict()) {
    const Value keys = heap.list(ListKind::list, value.dict->size);
    for (const DictEntry& entry : value.dict->span()) heap.append(*keys.list, entry.key);
    return keys.list->span();
  }
  if (value.is_string()) {
    const Value characters = heap.list();
    std::string_view rest = value.bytes();
    while (!rest.empty() && heap.step()) {
      const std::size_t size = character_bytes(rest);
      heap.append(*characters.list,
                  heap.part(*value.text, value.bytes().size() - rest.size(), size));
      rest.remove_prefix(size);
    }
    return characters.list->span();
  }
  heap.fail(std::string("a value of type ") + type_name(value) + " can't be iterated");
  return {};
}

std::int64_t length_of(Heap& heap, Value value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    heap.step(value.bytes().size() / 64);
    return static_cast<std::int64_t>(count_characters(value.bytes()));
  }
  if (value.is_list() && value.list->kind != ListKind::generator) return value.list->size;
  if (value.is_dict()) return value.dict->size;
  heap.fail(std::string("a value of type ") + type_name(value) + " has no length");
  return 0;
}

Value element(Heap& heap, Value object, Value key) {
  if (fail_if_undefined(heap, object)) return Value::undefined();
  if (object.is_dict()) {
    const bool can_hash = key.is_string() || key.is_number() || key.kind == Kind::none;
    if (can_hash)
      if (const Value* found = heap.find(*object.dict, key)) return *found;
  } else if (key.is_integer()) {
    if (object.is_string()) return character(heap, *object.text, key.as_integer());
    if (object.is_list() && object.list->kind <= ListKind::tuple) {
      const std::int64_t size = object.list->size;
      const std::int64_t index = key.as_integer() + (key.as_integer() < 0 ? size : 0);
      if (index >= 0 && index < size) return object.list->items[index];
    }
  }
  if (!key.is_string()) return Value::undefined();
  if (object.kind == Kind::loop) return loop_attribute(heap, *object.loop, key.bytes());
  return find_method(heap, object, key.bytes());
}

Value attribute(Heap& heap, Value object, const std::string& name) {
  if (fail_if_undefined(heap, object)) return Value::undefined();
  if (object.kind == Kind::loop) return loop_attribute(heap, *object.loop, name);
  if (object.kind == Kind::name_space) {
    const Value* found = heap.find(*object.dict, name);
    return found != nullptr ? *found : Value::undefined(&name);
  }
  const Value method = find_method(heap, object, name);
  if (!method.is_undefined()) return method;
  if (object.is_dict())
    if (const Value* found = heap.find(*object.dict, name)) return *found;
  return Value::undefined(&name);
}

Value slice(Heap& heap, Value object, Value begin, Value end, Value step) {
  if (fail_if_undefined(heap, object)) return Value::undefined();
  for (const Value bound : {begin, end, step}) {
    if (bound.is_absent || bound.kind == Kind::none || bound.is_integer()) continue;
    heap.fail(std::string("a slice by a value of type ") + type_name(bound));
    return Value::undefined();
  }
  // Beyond a text's or list's size every step means the same.
  constexpr std::int64_t kStepMax = std::int64_t{1} << 32;
  const std::int64_t by =
      step.is_integer() ? std::clamp(step.as_integer(), -kStepMax, kStepMax) : 1;
  if (by == 0) {
    heap.fail("a slice with step 0");
    return Value::undefined();
  }
  if (object.is_string()) {
    const SliceRange range = slice_range(length_of(heap, object), begin, end, by);
    return slice_text(heap, *object.text, range);
  }
  if (!object.is_list() || object.list->kind > ListKind::tuple) {
    heap.fail(std::string("a slice of a value of type ") + type_name(object));
    return Value::undefined();
  }
  const SliceRange range = slice_range(object.list->size, begin, end, by);
  const Value result = heap.list(object.list->kind);
  for (std::int64_t i = range.begin; by > 0 ? i < range.end : i > range.end; i += by) {
    if (!heap.step()) break;
    heap.append(*result.list, object.list->items[i]);
  }
  return result;
}

}  // namespace sluice::jinja
