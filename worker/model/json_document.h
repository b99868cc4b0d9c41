// JsonDocument: one JSON text of a model directory, parsed by simdjson's DOM with a bound on depth.
// Owns the parsed tape; elements are valid while it lives.
#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>

#include "shared/result.h"

namespace sluice::eng {

class JsonDocument {
 public:
  // The text must be one object. Errors (bad_file) say what `what` is not.
  Result<simdjson::dom::object> parse_object(std::string_view json, const char* what) {
    constexpr std::size_t kDepthMax = 32;
    simdjson::dom::element root;
    simdjson::dom::object object;
    simdjson::error_code code = parser_.allocate(json.size(), kDepthMax);
    if (code == simdjson::SUCCESS) code = parser_.parse(simdjson::padded_string(json)).get(root);
    if (code != simdjson::SUCCESS) {
      return make_error(Errc::bad_file,
                        std::string(what) + " is not valid JSON: " + simdjson::error_message(code));
    }
    if (root.get(object) != simdjson::SUCCESS) {
      return make_error(Errc::bad_file, std::string(what) + " is not a JSON object");
    }
    return object;
  }

 private:
  simdjson::dom::parser parser_;
};

}  // namespace sluice::eng
