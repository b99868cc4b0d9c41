// LoadClient: drives one server over plain HTTP from one thread with epoll, and measures.
//
// Closed loop: `connections` clients, each sends its next request when the last one ended. Open
// loop: Poisson arrivals at `rate`; a request's clock starts at its scheduled arrival, also when no
// connection was free, so that a slow server cannot hide behind a waiting client. A schedule (of a
// trace) is an open loop whose arrivals are given: request i is due at schedule[i].
//
//   |-- warmup --|------ measured window ------|-- drain --|
//
// Rates count what happened inside the window, CPU is read at its two ends; latencies are of
// requests that were due inside it, those that end during the drain included.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gateway/bench/cpu_meter.h"
#include "gateway/bench/latency_histogram.h"
#include "shared/clock.h"
#include "shared/result.h"

namespace sluice::bench {

struct LoadPlan {
  sockaddr_storage address{};
  socklen_t address_bytes = 0;
  std::vector<std::string> requests;  // sent in turn; never empty
  bool streamed = false;
  std::uint32_t connections = 1;   // closed loop: clients; open loop: most connections
  double rate = 0;                 // arrivals per second; 0: closed loop, or a schedule
  std::vector<Duration> schedule;  // ascending, from the start; then warmup is 0 and requests_max
                                   // at most its size
  std::uint64_t requests_max = 0;  // measured requests; 0: the window ends by `duration`
  Duration warmup{};
  Duration duration{};  // 0: the window ends by requests_max
  Duration drain{};     // after the window, requests in flight may end for so long
  Duration timeout{};   // of one request
  std::optional<std::uint64_t> abort_after;  // close after so many text events; 0: after sending
  std::uint64_t seed = 1;                    // of the arrivals
};

struct LoadResult {
  // Inside the window.
  Duration wall{};
  Duration client_cpu{};
  std::uint64_t requests_ended = 0;  // complete answers
  std::uint64_t text_events = 0;
  std::uint64_t completion_tokens =
      0;                            // by usage of answers that ended; text events where none came
  std::uint64_t prompt_tokens = 0;  // by usage
  // Of requests that were due inside the window.
  std::uint64_t requests_started = 0;
  std::uint64_t requests_ok = 0;
  std::uint64_t requests_aborted = 0;             // by abort_after
  std::uint64_t requests_unfinished = 0;          // still running when the drain was over
  std::map<std::string, std::uint64_t> failures;  // by kind
  LatencyHistogram ttft, itl, e2e;                // nanoseconds; e2e of complete answers
  std::uint64_t num_failures() const;
};

struct LoadProgress {
  double fraction;  // of the run
  std::uint64_t requests_ended;
  std::uint64_t failures;
};

// Raises RLIMIT_NOFILE to its hard limit when needed. Errors: io_error (epoll, descriptors).
// `progress` is called five times a second; may be empty.
Result<LoadResult> run_load(const LoadPlan& plan, CpuMeter& server_cpu,
                            const std::function<void(const LoadProgress&)>& progress);

// Host name or address and port. Errors: invalid_value.
Result<void> resolve(const std::string& host, const std::string& port, LoadPlan& plan);

}  // namespace sluice::bench
