// Parsing to a tree and the walk that finds duplicate keys.
#include "gateway/api/json_document.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "shared/random.h"

namespace sluice::gw {
namespace {

namespace dom = simdjson::dom;

constexpr std::size_t kFirstBytes = 64 << 10;
constexpr std::size_t kKeptBytesMax = 1 << 20;
constexpr std::size_t kQuadraticMax = 12;  // below, comparing all pairs is faster than hashing

std::uint64_t hash_key(std::string_view key, std::uint64_t seed) {
  std::uint64_t hash = mix64(seed ^ key.size());
  while (key.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, key.data(), 8);
    hash = mix64(hash ^ word);
    key.remove_prefix(8);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, key.data(), key.size());
  return mix64(hash ^ word);
}

}  // namespace

JsonDocument::JsonDocument(std::uint64_t hash_seed) : hash_seed_(hash_seed) {
  CHECK(parser_.allocate(kFirstBytes, kJsonDepthMax) == simdjson::SUCCESS);
}

Result<dom::element> JsonDocument::parse(std::string& text) {
  // simdjson reads over the end: what stands there is written, so that it is the same every time.
  const std::size_t size = text.size();
  text.append(simdjson::SIMDJSON_PADDING, ' ');
  text.resize(size);
  if (parser_.capacity() > kKeptBytesMax && text.size() <= kKeptBytesMax) {
    // One huge body must not pin its tree (about ten bytes per byte of text) for ever.
    parser_ = dom::parser();
    CHECK(parser_.allocate(kFirstBytes, kJsonDepthMax) == simdjson::SUCCESS);
  }
  if (parser_.capacity() < text.size()) {
    const std::size_t wanted = std::max(text.size(), 2 * parser_.capacity());
    if (parser_.allocate(wanted, kJsonDepthMax) != simdjson::SUCCESS)
      return make_error(Errc::overloaded, "no memory for a request body of this size now");
  }
  dom::element root;
  const simdjson::error_code error = parser_.parse(text.data(), text.size(), false).get(root);
  if (error != simdjson::SUCCESS)
    return make_error(Errc::invalid_json, std::string("the request body is not valid JSON: ") +
                                              simdjson::error_message(error));
  if (const char* reason = check_keys(root))
    return make_error(Errc::invalid_json, std::string("the request body is refused: ") + reason);
  return root;
}

const char* JsonDocument::check_keys(dom::element element) {
  // Recursion is bounded by kJsonDepthMax.
  dom::array array;
  if (element.get(array) == simdjson::SUCCESS) {
    for (dom::element child : array) {
      const dom::element_type type = child.type();
      if (type != dom::element_type::ARRAY && type != dom::element_type::OBJECT) continue;
      if (const char* reason = check_keys(child)) return reason;
    }
    return nullptr;
  }
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return nullptr;
  if (object.size() > kObjectKeysMax) return "an object has more than 4096 keys";
  if (has_duplicate_key(object)) return "an object has the same key twice";
  for (const dom::key_value_pair field : object) {
    const dom::element_type type = field.value.type();
    if (type != dom::element_type::ARRAY && type != dom::element_type::OBJECT) continue;
    if (const char* reason = check_keys(field.value)) return reason;
  }
  return nullptr;
}

bool JsonDocument::has_duplicate_key(dom::object object) {
  const std::size_t num_keys = object.size();
  if (num_keys <= kQuadraticMax) {
    std::string_view keys[kQuadraticMax];
    std::size_t seen = 0;
    for (const dom::key_value_pair field : object) {
      if (std::find(keys, keys + seen, field.key) != keys + seen) return true;
      keys[seen++] = field.key;
    }
    return false;
  }
  const std::size_t slots = std::bit_ceil(2 * num_keys);
  table_.assign(slots, std::string_view());
  for (const dom::key_value_pair field : object) {
    std::size_t slot = hash_key(field.key, hash_seed_) & (slots - 1);
    while (table_[slot].data() != nullptr) {
      if (table_[slot] == field.key) return true;
      slot = (slot + 1) & (slots - 1);
    }
    table_[slot] = field.key;
  }
  return false;
}

}  // namespace sluice::gw
