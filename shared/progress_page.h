// The progress page: telemetry that a worker leaves where a crash cannot take it. A seqlock with
// one writer; readers in the gateway and the parent. Lossy, never billed (P4).
//
// Before each forward pass the worker writes the ids of the step's sequences here: after a crash
// only these are suspects (P3).
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "shared/ids.h"
#include "shared/limits.h"
#include "shared/shm_region.h"

namespace sluice::shm {

enum class WorkerPhase : std::uint32_t {
  loading = 0,
  idle = 1,      // asleep on the doorbell or about to be
  planning = 2,  // between steps with work at hand
  forward = 3,   // inside the executor: the suspects are on the page
  blocked = 4,   // the step ring is full: the gateway is behind, not the worker
};

// The plain content; every field is one machine word, copied word by word under the seqlock.
struct Progress {
  std::uint64_t step = 0;
  std::uint64_t step_started_ns = 0;    // CLOCK_MONOTONIC
  std::uint64_t step_predicted_ns = 0;  // 0: unknown
  std::uint64_t generated_total = 0;
  std::uint64_t heartbeat_ns = 0;  // last time the loop turned
  std::uint32_t phase = 0;         // WorkerPhase
  std::uint32_t num_running = 0;
  std::uint32_t num_waiting = 0;
  std::uint32_t num_blocks_total = 0;
  std::uint32_t num_blocks_free = 0;
  std::uint32_t num_suspects = 0;  // <= kBatchSequencesMax
  std::uint64_t suspects[kBatchSequencesMax] = {};
};
static_assert(sizeof(Progress) + 8 <= kPageBytes);

// Writer side. Touches only the words it is told to change.
class ProgressWriter {
 public:
  explicit ProgressWriter(Region& step_region);  // REQUIRES: owner of a step region
  // Before a forward pass: phase, step, times and suspects.
  void begin_forward(std::uint64_t step, std::uint64_t started_ns, std::uint64_t predicted_ns,
                     std::span<const SequenceId> suspects);
  // After it, or when the loop turns without one. Takes generated_total and the counts of running,
  // waiting and blocks; the suspects are cleared, the step and its times stay.
  void turn(WorkerPhase phase, std::uint64_t now_ns, const Progress& counts);

 private:
  template <class Change>
  void write(Change change);

  std::atomic<std::uint64_t>* sequence_;  // odd while a write is under way
  std::atomic<std::uint64_t>* words_;     // the Progress, word by word
  Progress content_;                      // what the page says: the writer never reads it back
};

// A consistent copy (suspects beyond num_suspects are 0), or nothing when the writer was busy for
// 64 attempts (or died inside a write: callers then take the torn copy's phase as unknown).
// num_suspects is clamped to the table.
std::optional<Progress> read_progress(const Region& step_region);

}  // namespace sluice::shm
