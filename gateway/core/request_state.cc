// SequenceState: the transitions, one function per event.
#include "gateway/core/request_state.h"

#include "shared/check.h"

namespace sluice::gw {

std::string_view discard_cause_name(DiscardCause cause) {
  switch (cause) {
    case DiscardCause::stop_overrun:
      return "stop_overrun";
    case DiscardCause::cancelled:
      return "cancelled";
    case DiscardCause::deadline:
      return "deadline";
    case DiscardCause::shutdown:
      return "shutdown";
    case DiscardCause::condemned:
      return "condemned";
    case DiscardCause::failed:
      return "failed";
    case DiscardCause::limit:
      return "limit";
    case DiscardCause::gateway_restart:
      return "gateway_restart";
  }
  return "unknown";
}

DiscardCause discard_cause(CancelCause cause) {
  switch (cause) {
    case CancelCause::client_gone:
      return DiscardCause::cancelled;
    case CancelCause::stop_string:
      return DiscardCause::stop_overrun;
    case CancelCause::deadline:
      return DiscardCause::deadline;
    case CancelCause::shutdown:
      return DiscardCause::shutdown;
    case CancelCause::failed:
      return DiscardCause::failed;
  }
  return DiscardCause::failed;
}

SequenceEffects SequenceState::dispatch() {
  CHECK(phase_ == SequencePhase::waiting);
  phase_ = SequencePhase::running;
  return {};
}

SequenceEffects SequenceState::unsent() {
  CHECK(phase_ == SequencePhase::running);
  phase_ = SequencePhase::waiting;
  return {.worker_over = true, .requeue = true};
}

SequenceEffects SequenceState::token(FinishReason finish) {
  const bool last = finish != FinishReason::none;
  if (last && finish != FinishReason::stop && finish != FinishReason::length) {
    return {.corrupt = true};
  }
  switch (phase_) {
    case SequencePhase::running:
      ++num_generated_;
      if (last) {
        finish_ = finish;
        phase_ = SequencePhase::drained;
      }
      return {.worker_over = last, .notify = true};
    case SequencePhase::cancelling:
      ++num_generated_;
      if (last) phase_ = SequencePhase::over;
      return {.worker_over = last, .discarded = 1, .cause = cause_};
    case SequencePhase::waiting:
    case SequencePhase::drained:
    case SequencePhase::over:
      break;
  }
  return {.corrupt = true};
}

SequenceEffects SequenceState::prompt_finished() {
  if (phase_ == SequencePhase::cancelling) {
    phase_ = SequencePhase::over;
    return {.worker_over = true};
  }
  if (phase_ != SequencePhase::running || num_generated_ > 0) return {.corrupt = true};
  phase_ = SequencePhase::drained;
  finish_ = FinishReason::length;
  return {.worker_over = true, .notify = true};
}

SequenceEffects SequenceState::finished(FinishReason finish) {
  const bool error = finish == FinishReason::error;
  if (phase_ == SequencePhase::cancelling && (error || finish == FinishReason::cancelled)) {
    phase_ = SequencePhase::over;
    return {.worker_over = true};
  }
  if (phase_ == SequencePhase::running && error) {
    const std::uint32_t pending = num_pending();
    phase_ = SequencePhase::over;
    finish_ = finish;
    return {.client_over = true,
            .worker_over = true,
            .failed = true,
            .discarded = pending,
            .cause = DiscardCause::failed};
  }
  return {.corrupt = true};
}

SequenceEffects SequenceState::epoch_end() {
  CHECK(is_on_worker());
  if (phase_ == SequencePhase::cancelling) {
    phase_ = SequencePhase::over;
    return {.worker_over = true};
  }
  phase_ = SequencePhase::waiting;
  return {.worker_over = true, .requeue = true};
}

SequenceEffects SequenceState::accept(std::uint32_t count) {
  if (!is_client_open()) return {};
  CHECK(count <= num_pending());
  num_accepted_ += count;
  if (phase_ != SequencePhase::drained || num_accepted_ != num_generated_) return {};
  phase_ = SequencePhase::over;
  return {.client_over = true};
}

SequenceEffects SequenceState::close(DiscardCause cause) {
  if (!is_client_open()) return {};
  const std::uint32_t pending = num_pending();
  const bool on_worker = phase_ == SequencePhase::running;
  cause_ = cause;
  phase_ = on_worker ? SequencePhase::cancelling : SequencePhase::over;
  return {.send_cancel = on_worker, .client_over = true, .discarded = pending, .cause = cause};
}

}  // namespace sluice::gw
