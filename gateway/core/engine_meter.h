// EngineMeter: what the steps of one worker cost and yield, over all of its epochs: counters for
// the metrics page, and rates over the last seconds of work. Telemetry: nothing is decided or
// billed by it, so sums of the worker's own figures may be floating point. Pure; decision thread
// only; allocates nothing.
#pragma once

#include <cstdint>

#include "gateway/core/counters.h"
#include "shared/messages.h"
#include "shared/worker_facts.h"

namespace sluice::gw {

struct EngineCounters {
  std::uint64_t steps = 0;  // all records, those that only told credits included
  std::uint64_t prefill_tokens = 0, decode_tokens = 0;  // computed
  std::uint64_t prefix_queries = 0, prefix_hits = 0;    // prompt tokens
  std::uint64_t preemptions = 0;
  double busy_seconds = 0;     // of steps that computed tokens, plan to outcome
  double forward_seconds = 0;  // of these, inside the executor
  double operations = 0, bytes_moved = 0;
  Histogram step_tokens{kStepTokensBorders};  // computed per step
  Histogram step_time{kStepTimeBorders};      // of steps that computed tokens
};

// Over the last seconds of work (kEngineWindowSeconds of busy time, halved when
// full); all 0 before any.
struct EngineRates {
  double prefill_tokens_per_second = 0;  // of busy time
  double decode_tokens_per_second = 0;
  double sequences_fill = 0;    // sequences of a step / those that it may have, mean over steps
  double tokens_fill = 0;       // tokens of a step / its token budget, mean over steps
  double operations_share = 0;  // of the measured peak, while the executor runs; 0: peak unknown
  double bandwidth_share = 0;   // likewise
};

inline constexpr double kEngineWindowSeconds = 4;

class EngineMeter {
 public:
  // Another epoch of the worker: counters and rates go on.
  void open(std::uint32_t model, const WorkerFacts& facts);
  // A validated record.
  void take(const StepRecord& head);

  bool was_up() const { return was_up_; }
  std::uint32_t model() const { return model_; }
  const WorkerFacts& facts() const { return facts_; }  // of the latest epoch
  const EngineCounters& counters() const { return counters_; }
  EngineRates rates() const;

 private:
  struct Window {
    double steps = 0, busy_seconds = 0, forward_seconds = 0;
    double prefill_tokens = 0, decode_tokens = 0, sequences = 0;
    double operations = 0, bytes_moved = 0;
    void halve();
  };

  bool was_up_ = false;
  std::uint32_t model_ = 0;
  WorkerFacts facts_;
  EngineCounters counters_;
  Window window_;
};

}  // namespace sluice::gw
