// Typed reads of one JSON value with a range: each returns false after recording an error that
// names the field and says what is allowed. Included by the parsers of this folder only.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/ids.h"
#include "shared/result.h"

namespace sluice::gw {

class FieldReader {
 public:
  using Element = simdjson::dom::element;

  // Records the error; always false, so that `return fail(...)` reads well.
  bool fail(Errc code, std::string_view param, std::string detail) {
    error_ = make_error(code, std::move(detail), std::string(param));
    return false;
  }
  bool wrong(std::string_view param, std::string_view allowed) {
    return fail(Errc::invalid_value, param,
                std::string("'").append(param).append("' must be ").append(allowed));
  }
  bool unsupported(std::string_view param) {
    return fail(Errc::unsupported_parameter, param,
                std::string("'").append(param).append("' is not supported by this server"));
  }
  Error take_error() { return std::move(error_); }

  bool boolean(Element value, std::string_view param, bool& out) {
    return value.get(out) == simdjson::SUCCESS || wrong(param, "true or false");
  }

  template <class Int>
  bool integer(Element value, std::string_view param, std::int64_t low, std::int64_t high,
               Int& out) {
    std::int64_t number = 0;
    if (value.type() == simdjson::dom::element_type::DOUBLE ||
        value.get(number) != simdjson::SUCCESS || number < low || number > high)
      return wrong(param, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
    out = static_cast<Int>(number);
    return true;
  }

  // [low, high]; `allowed` is what the error says.
  bool number(Element value, std::string_view param, double low, double high,
              std::string_view allowed, float& out) {
    double read = 0;
    if (value.get(read) != simdjson::SUCCESS || !(read >= low && read <= high))
      return wrong(param, allowed);
    out = static_cast<float>(read);
    return true;
  }

  bool text(Element value, std::string_view param, std::string& out) {
    std::string_view read;
    if (value.get(read) != simdjson::SUCCESS) return wrong(param, "a string");
    out.assign(read);
    return true;
  }

  // A list of token ids; the vocabulary's end is checked where the model is known.
  bool token_ids(simdjson::dom::array array, std::string_view param, std::size_t count_max,
                 std::vector<TokenId>& out);

 private:
  Error error_{};
};

}  // namespace sluice::gw
