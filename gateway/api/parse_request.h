// JSON bodies to typed requests. Every field that the API knows is checked for type and range; the
// error names it ("messages[0].content"). Unknown fields are ignored, fields that are known but not
// served are refused with unsupported_parameter, null counts as absent.
//
// One object per thread: it keeps the parser's memory from request to request.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "gateway/api/openai_types.h"
#include "shared/result.h"

namespace sluice::gw {

class RequestParser {
 public:
  // `hash_seed`: random, so that a client cannot choose keys that collide.
  explicit RequestParser(std::uint64_t hash_seed);
  ~RequestParser();

  // `body` is read in place; its capacity may grow. Errors: invalid_json, invalid_value,
  // unsupported_parameter. On error `request` holds what was read so far.
  Result<void> parse_generation(std::string& body, ApiKind kind, GenerationRequest& request);
  Result<void> parse_tokenize(std::string& body, TokenizeRequest& request);
  Result<void> parse_detokenize(std::string& body, DetokenizeRequest& request);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::gw
