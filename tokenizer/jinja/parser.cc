// A recursive descent over tokens, with the precedences of Jinja2. Errors are sticky: the first one
// counts, and every loop ends on it.
#include "tokenizer/jinja/parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "tokenizer/jinja/lexer.h"

namespace sluice::jinja {
namespace {

constexpr std::uint32_t kRecursionMax = 150;  // of parentheses, brackets and blocks while parsing

using Words = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(std::vector<Token> tokens, Program& program)
      : tokens_(std::move(tokens)), program_(program) {}

  Result<void> run() {
    const Node* root = parse_body({});
    if (!failed_ && peek().kind != TokenKind::end) fail("unexpected end of a block");
    if (!unknown_.empty()) fail(unknown_.front().reason, unknown_.front().line);
    if (failed_) return template_error(error_line_, error_);
    program_.root = root;
    return {};
  }

 private:
  // ---- tokens

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is_op(std::string_view op, std::size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::op && peek(ahead).text == op;
  }
  bool is_word(std::string_view word, std::size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::name && peek(ahead).text == word;
  }
  bool is_any_word(Words words) const {
    return std::ranges::any_of(words, [&](std::string_view word) { return is_word(word); });
  }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    take();
    return true;
  }
  bool skip_word(std::string_view word) {
    if (!is_word(word)) return false;
    take();
    return true;
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail("expected '" + std::string(op) + "'");
  }
  std::string expect_name() {
    if (peek().kind != TokenKind::name) {
      fail("expected a name");
      return {};
    }
    return take().text;
  }
  void expect_block_end() {
    if (peek().kind == TokenKind::block_end)
      take();
    else
      fail("expected the end of the block");
  }

  // ---- nodes

  void fail(std::string reason, std::uint32_t line = 0) {
    if (failed_) return;
    failed_ = true;
    error_ = std::move(reason);
    error_line_ = line != 0 ? line : peek().line;
  }

  // A node over children; fails when the tree gets too deep.
  Node* make(NodeKind kind, std::vector<const Node*> children, std::uint32_t line = 0) {
    Node& node = program_.nodes.emplace_back();
    node.kind = kind;
    node.line = line != 0 ? line : peek().line;
    for (const Node* child : children)
      if (child != nullptr) node.depth = std::max(node.depth, child->depth + 1);
    if (node.depth > kNodeDepthMax)
      fail("nested more than " + std::to_string(kNodeDepthMax) + " deep");
    node.children = std::move(children);
    return &node;
  }
  // Arguments count for the depth like children.
  void set_arguments(Node* node, std::vector<ArgumentNode> arguments) {
    for (const ArgumentNode& argument : arguments)
      if (argument.value != nullptr) node->depth = std::max(node->depth, argument.value->depth + 1);
    if (node->depth > kNodeDepthMax)
      fail("nested more than " + std::to_string(kNodeDepthMax) + " deep");
    if (arguments.size() > kArgumentsMax)
      fail("more than " + std::to_string(kArgumentsMax) + " arguments");
    node->arguments = std::move(arguments);
  }
  const Node* make_constant(Value value) {
    Node* node = make(NodeKind::constant, {});
    node->value = value;
    return node;
  }
  const Node* make_text(std::string text, NodeKind kind = NodeKind::constant) {
    Node* node = make(kind, {});
    node->text = std::move(text);
    program_.texts.push_back(uniform_text(node->text, Origin::frame));
    node->value.kind = Kind::string;
    node->value.text = &program_.texts.back();
    return node;
  }

  // Counts nested calls of the parser itself.
  class Nesting {
   public:
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.recursion_ > kRecursionMax)
        parser_.fail("nested more than " + std::to_string(kRecursionMax) + " deep");
    }
    ~Nesting() { --parser_.recursion_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Parser& parser_;
  };

  // ---- statements

  // Statements up to a block that begins with one of `ends` (not taken), or to the end.
  const Node* parse_body(Words ends) {
    const Nesting nesting(*this);
    std::vector<const Node*> statements;
    while (!failed_ && peek().kind != TokenKind::end) {
      const std::uint32_t line = peek().line;
      if (peek().kind == TokenKind::data) {
        statements.push_back(make_text(take().text, NodeKind::data));
      } else if (peek().kind == TokenKind::variable_begin) {
        take();
        const Node* expression = parse_tuple();
        if (peek().kind == TokenKind::variable_end)
          take();
        else
          fail("expected the end of the expression");
        statements.push_back(make(NodeKind::output, {expression}, line));
      } else {
        take();  // block_begin: the lexer yields nothing else here
        if (is_any_word(ends)) return make(NodeKind::body, std::move(statements), line);
        parse_statement(statements);
      }
    }
    if (ends.size() > 0) fail("the template ends inside a block");
    return make(NodeKind::body, std::move(statements));
  }

  void parse_statement(std::vector<const Node*>& statements) {
    const Token token = take();
    const std::string& word = token.text;
    if (token.kind != TokenKind::name) return fail("expected a statement", token.line);
    if (word == "if") {
      statements.push_back(parse_if(token.line));
    } else if (word == "for") {
      statements.push_back(parse_for(token.line));
    } else if (word == "set") {
      statements.push_back(parse_set(token.line));
    } else if (word == "macro") {
      statements.push_back(parse_macro(token.line));
    } else if (word == "with") {
      statements.push_back(parse_with(token.line));
    } else if (word == "filter") {
      const Node* filters = parse_filter(make(NodeKind::captured, {}), FirstFilter::inlined);
      statements.push_back(
          make(NodeKind::filter_block, {filters, parse_block("endfilter")}, token.line));
    } else if (word == "generation") {
      // Marks the assistant's part for training; only its scope is its own.
      statements.push_back(make(NodeKind::with, {parse_block("endgeneration")}, token.line));
    } else if (word == "break" || word == "continue") {
      if (num_loops_ == 0) fail("'" + word + "' outside of a loop", token.line);
      expect_block_end();
      statements.push_back(
          make(word == "break" ? NodeKind::break_loop : NodeKind::continue_loop, {}, token.line));
    } else {
      constexpr std::size_t kShownMax = 40;
      fail("'" + word.substr(0, kShownMax) + "' is not supported here", token.line);
    }
  }

  // The rest of an opening block, a body and its end.
  const Node* parse_block(std::string_view end) {
    expect_block_end();
    const Node* body = parse_body({end});
    take();
    expect_block_end();
    return body;
  }

  const Node* parse_if(std::uint32_t line) {
    std::vector<const Node*> children;
    ++num_conditions_;
    bool has_more = true;
    while (has_more && !failed_) {
      children.push_back(parse_tuple(Conditional::no));
      expect_block_end();
      children.push_back(parse_body({"elif", "else", "endif"}));
      has_more = take().text == "elif";
    }
    if (!failed_ && tokens_[at_ - 1].text == "else") {
      expect_block_end();
      children.push_back(parse_body({"endif"}));
      take();
    }
    expect_block_end();
    --num_conditions_;
    return make(NodeKind::if_else, std::move(children), line);
  }

  const Node* parse_for(std::uint32_t line) {
    const Node* target = parse_target(Namespace::no, "in");
    if (!skip_word("in")) fail("expected 'in'");
    const Node* iterable = parse_tuple(Conditional::no);
    const Node* condition = skip_word("if") ? parse_expression() : nullptr;
    if (is_word("recursive")) fail("recursive loops are not supported");
    expect_block_end();
    ++num_loops_;
    const Node* body = parse_body({"endfor", "else"});
    --num_loops_;
    const Node* otherwise = nullptr;
    if (take().text == "else" && !failed_) {
      expect_block_end();
      otherwise = parse_body({"endfor"});
      take();
    }
    expect_block_end();
    return make(NodeKind::for_each, {target, iterable, condition, body, otherwise}, line);
  }

  enum class Namespace : std::uint8_t { no, yes };

  const Node* parse_one_target(Namespace with_namespace) {
    if (skip_op("(")) {
      const Node* target = parse_target(Namespace::no, {});
      expect_op(")");
      return target;
    }
    const std::uint32_t line = peek().line;
    const std::string name = expect_name();
    constexpr std::array<std::string_view, 6> kReserved{"true", "false", "none",
                                                        "True", "False", "None"};
    if (std::ranges::find(kReserved, name) != kReserved.end())
      fail("'" + name + "' can't be assigned", line);
    if (with_namespace == Namespace::yes && skip_op(".")) {
      Node* node = make(NodeKind::namespace_target, {}, line);
      node->symbol = program_.symbol_of(name);
      node->text = expect_name();
      return node;
    }
    Node* node = make(NodeKind::name_target, {}, line);
    node->symbol = program_.symbol_of(name);
    return node;
  }

  const Node* parse_target(Namespace with_namespace, std::string_view end_word) {
    const Nesting nesting(*this);
    std::vector<const Node*> targets;
    bool is_tuple = false;
    do {
      if (failed_ || (!end_word.empty() && is_word(end_word)) || is_op("=") || is_op(")") ||
          peek().kind == TokenKind::block_end)
        break;
      targets.push_back(parse_one_target(with_namespace));
      is_tuple = is_tuple || is_op(",");
    } while (skip_op(","));
    if (targets.empty()) fail("expected a name");
    if (!is_tuple && !targets.empty()) return targets.front();
    return make(NodeKind::tuple_target, std::move(targets));
  }

  const Node* parse_set(std::uint32_t line) {
    const Node* target = parse_target(Namespace::yes, {});
    if (skip_op("=")) {
      const Node* expression = parse_tuple();
      expect_block_end();
      return make(NodeKind::set, {target, expression}, line);
    }
    const Node* filters = is_op("|") ? parse_filter(make(NodeKind::captured, {})) : nullptr;
    return make(NodeKind::set_block, {target, filters, parse_block("endset")}, line);
  }

  const Node* parse_with(std::uint32_t line) {
    std::vector<ArgumentNode> variables;
    while (!failed_ && peek().kind != TokenKind::block_end) {
      if (!variables.empty()) expect_op(",");
      ArgumentNode& variable = variables.emplace_back();
      variable.name = expect_name();
      variable.symbol = program_.symbol_of(variable.name);
      expect_op("=");
      variable.value = parse_expression();
    }
    Node* node = make(NodeKind::with, {parse_block("endwith")}, line);
    set_arguments(node, std::move(variables));
    return node;
  }

  const Node* parse_macro(std::uint32_t line) {
    const std::string name = expect_name();
    std::vector<ArgumentNode> parameters;
    expect_op("(");
    while (!failed_ && !is_op(")")) {
      if (!parameters.empty()) expect_op(",");
      ArgumentNode& parameter = parameters.emplace_back();
      parameter.name = expect_name();
      parameter.symbol = program_.symbol_of(parameter.name);
      const bool has_default = skip_op("=");
      if (has_default)
        parameter.value = parse_expression();
      else if (parameters.size() > 1 && parameters[parameters.size() - 2].value != nullptr)
        fail("a parameter without a default behind one that has one");
    }
    expect_op(")");
    const std::uint32_t loops = std::exchange(num_loops_, 0);
    Node* node = make(NodeKind::macro, {parse_block("endmacro")}, line);
    num_loops_ = loops;
    node->symbol = program_.symbol_of(name);
    set_arguments(node, std::move(parameters));
    return node;
  }

  // ---- expressions, loosest binding first

  enum class Conditional : std::uint8_t { no, yes };

  bool is_tuple_end() const {
    return peek().kind == TokenKind::variable_end || peek().kind == TokenKind::block_end ||
           is_op(")") || is_word("recursive");
  }

  const Node* parse_tuple(Conditional conditional = Conditional::yes,
                          bool is_in_parentheses = false) {
    std::vector<const Node*> items;
    bool is_tuple = false;
    const std::uint32_t line = peek().line;
    while (!failed_) {
      if (!items.empty()) expect_op(",");
      if (is_tuple_end()) break;
      items.push_back(conditional == Conditional::yes ? parse_expression() : parse_or());
      if (!is_op(",")) break;
      is_tuple = true;
    }
    if (!is_tuple) {
      if (!items.empty()) return items.front();
      if (!is_in_parentheses) fail("expected an expression");
    }
    return make(NodeKind::tuple, std::move(items), line);
  }

  const Node* parse_expression() {
    const Nesting nesting(*this);
    const std::uint32_t line = peek().line;
    const std::size_t num_unknown = unknown_.size();
    const Node* value = parse_or();
    while (!failed_ && skip_word("if")) {
      unknown_.resize(num_unknown);
      ++num_conditions_;
      const Node* condition = parse_or();
      const Node* otherwise = skip_word("else") ? parse_expression() : nullptr;
      --num_conditions_;
      value = make(NodeKind::conditional, {condition, value, otherwise}, line);
    }
    return value;
  }

  const Node* parse_or() {
    const Node* left = parse_and();
    while (!failed_ && skip_word("or")) left = make(NodeKind::logical_or, {left, parse_and()});
    return left;
  }

  const Node* parse_and() {
    const Node* left = parse_not();
    while (!failed_ && skip_word("and")) left = make(NodeKind::logical_and, {left, parse_not()});
    return left;
  }

  const Node* parse_not() {
    std::uint32_t count = 0;
    while (skip_word("not")) ++count;
    const Node* node = parse_comparison();
    while (count > 2) count -= 2;  // two of them make a boolean, as four do
    for (; count > 0; --count) node = make(NodeKind::logical_not, {node});
    return node;
  }

  std::optional<Operator> take_comparison() {
    struct Row {
      std::string_view text;
      Operator op;
    };
    constexpr std::array<Row, 6> kRows{{{"==", Operator::equal},
                                        {"!=", Operator::not_equal},
                                        {"<", Operator::less},
                                        {"<=", Operator::less_equal},
                                        {">", Operator::greater},
                                        {">=", Operator::greater_equal}}};
    for (const Row& row : kRows)
      if (skip_op(row.text)) return row.op;
    if (skip_word("in")) return Operator::in;
    if (!is_word("not") || !is_word("in", 1)) return std::nullopt;
    take();
    take();
    return Operator::not_in;
  }

  const Node* parse_comparison() {
    std::vector<const Node*> operands{parse_sum()};
    std::vector<Operator> operators;
    while (!failed_) {
      const auto op = take_comparison();
      if (!op) break;
      operators.push_back(*op);
      operands.push_back(parse_sum());
    }
    if (operators.empty()) return operands.front();
    Node* node = make(NodeKind::comparison, std::move(operands));
    node->operators = std::move(operators);
    return node;
  }

  const Node* make_arithmetic(Operator op, const Node* left, const Node* right) {
    Node* node = make(NodeKind::arithmetic, {left, right});
    node->op = op;
    return node;
  }

  const Node* parse_sum() {
    const Node* left = parse_concat();
    while (!failed_) {
      if (skip_op("+"))
        left = make_arithmetic(Operator::add, left, parse_concat());
      else if (skip_op("-"))
        left = make_arithmetic(Operator::subtract, left, parse_concat());
      else
        break;
    }
    return left;
  }

  const Node* parse_concat() {
    std::vector<const Node*> parts{parse_product()};
    while (!failed_ && skip_op("~")) parts.push_back(parse_product());
    return parts.size() == 1 ? parts.front() : make(NodeKind::concat, std::move(parts));
  }

  const Node* parse_product() {
    const Node* left = parse_power();
    while (!failed_) {
      if (skip_op("*"))
        left = make_arithmetic(Operator::multiply, left, parse_power());
      else if (skip_op("/"))
        left = make_arithmetic(Operator::divide, left, parse_power());
      else if (skip_op("//"))
        left = make_arithmetic(Operator::floor_divide, left, parse_power());
      else if (skip_op("%"))
        left = make_arithmetic(Operator::modulo, left, parse_power());
      else
        break;
    }
    return left;
  }

  const Node* parse_power() {
    const Node* left = parse_unary(Filters::yes);
    while (!failed_ && skip_op("**"))
      left = make_arithmetic(Operator::power, left, parse_unary(Filters::yes));
    return left;
  }

  enum class Filters : std::uint8_t { no, yes };

  const Node* parse_unary(Filters filters) {
    const Nesting nesting(*this);
    if (failed_) return make(NodeKind::tuple, {});
    const Node* node = nullptr;
    if (skip_op("-"))
      node = make(NodeKind::negate, {parse_unary(Filters::no)});
    else if (skip_op("+"))
      node = make(NodeKind::plus, {parse_unary(Filters::no)});
    else
      node = parse_primary();
    node = parse_postfix(node);
    return filters == Filters::yes ? parse_filters_and_tests(node) : node;
  }

  const Node* parse_primary() {
    const Token token = take();
    switch (token.kind) {
      case TokenKind::name:
        return parse_name(token);
      case TokenKind::string: {
        std::string text = token.text;
        while (peek().kind == TokenKind::string) text += take().text;
        return make_text(std::move(text));
      }
      case TokenKind::integer:
      case TokenKind::real:
        return parse_number(token);
      case TokenKind::op:
        if (token.text == "(") {
          const Node* node = parse_tuple(Conditional::yes, true);
          expect_op(")");
          return node;
        }
        if (token.text == "[") return parse_list();
        if (token.text == "{") return parse_dict();
        [[fallthrough]];
      default:
        fail("unexpected " + (token.text.empty() ? "end of an expression"
                                                 : "'" + token.text.substr(0, 40) + "'"),
             token.line);
        return make(NodeKind::tuple, {});
    }
  }

  const Node* parse_name(const Token& token) {
    if (token.text == "true" || token.text == "True") return make_constant(Value::of(true));
    if (token.text == "false" || token.text == "False") return make_constant(Value::of(false));
    if (token.text == "none" || token.text == "None") return make_constant(Value::none());
    Node* node = make(NodeKind::name, {}, token.line);
    node->symbol = program_.symbol_of(token.text);
    return node;
  }

  const Node* parse_number(const Token& token) {
    const char* const end = token.text.data() + token.text.size();
    if (token.kind == TokenKind::real) {
      double number = 0;
      if (std::from_chars(token.text.data(), end, number).ec != std::errc())
        fail("a number that is out of range", token.line);
      return make_constant(Value::of(number));
    }
    std::int64_t number = 0;
    if (std::from_chars(token.text.data(), end, number).ec != std::errc())
      fail("a number beyond 64 bits", token.line);
    return make_constant(Value::of(number));
  }

  const Node* parse_list() {
    std::vector<const Node*> items;
    while (!failed_ && !is_op("]")) {
      if (!items.empty()) expect_op(",");
      if (is_op("]")) break;
      items.push_back(parse_expression());
    }
    expect_op("]");
    return make(NodeKind::list, std::move(items));
  }

  const Node* parse_dict() {
    std::vector<const Node*> items;
    while (!failed_ && !is_op("}")) {
      if (!items.empty()) expect_op(",");
      if (is_op("}")) break;
      items.push_back(parse_expression());
      expect_op(":");
      items.push_back(parse_expression());
    }
    expect_op("}");
    return make(NodeKind::dict, std::move(items));
  }

  const Node* parse_postfix(const Node* node) {
    while (!failed_) {
      if (is_op("."))
        node = parse_attribute(node);
      else if (is_op("["))
        node = parse_element(node);
      else if (is_op("("))
        node = parse_call(node);
      else
        break;
    }
    return node;
  }

  const Node* parse_filters_and_tests(const Node* node) {
    while (!failed_) {
      if (is_op("|"))
        node = parse_filter(node);
      else if (is_word("is"))
        node = parse_test(node);
      else if (is_op("("))
        node = parse_call(node);
      else
        break;
    }
    return node;
  }

  const Node* parse_attribute(const Node* object) {
    const std::uint32_t line = take().line;
    if (peek().kind == TokenKind::integer) {
      const Token token = take();
      return make(NodeKind::element, {object, parse_number(token)}, line);
    }
    Node* node = make(NodeKind::attribute, {object}, line);
    node->text = expect_name();
    return node;
  }

  const Node* parse_element(const Node* object) {
    const std::uint32_t line = take().line;
    const auto bound = [&]() -> const Node* {
      return is_op(":") || is_op("]") ? nullptr : parse_expression();
    };
    const Node* begin = bound();
    if (!skip_op(":")) {
      if (begin == nullptr) fail("expected an index");
      if (is_op(",")) fail("an index of several parts is not supported");
      expect_op("]");
      return make(NodeKind::element, {object, begin}, line);
    }
    const Node* end = bound();
    const Node* step = skip_op(":") ? bound() : nullptr;
    expect_op("]");
    return make(NodeKind::slice, {object, begin, end, step}, line);
  }

  std::vector<ArgumentNode> parse_arguments() {
    std::vector<ArgumentNode> arguments;
    expect_op("(");
    while (!failed_ && !is_op(")")) {
      if (!arguments.empty()) expect_op(",");
      if (is_op(")")) break;
      if (is_op("*") || is_op("**")) fail("star arguments are not supported");
      ArgumentNode argument;
      const bool is_named = peek().kind == TokenKind::name && is_op("=", 1);
      if (is_named) {
        argument.name = take().text;
        take();
        argument.symbol = program_.symbol_of(argument.name);
        for (const ArgumentNode& other : arguments)
          if (other.name == argument.name) fail("an argument is given twice");
      } else if (!arguments.empty() && !arguments.back().name.empty()) {
        fail("an argument by position behind one by name");
      }
      argument.value = parse_expression();
      arguments.push_back(std::move(argument));
    }
    expect_op(")");
    return arguments;
  }

  const Node* parse_call(const Node* callee) {
    const std::uint32_t line = peek().line;
    std::vector<ArgumentNode> arguments = parse_arguments();
    Node* node = make(NodeKind::call, {callee}, line);
    set_arguments(node, std::move(arguments));
    return node;
  }

  enum class FirstFilter : std::uint8_t { behind_bar, inlined };

  // A chain of filters; an inlined one begins without a bar.
  const Node* parse_filter(const Node* input, FirstFilter first = FirstFilter::behind_bar) {
    bool is_inlined = first == FirstFilter::inlined;
    while (!failed_ && (is_inlined || is_op("|"))) {
      if (!is_inlined) take();
      is_inlined = false;
      const std::uint32_t line = peek().line;
      const std::string name = expect_name();
      input = make_builtin_call(NodeKind::filter, input, find_filter(name), name, line);
    }
    return input;
  }

  Node* make_builtin_call(NodeKind kind, const Node* input, const Builtin* builtin,
                          const std::string& name, std::uint32_t line) {
    std::vector<ArgumentNode> arguments;
    if (is_op("(")) arguments = parse_arguments();
    // In a branch that is perhaps never taken it is no error before it is.
    if (builtin == nullptr && num_conditions_ == 0)
      unknown_.push_back(
          {line, (kind == NodeKind::filter ? "no filter named '" : "no test named '") +
                     name.substr(0, 40) + "'"});
    Node* node = make(kind, {input}, line);
    node->builtin = builtin;
    node->text = name;
    set_arguments(node, std::move(arguments));
    return node;
  }

  const Node* parse_test(const Node* input) {
    const std::uint32_t line = take().line;
    const bool is_negated = skip_word("not");
    const std::string name = expect_name();
    Node* node = make_builtin_call(NodeKind::test, input, find_test(name), name, line);
    const TokenKind kind = peek().kind;
    const bool has_bare_argument =
        node->arguments.empty() && tokens_[at_ - 1].text != ")" &&
        ((kind == TokenKind::name && !is_any_word({"else", "or", "and"})) ||
         kind == TokenKind::string || kind == TokenKind::integer || kind == TokenKind::real ||
         is_op("[") || is_op("{"));
    if (has_bare_argument) {
      // Words that go on after a test where Jinja2 would take them for its argument.
      if (is_any_word({"is"})) fail("tests can't be chained");
      if (!is_any_word({"if", "in", "not"})) {
        ArgumentNode argument;
        argument.value = parse_postfix(parse_primary());
        set_arguments(node, {argument});
      }
    }
    return is_negated ? make(NodeKind::logical_not, {node}, line) : node;
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Program& program_;
  std::uint32_t recursion_ = 0;
  std::uint32_t num_loops_ = 0;
  std::uint32_t num_conditions_ = 0;
  struct Unknown {
    std::uint32_t line;
    std::string reason;
  };
  std::vector<Unknown> unknown_;  // builtins that do not exist, outside of conditions
  bool failed_ = false;
  std::string error_;
  std::uint32_t error_line_ = 0;
};

}  // namespace

Result<std::unique_ptr<const Program>> parse_template(std::string_view source) {
  Result<std::vector<Token>> tokens = tokenize_template(normalized_source(source));
  if (!tokens) return tokens.error();
  auto program = std::make_unique<Program>();
  if (const Result<void> parsed = Parser(std::move(*tokens), *program).run(); !parsed)
    return parsed.error();
  return std::unique_ptr<const Program>(std::move(program));
}

}  // namespace sluice::jinja
