// Tests by name (x is NAME), with the meaning of Jinja2's.
#include <algorithm>

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/write_value.h"

namespace sluice::jinja {
namespace {

template <bool (*Holds)(Value)>
Value holds(const BuiltinCall& call) {
  return Value::of(Holds(call.input));
}

template <Operator Op>
Value compared(const BuiltinCall& call) {
  return Value::of(compare(call.heap, Op, call.input, call.args[0]));
}

// Of a division by `divisor`.
Value has_remainder(const BuiltinCall& call, Value divisor, std::int64_t wanted) {
  const Value rest = arithmetic(call.heap, Operator::modulo, call.input, divisor);
  return Value::of(are_equal(call.heap, rest, Value::of(wanted)));
}

Value is_even(const BuiltinCall& call) {
  return has_remainder(call, Value::of(std::int64_t{2}), 0);
}
Value is_odd(const BuiltinCall& call) {
  return has_remainder(call, Value::of(std::int64_t{2}), 1);
}
Value is_divisible(const BuiltinCall& call) {
  return has_remainder(call, call.args[0], 0);
}

Value is_same(const BuiltinCall& call) {
  const Value left = call.input, right = call.args[0];
  if (left.kind != right.kind) return Value::of(false);
  const bool are_objects = left.kind >= Kind::list;
  return Value::of(are_objects ? left.list == right.list : are_equal(call.heap, left, right));
}

// Whether a text has letters, and only of one case.
template <bool Upper>
Value is_case(const BuiltinCall& call) {
  const Value text = to_string(call.heap, call.input);
  const auto in = [&](char low, char high) {
    return std::ranges::any_of(text.bytes(), [=](char c) { return c >= low && c <= high; });
  };
  return Value::of(Upper ? in('A', 'Z') && !in('a', 'z') : in('a', 'z') && !in('A', 'Z'));
}

Value is_filter(const BuiltinCall& call) {
  return Value::of(call.input.is_string() && find_filter(call.input.bytes()) != nullptr);
}
Value is_test(const BuiltinCall& call) {
  return Value::of(call.input.is_string() && find_test(call.input.bytes()) != nullptr);
}

bool is_boolean(Value v) {
  return v.kind == Kind::boolean;
}
bool is_callable(Value v) {
  return v.kind >= Kind::macro || v.is_undefined();
}
bool is_defined(Value v) {
  return !v.is_undefined();
}
bool is_undefined(Value v) {
  return v.is_undefined();
}
bool is_false(Value v) {
  return v.kind == Kind::boolean && !v.boolean;
}
bool is_true_itself(Value v) {
  return v.kind == Kind::boolean && v.boolean;
}
bool is_float(Value v) {
  return v.kind == Kind::real;
}
bool is_int(Value v) {
  return v.kind == Kind::integer;
}
bool is_iterable(Value v) {
  return v.is_undefined() || v.is_string() || v.is_list() || v.is_dict();
}
bool is_mapping(Value v) {
  return v.is_dict();
}
bool is_none(Value v) {
  return v.kind == Kind::none;
}
bool is_number(Value v) {
  return v.is_number();
}
bool is_sequence(Value v) {
  return v.is_undefined() || v.is_string() || v.is_dict() ||
         (v.is_list() && v.list->kind <= ListKind::tuple);
}
bool is_string(Value v) {
  return v.is_string();
}

// Sorted by name.
constexpr std::array kTests = std::to_array<Builtin>({
    {"!=", compared<Operator::not_equal>, {"other"}},
    {"<", compared<Operator::less>, {"other"}},
    {"<=", compared<Operator::less_equal>, {"other"}},
    {"==", compared<Operator::equal>, {"other"}},
    {">", compared<Operator::greater>, {"other"}},
    {">=", compared<Operator::greater_equal>, {"other"}},
    {"boolean", holds<is_boolean>, {}},
    {"callable", holds<is_callable>, {}},
    {"defined", holds<is_defined>, {}},
    {"divisibleby", is_divisible, {"num"}},
    {"eq", compared<Operator::equal>, {"other"}},
    {"equalto", compared<Operator::equal>, {"other"}},
    {"even", is_even, {}},
    {"false", holds<is_false>, {}},
    {"filter", is_filter, {}},
    {"float", holds<is_float>, {}},
    {"ge", compared<Operator::greater_equal>, {"other"}},
    {"greaterthan", compared<Operator::greater>, {"other"}},
    {"gt", compared<Operator::greater>, {"other"}},
    {"in", compared<Operator::in>, {"seq"}},
    {"integer", holds<is_int>, {}},
    {"iterable", holds<is_iterable>, {}},
    {"le", compared<Operator::less_equal>, {"other"}},
    {"lessthan", compared<Operator::less>, {"other"}},
    {"lower", is_case<false>, {}},
    {"lt", compared<Operator::less>, {"other"}},
    {"mapping", holds<is_mapping>, {}},
    {"ne", compared<Operator::not_equal>, {"other"}},
    {"none", holds<is_none>, {}},
    {"number", holds<is_number>, {}},
    {"odd", is_odd, {}},
    {"sameas", is_same, {"other"}},
    {"sequence", holds<is_sequence>, {}},
    {"string", holds<is_string>, {}},
    {"test", is_test, {}},
    {"true", holds<is_true_itself>, {}},
    {"undefined", holds<is_undefined>, {}},
    {"upper", is_case<true>, {}},
});
static_assert(std::ranges::is_sorted(kTests, {}, &Builtin::name));

}  // namespace

const Builtin* find_test(std::string_view name) {
  const auto at = std::ranges::lower_bound(kTests, name, {}, &Builtin::name);
  return at != kTests.end() && at->name == name ? &*at : nullptr;
}

}  // namespace sluice::jinja
