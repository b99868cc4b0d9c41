// Random lives of children on virtual time. A naive model of the processes carries the actions out
// and checks the rules that others rely on.
#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <random>
#include <set>

#include "gateway/parent/supervision.h"
#include "tests/support/seed.h"

namespace sluice::gw {
namespace {

using namespace std::chrono_literals;
using test::uniform;

class World {
 public:
  explicit World(std::uint64_t seed)
      : rng_(seed), supervision_({2000ms, 20, 100ms, 10'000ms}, 5s, kWorkers) {
    apply(supervision_.start());
  }

  bool over() const { return exit_code_.has_value(); }

  void turn() {
    now_ += std::chrono::milliseconds(uniform(rng_, 0, 300));
    apply(supervision_.tick(now_));
    if (over()) return;
    const auto worker = WorkerId(static_cast<std::uint32_t>(uniform(rng_, 0, kWorkers - 1)));
    const std::size_t index = worker.value + 1;
    switch (uniform(rng_, 0, 11)) {
      case 0:
      case 1:
      case 2:
        end(index);
        break;
      case 3:
        if (uniform(rng_, 0, 2) == 0) end(0);
        break;
      case 4:
      case 5:
        if (processes_[0].alive && !processes_[0].dying) apply(supervision_.gateway_ready(now_));
        break;
      case 6:
      case 7:
      case 8:
        if (processes_[index].alive && !processes_[index].said_hello) {
          processes_[index].said_hello = true;
          apply(supervision_.worker_hello(worker, now_));
        }
        break;
      case 9:
        if (processes_[index].alive) apply(supervision_.stopped(worker_child(worker), now_));
        break;
      case 10:
        apply(uniform(rng_, 0, 1) == 0
                  ? supervision_.worker_corrupt(worker, Epoch(uniform(rng_, 1, 3)))
                  : supervision_.worker_recycle(worker, Epoch(uniform(rng_, 1, 3))));
        break;
      case 11:
        if (processes_[index].said_hello && uniform(rng_, 0, 200) == 0)
          apply(supervision_.terminate(SIGTERM, now_));
        break;
      default:
        break;
    }
  }

 private:
  static constexpr std::uint32_t kWorkers = 3;
  struct Process {
    bool alive = false;
    bool dying = false;
    bool said_hello = false;
    Epoch epoch{};
  };

  // Only a living process ends; once the ready line is out, else the start would be over.
  void end(std::size_t index) {
    Process& process = processes_[index];
    if (!process.alive || (!ready_ && !process.dying)) return;
    process.alive = process.dying = process.said_hello = false;
    if (index == 0) told_.clear();
    const ChildId id =
        index == 0 ? kGatewayChild : worker_child(WorkerId(static_cast<std::uint32_t>(index - 1)));
    apply(supervision_.exited(id, {true, uniform(rng_, 0, 1) == 0 ? SIGSEGV : SIGKILL}, "", now_));
  }

  void apply(const Actions& actions) {
    for (const Action& action : actions) {
      const std::size_t index =
          action.child.kind == ChildId::Kind::gateway ? 0 : action.child.worker.value + 1;
      Process& process = processes_[index];
      ASSERT_FALSE(over()) << "an action after the exit";
      switch (action.kind) {
        case ActionKind::spawn:
          ASSERT_FALSE(process.alive) << "a second process of one child";
          ASSERT_GT(action.epoch, process.epoch) << "epochs only grow";
          process = {true, false, false, action.epoch};
          break;
        case ActionKind::kill:
          ASSERT_TRUE(process.alive && !process.dying);
          process.dying = true;
          break;
        case ActionKind::worker_up:
          ASSERT_TRUE(processes_[0].alive && process.alive && process.said_hello);
          ASSERT_EQ(action.epoch, process.epoch);
          ASSERT_TRUE(told_.emplace(index, action.epoch).second) << "told twice";
          break;
        case ActionKind::worker_down:
          ASSERT_TRUE(processes_[0].alive);
          ASSERT_FALSE(process.alive) << "down before it was reaped";
          ASSERT_TRUE(told_.contains(index) && told_[index] == action.epoch) << "down without up";
          ASSERT_NE(action.reason, DownReason::none);
          told_.erase(index);
          break;
        case ActionKind::drain:
          ASSERT_TRUE(process.alive);
          break;
        case ActionKind::close:
          break;
        case ActionKind::announce_ready:
          ASSERT_FALSE(ready_);
          ready_ = true;
          break;
        case ActionKind::exit:
          exit_code_ = action.exit_code;
          break;
      }
    }
  }

  std::mt19937_64 rng_;
  Supervision supervision_;
  Tick now_ = Tick(100s);
  Process processes_[kWorkers + 1];
  std::map<std::size_t, Epoch> told_;  // what the living gateway believes to be up
  bool ready_ = false;
  std::optional<int> exit_code_;
};

TEST(SupervisionProperty, NoEpochIsToldTwiceNorDownBeforeItIsReaped) {
  const std::uint64_t base = test::test_seed(1);
  for (std::uint64_t seed = base; seed < base + 200; ++seed) {
    SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
    World world(seed);
    for (int i = 0; i < 1000 && !world.over(); ++i) {
      world.turn();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace sluice::gw
