// Runs a parsed template over values of a heap. Bounded by the heap's budget and by the depth of
// nested nodes; everything that goes wrong ends up as the heap's failure. One rendering each.
#pragma once

#include <cstdint>

#include "tokenizer/jinja/node.h"
#include "tokenizer/jinja/text.h"
#include "tokenizer/jinja/value.h"

namespace sluice::jinja {

struct Binding {
  std::uint32_t symbol;
  Value value;
};

// Variables of a block; what is not here is looked up in the parent.
struct Scope {
  Scope* parent = nullptr;
  Binding* bindings = nullptr;
  std::uint32_t size = 0;
  std::uint32_t capacity = 0;
};

class Interpreter {
 public:
  Interpreter(const Program& program, Heap& heap, std::int64_t unix_s);

  void define(std::string_view name, Value value);  // a variable of the global scope
  void run(TextBuilder& out);

 private:
  enum class Flow : std::uint8_t { next, break_loop, continue_loop };

  bool enter();
  Flow execute(const Node& node);
  Flow execute_body(const Node& body);
  Flow execute_if(const Node& node);
  Flow execute_for(const Node& node);
  void execute_set_block(const Node& node);
  void execute_filter_block(const Node& node);
  void execute_with(const Node& node);
  Value captured_output(const Node& body);

  Value evaluate(const Node& node);
  Value evaluate_name(const Node& node);
  Value evaluate_sequence(const Node& node, ListKind kind);
  Value evaluate_dict(const Node& node);
  Value evaluate_slice(const Node& node);
  Value evaluate_call(const Node& node);
  Value evaluate_builtin(const Node& node);
  Value evaluate_concat(const Node& node);
  Value evaluate_comparison(const Node& node);
  Value evaluate_conditional(const Node& node);
  Value call(Value callee, const Arguments& arguments);
  Value call_macro(const Macro& macro, const Arguments& arguments);
  bool bind_parameters(const Macro& macro, const Arguments& arguments);

  const Value* find(std::uint32_t symbol) const;
  void assign(const Node& target, Value value);
  void bind(Scope& scope, std::uint32_t symbol, Value value);
  Scope* make_scope(Scope* parent);
  std::vector<Value> items_that_pass(const Node& node, std::span<const Value> items);

  const Program& program_;
  Heap& heap_;
  std::int64_t unix_s_;
  Scope* scope_;
  TextBuilder* out_ = nullptr;
  Value captured_;  // what the filters of a block are applied to
  std::uint32_t depth_ = 0;
  std::uint32_t loop_symbol_;  // of `loop`; kNoSymbol: the template never names it
};

}  // namespace sluice::jinja
