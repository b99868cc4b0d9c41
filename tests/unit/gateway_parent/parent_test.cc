// The parent with real child processes: start, restart, hand-over of regions, drain.
#include "gateway/parent/parent.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <fstream>

#include "tests/unit/gateway_parent/parent_run.h"

namespace sluice::gw {
namespace {

using namespace test;

constexpr const char* kCrashed = " reason=1 ";
constexpr const char* kStalled = " reason=2 ";
constexpr const char* kKilled = " reason=3 ";
constexpr const char* kCorrupt = " reason=4 ";

TEST(Parent, StartsItsChildrenAndPrintsOneReadyLine) {
  Scenario setup = quick();
  cfg::Tenant tenant;
  tenant.keys.emplace_back().name = "main";
  setup.config.tenants.push_back(tenant);
  ParentRun run(setup);
  Peer gateway = run.next_child();
  Peer worker = run.next_child();
  if (gateway.role() == "worker") std::swap(gateway, worker);
  const std::string gateway_start = gateway.expect(ControlKind::gateway_start);
  EXPECT_TRUE(contains(gateway_start, " value=0 ") && contains(gateway_start, " fds=1 config=1"));
  EXPECT_TRUE(contains(gateway_start, " secrets=1"));
  const std::string worker_start = worker.expect(ControlKind::worker_start);
  EXPECT_TRUE(contains(worker_start, " epoch=1 value=0 ") &&
              contains(worker_start, " fds=2 config=1"));
  EXPECT_TRUE(contains(worker_start, " secrets=0")) << "a worker needs no keys";
  worker.order("hello");
  EXPECT_TRUE(
      contains(gateway.expect(ControlKind::worker_up), "worker=0 epoch=1 value=0 reason=0 fds=3"));
  gateway.order("ready 1234");
  EXPECT_EQ(run.out_line(),
            "sluice ready: http://127.0.0.1:1234  model canned (canned executor, no real text)  1 "
            "worker");
  gateway.order("attach 0 1 1");
  EXPECT_TRUE(
      contains(worker.expect(ControlKind::attach), "worker=0 epoch=1 value=0 reason=0 fds=1"));
}

TEST(Parent, ChildrenHaveNoNewPrivilegesAndIgnoreTheTerminal) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  for (const int pid : {gateway.pid(), worker.pid()}) {
    EXPECT_EQ(::getpgid(pid), pid) << "Ctrl-C would end it before the drain";
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    const std::string text((std::istreambuf_iterator<char>(status)), {});
    EXPECT_TRUE(contains(text, "NoNewPrivs:\t1"));
  }
}

TEST(Parent, ACrashedWorkerIsReapedBeforeTheGatewayHearsAndComesBackWithANewEpoch) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  worker.order_last("signal " + std::to_string(SIGSEGV));
  const std::string down = gateway.expect(ControlKind::worker_down);
  EXPECT_FALSE(process_exists(worker.pid()));
  EXPECT_TRUE(contains(down, " epoch=1 ") && contains(down, kCrashed)) << down;
  Peer second = run.next_child();
  EXPECT_TRUE(contains(second.expect(ControlKind::worker_start), " epoch=2 "));
  second.order("hello");
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_up), " epoch=2 "));
}

TEST(Parent, AKillFromOutsideIsNoEvidence) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  ASSERT_EQ(::kill(worker.pid(), SIGKILL), 0);
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_down), kKilled));
}

TEST(Parent, AStoppedWorkerIsKilledAndReplaced) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  ASSERT_EQ(::kill(worker.pid(), SIGSTOP), 0);
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_down), kKilled));
  EXPECT_FALSE(process_exists(worker.pid()));
  EXPECT_TRUE(contains(run.next_child().expect(ControlKind::worker_start), " epoch=2 "));
}

TEST(Parent, AStepThatDoesNotEndIsAStall) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  worker.order("forward 5");
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_down), kStalled));
  EXPECT_FALSE(process_exists(worker.pid()));
}

TEST(Parent, UnreadSubmissionsAreAStallUnlessTheGatewayIsBehind) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  worker.order("phase 4");  // blocked
  gateway.order("attach 0 1 1");
  worker.expect(ControlKind::attach);
  gateway.order("submit");
  EXPECT_FALSE(gateway.has_message(400)) << "blocked is no stall";
  worker.order("phase 1");  // idle, with submissions that it does not read
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_down), kStalled));
}

TEST(Parent, CorruptRecordsCostTheWorkerItsEpoch) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  gateway.order("corrupt 0 1");
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_down), kCorrupt));
  EXPECT_TRUE(contains(run.next_child().expect(ControlKind::worker_start), " epoch=2 "));
}

TEST(Parent, AWorkerThatTalksNonsenseIsReplaced) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  worker.order_last("garbage");
  EXPECT_TRUE(contains(gateway.expect(ControlKind::worker_down), kCorrupt));
  Peer second = run.next_child();
  second.expect(ControlKind::worker_start);
  second.order_last("hello_with_wrong_epoch");
  EXPECT_TRUE(contains(run.next_child().expect(ControlKind::worker_start), " epoch=3 "));
  EXPECT_FALSE(gateway.has_message(0)) << "the gateway never heard of epoch 2";
}

TEST(Parent, AWorkerThatClosesItsChannelAndLivesOnIsReplaced) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  worker.order("close");
  gateway.expect(ControlKind::worker_down);
  EXPECT_FALSE(process_exists(worker.pid()));
}

TEST(Parent, ADeadGatewayComesBackOnItsPortAndFindsTheWorkersAndTheirRegions) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  gateway.order("attach 0 1 1");
  worker.expect(ControlKind::attach);
  ASSERT_EQ(::kill(gateway.pid(), SIGKILL), 0);
  Peer second = run.next_child();
  ASSERT_EQ(second.role(), "gateway");
  EXPECT_TRUE(contains(second.expect(ControlKind::gateway_start), " value=1234 "));
  EXPECT_TRUE(contains(second.expect(ControlKind::worker_up), " epoch=1 value=0 reason=0 fds=4"))
      << "with the last submit region";
  second.order("ready 1234");
  second.order("attach 0 1 2");
  EXPECT_TRUE(contains(worker.expect(ControlKind::attach), " epoch=1 ")) << "the same worker";
  EXPECT_TRUE(process_exists(worker.pid()));
}

TEST(Parent, AGatewayWhoseRegionIsForgedIsReplaced) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  gateway.order_last("garbage");
  EXPECT_EQ(run.next_child().role(), "gateway");
  EXPECT_FALSE(process_exists(gateway.pid()));
}

TEST(Parent, ATerminatingSignalDrainsGatewayThenWorkersAndExitsCleanly) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  run.signal(SIGTERM);
  gateway.expect(ControlKind::drain);
  EXPECT_FALSE(worker.has_message(0)) << "workers drain after the gateway";
  gateway.order("drained");
  worker.expect(ControlKind::drain);
  gateway.expect_closed();
  worker.order("drained");
  worker.expect_closed();
  worker.order_last("exit 0");
  gateway.order_last("exit 0");
  EXPECT_EQ(run.wait(), 0);
}

TEST(Parent, ChildrenThatIgnoreTheDrainAreKilledAfterItsLimit) {
  Scenario setup = quick();
  setup.config.queue.drain_timeout = std::chrono::milliseconds(10);
  ParentRun run(setup);
  auto [gateway, worker] = run.serve();
  run.signal(SIGINT);
  EXPECT_EQ(run.wait(), 0);
  EXPECT_FALSE(process_exists(worker.pid()) || process_exists(gateway.pid()));
}

TEST(Parent, ASecondSignalStopsAtOnce) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  run.signal(SIGTERM);
  gateway.expect(ControlKind::drain);
  run.signal(SIGTERM);
  EXPECT_EQ(run.wait(), 128 + SIGTERM);
  EXPECT_FALSE(process_exists(worker.pid()) || process_exists(gateway.pid()));
}

TEST(Parent, ChildrenDieWithAKilledParent) {
  ParentRun run(quick());
  auto [gateway, worker] = run.serve();
  run.signal(SIGKILL);
  EXPECT_EQ(run.wait(), 1000 + SIGKILL);
  EXPECT_TRUE(gateway.has_message(30'000) && worker.has_message(30'000)) << "their sockets close";
  // And its lock died with it: the next parent starts on the same directory.
  Scenario again = quick();
  again.state_dir = run.state_dir();
  ParentRun second(again);
  second.serve();
}

TEST(Parent, ReloadTakesAGoodFileAndRefusesABadOne) {
  Scenario setup = quick();
  setup.reload = [calls = 0, config = setup.config]() mutable -> Result<cfg::Config> {
    if (calls++ == 0) return make_error(Errc::bad_config, "f.yaml:3: listen.port: not a number");
    return config;
  };
  ParentRun run(setup);
  auto [gateway, worker] = run.serve();
  run.signal(SIGHUP);
  EXPECT_FALSE(gateway.has_message(100));
  EXPECT_TRUE(contains(run.err(), "f.yaml:3: listen.port: not a number"));
  run.signal(SIGHUP);
  EXPECT_TRUE(contains(gateway.expect(ControlKind::reload), " config=1"));
  EXPECT_FALSE(worker.has_message(0));
}

}  // namespace
}  // namespace sluice::gw
