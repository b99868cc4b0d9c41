// Error: what went wrong, as a value. One Errc enum for the whole project; error_row() maps each
// code to what a client sees (HTTP status, OpenAI error type and code) and whether a retry may
// help.
//
// Errors caused by a caller, a peer, load or the environment travel as Result<T>; broken invariants
// stop the process (check.h). Values only: no thread rule.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

enum class Errc : std::uint8_t {
  // Answers to a client, in the order of their HTTP status.
  invalid_json,
  invalid_value,
  unsupported_parameter,
  context_length_exceeded,
  invalid_schema,
  malformed_http,
  invalid_api_key,
  model_not_allowed,
  classification_denied,
  admin_required,
  insufficient_scope,
  read_only,
  not_found,
  model_not_found,
  method_not_allowed,
  request_timeout,
  already_exists,
  conflict,
  precondition_failed,
  request_too_large,
  unsupported_media_type,
  requests_rate_limited,
  tokens_rate_limited,
  tenant_circuit_open,
  concurrency_limit,
  insufficient_quota,
  request_exceeds_quota_capacity,
  headers_too_large,
  internal_error,
  poisoned_request,
  overloaded,
  no_healthy_worker,
  model_loading,
  preempted,
  quota_store_unavailable,
  deadline_exceeded,
  // Between our own parts; a client that meets one sees internal_error.
  client_gone,
  over_capacity,
  ring_full,
  corrupt_record,
  corrupt_region,
  bad_config,
  bad_file,
  io_error,
  already_running,
};
inline constexpr std::size_t kErrcCount = static_cast<std::size_t>(Errc::already_running) + 1;

struct Error {
  Errc code = Errc::internal_error;
  std::string detail;  // for people: what was wrong and what is allowed; never a secret or a prompt
  std::string param;   // the request field or configuration key at fault; empty when none
  std::optional<std::chrono::milliseconds> retry_after;  // truthful, only where a retry can succeed
};

// io_error for a system call that has failed with `code`: what was tried and why it failed.
Error system_error(const std::string& what, int code = errno);

struct ErrorRow {
  Errc code;
  std::uint16_t http_status;
  std::string_view type;      // "error.type" of the OpenAI envelope
  std::string_view api_code;  // "error.code"; also the label of the error counter
  bool retryable;  // false sends "x-should-retry: false" where the status would invite one
};

const ErrorRow& error_row(Errc code);
std::span<const ErrorRow> error_rows();  // in the order of Errc

}  // namespace sluice
