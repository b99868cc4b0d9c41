// The tree of a parsed template. Nodes are owned by their Program and never change; their children
// are named by position.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/value.h"

namespace sluice::jinja {

inline constexpr std::uint32_t kNodeDepthMax = 200;  // of a tree

enum class NodeKind : std::uint8_t {
  // Statements. Children may be null where "or null" stands.
  data,          // text
  output,        // [expression]
  body,          // [statement...]
  if_else,       // [condition, body, condition, body, ..., body of else?]
  for_each,      // [target, iterable, condition or null, body, body of else or null]
  set,           // [target, expression]
  set_block,     // [target, filters or null, body]
  filter_block,  // [filters, body]
  with,          // [body]; arguments: variables
  macro,         // [body]; symbol; arguments: parameters with their defaults or null
  break_loop,
  continue_loop,
  // Targets.
  name_target,       // symbol
  tuple_target,      // [target...]
  namespace_target,  // symbol; text: attribute
  // Expressions.
  constant,     // value
  captured,     // the text of the block that filters are applied to
  name,         // symbol
  list,         // [item...]
  tuple,        // [item...]
  dict,         // [key, value, ...]
  attribute,    // [object]; text
  element,      // [object, key]
  slice,        // [object, begin or null, end or null, step or null]
  call,         // [callee]; arguments
  filter,       // [input]; arguments; builtin (null: unknown) and its name in text
  test,         // the same
  negate,       // [operand]
  plus,         // [operand]
  logical_not,  // [operand]
  logical_and,  // [left, right]
  logical_or,   // [left, right]
  arithmetic,   // [left, right]; op
  concat,       // [part...]
  comparison,   // [first, second, ...]; operators between them
  conditional,  // [condition, value, value of else or null]
};

struct Node;

struct ArgumentNode {
  std::string name;  // empty: by position
  std::uint32_t symbol = 0;
  const Node* value = nullptr;
};

struct Node {
  NodeKind kind;
  std::uint32_t line = 0;
  std::uint32_t depth = 1;  // of the tree below, with itself
  std::uint32_t symbol = 0;
  Operator op{};
  Value value;
  const Builtin* builtin = nullptr;
  std::string text;
  std::vector<const Node*> children;
  std::vector<ArgumentNode> arguments;
  std::vector<Operator> operators;
};

// A parsed template. Its nodes and texts do not move.
struct Program {
  std::deque<Node> nodes;
  std::deque<Text> texts;                                       // of constants, over Node::text
  std::deque<std::string> names;                                // by symbol
  std::unordered_map<std::string_view, std::uint32_t> symbols;  // keys lie in `names`
  const Node* root = nullptr;

  std::uint32_t symbol_of(std::string_view name) {
    if (const auto found = symbols.find(name); found != symbols.end()) return found->second;
    const auto symbol = static_cast<std::uint32_t>(names.size());
    names.emplace_back(name);
    symbols.emplace(names.back(), symbol);
    return symbol;
  }
};

}  // namespace sluice::jinja
