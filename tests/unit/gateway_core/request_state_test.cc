// SequenceState: every interleaving of up to seven events, judged by the invariants of its header
// and by a record that is kept beside it.
#include "gateway/core/request_state.h"

#include <gtest/gtest.h>

#include <array>

namespace sluice::gw {
namespace {

enum class Event {
  dispatch,
  unsent,
  token,
  last_token,
  prompt_end,
  finished_error,
  finished_cancelled,
  epoch_end,
  accept_one,
  accept_all,
  accept_end,
  stop,
  cancel,
  count
};

// What the world outside has seen of one sequence.
struct Record {
  SequenceState state;
  std::uint32_t generated = 0, accepted = 0, discarded = 0;
  std::uint32_t client_ends = 0, dispatches = 0, worker_ends = 0, cancels_sent = 0;
  std::uint32_t cancels_this_dispatch = 0;
  bool client_closed = false;  // by stop, cancel or failure
};

// False: the event may not happen here (the caller's contract), nothing was done.
bool apply(Record& record, Event event) {
  SequenceState& state = record.state;
  const bool is_running = state.phase() == SequencePhase::running;
  SequenceEffects effects;
  bool is_token = false;
  switch (event) {
    case Event::dispatch:
      if (state.phase() != SequencePhase::waiting) return false;
      effects = state.dispatch();
      ++record.dispatches;
      record.cancels_this_dispatch = 0;
      break;
    case Event::unsent:
      if (!is_running) return false;
      effects = state.unsent();
      break;
    case Event::token:
      effects = state.token(FinishReason::none);
      is_token = true;
      break;
    case Event::last_token:
      effects = state.token(FinishReason::length);
      is_token = true;
      break;
    case Event::prompt_end:
      effects = state.prompt_finished();
      break;
    case Event::finished_error:
      effects = state.finished(FinishReason::error);
      break;
    case Event::finished_cancelled:
      effects = state.finished(FinishReason::cancelled);
      break;
    case Event::epoch_end:
      if (!state.is_on_worker()) return false;
      effects = state.epoch_end();
      break;
    case Event::accept_one:
      if (state.num_pending() < 1) return false;
      effects = state.accept(1);
      ++record.accepted;
      break;
    case Event::accept_all:
      if (state.num_pending() < 2) return false;
      record.accepted += state.num_pending();
      effects = state.accept(state.num_pending());
      break;
    case Event::accept_end:  // of a prompt that nothing follows
      if (state.num_pending() > 0 || !state.has_news()) return false;
      effects = state.accept(0);
      EXPECT_TRUE(effects.client_over);
      break;
    case Event::stop:
    case Event::cancel: {
      const auto cause =
          event == Event::stop ? DiscardCause::stop_overrun : DiscardCause::cancelled;
      if (!state.is_client_open()) {
        EXPECT_EQ(state.close(cause), SequenceEffects{}) << "a closed client was heard";
        return false;
      }
      effects = state.close(cause);
      record.client_closed = true;
      EXPECT_EQ(effects.cause, cause);
      break;
    }
    case Event::count:
      return false;
  }
  if (effects.corrupt) {
    SequenceEffects only;
    only.corrupt = true;
    EXPECT_EQ(effects, only) << "a refused event had effects";
    return true;
  }
  if (is_token) ++record.generated;
  record.discarded += effects.discarded;
  record.client_ends += effects.client_over ? 1 : 0;
  record.worker_ends += effects.worker_over ? 1 : 0;
  record.cancels_sent += effects.send_cancel ? 1 : 0;
  record.cancels_this_dispatch += effects.send_cancel ? 1 : 0;
  record.client_closed |= effects.failed;
  EXPECT_FALSE(effects.notify && !state.is_client_open());
  EXPECT_FALSE(effects.send_cancel && !is_running) << "cancel for a sequence that no worker holds";
  EXPECT_EQ(effects.requeue, state.phase() == SequencePhase::waiting && effects.worker_over);
  return true;
}

void check(const Record& record) {
  const SequenceState& state = record.state;
  ASSERT_EQ(record.generated, record.accepted + record.discarded + state.num_pending());
  ASSERT_EQ(state.num_generated(), record.generated);
  ASSERT_EQ(state.num_accepted(), record.accepted);
  ASSERT_EQ(record.client_ends, state.is_client_open() ? 0u : 1u);
  ASSERT_EQ(record.dispatches - record.worker_ends, state.is_on_worker() ? 1u : 0u);
  ASSERT_LE(record.cancels_this_dispatch, 1u);
  if (state.phase() == SequencePhase::over && !record.client_closed) {
    ASSERT_NE(state.finish(), FinishReason::none) << "over without a reason";
    ASSERT_EQ(record.discarded, 0u);
  }
  if (state.phase() == SequencePhase::cancelling) {
    ASSERT_EQ(record.cancels_this_dispatch, 1u);
  }
}

std::uint64_t explore(const Record& from, int depth) {
  if (depth == 0) return 1;
  std::uint64_t paths = 1;
  for (int event = 0; event < static_cast<int>(Event::count); ++event) {
    Record next = from;
    if (!apply(next, static_cast<Event>(event))) continue;
    check(next);
    if (testing::Test::HasFatalFailure()) return paths;
    paths += explore(next, depth - 1);
  }
  return paths;
}

TEST(SequenceState, HoldsItsInvariantsInEveryShortInterleaving) {
  EXPECT_GT(explore(Record{}, 7), 100'000u);
}

TEST(SequenceState, ASlowClientMayTakeTokensOfASequenceThatWaitsAgain) {
  SequenceState state;
  state.dispatch();
  state.token(FinishReason::none);
  state.epoch_end();
  EXPECT_EQ(state.num_pending(), 1u);
  EXPECT_EQ(state.accept(1), SequenceEffects{});
  EXPECT_EQ(state.phase(), SequencePhase::waiting);
}

TEST(SequenceState, AFinishedSequenceIsOverOnlyWhenItsLastTokenWasTaken) {
  SequenceState state;
  state.dispatch();
  state.token(FinishReason::none);
  EXPECT_TRUE(state.token(FinishReason::stop).worker_over);
  EXPECT_EQ(state.phase(), SequencePhase::drained);
  EXPECT_FALSE(state.accept(1).client_over);
  EXPECT_TRUE(state.accept(1).client_over);
  EXPECT_EQ(state.phase(), SequencePhase::over);
}

TEST(SequenceState, TheWorkerMayNotEndASequenceAsCancelledWithoutACancel) {
  SequenceState state;
  state.dispatch();
  EXPECT_TRUE(state.finished(FinishReason::cancelled).corrupt);
  EXPECT_TRUE(state.token(FinishReason::error).corrupt);
  EXPECT_EQ(state.phase(), SequencePhase::running);
}

TEST(DiscardCause, EveryCauseHasAName) {
  for (std::size_t i = 0; i < kDiscardCauses; ++i) {
    EXPECT_NE(discard_cause_name(static_cast<DiscardCause>(i)), "unknown");
  }
}

}  // namespace
}  // namespace sluice::gw
