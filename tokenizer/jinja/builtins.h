// The filters, tests, functions and methods that templates may call: tables from names to code.
// Whatever is not in them does not exist. Failures go to the heap.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "tokenizer/jinja/value.h"

namespace sluice::jinja {

struct NamedValue {
  std::string_view name;
  Value value;
};

struct Arguments {
  std::span<const Value> positional;
  std::span<const NamedValue> named;
};

// One call of a builtin.
struct BuiltinCall {
  Heap& heap;
  Value input;                // what the filter or test is applied to, the method's self
  std::array<Value, 4> args;  // in the order of the builtin's parameters; absent where not given
  const Arguments& all;       // for those that take any number
  std::int64_t unix_s;        // the time of the rendering
};

struct Builtin {
  std::string_view name;
  Value (*run)(const BuiltinCall&);
  std::array<std::string_view, 4> parameters;  // names; "*" first: any arguments
};

const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
// Binds arguments to parameters and runs; fails for arguments that it has not.
Value run_builtin(const Builtin& builtin, Heap& heap, Value input, const Arguments& arguments,
                  std::int64_t unix_s);

// Functions of the global scope.
std::span<const Builtin> global_functions();

// The method of a value's type as a bound method; undefined: it has none of the name.
Value find_method(Heap& heap, Value self, std::string_view name);

// text % right
Value format_percent(Heap& heap, const Text& text, Value right);
// text.format(...)
Value format_braces(Heap& heap, const Text& text, const Arguments& arguments);

// Methods of strings that are filters, too.
enum class CaseChange : std::uint8_t { upper, lower, capitalize, title_filter, title_method };
// Of letters of Latin, Greek and Cyrillic; others stay as they are.
Value change_case(Heap& heap, Value text, CaseChange change);
enum class Ends : std::uint8_t { both, left, right };
Value strip(Heap& heap, Value text, Value characters, Ends ends);
Value replace(Heap& heap, Value text, Value from, Value to, Value count);

}  // namespace sluice::jinja
