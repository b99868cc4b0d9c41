// The tables inside ServingCore: what it keeps per request and per sequence. Seen by its sources
// only. Entries are reused; vectors keep their memory up to a bound.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gateway/core/serving_core.h"

namespace sluice::gw {

inline constexpr std::uint32_t kNoSequence = 0xffffffffu;

struct ServingCore::Request {
  enum class State : std::uint8_t {
    ended,  // stats stay readable until the slot is taken again
    live,
    failed,  // over; waits until its notice was carried out
  };
  State state = State::ended;
  std::uint32_t generation = 0;  // of the slot; with the index it makes the handle
  RequestId id;
  GenerationSpec spec;  // prompt and lists are dropped when it ends
  Reservation reservation;
  ReservationMode mode{};  // of `reservation`: a reload may change that of the account
  // A lowered limit took from it: why, for when it has no more.
  std::optional<Error> lowered;
  Prices prices;  // likewise; also after it was closed
  Error error{};  // of `failed`
  // An extension was refused: the request fails once its client could take what is covered.
  std::optional<Error> limit_error;
  struct LeaseWait {
    std::uint64_t since = 0;  // exchange
    Tick until;
  };
  std::optional<LeaseWait> lease_wait;  // an extension waits for the store of shared limits
  std::vector<std::uint32_t>
      choices;                 // sequence index, kNoSequence once the client is done with it
  std::uint32_t num_open = 0;  // choices whose client is not done
  bool was_dispatched = false;
  ProbeTicket ticket;                  // of the tenant's breaker
  TenantEnd end = TenantEnd::neutral;  // what the breaker will hear
  Tick admitted{}, dispatched{}, first_token{}, last_token{};
  GenerationStats stats;  // counts; durations are filled in when asked
};

struct ServingCore::Sequence {
  SequenceId id;  // 0: the slot is free
  RequestId request_id;
  std::uint32_t request = 0;  // its slot; valid while the client is open
  std::uint32_t choice = 0;
  std::uint32_t model = 0;
  TenantId tenant;
  SizeClass size{};
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens_max = 0;
  std::uint32_t output_tokens_granted = 0;  // reserved for it (quantile: at first)
  std::uint64_t prefix = 0;                 // hash for the router
  SequenceState state;
  std::vector<OutputToken> outputs;  // all that was drained; the first num_accepted are billed
  std::uint32_t num_top = 0;         // alternatives of each token
  std::vector<TopLogprob> top;       // of the tokens not accepted yet, num_top each
  // What the prompt was asked for; see GenerationSpec.
  SequenceTask task{};
  bool wants_prompt_scores = false;
  std::vector<float> prompt_logprobs;
  std::vector<TopLogprob> prompt_top;
  std::vector<float> embedding;
  WorkerId worker;            // valid while on a worker
  ResourceMeter meter;        // its tokens are those that the tenant's breaker counts as held
  std::uint32_t held_at = 0;  // place in that worker's list
  bool is_queued = false;     // waits for the first time
  bool is_resuming = false;   // waits again
  bool was_sent = false;
  bool is_retry = false;  // its epoch ended: the next dispatch takes from the retry budget
  bool is_probe = false;  // of its worker's breaker
  WorkerEnd worker_end = WorkerEnd::neutral;  // what that breaker will hear
  bool has_slot = false;                      // in the journal
  bool is_dirty = false;                      // a notice about its tokens is under way
  bool is_suspect = false;  // was in a crashed step and has not delivered a token since
  std::uint64_t weights_digest = 0, kernel_path = 0;  // of the first worker, once sent
  Tick arrival{}, admitted{}, waiting_since{};
  Tick dispatched{}, first_token{}, last_token{};
};

}  // namespace sluice::gw
