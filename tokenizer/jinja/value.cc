// The heap: chunks of growing size, freed together; see value.h.
#include "tokenizer/jinja/value.h"

#include <algorithm>
#include <cstring>

#include "tokenizer/jinja/operators.h"

namespace sluice::jinja {
namespace {

constexpr std::size_t kChunkBytesMin = 4u << 10;
constexpr std::size_t kChunkBytesMax = 256u << 10;
constexpr std::size_t kAlign = 16;
constexpr std::size_t kBytesPerStep = 64;

}  // namespace

Value Value::undefined(const std::string* name) {
  Value value;
  value.name = name;
  return value;
}
Value Value::absent() {
  Value value = undefined();
  value.is_absent = true;
  return value;
}
Value Value::none() {
  Value value;
  value.kind = Kind::none;
  return value;
}
Value Value::of(bool flag) {
  Value value;
  value.kind = Kind::boolean;
  value.boolean = flag;
  return value;
}
Value Value::of(std::int64_t number) {
  Value value;
  value.kind = Kind::integer;
  value.integer = number;
  return value;
}
Value Value::of(double number) {
  Value value;
  value.kind = Kind::real;
  value.real = number;
  return value;
}

void Heap::fail(std::string reason) {
  if (failed_) return;
  failed_ = true;
  reason_ = std::move(reason);
  failed_line_ = line_;
}

bool Heap::can_grow(std::size_t size, std::size_t bytes) {
  if (failed_) return false;
  if (bytes > limits_.output_bytes_max || size > limits_.output_bytes_max - bytes) {
    fail("makes a text or list of more than " + std::to_string(limits_.output_bytes_max) +
         " bytes");
    return false;
  }
  if (bytes > limits_.heap_bytes_max || bytes_ > limits_.heap_bytes_max - bytes) {
    fail("needs more than " + std::to_string(limits_.heap_bytes_max) + " bytes of memory");
    return false;
  }
  bytes_ += bytes;
  return step(bytes / kBytesPerStep);
}

void* Heap::allocate(std::size_t bytes) {
  bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  bytes_ += bytes;
  if (bytes_ > limits_.heap_bytes_max)
    fail("needs more than " + std::to_string(limits_.heap_bytes_max) + " bytes of memory");
  if (bytes > left_) {
    const std::size_t wanted =
        std::clamp(kChunkBytesMin << std::min<std::size_t>(chunks_.size(), 6), bytes,
                   std::max(bytes, kChunkBytesMax));
    chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(wanted));
    next_ = chunks_.back().get();
    left_ = wanted;
  }
  void* const at = next_;
  next_ += bytes;
  left_ -= bytes;
  return at;
}

Value Heap::view(std::string_view bytes, Origin origin) {
  Value value;
  value.kind = Kind::string;
  value.text = new (allocate(sizeof(Text))) Text(uniform_text(bytes, origin));
  return value;
}

Value Heap::string(std::string_view bytes, Origin origin) {
  if (bytes.empty() || !can_grow(0, bytes.size())) return view({}, origin);
  auto* const copy = static_cast<char*>(allocate(bytes.size()));
  std::memcpy(copy, bytes.data(), bytes.size());
  return view({copy, bytes.size()}, origin);
}

Value Heap::string(const TextBuilder& builder) {
  const Text text = builder.view();
  if (text.is_uniform())
    return string(text.bytes, text.runs.empty() ? Origin::content : text.runs[0].origin);
  Value value = string(text.bytes, text.runs[0].origin);
  const std::size_t bytes = text.runs.size_bytes();
  if (!can_grow(0, bytes)) return view({}, Origin::content);
  auto* const runs = static_cast<Run*>(allocate(bytes));
  std::ranges::copy(text.runs, runs);
  value.text = new (allocate(sizeof(Text))) Text{value.bytes(), {runs, text.runs.size()}};
  return value;
}

Value Heap::part(const Text& text, std::size_t begin, std::size_t size) {
  if (size == 0) return view({}, Origin::content);
  if (text.is_uniform()) return view(text.bytes.substr(begin, size), text.runs[0].origin);
  TextBuilder builder;
  if (can_grow(0, size)) builder.append_part(text, begin, size);
  return string(builder);
}

Value Heap::list(ListKind kind, std::size_t capacity) {
  Value value;
  value.kind = Kind::list;
  value.list = make<List>();
  value.list->kind = kind;
  if (capacity > 0 && can_grow(0, capacity * sizeof(Value))) {
    value.list->items = static_cast<Value*>(allocate(capacity * sizeof(Value)));
    value.list->capacity = static_cast<std::uint32_t>(capacity);
  }
  return value;
}

void Heap::append(List& list, Value value) {
  if (list.size == list.capacity && !grow(list.items, list.size, list.capacity)) return;
  new (list.items + list.size++) Value(value);
}

Value Heap::pair(Value first, Value second) {
  const Value value = list(ListKind::tuple, 2);
  append(*value.list, first);
  append(*value.list, second);
  return value;
}

Value Heap::dict() {
  Value value;
  value.kind = Kind::dict;
  value.dict = make<Dict>();
  return value;
}

void Heap::set(Dict& dict, Value key, Value value) {
  const bool can_hash = key.is_string() || key.is_number() || key.kind == Kind::none;
  if (!can_hash) return fail(std::string("a key of a dict can't be ") + type_name(key));
  for (DictEntry& entry : std::span(dict.entries, dict.size)) {
    if (!step(0)) return;
    if (!are_equal(*this, entry.key, key)) continue;
    entry.value = value;
    return;
  }
  if (!step(dict.size / 8)) return;
  if (dict.size == dict.capacity && !grow(dict.entries, dict.size, dict.capacity)) return;
  new (dict.entries + dict.size++) DictEntry{key, value};
}

void Heap::set(Dict& dict, std::string_view literal, Value value) {
  set(dict, view(literal, Origin::content), value);
}

const Value* Heap::find(const Dict& dict, Value key) {
  if (key.is_string()) return find(dict, key.bytes());
  step(dict.size / 8);
  for (const DictEntry& entry : dict.span())
    if (!entry.key.is_string() && are_equal(*this, entry.key, key)) return &entry.value;
  return nullptr;
}

const Value* Heap::find(const Dict& dict, std::string_view key) {
  step(dict.size / 8);
  for (const DictEntry& entry : dict.span())
    if (entry.key.is_text(key)) return &entry.value;
  return nullptr;
}

}  // namespace sluice::jinja
