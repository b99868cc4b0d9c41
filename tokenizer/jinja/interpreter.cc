// Statements, expressions and scopes; see interpreter.h. Scopes are those of Jinja2: loops, macros
// and `with` have their own, `if` has not; a macro sees the scope that it was defined in.
#include "tokenizer/jinja/interpreter.h"

#include <limits>
#include <utility>

#include "shared/check.h"
#include "tokenizer/jinja/write_value.h"

namespace sluice::jinja {
namespace {

constexpr std::uint32_t kNoSymbol = std::numeric_limits<std::uint32_t>::max();

}  // namespace

Interpreter::Interpreter(const Program& program, Heap& heap, std::int64_t unix_s)
    : program_(program), heap_(heap), unix_s_(unix_s), scope_(make_scope(nullptr)) {
  const auto loop = program.symbols.find("loop");
  loop_symbol_ = loop == program.symbols.end() ? kNoSymbol : loop->second;
  for (const Builtin& function : global_functions()) {
    Value value;
    value.kind = Kind::function;
    value.function = &function;
    define(function.name, value);
  }
}

void Interpreter::define(std::string_view name, Value value) {
  const auto symbol = program_.symbols.find(name);
  if (symbol != program_.symbols.end()) bind(*scope_, symbol->second, value);
}

void Interpreter::run(TextBuilder& out) {
  out_ = &out;
  scope_ = make_scope(scope_);
  execute_body(*program_.root);
}

// ---- scopes

Scope* Interpreter::make_scope(Scope* parent) {
  auto* const scope = heap_.make<Scope>();
  scope->parent = parent;
  return scope;
}

void Interpreter::bind(Scope& scope, std::uint32_t symbol, Value value) {
  for (Binding& binding : std::span(scope.bindings, scope.size)) {
    if (binding.symbol != symbol) continue;
    binding.value = value;
    return;
  }
  if (scope.size == scope.capacity && !heap_.grow(scope.bindings, scope.size, scope.capacity))
    return;
  new (scope.bindings + scope.size++) Binding{symbol, value};
}

const Value* Interpreter::find(std::uint32_t symbol) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent)
    for (const Binding& binding : std::span(scope->bindings, scope->size))
      if (binding.symbol == symbol) return &binding.value;
  return nullptr;
}

void Interpreter::assign(const Node& target, Value value) {
  if (target.kind == NodeKind::name_target) return bind(*scope_, target.symbol, value);
  if (target.kind == NodeKind::namespace_target) {
    const Value* object = find(target.symbol);
    if (object == nullptr || object->kind != Kind::name_space)
      return heap_.fail("only attributes of a namespace can be assigned");
    return heap_.set(*object->dict, target.text, value);
  }
  const std::span<const Value> items = items_of(heap_, value);
  if (items.size() != target.children.size())
    return heap_.fail("unpacks " + std::to_string(items.size()) + " values into " +
                      std::to_string(target.children.size()) + " names");
  for (std::size_t i = 0; i < items.size(); ++i) assign(*target.children[i], items[i]);
}

// ---- statements

Interpreter::Flow Interpreter::execute_body(const Node& body) {
  if (!enter()) return Flow::break_loop;
  Flow flow = Flow::next;
  for (const Node* statement : body.children) {
    flow = execute(*statement);
    if (flow != Flow::next) break;
  }
  --depth_;
  return heap_.failed() ? Flow::break_loop : flow;
}

// Counts one more level of nesting; false: too many.
bool Interpreter::enter() {
  if (depth_ >= kEvaluationDepthMax) {
    heap_.fail("nests more than " + std::to_string(kEvaluationDepthMax) +
               " blocks and expressions");
    return false;
  }
  ++depth_;
  return true;
}

Interpreter::Flow Interpreter::execute(const Node& node) {
  heap_.set_line(node.line);
  if (!heap_.step()) return Flow::break_loop;
  switch (node.kind) {
    case NodeKind::data:
      write_str(heap_, node.value, *out_);
      return Flow::next;
    case NodeKind::output:
      write_str(heap_, evaluate(*node.children[0]), *out_);
      return Flow::next;
    case NodeKind::body:
      return execute_body(node);
    case NodeKind::if_else:
      return execute_if(node);
    case NodeKind::for_each:
      return execute_for(node);
    case NodeKind::set:
      assign(*node.children[0], evaluate(*node.children[1]));
      return Flow::next;
    case NodeKind::set_block:
      execute_set_block(node);
      return Flow::next;
    case NodeKind::filter_block:
      execute_filter_block(node);
      return Flow::next;
    case NodeKind::with:
      execute_with(node);
      return Flow::next;
    case NodeKind::macro: {
      auto* const macro = heap_.make<Macro>();
      *macro = {&node, scope_};
      Value value;
      value.kind = Kind::macro;
      value.macro = macro;
      bind(*scope_, node.symbol, value);
      return Flow::next;
    }
    case NodeKind::break_loop:
      return Flow::break_loop;
    case NodeKind::continue_loop:
      return Flow::continue_loop;
    default:
      CHECK(false);  // the parser puts no expression here
  }
}

Interpreter::Flow Interpreter::execute_if(const Node& node) {
  const std::size_t num_children = node.children.size();
  std::size_t i = 0;
  for (; i + 1 < num_children; i += 2) {
    const bool holds = is_true(evaluate(*node.children[i]));
    if (heap_.failed()) return Flow::break_loop;
    if (holds) return execute_body(*node.children[i + 1]);
  }
  return i < num_children ? execute_body(*node.children[i]) : Flow::next;
}

std::vector<Value> Interpreter::items_that_pass(const Node& node, std::span<const Value> items) {
  std::vector<Value> passed;
  Scope* const outer = scope_;
  for (const Value item : items) {
    if (!heap_.step()) break;
    scope_ = make_scope(outer);
    assign(*node.children[0], item);
    if (is_true(evaluate(*node.children[2]))) passed.push_back(item);
  }
  scope_ = outer;
  return passed;
}

Interpreter::Flow Interpreter::execute_for(const Node& node) {
  const Value iterable = evaluate(*node.children[1]);
  // A copy: the body may append to the list.
  const std::span<const Value> source = items_of(heap_, iterable);
  if (!heap_.can_grow(0, source.size_bytes())) return Flow::break_loop;
  const std::vector<Value> items = node.children[2] != nullptr
                                       ? items_that_pass(node, source)
                                       : std::vector<Value>(source.begin(), source.end());
  if (heap_.failed()) return Flow::break_loop;
  Scope* const outer = scope_;
  auto* const loop = heap_.make<Loop>();
  loop->items = items;
  Value loop_value;
  loop_value.kind = Kind::loop;
  loop_value.loop = loop;
  // As in Jinja2, `else` runs unless some round came to the end of its body.
  bool is_completed = false;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!heap_.step()) break;
    loop->index0 = i;
    scope_ = make_scope(outer);
    if (loop_symbol_ != kNoSymbol) bind(*scope_, loop_symbol_, loop_value);
    assign(*node.children[0], items[i]);
    const Flow flow = execute_body(*node.children[3]);
    if (flow == Flow::break_loop) break;
    is_completed = is_completed || flow == Flow::next;
  }
  loop->items = {};  // who kept `loop` finds it empty
  loop->index0 = 0;
  scope_ = outer;
  if (heap_.failed()) return Flow::break_loop;
  const bool runs_else = node.children[4] != nullptr && !is_completed;
  return runs_else ? execute_body(*node.children[4]) : Flow::next;
}

Value Interpreter::captured_output(const Node& body) {
  TextBuilder builder;
  TextBuilder* const outer = std::exchange(out_, &builder);
  execute_body(body);
  out_ = outer;
  return heap_.string(builder);
}

void Interpreter::execute_set_block(const Node& node) {
  Scope* const outer = scope_;
  scope_ = make_scope(outer);
  Value text = captured_output(*node.children[2]);
  scope_ = outer;
  if (node.children[1] != nullptr) {
    const Value before = std::exchange(captured_, text);
    text = evaluate(*node.children[1]);
    captured_ = before;
  }
  assign(*node.children[0], text);
}

void Interpreter::execute_filter_block(const Node& node) {
  Scope* const outer = scope_;
  scope_ = make_scope(outer);
  const Value before = std::exchange(captured_, captured_output(*node.children[1]));
  write_str(heap_, evaluate(*node.children[0]), *out_);
  captured_ = before;
  scope_ = outer;
}

void Interpreter::execute_with(const Node& node) {
  Scope* const outer = scope_;
  Scope* const inner = make_scope(outer);
  for (const ArgumentNode& variable : node.arguments)
    bind(*inner, variable.symbol, evaluate(*variable.value));
  scope_ = inner;
  execute_body(*node.children[0]);
  scope_ = outer;
}

// ---- expressions

Value Interpreter::evaluate(const Node& node) {
  if (node.kind == NodeKind::constant) return node.value;
  if (!heap_.step()) return Value::undefined();
  if (node.kind == NodeKind::name) return evaluate_name(node);
  heap_.set_line(node.line);
  if (!enter()) return Value::undefined();
  const auto child = [&](std::size_t i) { return evaluate(*node.children[i]); };
  Value result;
  switch (node.kind) {
    case NodeKind::captured:
      result = captured_;
      break;
    case NodeKind::list:
      result = evaluate_sequence(node, ListKind::list);
      break;
    case NodeKind::tuple:
      result = evaluate_sequence(node, ListKind::tuple);
      break;
    case NodeKind::dict:
      result = evaluate_dict(node);
      break;
    case NodeKind::attribute:
      result = attribute(heap_, child(0), node.text);
      break;
    case NodeKind::element: {
      const Value object = child(0);
      result = element(heap_, object, child(1));
      break;
    }
    case NodeKind::slice:
      result = evaluate_slice(node);
      break;
    case NodeKind::call:
      result = evaluate_call(node);
      break;
    case NodeKind::filter:
    case NodeKind::test:
      result = evaluate_builtin(node);
      break;
    case NodeKind::negate:
    case NodeKind::plus:
      result = negate(heap_, child(0), node.kind == NodeKind::negate);
      break;
    case NodeKind::logical_not:
      result = Value::of(!is_true(child(0)));
      break;
    case NodeKind::logical_and:
      result = child(0);
      if (is_true(result)) result = child(1);
      break;
    case NodeKind::logical_or:
      result = child(0);
      if (!is_true(result)) result = child(1);
      break;
    case NodeKind::arithmetic: {
      const Value left = child(0);
      result = arithmetic(heap_, node.op, left, child(1));
      break;
    }
    case NodeKind::concat:
      result = evaluate_concat(node);
      break;
    case NodeKind::comparison:
      result = evaluate_comparison(node);
      break;
    case NodeKind::conditional:
      result = evaluate_conditional(node);
      break;
    default:
      CHECK(false);  // the parser puts no statement here
  }
  --depth_;
  // Nobody gave it as an argument that may be left out.
  result.is_absent = false;
  return result;
}

Value Interpreter::evaluate_name(const Node& node) {
  const Value* found = find(node.symbol);
  return found != nullptr ? *found : Value::undefined(&program_.names[node.symbol]);
}

Value Interpreter::evaluate_sequence(const Node& node, ListKind kind) {
  const Value list = heap_.list(kind, node.children.size());
  for (const Node* item : node.children) heap_.append(*list.list, evaluate(*item));
  return list;
}

Value Interpreter::evaluate_dict(const Node& node) {
  const Value dict = heap_.dict();
  for (std::size_t i = 0; i + 1 < node.children.size(); i += 2) {
    const Value key = evaluate(*node.children[i]);
    heap_.set(*dict.dict, key, evaluate(*node.children[i + 1]));
  }
  return dict;
}

Value Interpreter::evaluate_slice(const Node& node) {
  const Value object = evaluate(*node.children[0]);
  const auto bound = [&](std::size_t i) {
    return node.children[i] != nullptr ? evaluate(*node.children[i]) : Value::absent();
  };
  const Value begin = bound(1), end = bound(2), step = bound(3);
  return slice(heap_, object, begin, end, step);
}

Value Interpreter::evaluate_call(const Node& node) {
  const Value callee = evaluate(*node.children[0]);
  std::array<Value, kArgumentsMax> positional;
  std::array<NamedValue, kArgumentsMax> named;
  std::size_t num_positional = 0, num_named = 0;
  for (const ArgumentNode& argument : node.arguments) {
    const Value value = evaluate(*argument.value);
    if (argument.name.empty())
      positional[num_positional++] = value;
    else
      named[num_named++] = {argument.name, value};
  }
  heap_.set_line(node.line);
  return call(callee,
              {std::span(positional).first(num_positional), std::span(named).first(num_named)});
}

Value Interpreter::evaluate_builtin(const Node& node) {
  const Value input = evaluate(*node.children[0]);
  if (node.builtin == nullptr) {
    heap_.fail("no filter or test named '" + node.text.substr(0, 40) + "'");
    return Value::undefined();
  }
  if (node.arguments.empty()) return run_builtin(*node.builtin, heap_, input, {}, unix_s_);
  std::array<Value, kArgumentsMax> positional;
  std::array<NamedValue, kArgumentsMax> named;
  std::size_t num_positional = 0, num_named = 0;
  for (const ArgumentNode& argument : node.arguments) {
    const Value value = evaluate(*argument.value);
    if (argument.name.empty())
      positional[num_positional++] = value;
    else
      named[num_named++] = {argument.name, value};
  }
  heap_.set_line(node.line);
  return run_builtin(
      *node.builtin, heap_, input,
      {std::span(positional).first(num_positional), std::span(named).first(num_named)}, unix_s_);
}

Value Interpreter::evaluate_concat(const Node& node) {
  TextBuilder builder;
  for (const Node* part : node.children) write_str(heap_, evaluate(*part), builder);
  return heap_.string(builder);
}

Value Interpreter::evaluate_comparison(const Node& node) {
  Value left = evaluate(*node.children[0]);
  for (std::size_t i = 0; i < node.operators.size(); ++i) {
    const Value right = evaluate(*node.children[i + 1]);
    if (!compare(heap_, node.operators[i], left, right)) return Value::of(false);
    left = right;
  }
  return Value::of(true);
}

Value Interpreter::evaluate_conditional(const Node& node) {
  if (is_true(evaluate(*node.children[0]))) return evaluate(*node.children[1]);
  return node.children[2] != nullptr ? evaluate(*node.children[2]) : Value::undefined();
}

Value Interpreter::call(Value callee, const Arguments& arguments) {
  switch (callee.kind) {
    case Kind::macro:
      return call_macro(*callee.macro, arguments);
    case Kind::function:
      return run_builtin(*callee.function, heap_, Value::undefined(), arguments, unix_s_);
    case Kind::method:
      return run_builtin(*callee.method->builtin, heap_, callee.method->self, arguments, unix_s_);
    case Kind::undefined:
      heap_.fail(callee.name != nullptr ? "'" + *callee.name + "' is undefined"
                                        : "a value is undefined");
      break;
    default:
      heap_.fail(std::string("a value of type ") + type_name(callee) + " can't be called");
  }
  return Value::undefined();
}

// Binds in the current scope. False: an argument has no parameter.
bool Interpreter::bind_parameters(const Macro& macro, const Arguments& arguments) {
  const auto& parameters = macro.node->arguments;
  if (arguments.positional.size() > parameters.size()) return false;
  std::size_t num_used = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const NamedValue* by_name = nullptr;
    for (const NamedValue& named : arguments.named)
      if (named.name == parameters[i].name) by_name = &named;
    if (by_name != nullptr) ++num_used;
    if (i < arguments.positional.size()) {
      if (by_name != nullptr) return false;
      bind(*scope_, parameters[i].symbol, arguments.positional[i]);
    } else if (by_name != nullptr) {
      bind(*scope_, parameters[i].symbol, by_name->value);
    } else if (parameters[i].value != nullptr) {
      bind(*scope_, parameters[i].symbol, evaluate(*parameters[i].value));
    } else {
      bind(*scope_, parameters[i].symbol, Value::undefined(&parameters[i].name));
    }
  }
  return num_used == arguments.named.size();
}

Value Interpreter::call_macro(const Macro& macro, const Arguments& arguments) {
  Scope* const outer = scope_;
  scope_ = make_scope(macro.scope);
  Value result = Value::undefined();
  if (bind_parameters(macro, arguments))
    result = captured_output(*macro.node->children[0]);
  else
    heap_.fail("macro '" + program_.names[macro.node->symbol].substr(0, 40) +
               "' does not take such arguments");
  scope_ = outer;
  return result;
}

}  // namespace sluice::jinja
