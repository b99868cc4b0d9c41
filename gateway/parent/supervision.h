// Supervision: what the parent does about its children. Pure: events with a Tick come in, actions
// come out; parent.h carries them out on real processes, the tests on virtual time.
//
// Rules:
// 1. A worker's epoch is over when its process is reaped; only then worker_down is said.
// 2. Before the ready line any child that fails ends the start with its reason; after it children
// are
//    started again with exponential back-off, which a minute of health resets.
// 3. What killed a worker decides what it proves: see down_reason().
// 4. A process that does not say in time that it serves hangs: it is ended like one that failed.
// 5. The first terminating signal drains, the second one stops at once.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "shared/clock.h"
#include "shared/control.h"
#include "shared/ids.h"

namespace sluice::gw {

struct ChildId {
  enum class Kind : std::uint8_t { gateway, worker };
  Kind kind = Kind::gateway;
  WorkerId worker{};
  friend bool operator==(ChildId, ChildId) = default;
};
inline constexpr ChildId kGatewayChild{};
constexpr ChildId worker_child(WorkerId worker) {
  return {ChildId::Kind::worker, worker};
}

struct ExitFacts {
  bool by_signal = false;
  int value = 0;  // signal or exit code
};

enum class ActionKind : std::uint8_t {
  spawn,           // child, epoch
  kill,            // child: SIGKILL; its exit is an event of its own
  worker_up,       // tell the gateway about child, epoch
  worker_down,     // tell the gateway: child, epoch, reason
  drain,           // tell child
  close,           // the child's channel: it has nothing left to do
  announce_ready,  // the ready line, once
  exit,            // end all children and the parent: exit_code, text when it is a failure
};

struct Action {
  ActionKind kind{};
  ChildId child{};
  Epoch epoch{};
  DownReason reason = DownReason::none;
  int exit_code = 0;
  std::string text;
};
using Actions = std::vector<Action>;

// What the parent sees of a worker through its two regions.
struct WatchFacts {
  bool page_readable = false;  // false: the writer was inside a write at every attempt
  std::uint32_t phase = 0;     // WorkerPhase
  std::uint64_t step = 0;
  Duration step_predicted{};  // 0: unknown
  Tick heartbeat{};
  bool has_unread = false;  // submissions it has not read
  std::uint64_t read_position = 0;
};

inline constexpr Duration kHealthyAfter = std::chrono::minutes(1);
inline constexpr Duration kDrainGrace = std::chrono::seconds(1);  // beyond the gateway's own limit
inline constexpr Duration kStopGrace = std::chrono::seconds(2);   // from drain to SIGKILL

class Supervision {
 public:
  Supervision(const cfg::Supervision& limits, Duration drain_timeout, std::uint32_t num_workers);

  Actions start();
  Actions spawn_failed(ChildId child, const std::string& why, Tick now);
  // The process is gone and reaped. `said`: the text of its `failed` message, if it sent one.
  Actions exited(ChildId child, ExitFacts facts, const std::string& said, Tick now);
  Actions stopped(ChildId child, Tick now);  // SIGSTOP and the like
  Actions continued(ChildId child);

  Actions gateway_ready(Tick now);
  Actions gateway_drained(Tick now);
  Actions worker_drained(WorkerId worker, Epoch epoch);
  Actions worker_hello(WorkerId worker, Tick now);
  Actions worker_corrupt(WorkerId worker,
                         Epoch epoch);  // said by the gateway; old epochs are ignored
  Actions worker_recycle(WorkerId worker, Epoch epoch);  // likewise; its successor starts at once
  Actions misbehaved(ChildId child);                     // a malformed message or region

  Actions terminate(int signal, Tick now);
  Actions watch(WorkerId worker, const WatchFacts& facts, Tick now);
  Actions tick(Tick now);
  Tick next_tick(Tick now) const;  // when tick() and watch() are due again

  bool is_up(WorkerId worker, Epoch epoch) const;
  bool is_watched(WorkerId worker) const { return workers_[worker.value].state == State::up; }
  Epoch epoch(WorkerId worker) const { return workers_[worker.value].epoch; }
  void set_limits(const cfg::Supervision& limits, Duration drain_timeout);

 private:
  enum class State : std::uint8_t { down, starting, up, ending };
  enum class Phase : std::uint8_t { starting, serving, draining, stopping, over };

  // Something that should change, and since when it has not.
  struct Sighting {
    std::optional<Tick> since;
    std::uint64_t key = 0;
    bool stays_longer_than(Duration limit, std::uint64_t seen, Tick now);
  };

  struct Child {
    State state = State::down;
    Epoch epoch{};  // of the last incarnation
    std::optional<Tick> restart_at;
    Duration delay{};  // of the last restart; zero: none yet
    Tick up_since{};
    std::optional<Tick> starting_since;  // the first look at it that found it starting
    std::optional<Tick> stopped_since;
    DownReason kill_reason = DownReason::none;  // why the parent killed it
    bool announced = false;                     // this gateway knows this epoch
    Sighting same_turn;                         // the step in forward, the loop's turn in planning
    Sighting same_unread;                       // the position that it does not read beyond
    Tick last_watch{};
  };

  Child& child(ChildId id);
  bool has_process(const Child& c) const { return c.state != State::down; }
  Action spawn(ChildId id);
  Actions kill(ChildId id, DownReason reason);
  void back_off(Child& c, Tick now);
  Actions announce_if_ready();
  Actions begin_stopping(Tick now);
  Actions finish_if_all_gone();
  Actions fail_start(ChildId id, const std::string& why);
  Actions end_hanging_starts(Tick now);
  Duration watch_interval() const;
  bool is_stalled(Child& worker, const WatchFacts& facts, Tick now) const;
  static void forget_sightings(Child& worker);

  cfg::Supervision limits_;
  Duration drain_timeout_;
  Phase phase_ = Phase::starting;
  Tick phase_deadline_{};  // of draining and stopping
  bool gateway_bound_ = false;
  Child gateway_;
  std::vector<Child> workers_;
};

// crashed: it ended itself, by a fault or an exit code; killed: a signal that only others send.
DownReason down_reason(ExitFacts facts);
std::string describe(ChildId child);
std::string describe(ExitFacts facts);

}  // namespace sluice::gw
