// Functions of the global scope, and the call of any builtin.
#include <algorithm>

#include "tokenizer/jinja/builtins.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/strftime.h"

namespace sluice::jinja {
namespace {

Value range(const BuiltinCall& call) {
  for (const Value bound : call.args)
    if (!bound.is_absent && !bound.is_integer()) {
      call.heap.fail(std::string("range() needs integers, not ") + type_name(bound));
      return Value::undefined();
    }
  const bool has_end = !call.args[1].is_absent;
  if (call.args[0].is_absent) call.heap.fail("range() needs an end");
  const std::int64_t begin = has_end ? call.args[0].as_integer() : 0;
  const std::int64_t end = has_end ? call.args[1].as_integer() : call.args[0].as_integer();
  const std::int64_t by = call.args[2].is_absent ? 1 : call.args[2].as_integer();
  if (by == 0) call.heap.fail("range() with step 0");
  const Value list = call.heap.list(ListKind::list);
  if (call.heap.failed()) return list;
  for (std::int64_t i = begin; by > 0 ? i < end : i > end;) {
    if (list.list->size == kRangeMax) {
      call.heap.fail("range() of more than " + std::to_string(kRangeMax) + " items");
      break;
    }
    if (!call.heap.step()) break;
    call.heap.append(*list.list, Value::of(i));
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  return list;
}

// dict(other, name=value...) and namespace(...): the same, of two kinds.
template <Kind Result>
Value make_dict(const BuiltinCall& call) {
  Value dict = call.heap.dict();
  if (call.all.positional.size() > 1) call.heap.fail("dict() and namespace() take one dict");
  if (!call.all.positional.empty()) {
    const Value from = call.all.positional[0];
    if (from.is_dict())
      for (const DictEntry& entry : from.dict->span())
        call.heap.set(*dict.dict, entry.key, entry.value);
    else
      for (const Value pair : items_of(call.heap, from)) {
        const bool is_pair = pair.is_list() && pair.list->size == 2;
        if (!is_pair) call.heap.fail("dict() and namespace() take a dict or a list of pairs");
        if (!is_pair) break;
        call.heap.set(*dict.dict, pair.list->items[0], pair.list->items[1]);
      }
  }
  for (const NamedValue& named : call.all.named) call.heap.set(*dict.dict, named.name, named.value);
  dict.kind = Result;
  return dict;
}

// Only what the template's author wrote: the rest may be a prompt.
Value raise_exception(const BuiltinCall& call) {
  constexpr std::size_t kBytesMax = 400;
  std::string shown;
  if (call.args[0].is_string()) {
    const Text& text = *call.args[0].text;
    for (std::size_t i = 0; i < text.runs.size() && shown.size() < kBytesMax; ++i) {
      const std::size_t end = i + 1 < text.runs.size() ? text.runs[i + 1].begin : text.bytes.size();
      if (text.runs[i].origin == Origin::frame)
        shown += text.bytes.substr(text.runs[i].begin, end - text.runs[i].begin);
      else
        shown += "...";
    }
    if (shown.size() > kBytesMax) {
      std::size_t cut = kBytesMax;
      while ((shown[cut] & '\xC0') == '\x80') --cut;
      shown.resize(cut);
    }
  }
  call.heap.fail("says: " + shown);
  return Value::undefined();
}

Value strftime_now(const BuiltinCall& call) {
  if (!call.args[0].is_string()) {
    call.heap.fail("strftime_now() needs a format");
    return Value::undefined();
  }
  const auto text = format_time(call.args[0].bytes(), call.unix_s);
  if (!text) call.heap.fail("strftime_now() with a field that is not supported");
  return call.heap.string(text.value_or(""), Origin::content);
}

constexpr std::array kFunctions = std::to_array<Builtin>({
    {"dict", make_dict<Kind::dict>, {"*"}},
    {"namespace", make_dict<Kind::name_space>, {"*"}},
    {"raise_exception", raise_exception, {"message"}},
    {"range", range, {"start", "stop", "step"}},
    {"strftime_now", strftime_now, {"format"}},
});

}  // namespace

std::span<const Builtin> global_functions() {
  return kFunctions;
}

Value run_builtin(const Builtin& builtin, Heap& heap, Value input, const Arguments& arguments,
                  std::int64_t unix_s) {
  BuiltinCall call{heap, input, {}, arguments, unix_s};
  call.args.fill(Value::absent());
  const bool is_variadic = builtin.parameters[0] == "*";
  const auto refuse = [&](std::string_view what) {
    heap.fail(std::string(builtin.name) + " does not take " + std::string(what));
    return Value::undefined();
  };
  if (!is_variadic) {
    if (arguments.positional.size() > builtin.parameters.size()) return refuse("so many arguments");
    for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
      if (builtin.parameters[i].empty()) return refuse("so many arguments");
      call.args[i] = arguments.positional[i];
    }
    for (const NamedValue& named : arguments.named) {
      const auto at = std::ranges::find(builtin.parameters, named.name);
      if (at == builtin.parameters.end() || named.name.empty())
        return refuse("an argument '" + std::string(named.name) + "'");
      call.args[static_cast<std::size_t>(at - builtin.parameters.begin())] = named.value;
    }
    // An undefined value that was given is not one that was left out.
    for (std::size_t i = 0; i < arguments.positional.size(); ++i) call.args[i].is_absent = false;
  }
  return builtin.run(call);
}

}  // namespace sluice::jinja
