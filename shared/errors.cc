// The one table that says how each error looks to a client.
#include "shared/errors.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "shared/check.h"

namespace sluice {
namespace {

constexpr std::string_view kInvalid = "invalid_request_error";
constexpr std::string_view kPermission = "permission_error";
constexpr std::string_view kServer = "server_error";

constexpr std::array<ErrorRow, kErrcCount> kRows{{
    {Errc::invalid_json, 400, kInvalid, "invalid_json", false},
    {Errc::invalid_value, 400, kInvalid, "invalid_value", false},
    {Errc::unsupported_parameter, 400, kInvalid, "unsupported_parameter", false},
    {Errc::context_length_exceeded, 400, kInvalid, "context_length_exceeded", false},
    {Errc::invalid_schema, 400, kInvalid, "invalid_schema", false},
    {Errc::malformed_http, 400, kInvalid, "malformed_http", false},
    {Errc::invalid_api_key, 401, kInvalid, "invalid_api_key", false},
    {Errc::model_not_allowed, 403, kPermission, "model_not_allowed", false},
    {Errc::classification_denied, 403, kPermission, "classification_denied", false},
    {Errc::admin_required, 403, kPermission, "admin_required", false},
    {Errc::insufficient_scope, 403, kPermission, "insufficient_scope", false},
    {Errc::read_only, 403, kPermission, "read_only", false},
    {Errc::not_found, 404, kInvalid, "not_found", false},
    {Errc::model_not_found, 404, kInvalid, "model_not_found", false},
    {Errc::method_not_allowed, 405, kInvalid, "method_not_allowed", false},
    {Errc::request_timeout, 408, kInvalid, "request_timeout", true},
    {Errc::already_exists, 409, kInvalid, "already_exists", false},
    {Errc::conflict, 409, kInvalid, "conflict", false},
    {Errc::precondition_failed, 412, kInvalid, "precondition_failed", false},
    {Errc::request_too_large, 413, kInvalid, "request_too_large", false},
    {Errc::unsupported_media_type, 415, kInvalid, "unsupported_media_type", false},
    {Errc::requests_rate_limited, 429, "requests", "rate_limit_exceeded", true},
    {Errc::tokens_rate_limited, 429, "tokens", "rate_limit_exceeded", true},
    {Errc::tenant_circuit_open, 429, "requests", "tenant_circuit_open", true},
    {Errc::concurrency_limit, 429, "requests", "concurrency_limit", true},
    {Errc::insufficient_quota, 429, "insufficient_quota", "insufficient_quota", false},
    {Errc::request_exceeds_quota_capacity, 429, "tokens", "request_exceeds_quota_capacity", false},
    {Errc::headers_too_large, 431, kInvalid, "headers_too_large", false},
    {Errc::internal_error, 500, kServer, "internal_error", true},
    {Errc::poisoned_request, 500, kServer, "poisoned_request", false},
    {Errc::overloaded, 503, kServer, "overloaded", true},
    {Errc::no_healthy_worker, 503, kServer, "no_healthy_worker", true},
    {Errc::model_loading, 503, kServer, "model_loading", true},
    {Errc::preempted, 503, kServer, "preempted", true},
    {Errc::quota_store_unavailable, 503, kServer, "quota_store_unavailable", true},
    {Errc::deadline_exceeded, 504, kServer, "deadline_exceeded", false},
    {Errc::client_gone, 500, kServer, "internal_error", false},
    {Errc::over_capacity, 500, kServer, "internal_error", true},
    {Errc::ring_full, 500, kServer, "internal_error", true},
    {Errc::corrupt_record, 500, kServer, "internal_error", true},
    {Errc::corrupt_region, 500, kServer, "internal_error", true},
    {Errc::bad_config, 500, kServer, "internal_error", false},
    {Errc::bad_file, 500, kServer, "internal_error", false},
    {Errc::io_error, 500, kServer, "internal_error", true},
    {Errc::already_running, 500, kServer, "internal_error", false},
}};

constexpr bool in_order() {
  for (std::size_t i = 0; i < kRows.size(); ++i)
    if (static_cast<std::size_t>(kRows[i].code) != i) return false;
  return true;
}
static_assert(in_order(), "kRows follows the order of Errc");

}  // namespace

Error system_error(const std::string& what, int code) {
  std::string why = std::strerror(code);
  if (code == ENOSPC || code == EDQUOT || code == EFBIG) why = "disk full (" + why + ")";
  return Error{Errc::io_error, what + ": " + why, {}, {}};
}

const ErrorRow& error_row(Errc code) {
  const auto index = static_cast<std::size_t>(code);
  CHECK(index < kRows.size());
  return kRows[index];
}

std::span<const ErrorRow> error_rows() {
  return kRows;
}

}  // namespace sluice
