// Supervision on virtual time: events in, actions out. One behaviour each.
#include "gateway/parent/supervision.h"

#include <gtest/gtest.h>

#include <csignal>

#include "shared/progress_page.h"

namespace sluice::gw {
namespace {

using namespace std::chrono_literals;
using shm::WorkerPhase;

constexpr ExitFacts kSegv{true, SIGSEGV};
constexpr ExitFacts kKill9{true, SIGKILL};

class SupervisionTest : public testing::Test {
 protected:
  explicit SupervisionTest(std::uint32_t workers = 2) : supervision_(limits(), 30s, workers) {}

  static cfg::Supervision limits() { return {2000ms, 20, 100ms, 10'000ms}; }
  static constexpr WorkerId kFirst{0};
  static constexpr WorkerId kSecond{1};

  // Gateway bound, all workers up.
  void serve() {
    supervision_.start();
    supervision_.gateway_ready(now_);
    supervision_.worker_hello(kFirst, now_);
    supervision_.worker_hello(kSecond, now_);
  }
  Actions at(Duration later) {
    now_ += later;
    return supervision_.tick(now_);
  }
  static std::vector<ActionKind> kinds(const Actions& actions) {
    std::vector<ActionKind> list;
    for (const Action& action : actions) list.push_back(action.kind);
    return list;
  }
  using Kinds = std::vector<ActionKind>;

  // Watches at the parent's pace for so long; the first non-empty answer, or none.
  Actions watch_for(WatchFacts facts, Duration how_long) {
    for (const Tick end = now_ + how_long; now_ < end; now_ += 500ms) {
      Actions actions = supervision_.watch(kFirst, facts, now_);
      if (!actions.empty()) return actions;
    }
    return {};
  }
  static WatchFacts in_phase(WorkerPhase phase) {
    WatchFacts facts;
    facts.page_readable = true;
    facts.phase = static_cast<std::uint32_t>(phase);
    return facts;
  }

  Supervision supervision_;
  Tick now_ = Tick(100s);
};

TEST_F(SupervisionTest, StartsEverythingAndAnnouncesOnce) {
  EXPECT_EQ(supervision_.start().size(), 3u);
  EXPECT_TRUE(supervision_.gateway_ready(now_).empty());
  EXPECT_EQ(kinds(supervision_.worker_hello(kFirst, now_)),
            (Kinds{ActionKind::worker_up, ActionKind::announce_ready}));
  EXPECT_EQ(kinds(supervision_.worker_hello(kSecond, now_)), (Kinds{ActionKind::worker_up}));
  EXPECT_TRUE(supervision_.is_up(kSecond, Epoch(1)));
  EXPECT_FALSE(supervision_.is_up(kSecond, Epoch(2)));
  EXPECT_FALSE(supervision_.is_up(WorkerId(2), Epoch(1)));
}

TEST_F(SupervisionTest, AnyFailureBeforeTheReadyLineEndsTheStartWithItsReason) {
  supervision_.start();
  const Actions actions =
      supervision_.exited(kGatewayChild, {false, 1}, "127.0.0.1:8080 is in use", now_);
  ASSERT_EQ(kinds(actions), (Kinds{ActionKind::exit}));
  EXPECT_EQ(actions[0].exit_code, 1);
  EXPECT_EQ(actions[0].text, "gateway: 127.0.0.1:8080 is in use");
  EXPECT_TRUE(at(1h).empty()) << "no restart loop";
}

TEST_F(SupervisionTest, ASilentDeathAtTheStartNamesItsSignal) {
  supervision_.start();
  supervision_.gateway_ready(now_);
  const Actions actions = supervision_.exited(worker_child(kSecond), kSegv, "", now_);
  ASSERT_EQ(kinds(actions), (Kinds{ActionKind::exit}));
  EXPECT_EQ(actions[0].text, "worker 1: ended during the start (signal 11)");
}

TEST_F(SupervisionTest, ADeadWorkerIsToldOnceItIsReapedAndComesBackWithTheNextEpoch) {
  serve();
  const Actions down = supervision_.exited(worker_child(kFirst), kSegv, "", now_);
  ASSERT_EQ(kinds(down), (Kinds{ActionKind::worker_down}));
  EXPECT_EQ(down[0].epoch, Epoch(1));
  EXPECT_EQ(down[0].reason, DownReason::crashed);
  EXPECT_TRUE(at(99ms).empty());
  const Actions again = at(1ms);
  ASSERT_EQ(kinds(again), (Kinds{ActionKind::spawn}));
  EXPECT_EQ(again[0].epoch, Epoch(2));
  EXPECT_EQ(kinds(supervision_.worker_hello(kFirst, now_)), (Kinds{ActionKind::worker_up}));
}

TEST_F(SupervisionTest, AWorkerThatNeverSaidHelloIsNotToldDown) {
  serve();
  supervision_.exited(worker_child(kFirst), kSegv, "", now_);
  at(100ms);
  EXPECT_TRUE(supervision_.exited(worker_child(kFirst), kSegv, "", now_).empty());
}

TEST_F(SupervisionTest, BackOffDoublesToItsBoundAndAMinuteOfHealthResetsIt) {
  serve();
  for (const Duration delay :
       {100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 6400ms, 10'000ms, 10'000ms}) {
    supervision_.exited(worker_child(kFirst), kSegv, "", now_);
    EXPECT_TRUE(at(delay - 1ms).empty());
    EXPECT_EQ(kinds(at(1ms)), (Kinds{ActionKind::spawn}));
    supervision_.worker_hello(kFirst, now_);
  }
  now_ += kHealthyAfter;
  supervision_.exited(worker_child(kFirst), kSegv, "", now_);
  EXPECT_EQ(kinds(at(100ms)), (Kinds{ActionKind::spawn}));
}

TEST_F(SupervisionTest, AFailedSpawnIsTriedAgain) {
  serve();
  supervision_.exited(worker_child(kFirst), kKill9, "", now_);
  at(100ms);
  EXPECT_TRUE(supervision_.spawn_failed(worker_child(kFirst), "no memory", now_).empty());
  EXPECT_EQ(kinds(at(200ms)), (Kinds{ActionKind::spawn}));
}

TEST_F(SupervisionTest, AWorkerThatHangsBeforeItsHelloIsKilledAndStartedAgain) {
  serve();
  supervision_.exited(worker_child(kFirst), kSegv, "", now_);
  ASSERT_EQ(kinds(at(100ms)), (Kinds{ActionKind::spawn}));
  EXPECT_TRUE(at(5min).empty());
  const Actions killed = at(1ms);
  ASSERT_EQ(kinds(killed), (Kinds{ActionKind::kill}));
  EXPECT_EQ(killed[0].child, worker_child(kFirst));
  EXPECT_TRUE(at(1ms).empty()) << "once";
  // Nobody was told that it was up, so nobody hears that it went down.
  EXPECT_TRUE(supervision_.exited(worker_child(kFirst), kKill9, "", now_).empty());
  EXPECT_EQ(kinds(at(200ms)), (Kinds{ActionKind::spawn}));
  EXPECT_TRUE(at(4min).empty());
  EXPECT_EQ(kinds(supervision_.worker_hello(kFirst, now_)), (Kinds{ActionKind::worker_up}));
  EXPECT_TRUE(at(1h).empty()) << "it has said its word";
}

TEST_F(SupervisionTest, AGatewayThatNeverListensAgainIsKilledToo) {
  serve();
  supervision_.exited(kGatewayChild, kSegv, "", now_);
  at(100ms);
  at(1ms);
  const Actions killed = at(5min + 1ms);
  ASSERT_EQ(kinds(killed), (Kinds{ActionKind::kill}));
  EXPECT_EQ(killed[0].child, kGatewayChild);
}

TEST_F(SupervisionTest, AChildThatHangsBeforeTheReadyLineEndsTheStart) {
  supervision_.start();
  supervision_.gateway_ready(now_);
  at(1ms);
  const Actions actions = at(5min + 1ms);
  ASSERT_EQ(kinds(actions), (Kinds{ActionKind::exit}));
  EXPECT_EQ(actions[0].exit_code, 1);
  EXPECT_EQ(actions[0].text,
            "worker 0: did not start within 300000 ms (supervision.start_timeout)");
}

TEST(DownReasons, FollowTheEvidence) {
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS})
    EXPECT_EQ(down_reason({true, signal}), DownReason::crashed) << signal;
  for (const int signal : {SIGKILL, SIGTERM, SIGINT, SIGHUP})
    EXPECT_EQ(down_reason({true, signal}), DownReason::killed) << signal;
  EXPECT_EQ(down_reason({false, 1}), DownReason::crashed);
  EXPECT_EQ(down_reason({false, 0}), DownReason::killed);
}

TEST_F(SupervisionTest, AStepThatDoesNotEndIsAStallAfterTheFloor) {
  serve();
  WatchFacts facts = in_phase(WorkerPhase::forward);
  facts.step = 7;
  EXPECT_TRUE(watch_for(facts, 2s).empty());
  const Actions actions = watch_for(facts, 2s);
  ASSERT_EQ(kinds(actions), (Kinds{ActionKind::kill}));
  EXPECT_TRUE(supervision_.watch(kFirst, facts, now_).empty()) << "killed once";
  const Actions down = supervision_.exited(worker_child(kFirst), kKill9, "", now_);
  EXPECT_EQ(down[0].reason, DownReason::stalled) << "the parent's own SIGKILL is no outsider's";
}

TEST_F(SupervisionTest, APredictedLongStepMayTakeItsFactor) {
  serve();
  WatchFacts facts = in_phase(WorkerPhase::forward);
  facts.step_predicted = 1s;
  EXPECT_TRUE(watch_for(facts, 20s).empty());
  EXPECT_EQ(watch_for(facts, 2s).size(), 1u);
}

TEST_F(SupervisionTest, StepsThatFollowEachOtherAreNoStall) {
  serve();
  WatchFacts facts = in_phase(WorkerPhase::forward);
  for (facts.step = 1; facts.step < 20; ++facts.step) EXPECT_TRUE(watch_for(facts, 1500ms).empty());
}

TEST_F(SupervisionTest, BlockedLoadingAndPlainIdleAreNoStall) {
  serve();
  WatchFacts blocked = in_phase(WorkerPhase::blocked);
  blocked.has_unread = true;
  EXPECT_TRUE(watch_for(blocked, 1h).empty());
  EXPECT_TRUE(watch_for(in_phase(WorkerPhase::loading), 1h).empty());
  EXPECT_TRUE(watch_for(in_phase(WorkerPhase::idle), 1h).empty());
}

TEST_F(SupervisionTest, SubmissionsUnreadForTooLongAreAStall) {
  serve();
  WatchFacts facts = in_phase(WorkerPhase::idle);
  facts.has_unread = true;
  for (int i = 0; i < 10; ++i) {
    facts.read_position += 64;  // it reads, slowly
    EXPECT_TRUE(watch_for(facts, 1500ms).empty());
  }
  EXPECT_EQ(watch_for(facts, 3s).size(), 1u);
}

TEST_F(SupervisionTest, ALoopThatStopsTurningInPlanningIsAStall) {
  serve();
  WatchFacts facts = in_phase(WorkerPhase::planning);
  for (int i = 0; i < 10; ++i) {
    facts.heartbeat += 1s;
    EXPECT_TRUE(watch_for(facts, 1s).empty());
  }
  EXPECT_EQ(watch_for(facts, 3s).size(), 1u);
}

TEST_F(SupervisionTest, APageThatStaysUnreadableIsAStall) {
  serve();
  WatchFacts facts;
  EXPECT_EQ(watch_for(facts, 3s).size(), 1u);
}

TEST_F(SupervisionTest, AParentThatSleptHasSeenNoStall) {
  serve();
  WatchFacts facts = in_phase(WorkerPhase::forward);
  EXPECT_TRUE(supervision_.watch(kFirst, facts, now_).empty());
  now_ += 1h;
  EXPECT_TRUE(supervision_.watch(kFirst, facts, now_).empty());
}

TEST_F(SupervisionTest, AStoppedWorkerIsKilledAfterTheFloorAndIsNoEvidence) {
  serve();
  supervision_.stopped(worker_child(kFirst), now_);
  EXPECT_TRUE(watch_for(in_phase(WorkerPhase::forward), 1900ms).empty());
  EXPECT_EQ(kinds(at(200ms)), (Kinds{ActionKind::kill}));
  EXPECT_EQ(supervision_.exited(worker_child(kFirst), kKill9, "", now_)[0].reason,
            DownReason::killed);
}

TEST_F(SupervisionTest, AWorkerThatIsContinuedInTimeLives) {
  serve();
  supervision_.stopped(worker_child(kFirst), now_);
  EXPECT_TRUE(at(1900ms).empty());
  supervision_.continued(worker_child(kFirst));
  EXPECT_TRUE(at(1h).empty());
}

TEST_F(SupervisionTest, CorruptRecordsCostTheCurrentEpochOnly) {
  serve();
  EXPECT_TRUE(supervision_.worker_corrupt(kFirst, Epoch(9)).empty());
  EXPECT_EQ(kinds(supervision_.worker_corrupt(kFirst, Epoch(1))), (Kinds{ActionKind::kill}));
  EXPECT_EQ(supervision_.exited(worker_child(kFirst), kKill9, "", now_)[0].reason,
            DownReason::corrupt);
}

TEST_F(SupervisionTest, ARecycledWorkerIsReplacedAtOnceEachTime) {
  serve();
  EXPECT_TRUE(supervision_.worker_recycle(kFirst, Epoch(9)).empty());
  for (std::uint64_t epoch = 1; epoch < 4; ++epoch) {
    EXPECT_EQ(kinds(supervision_.worker_recycle(kFirst, Epoch(epoch))), (Kinds{ActionKind::kill}));
    EXPECT_EQ(supervision_.exited(worker_child(kFirst), kKill9, "", now_)[0].reason,
              DownReason::recycled);
    EXPECT_EQ(kinds(at(0ms)), (Kinds{ActionKind::spawn})) << "no back-off";
    supervision_.worker_hello(kFirst, now_);
  }
}

TEST_F(SupervisionTest, ANewGatewayHearsOfEveryLiveWorker) {
  serve();
  EXPECT_TRUE(supervision_.exited(kGatewayChild, kKill9, "", now_).empty());
  EXPECT_TRUE(supervision_.exited(worker_child(kSecond), kSegv, "", now_).empty())
      << "nobody to tell";
  const Actions actions = at(100ms);
  ASSERT_EQ(kinds(actions), (Kinds{ActionKind::spawn, ActionKind::worker_up, ActionKind::spawn}));
  EXPECT_EQ(actions[0].child, kGatewayChild);
  EXPECT_EQ(actions[1].child, worker_child(kFirst));
  EXPECT_EQ(actions[1].epoch, Epoch(1)) << "workers go on";
  EXPECT_TRUE(supervision_.gateway_ready(now_).empty()) << "the ready line is printed once";
}

TEST_F(SupervisionTest, TheFirstSignalDrainsGatewayThenWorkers) {
  serve();
  EXPECT_EQ(kinds(supervision_.terminate(SIGTERM, now_)), (Kinds{ActionKind::drain}));
  EXPECT_EQ(kinds(supervision_.gateway_drained(now_)),
            (Kinds{ActionKind::close, ActionKind::drain, ActionKind::drain}));
  const Actions close = supervision_.worker_drained(kFirst, supervision_.epoch(kFirst));
  ASSERT_EQ(kinds(close), (Kinds{ActionKind::close}));
  EXPECT_EQ(close[0].child, worker_child(kFirst));
  supervision_.exited(worker_child(kFirst), {false, 0}, "", now_);
  EXPECT_TRUE(supervision_.worker_drained(kFirst, supervision_.epoch(kFirst)).empty()) << "gone";
  supervision_.exited(worker_child(kSecond), {false, 0}, "", now_);
  const Actions last = supervision_.exited(kGatewayChild, {false, 0}, "", now_);
  ASSERT_EQ(kinds(last), (Kinds{ActionKind::exit}));
  EXPECT_EQ(last[0].exit_code, 0);
}

TEST_F(SupervisionTest, AWorkerThatCrashesWhileDrainingIsReplaced) {
  serve();
  supervision_.terminate(SIGTERM, now_);
  EXPECT_EQ(kinds(supervision_.exited(worker_child(kFirst), kSegv, "", now_)),
            (Kinds{ActionKind::worker_down}));
  EXPECT_EQ(kinds(at(100ms)), (Kinds{ActionKind::spawn})) << "its streams need a worker";
}

TEST_F(SupervisionTest, ADrainIsBounded) {
  serve();
  supervision_.terminate(SIGTERM, now_);
  EXPECT_TRUE(at(30s).empty());
  EXPECT_EQ(kinds(at(kDrainGrace)),
            (Kinds{ActionKind::close, ActionKind::drain, ActionKind::drain}));
  EXPECT_TRUE(at(kStopGrace - 1ms).empty());
  EXPECT_EQ(kinds(at(1ms)), (Kinds{ActionKind::exit}));
}

TEST_F(SupervisionTest, ASecondSignalStopsAtOnce) {
  serve();
  supervision_.terminate(SIGTERM, now_);
  const Actions actions = supervision_.terminate(SIGINT, now_);
  ASSERT_EQ(kinds(actions), (Kinds{ActionKind::exit}));
  EXPECT_EQ(actions[0].exit_code, 128 + SIGINT);
}

TEST_F(SupervisionTest, ASignalDuringTheStartStopsWithoutADrain) {
  supervision_.start();
  EXPECT_EQ(kinds(supervision_.terminate(SIGINT, now_)),
            (Kinds{ActionKind::close, ActionKind::drain, ActionKind::drain}));
  EXPECT_EQ(at(kStopGrace)[0].exit_code, 0);
}

TEST_F(SupervisionTest, AGatewayThatDiesWhileDrainingEndsTheDrain) {
  serve();
  supervision_.terminate(SIGTERM, now_);
  EXPECT_EQ(kinds(supervision_.exited(kGatewayChild, kSegv, "", now_)),
            (Kinds{ActionKind::drain, ActionKind::drain}));
}

TEST_F(SupervisionTest, TheNextTickIsNeverBehindADueRestart) {
  serve();
  supervision_.exited(worker_child(kFirst), kSegv, "", now_);
  EXPECT_EQ(supervision_.next_tick(now_), now_ + 100ms);
  EXPECT_LE(supervision_.next_tick(now_ + 1s), now_ + 1s) << "overdue is due now";
}

}  // namespace
}  // namespace sluice::gw
