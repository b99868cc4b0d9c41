// What the operators mean, as in Python: truth, equality, order, arithmetic, membership, elements.
// Failures go to the heap.
#pragma once

#include <cstdint>
#include <string_view>

#include "tokenizer/jinja/value.h"

namespace sluice::jinja {

enum class Operator : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
};

const char* type_name(Value value);  // as Python calls it
bool is_true(Value value);
bool are_equal(Heap& heap, Value left, Value right, std::uint32_t depth = 0);
// left < right; fails for values without an order.
bool is_less(Heap& heap, Value left, Value right, std::uint32_t depth = 0);
bool contains(Heap& heap, Value container, Value item);
bool compare(Heap& heap, Operator op, Value left, Value right);
Value arithmetic(Heap& heap, Operator op, Value left, Value right);
Value negate(Heap& heap, Value value, bool is_minus);

// Elements of what can be iterated: items, keys, characters. Fails for others. Reads a generator.
std::span<const Value> items_of(Heap& heap, Value value);
// Number of elements; fails for what has none.
std::int64_t length_of(Heap& heap, Value value);

// object[key], and undefined where there is no such element.
Value element(Heap& heap, Value object, Value key);
// object.name. Undefined where there is none; fails on undefined.
Value attribute(Heap& heap, Value object, const std::string& name);
// object[begin:end:step]; absent bounds are open.
Value slice(Heap& heap, Value object, Value begin, Value end, Value step);

}  // namespace sluice::jinja
