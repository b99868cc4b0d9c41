// ServingSim: the whole system on virtual time - the production ServingCore and production
// Schedulers, a fake executor that costs a + b * prefill tokens + c * decode sequences, rings of
// bounded size, clients of several tenants, and faults: crashes, stalls and kills of workers, a
// poisoned request, full rings, slow and leaving clients, clocks that jump, limits that change.
//
// One tenant may flood: many prompts as long as they can be, evenly over the same time. In a
// measured world the others are alike, small and undisturbed, so that their waiting can be compared
// between two runs.
//
// Everything follows from the seed. After each event the invariants of both cores are checked, and
// those that only an outsider sees: what an account was charged in any minute stays below its
// limit, the journal equals what clients took. At the end every admitted request has ended exactly
// once, and every stream is the one that an undisturbed worker gives, or a prefix of it. One
// thread; no wall clock.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "gateway/core/serving_core.h"
#include "worker/core/scheduler.h"

namespace sluice::sim {

struct SimParams {
  std::uint64_t seed = 1;
  std::uint32_t num_workers = 2;
  std::uint32_t num_requests = 60;
  Duration arrivals_over{std::chrono::seconds(20)};
  std::uint32_t faults = 8;  // crashes, kills, stalls, jumps over that time
  bool has_poison = true;
  std::uint32_t flood_requests = 0;  // of tenant 0, beside num_requests
  bool is_measured = false;          // the others are of tenant 2, small, evenly spaced, patient
  gw::TenantBreakerParams tenant_breaker;
  // The fake executor's cost model.
  Duration step_base{std::chrono::microseconds(2000)};
  Duration per_prefill_token{std::chrono::microseconds(30)};
  Duration per_decode_sequence{std::chrono::microseconds(300)};
};

struct SimReport {
  std::uint64_t events = 0, steps = 0, admitted = 0, refused = 0, finished = 0, cancelled = 0;
  std::uint64_t limited = 0;  // stopped or cut by a limit while they ran
  std::uint64_t tripped = 0;  // refused or stopped by the breaker of their tenant
  std::uint64_t failed = 0, poisoned = 0, failovers = 0, preemptions = 0, unsent = 0;
  Duration took{};             // virtual
  std::vector<Duration> ttft;  // of those that do not flood
  std::string violation;       // empty: every promise was kept
};

class ServingSim {
 public:
  explicit ServingSim(const SimParams& params);
  ~ServingSim();
  SimReport run();

 private:
  enum class EventKind : std::uint8_t {
    arrive,
    leave,
    take,
    worker_turn,
    step_done,
    gateway_turn,
    crash,
    stall,
    kill,
    reaped,
    restart,
    jump,
    limits
  };
  struct Event {
    Tick at;
    std::uint64_t order;  // ties by order of scheduling
    EventKind kind;
    std::uint32_t subject;
    std::uint64_t epoch;  // of the worker, where the event is about one
    bool operator>(const Event& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };
  struct Record {  // on a step ring
    StepRecord head;
    std::vector<StepEntry> entries;
    std::optional<RejectRecord> reject;
  };
  struct Submitted {  // on a submit ring
    gw::Submission view;
    std::vector<TokenId> prompt, output, stop_ids;
    std::optional<SequenceId> cancel;
  };
  struct Worker {
    std::unique_ptr<eng::Scheduler> scheduler;  // none: down
    Epoch epoch{0};
    std::deque<Submitted> submit_ring;
    std::deque<SequenceId> cancels_waiting;  // for room
    std::deque<Record> step_ring;
    std::optional<Record> blocked;  // a record that waits for room
    std::vector<eng::SampledToken> sampled;
    std::vector<SequenceId> in_step;  // suspects while a step is computed
    SequenceId culprit;               // the one among them that kills it; 0: none
    bool is_computing = false, is_stalled = false, has_turn = false;
    StepRecord plan_counts{};
    std::uint64_t written = 0, read = 0, steps = 0, generated = 0;
    DownReason reason{};
    std::vector<SequenceId> suspects;
  };
  struct Client {
    gw::GenerationSpec spec;
    gw::GenerationHandle handle;
    std::vector<std::vector<TokenId>> taken;
    std::vector<bool> is_finished;
    bool is_slow = false, is_gone = false, is_refused = false;
    std::optional<Error> failure;
    Tick admitted{};
    bool is_over() const;
  };

  void push(Duration after, EventKind kind, std::uint32_t subject, Epoch epoch = Epoch{0});
  std::uint64_t dice(std::uint64_t bound);
  void happen(const Event& event);
  void arrive(std::uint32_t client);
  void make_mixed(std::uint32_t client);
  void make_even(std::uint32_t client);
  bool is_flood(std::uint32_t client) const { return client >= params_.num_requests; }
  void take(std::uint32_t client, std::uint32_t most);
  void take_choice(Client& client, std::uint32_t choice, std::uint32_t most);
  void check_scores(const Client& client);
  void worker_turn(std::uint32_t id);
  void read_submissions(Worker& worker);
  void start_step(std::uint32_t id);
  void step_done(std::uint32_t id);
  void publish(std::uint32_t id, Record record);
  void end_epoch(std::uint32_t id, DownReason reason);
  void reaped(std::uint32_t id);
  void restart(std::uint32_t id);
  void gateway_turn();
  void drain(std::uint32_t id);
  void carry_out();
  void carry_out(const gw::Command& command);
  void wake(std::uint32_t id);
  void wake_gateway();
  void change_limits();
  void check();
  void check_ledger();
  void check_end();
  void violate(const std::string& what);

  const SimParams params_;
  Tick now_{std::chrono::seconds(100)};
  std::uint64_t order_ = 0, rolls_ = 0, next_id_ = 1;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::unique_ptr<gw::ServingCore> core_;
  gw::CoreLimits limits_;
  std::vector<Worker> workers_;
  std::vector<Client> clients_;
  std::map<std::uint64_t, std::uint32_t> by_handle_;
  std::map<std::uint32_t, std::uint32_t> journal_;  // open slots: table index -> billed
  std::uint64_t billed_ = 0;                        // absorbed
  bool gateway_has_turn_ = false;
  SimReport report_;
};

}  // namespace sluice::sim
