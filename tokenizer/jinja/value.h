// Values of the template language, and the heap that they live in. A Value is 16 bytes and copied
// freely; lists, dicts and texts lie in the heap and die with it all at once.
//
// The heap is also the budget of one rendering: bytes and steps are charged to it, and the first
// thing that goes wrong is recorded in it. After that every operation still returns some valid
// Value (mostly undefined) and step() says no, so loops end: callers need not check each result.
// One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja/text.h"

namespace sluice::jinja {

struct RenderLimits {
  std::size_t steps_max = 4'000'000;         // nodes evaluated, items visited, 64 bytes moved
  std::size_t heap_bytes_max = 256u << 20;   // of all values made, also those no longer used
  std::size_t output_bytes_max = 64u << 20;  // of the result, and of any one text; below 4 GiB
};
inline constexpr std::uint32_t kEvaluationDepthMax = 400;  // nested nodes, through macro calls
inline constexpr std::uint32_t kValueDepthMax = 100;       // of lists and dicts when written
inline constexpr std::size_t kRangeMax = 100'000;          // items of range()
inline constexpr std::size_t kArgumentsMax = 16;           // of one call

enum class Kind : std::uint8_t {
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  dict,
  name_space,
  loop,
  macro,
  function,
  method,
};

// Lists that templates see as different types. A view (dict.items()) has a length but no elements
// by number; a generator (map, select, ...) has neither, is always true and can be read once.
enum class ListKind : std::uint8_t { list, tuple, view, generator };

struct List;
struct Dict;
struct Loop;
struct Macro;
struct Method;
struct Builtin;

struct Value {
  Kind kind = Kind::undefined;
  bool is_absent = false;  // an argument that was not given
  union {
    std::int64_t integer = 0;
    bool boolean;
    double real;
    const Text* text;
    List* list;
    Dict* dict;  // also of a namespace
    Loop* loop;
    const Macro* macro;
    const Builtin* function;
    const Method* method;
    const std::string* name;  // of what is undefined; may be null
  };

  static Value undefined(const std::string* name = nullptr);
  static Value absent();
  static Value none();
  static Value of(bool value);
  static Value of(std::int64_t value);
  static Value of(double value);

  bool is_undefined() const { return kind == Kind::undefined; }
  bool is_string() const { return kind == Kind::string; }
  bool is_list() const { return kind == Kind::list; }
  bool is_dict() const { return kind == Kind::dict; }
  bool is_integer() const { return kind == Kind::integer || kind == Kind::boolean; }
  bool is_number() const { return is_integer() || kind == Kind::real; }
  // REQUIRES: is_integer(); true is 1.
  std::int64_t as_integer() const { return kind == Kind::boolean ? boolean : integer; }
  // REQUIRES: is_number().
  double as_real() const { return kind == Kind::real ? real : static_cast<double>(as_integer()); }
  std::string_view bytes() const { return text->bytes; }  // REQUIRES: is_string()
  bool is_text(std::string_view other) const { return is_string() && bytes() == other; }
};

struct List {
  ListKind kind = ListKind::list;
  bool is_spent = false;  // of a generator
  std::uint32_t size = 0;
  std::uint32_t capacity = 0;
  Value* items = nullptr;

  std::span<const Value> span() const { return {items, size}; }
};

struct DictEntry {
  Value key;
  Value value;
};

// In the order of insertion. Keys are strings, numbers, booleans and none.
struct Dict {
  std::uint32_t size = 0;
  std::uint32_t capacity = 0;
  DictEntry* entries = nullptr;

  std::span<const DictEntry> span() const { return {entries, size}; }
};

// What `loop` is inside a for.
struct Loop {
  std::span<const Value> items;
  std::size_t index0 = 0;
  Value last_changed = Value::absent();
};

struct Scope;
struct Node;
struct Macro {
  const Node* node;
  Scope* scope;  // where it was defined
};

struct Method {
  Value self;
  const Builtin* builtin;
};

class Heap {
 public:
  explicit Heap(const RenderLimits& limits) : limits_(limits) {}

  // Records the first failure with the line of the node being evaluated.
  void fail(std::string reason);
  bool failed() const { return failed_; }
  const std::string& reason() const { return reason_; }
  std::uint32_t failed_line() const { return failed_line_; }
  void set_line(std::uint32_t line) { line_ = line; }

  // False when the steps are spent or something failed.
  bool step(std::size_t work = 1) {
    steps_ += work;
    if (steps_ > limits_.steps_max) [[unlikely]]
      fail("takes more than " + std::to_string(limits_.steps_max) + " steps");
    return !failed_;
  }
  // Charges `bytes` more in some text of `size` bytes. False: there is no room, failed.
  bool can_grow(std::size_t size, std::size_t bytes);
  const RenderLimits& limits() const { return limits_; }
  std::size_t steps() const { return steps_; }

  // Never null; zeroed. Only for small objects: it does not refuse.
  template <class T>
  T* make() {
    static_assert(std::is_trivially_destructible_v<T> && sizeof(T) <= 64);
    return new (allocate(sizeof(T))) T{};
  }

  // A copy of `bytes`.
  Value string(std::string_view bytes, Origin origin);
  // Bytes that outlive the heap.
  Value view(std::string_view bytes, Origin origin);
  Value string(const TextBuilder& builder);
  // Part of a text, sharing its bytes.
  Value part(const Text& text, std::size_t begin, std::size_t size);

  Value list(ListKind kind = ListKind::list, std::size_t capacity = 0);
  void append(List& list, Value value);
  Value pair(Value first, Value second);  // a tuple
  Value dict();
  // Replaces the value of an equal key. Fails for keys that can't be hashed.
  void set(Dict& dict, Value key, Value value);
  void set(Dict& dict, std::string_view literal, Value value);  // a key that outlives the heap
  const Value* find(const Dict& dict, Value key);
  const Value* find(const Dict& dict, std::string_view key);

  void* allocate(std::size_t bytes);
  // Doubles an array of the heap; false when there is no room.
  template <class T>
  bool grow(T*& items, std::uint32_t size, std::uint32_t& capacity) {
    const std::uint32_t wanted = capacity == 0 ? 4 : 2 * capacity;
    if (!can_grow(0, wanted * sizeof(T))) return false;
    auto* grown = static_cast<T*>(allocate(wanted * sizeof(T)));
    for (std::uint32_t i = 0; i < size; ++i) new (grown + i) T(items[i]);
    items = grown;
    capacity = wanted;
    return true;
  }

 private:
  RenderLimits limits_;
  std::size_t steps_ = 0;
  std::size_t bytes_ = 0;
  bool failed_ = false;
  std::string reason_;
  std::uint32_t line_ = 0;
  std::uint32_t failed_line_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
};

}  // namespace sluice::jinja
