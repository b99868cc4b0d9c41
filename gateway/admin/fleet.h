// Fleet: what the admin routes see of circuit breakers and workers, and what they may do about
// them. The gateway role implements it over the decision loop, tests over plain values. Event
// loop's thread.
//
// What an operator ordered (a breaker opened by force, a worker drained) is kept and holds for the
// next gateway; what breakers found out themselves, their back-off and their history are forgotten
// with the gateway that saw it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::gw {

struct BreakerTransition {
  std::string_view from, to, reason;
  std::int64_t unix_ms = 0;
};

struct BreakerStatus {
  std::string id;                          // "tenant:NAME" or "worker:NUMBER"
  std::string_view kind;                   // tenant, worker
  std::string subject;                     // the tenant's id or the worker's number
  std::string_view state;                  // closed, throttled, open, half_open
  std::string_view reason;                 // of the last transition
  bool is_forced = false;                  // opened by an operator, until a reset
  std::int64_t since = 0;                  // Unix time in ms; 0: since the start
  std::int64_t retry_at = 0;               // of an open one that is not forced; else 0
  std::uint32_t openings = 0;              // in a row
  std::uint64_t refused = 0;               // requests, of a tenant
  std::vector<BreakerTransition> history;  // oldest first
};

struct WorkerStatus {
  std::string id;     // its number
  std::string model;  // name
  std::string_view device;
  std::string_view state;  // down, serving, draining, recycling
  std::string_view breaker;
  std::uint64_t epoch = 0;                                     // 0: none yet
  std::string weights_digest, kernel_path;                     // hex, as the workers say
  std::uint64_t steps = 0;                                     // since the gateway's start
  double step_ms = 0;                                          // the last one
  std::uint32_t sequences_held = 0;                            // sent to it and not over
  std::uint32_t sequences_running = 0, sequences_waiting = 0;  // by its last record
  std::uint64_t kv_blocks = 0, kv_blocks_free = 0, kv_blocks_cached = 0;
  std::vector<std::string> tenants;  // with sequences on it
};

enum class FleetAction : std::uint8_t {
  open_breaker,
  reset_breaker,
  drain_worker,
  resume_worker,
  recycle_worker,
};

class Fleet {
 public:
  virtual ~Fleet() = default;
  // By id, ascending: those behind `after` (empty: from the first), at most `count_max`.
  virtual std::vector<BreakerStatus> breakers(const std::string& after,
                                              std::size_t count_max) const = 0;
  virtual std::optional<BreakerStatus> breaker(const std::string& id) const = 0;
  virtual std::vector<WorkerStatus> workers() const = 0;
  // On the breaker or worker of that id; one that is gone meanwhile is left alone.
  virtual void act(FleetAction action, const std::string& id) = 0;
};

}  // namespace sluice::gw
