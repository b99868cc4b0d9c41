// JSON text as values of the template language, all of its strings content; for tests.
#pragma once

#include <simdjson.h>

#include "tokenizer/jinja/value.h"

namespace sluice::test {

inline jinja::Value json_value(jinja::Heap& heap, simdjson::dom::element element) {
  using jinja::Value;
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::ARRAY: {
      const Value list = heap.list();
      for (const auto item : simdjson::dom::array(element))
        heap.append(*list.list, json_value(heap, item));
      return list;
    }
    case element_type::OBJECT: {
      const Value dict = heap.dict();
      for (const auto& [key, value] : simdjson::dom::object(element))
        heap.set(*dict.dict, heap.string(key, jinja::Origin::content), json_value(heap, value));
      return dict;
    }
    case element_type::INT64:
      return Value::of(std::int64_t(element));
    case element_type::UINT64:
      heap.fail("a number beyond 64 bits");
      return Value::none();
    case element_type::DOUBLE:
      return Value::of(double(element));
    case element_type::STRING:
      return heap.string(std::string_view(element), jinja::Origin::content);
    case element_type::BOOL:
      return Value::of(bool(element));
    case element_type::NULL_VALUE:
      break;
  }
  return Value::none();
}

}  // namespace sluice::test
