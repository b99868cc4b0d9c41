// Routes: method and path to an endpoint. ONE table of operations drives the router, the OpenAPI
// document (openapi.h) and the tests that hold the two together. Paths match byte by byte: nothing
// is normalized, so there is one spelling of each route; a parameter of an admin route is
// percent-decoded behind the match. No thread rule.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gateway/admin/admin_service.h"
#include "gateway/http/auth.h"

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
  openapi,
  admin,
  none,  // also the label of what matched nothing
};
inline constexpr std::size_t kEndpoints = static_cast<std::size_t>(Endpoint::none) + 1;

enum class Access : std::uint8_t { anyone, tenant, admin };

// What an answer of an admin route carries and honours beside its body.
enum class Precondition : std::uint8_t {
  none,
  etag,      // its answer has an ETag
  if_match,  // likewise, and the request may demand one
};

struct Operation {
  std::string_view method;  // GET stands for HEAD too
  std::string_view path;    // one segment may be {parameter}
  Access access;
  Endpoint endpoint;
  AdminNoun noun;  // of admin routes
  Scope scope;     // of tenants' routes: what the key must be allowed
  std::string_view id, summary;
  std::string_view query;     // names of parameters, "limit after"
  std::string_view request;   // schema of the JSON body; empty: it takes none
  std::string_view response;  // schema, or the media type of another kind of body
  std::uint16_t status;       // of success
  Precondition precondition;
};
std::span<const Operation> operations();
bool is_body_optional(const Operation& operation);  // none means {}

enum class RouteResult : std::uint8_t { found, preflight, wrong_method, unknown };

struct Route {
  RouteResult result = RouteResult::unknown;
  Endpoint endpoint = Endpoint::none;
  bool needs_tenant = false;  // an API key, where keys are configured
  bool needs_admin = false;   // an admin key, always
  Scope scope{};
  AdminNoun noun{};
  bool takes_body = false;        // JSON
  bool is_body_optional = false;  // none means {}
  bool omits_body = false;        // HEAD
  std::string allow;              // methods of the path; empty where an operation was found
  std::string_view tail;          // the path's parameter, still percent-encoded
};

Route find_route(std::string_view method, std::string_view path);
std::string_view endpoint_name(Endpoint endpoint);  // metric label

}  // namespace sluice::gw
