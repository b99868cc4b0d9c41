// What is known about a worker beside its records: what it says about itself when it starts, and
// why it ended. Plain values; both cores may use them.
#pragma once

#include <cstdint>

namespace sluice {

enum class DownReason : std::uint32_t {
  none = 0,
  crashed = 1,   // died by itself: evidence against the suspects
  stalled = 2,   // killed by the parent because a step did not end: evidence
  killed = 3,    // SIGKILL, SIGTERM or SIGSTOP from outside: no evidence
  corrupt = 4,   // its records were corrupt: evidence
  recycled = 5,  // planned
};

// What a worker promises about a sequence that it takes over.
enum class Continuity : std::uint32_t {
  exact = 0,  // with equal weights and kernel path the tokens are those of the undisturbed run (P2)
  tokens = 1,  // the accepted tokens stay; what follows may differ from the undisturbed run
};

// What a worker says about itself; validated by the receiver.
struct WorkerFacts {
  std::uint32_t vocab_size = 0;
  std::uint32_t context_tokens = 0;  // longest prompt + output
  std::uint32_t block_tokens = 0;    // slots of a KV block
  std::uint32_t num_blocks = 0;
  std::uint32_t sequences_max = 0;    // in one step
  std::uint32_t step_tokens_max = 0;  // token budget of a step
  std::uint64_t weights_digest = 0;  // first 64 bits of the SHA-256; equal digests and kernel paths
  std::uint64_t kernel_path = 0;  // hash of kernel path and KV type: continuity `exact` needs both
  // What the device can do at most, measured once at start; 0: unknown. Telemetry.
  std::uint64_t peak_operations_per_second = 0;
  std::uint64_t peak_bytes_per_second = 0;  // reading memory
  Continuity continuity = Continuity::exact;
  std::uint32_t embedding_size = 0;  // numbers of an embedding; 0: it serves none
};
static_assert(sizeof(WorkerFacts) == 64);

}  // namespace sluice
