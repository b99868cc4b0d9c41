// HttpMetrics: what the HTTP side counts, and its lines on the metrics page. Labels come from fixed
// tables (endpoint, status class, error code), so their number is bounded.
// Event loop only.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "gateway/http/routes.h"
#include "shared/errors.h"

namespace sluice::gw {

struct HttpMetrics {
  std::array<std::array<std::uint64_t, 6>, kEndpoints> responses{};  // by status / 100
  std::array<std::uint64_t, kErrcCount> errors{};  // answered, or events of a begun stream
  std::uint64_t connections_opened = 0;
  std::uint64_t connections_refused = 0;  // over the limit
  std::uint64_t connections_open = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t clients_gone = 0;  // while their request ran
  std::uint64_t stream_events = 0;
  std::uint64_t parse_ns = 0;         // JSON bodies
  std::uint64_t pool_jobs = 0;        // texts tokenized off the loop
  std::uint64_t body_bytes_held = 0;  // of bodies being read, now

  void count_response(Endpoint endpoint, unsigned status) {
    ++responses[static_cast<std::size_t>(endpoint)][status / 100 < 6 ? status / 100 : 5];
  }
  void count_error(Errc code) { ++errors[static_cast<std::size_t>(code)]; }
};

// Prometheus text format.
void append_http_metrics(std::string& out, const HttpMetrics& metrics);

// Building blocks of the page, for the other writers of it.
void append_metric_head(std::string& out, std::string_view name, std::string_view type,
                        std::string_view help);
void append_sample(std::string& out, std::string_view name, std::string_view labels,
                   std::uint64_t value);

}  // namespace sluice::gw
