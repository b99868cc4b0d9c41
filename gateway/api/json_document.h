// A JSON text as a checked tree: what simdjson accepts (valid UTF-8, no lone surrogate, depth <=
// 64, numbers within 64 bits, nothing after the value) and besides no duplicate key in any object
// and at most kObjectKeysMax keys in each. Included by the parsers of this folder only. One thread;
// the tree lives until the next parse().
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::size_t kJsonDepthMax = 64;
inline constexpr std::size_t kObjectKeysMax = 4096;

class JsonDocument {
 public:
  explicit JsonDocument(std::uint64_t hash_seed);

  // Grows `text`'s capacity by the padding that simdjson reads over. Errors: invalid_json.
  Result<simdjson::dom::element> parse(std::string& text);

 private:
  bool has_duplicate_key(simdjson::dom::object object);
  // Nothing, or why the tree below `element` is refused.
  const char* check_keys(simdjson::dom::element element);

  simdjson::dom::parser parser_;
  std::uint64_t hash_seed_;  // unknown to clients, so that keys cannot be chosen to collide
  std::vector<std::string_view> table_;  // open addressing; an empty slot has data() == nullptr
};

}  // namespace sluice::gw
