// Routes: method and path to an endpoint, as a table. Paths match byte by byte: nothing is decoded
// or normalized, so there is one spelling of each route. No thread rule.
#pragma once

#include <cstdint>
#include <string_view>

#include "gateway/admin/admin_service.h"

namespace sluice::gw {

enum class Endpoint : std::uint8_t {
  chat_completions,
  completions,
  input_tokens,
  tokenize,
  detokenize,
  models,
  model,
  quota,
  embeddings,
  live,
  ready,
  health,
  metrics,
  admin,
  none,  // also the label of what matched nothing
};
inline constexpr std::size_t kEndpoints = static_cast<std::size_t>(Endpoint::none) + 1;

enum class RouteResult : std::uint8_t { found, preflight, wrong_method, unknown };

struct Route {
  RouteResult result = RouteResult::unknown;
  Endpoint endpoint = Endpoint::none;
  bool needs_tenant = false;  // an API key, where keys are configured
  bool needs_admin = false;   // an admin key, always
  AdminNoun noun{};           // of an admin route; its id is `tail`
  bool takes_body = false;    // POST, PUT, PATCH
  bool omits_body = false;    // HEAD
  std::string_view allow;     // methods of the path, for Allow
  std::string_view tail;      // what follows a path that ends in '/', still percent-encoded
};

Route find_route(std::string_view method, std::string_view path);
std::string_view endpoint_name(Endpoint endpoint);  // metric label

}  // namespace sluice::gw
