// Starts that cannot succeed: one clear line, exit code 1, no restart loop, nobody left behind.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/gateway_parent/parent_run.h"

namespace sluice::gw {
namespace {

using namespace test;

// Exit code 1, nothing on stdout, and one line that starts with the program's name.
void expect_failed(ParentRun& run, const std::string& part) {
  EXPECT_EQ(run.wait(), 1);
  EXPECT_EQ(run.out(), "");
  const std::string err = run.err();
  const std::size_t at = err.find("sluice: ");
  ASSERT_NE(at, std::string::npos) << err;
  const std::string line = err.substr(at, err.find('\n', at) - at);
  EXPECT_TRUE(contains(line, part)) << line;
  EXPECT_EQ(err.find("sluice: ", at + 1), std::string::npos) << "one line";
}

TEST(ParentFailure, APortInUseIsTold) {
  ParentRun run(quick());
  auto [gateway, worker] = run.start_children();
  gateway.order("failed 127.0.0.1:8080 is in use");
  gateway.order_last("exit 1");
  expect_failed(run, "gateway: 127.0.0.1:8080 is in use");
  EXPECT_FALSE(process_exists(worker.pid())) << "left behind";
}

TEST(ParentFailure, AWorkerThatCannotLoadIsTold) {
  ParentRun run(quick());
  auto [gateway, worker] = run.start_children();
  gateway.order("ready 1234");
  worker.order("failed model /nowhere: no such directory");
  worker.order_last("exit 1");
  expect_failed(run, "worker 0: model /nowhere: no such directory");
}

TEST(ParentFailure, ACrashDuringTheStartIsTold) {
  ParentRun run(quick());
  auto [gateway, worker] = run.start_children();
  worker.order_last("exit 7");
  expect_failed(run, "worker 0: ended during the start (exit code 7)");
}

TEST(ParentFailure, AMissingProgramIsTold) {
  Scenario setup = quick();
  setup.worker_program = "/nonexistent/sluice-worker";
  ParentRun run(setup);
  expect_failed(run, "cannot execute /nonexistent/sluice-worker: No such file or directory");
}

TEST(ParentFailure, ASecondInstanceIsRefusedByPidAndDirectory) {
  ParentRun first(quick());
  auto [gateway, worker] = first.serve();
  Scenario setup = quick();
  setup.state_dir = first.state_dir();
  ParentRun second(setup);
  expect_failed(second, "another sluice (pid " + std::to_string(first.pid()) +
                            ") uses the state directory " + first.state_dir());
  EXPECT_TRUE(process_exists(worker.pid()));
}

TEST(ParentFailure, ADiskWithoutRoomForTheJournalIsTold) {
  Scenario setup = quick();
  setup.config.journal_slots = 16384;
  setup.file_bytes_max = 64 << 10;
  ParentRun run(setup);
  expect_failed(run, "disk full");
}

TEST(ParentFailure, MoreWorkersThanThereMayBeAreRefused) {
  Scenario setup = quick();
  setup.config.models[0].workers = 65;
  ParentRun run(setup);
  expect_failed(run, "65 workers are configured; allowed: 1..64");
}

}  // namespace
}  // namespace sluice::gw
