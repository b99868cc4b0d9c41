// SequenceState: the life of one choice of a request, seen from both of its ends: the worker that
// extends it and the client that takes its tokens. Events in, effects out as values.
//
//   waiting --dispatch--> running --last token--> drained --all accepted--> over
//                                or prompt end
//      ^  |                |   |                     |                       ^
//      |  +--close---------|---|---------------------+--close----------------+
//      +--epoch_end/unsent-+   +--close--> cancelling --acknowledged, epoch_end--+
//
// `drained`: the worker is done with it, the client has not taken every token yet (a slow client).
// `cancelling`: the client is done with it, the worker still knows it; its tokens are discarded.
//
// Invariants: 1. generated == accepted + discarded + pending; 2. client_over and the end at `over`
// happen exactly once; 3. send_cancel at most once per dispatch; 4. an event that the worker may
// not send in this phase changes nothing and says corrupt. Client events after the client's end are
// ignored. Pure; holds counts, not tokens.
#pragma once

#include <cstdint>
#include <string_view>

#include "gateway/core/generation.h"
#include "shared/messages.h"

namespace sluice::gw {

enum class SequencePhase : std::uint8_t { waiting, running, cancelling, drained, over };

// Why generated tokens were not accepted (P4).
enum class DiscardCause : std::uint8_t {
  stop_overrun,  // behind a stop string
  cancelled,     // the client left
  deadline,
  shutdown,
  condemned,        // poisoned request
  failed,           // any other failure of the request
  limit,            // the tenant may not go on: a limit, a revoked key
  gateway_restart,  // of sequences that a former gateway submitted
};
inline constexpr std::size_t kDiscardCauses = 8;
std::string_view discard_cause_name(DiscardCause cause);
DiscardCause discard_cause(CancelCause cause);

struct SequenceEffects {
  bool send_cancel = false;  // tell the worker
  bool client_over = false;  // settle, absorb the journal slot; the sink hears nothing more
  bool worker_over = false;  // the worker does not hold it any more
  bool requeue = false;      // resubmit prompt + output so far
  bool notify = false;       // there are tokens to take
  bool failed = false;       // the worker could not go on
  bool corrupt = false;      // the worker may not say this
  std::uint32_t discarded = 0;
  DiscardCause cause{};  // of `discarded`
  friend bool operator==(const SequenceEffects&, const SequenceEffects&) = default;
};

class SequenceState {
 public:
  SequenceEffects dispatch();                     // REQUIRES: waiting
  SequenceEffects unsent();                       // the ring had no room. REQUIRES: running
  SequenceEffects token(FinishReason finish);     // `finish`: none, stop or length
  SequenceEffects prompt_finished();              // nothing was to follow the prompt
  SequenceEffects finished(FinishReason finish);  // without a token: cancelled or error
  SequenceEffects epoch_end();                    // REQUIRES: running or cancelling
  SequenceEffects accept(std::uint32_t count);    // REQUIRES: count <= num_pending()
  SequenceEffects close(DiscardCause cause);      // stop, cancel, failure

  SequencePhase phase() const { return phase_; }
  bool is_client_open() const {
    return phase_ != SequencePhase::cancelling && phase_ != SequencePhase::over;
  }
  bool is_on_worker() const {
    return phase_ == SequencePhase::running || phase_ == SequencePhase::cancelling;
  }
  std::uint32_t num_generated() const { return num_generated_; }  // the next position
  std::uint32_t num_accepted() const { return num_accepted_; }
  std::uint32_t num_pending() const {
    return is_client_open() ? num_generated_ - num_accepted_ : 0;
  }
  FinishReason finish() const { return finish_; }
  // The client has something to take: tokens, or the end of a prompt that nothing follows.
  bool has_news() const {
    return num_pending() > 0 || (phase_ == SequencePhase::drained && num_generated_ == 0);
  }

 private:
  SequencePhase phase_ = SequencePhase::waiting;
  FinishReason finish_ = FinishReason::none;
  DiscardCause cause_{};  // valid once closed
  std::uint32_t num_generated_ = 0;
  std::uint32_t num_accepted_ = 0;
};

}  // namespace sluice::gw
