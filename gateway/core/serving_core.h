// ServingCore: the deciding half of the gateway as one pure object. Events in (submissions, step
// records, workers up and down, cancels, time), commands and notices out as values.
//
//   submit -> ledger -> queue -> router + credits -> worker -> step record -> settle -> sink
//
// Two outputs, because they are carried out at different moments:
//   commands: ring writes and journal stores, carried out right after each event, in order;
//   notices:  "there are tokens", "it failed": carried out after a batch of records was drained,
//   and
//             only if the handle still lives (is_live), for a sink may cancel others.
//
// Invariants (check_invariants, O(n)): 1. generated == accepted + discarded + pending, per model;
// 2. every admitted request ends exactly once; 3. a sequence is waiting xor held by exactly one
// worker xor drained; 4. nothing is reserved for a request that ended; 5. a sequence that a worker
// knows is known here until the worker acknowledged its end or its epoch ended.
//
// A sequence resubmitted after the end of an epoch goes only to a worker of equal weights and
// kernel path (continuity `exact`, P3); without one it waits. The prompt is billed from its
// dispatch on. Decision thread only. Per step and token: no allocation, O(1) per entry.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gateway/core/counters.h"
#include "gateway/core/due_queue.h"
#include "gateway/core/engine_meter.h"
#include "gateway/core/generation.h"
#include "gateway/core/id_index.h"
#include "gateway/core/lease_book.h"
#include "gateway/core/ledger.h"
#include "gateway/core/output_predictor.h"
#include "gateway/core/poison.h"
#include "gateway/core/request_queue.h"
#include "gateway/core/request_state.h"
#include "gateway/core/resource_use.h"
#include "gateway/core/router.h"
#include "gateway/core/tenant_breaker.h"
#include "gateway/core/worker_account.h"
#include "gateway/core/worker_breaker.h"
#include "shared/result.h"

namespace sluice::gw {

// Who may spend what. Accounts by their number, tenants and keys alike.
struct CoreLimits {
  std::vector<AccountSpec> accounts;
  std::vector<Prices> prices;  // by model; empty: all 0
  std::uint32_t num_tenants = 1;
  std::vector<std::uint32_t> weights{};  // by tenant; those that are missing: 1
};

// What one write changes of them: what it does not name stays. New accounts and tenants have the
// next numbers and come in order.
struct LimitsChange {
  std::vector<std::pair<AccountId, AccountSpec>> accounts;  // each once
  std::vector<std::pair<TenantId, std::uint32_t>> weights;
};

struct CoreParams {
  QueueParams queue;
  Duration queue_wait_max{std::chrono::seconds{60}};  // then overloaded
  // A model whose last worker went down so recently still takes requests: it is being restarted.
  Duration worker_grace{std::chrono::seconds{10}};
  std::uint32_t sequences_max = 16384;  // live ones, waiting included: the journal's slots
  std::uint32_t num_models = 1;
  std::uint32_t num_workers = 1;
  CoreLimits limits;
  TenantBreakerParams tenant_breaker;
  WorkerBreakerParams worker_breaker;
  SequenceId first_id{1};                            // smaller ids belonged to a former gateway
  std::optional<LeaseParams> leases;                 // limits are shared with other gateways
  Duration lease_wait_max{std::chrono::seconds{1}};  // of an extension for the store
};

enum class CommandKind : std::uint8_t {
  open_slot,       // `sequence`: journal slot, before anything is sent
  write_submit,    // `sequence` to `worker`; answer with submit_written or submit_unsent
  write_cancel,    // `id` to `worker`
  accept_slot,     // `sequence`: `value` output tokens are billed in total
  cache_slot,      // `sequence`: `value` of its prompt tokens came from the prefix cache
  absorb_slot,     // `sequence`: its client is done
  report_corrupt,  // `worker`: kill this epoch; reason in worker(id).corrupt_reason()
  recycle,         // `worker`: end this epoch as planned; another one follows
  drained,         // nothing is left to do
};

struct Command {
  CommandKind kind;
  std::uint32_t sequence = 0;  // table index, < sequences_max; one journal slot each at most
  SequenceId id;
  WorkerId worker;
  std::uint32_t value = 0;
  ResourceUse use{};  // of accept_slot and absorb_slot: of the sequence, so far
};

// What an operator wants of a worker. `draining` outlives its epochs; `recycling` ends with this
// one.
enum class WorkerMode : std::uint8_t {
  serving,
  draining,   // no new work; what it runs may finish
  recycling,  // likewise, and then, or at the latest after a time, its process is replaced
};

enum class NoticeKind : std::uint8_t { tokens, failed };
struct Notice {
  NoticeKind kind;
  GenerationHandle handle;
  std::uint32_t choice = 0;  // of `tokens`
};

// What goes into a submission record. Spans hold until the next event.
struct Submission {
  SubmitRecord head;  // salt left 0: the shell's secret
  std::span<const TokenId> prompt, output, stop_ids;
  std::span<const LogitBias> bias;
  TenantId tenant;
};

struct JournalFacts {  // of open_slot
  RequestId request;
  SequenceId sequence;
  TenantId tenant;
  AccountId account;
  std::uint32_t model, choice, prompt_tokens, reserved_tokens;
  Prices prices;  // of its reservation
  Tick admitted;  // when that was made
};

class ServingCore {
 public:
  explicit ServingCore(CoreParams params);
  ~ServingCore();
  ServingCore(const ServingCore&) = delete;
  ServingCore& operator=(const ServingCore&) = delete;

  // Events of handlers (decision_loop.h says what they mean). Unknown handles are ignored.
  Result<void> count_request(AccountId account, Tick now);
  Result<void> precheck(TenantId tenant, AccountId account, std::uint32_t model, Tick now);
  // `ids`: one per choice, ascending, never used before.
  Result<GenerationHandle> submit(GenerationSpec spec, RequestId request,
                                  std::span<const SequenceId> ids, Tick now);
  std::span<const OutputToken> pending(GenerationHandle handle, std::uint32_t choice) const;
  // Of the pending tokens: the same number for each.
  std::span<const TopLogprob> pending_top(GenerationHandle handle, std::uint32_t choice) const;
  PromptResult prompt_result(GenerationHandle handle, std::uint32_t choice) const;
  void accept(GenerationHandle handle, std::uint32_t choice, std::uint32_t count, Tick now);
  void stop(GenerationHandle handle, std::uint32_t choice, Tick now);
  void cancel(GenerationHandle handle, CancelCause cause, Tick now);
  // Of a `failed` notice: hands over the error and forgets the request. Nothing: it is gone
  // already.
  std::optional<Error> take_failure(GenerationHandle handle);

  // Limits shared with other gateways (Ledger::lease); `tenant` and `account` in place of the
  // spec's.
  Result<LeaseState> lease(const GenerationSpec& spec, TenantId tenant, AccountId account,
                           std::uint64_t since, Tick now);
  Result<LeaseState> lease_request(AccountId account, std::uint64_t since, Tick now);
  // Events of their store. After answers, whoever waited tries again.
  void store_connected(Duration settling, Tick now);
  void store_lost();
  std::vector<LeaseAsk> begin_exchange(std::size_t asks_max, Tick now);
  void end_exchange(const LeaseAnswers& answers, Tick now);
  const LeaseBook* leases() const { return leases_.get(); }  // nothing: limits are this gateway's

  // Events of workers. `worker_down`: its committed records were fed before; `suspects`: the
  // sequences of the step during which it ended.
  void worker_up(WorkerId worker, std::uint32_t model, Epoch epoch, const WorkerFacts& facts,
                 EpochOrigin origin, Tick now);
  void worker_down(WorkerId worker, DownReason reason, std::span<const SequenceId> suspects,
                   Tick now);
  void step(WorkerId worker, const StepView& record, Tick now);
  void reject(WorkerId worker, const RejectRecord& record, Tick now);
  void corrupt(WorkerId worker, std::string reason);  // the ring itself is
  void submit_written(std::uint32_t sequence, std::uint64_t ring_position);
  void submit_unsent(std::uint32_t sequence);  // no room now
  void wrote(WorkerId worker,
             std::uint64_t ring_position);                // cancels included; before its next step
  void submit_refused(std::uint32_t sequence, Tick now);  // larger than the ring can ever take

  // Events of time and operator.
  void tick(Tick now);
  std::optional<Tick> next_due() const;
  // Never fewer accounts or tenants. Newest first, requests that do not fit under the new limits go
  // on with what still does, up to the last token of it; those that have none left end at once.
  void reload(const CoreLimits& limits, const QueueParams& queue, Duration wait_max, Tick now);
  // The same for few accounts, in time that grows with them and with the live requests alone.
  void change_limits(const LimitsChange& change, Tick now);
  void set_tenant_breaker(const TenantBreakerParams& params) { breaker_.set_params(params); }
  void set_worker_breaker(const WorkerBreakerParams& params) { worker_breaker_.set_params(params); }
  // Until reset. What the tenant runs ends at once with tenant_circuit_open.
  void force_open(TenantId tenant, Tick now);
  void reset_breaker(TenantId tenant, Tick now);
  void force_open(WorkerId worker, Tick now);
  void reset_breaker(WorkerId worker, Tick now);
  // `recycling` of a worker that is down, or being recycled already, changes nothing. What runs has
  // `patience` to finish, then it moves to another epoch as after a crash.
  void set_worker_mode(WorkerId worker, WorkerMode mode, Duration patience, Tick now);
  void set_wall(Tick now, std::int64_t unix_ms);  // the wall clock, as often as it was read
  // Before the first request: what a former process settled (Ledger::charge_settled).
  Result<void> charge_settled(const Ledger::SettledCharge& settled, Tick now);
  void drain(Tick now, Duration timeout);

  std::vector<Command>& commands() { return commands_; }
  std::vector<Notice>& notices() { return notices_; }
  std::deque<BreakerEvent>& breaker_events() { return breaker_.events(); }
  std::deque<WorkerBreakerEvent>& worker_breaker_events() { return worker_breaker_.events(); }
  // The notice is being carried out: later tokens make a new one.
  bool take_token_notice(const Notice& notice);
  bool is_live(GenerationHandle handle) const;

  Submission submission(std::uint32_t sequence);
  JournalFacts journal_facts(std::uint32_t sequence) const;
  GenerationStats stats(GenerationHandle handle) const;
  // The effective limits: where the tenant has none of its own, the queue's bound.
  LimitsView limits(AccountId account, Tick now) const;
  const ModelCounters& counters(std::uint32_t model) const { return counters_[model]; }
  const WorkerAccount& worker(WorkerId worker) const { return workers_[worker.value].account; }
  const EngineMeter& meter(WorkerId worker) const { return workers_[worker.value].meter; }
  std::uint32_t num_workers() const { return static_cast<std::uint32_t>(workers_.size()); }
  std::uint32_t num_held(WorkerId worker) const;  // sequences that it holds
  WorkerMode worker_mode(WorkerId worker) const { return workers_[worker.value].mode; }
  std::vector<TenantId> tenants_on(WorkerId worker) const;  // ascending
  const Ledger& ledger() const { return ledger_; }
  const TenantBreaker& tenant_breaker() const { return breaker_; }
  const WorkerBreaker& worker_breaker() const { return worker_breaker_; }
  const RequestQueue& queue() const { return queue_; }
  const PoisonLedger& poison(std::uint32_t model) const { return poison_[model]; }
  std::uint64_t num_live_requests() const { return num_live_requests_; }
  std::uint64_t num_waiting(std::uint32_t model) const;  // for a worker, first time or again
  bool is_busy() const { return num_on_worker_ > 0; }    // a worker has work in flight
  Duration overload_retry_after(std::uint32_t model) const;
  void check_invariants() const;

 private:
  struct Request;
  struct Sequence;
  struct Worker {
    WorkerAccount account;
    EngineMeter meter;
    WorkerTime time;
    std::vector<std::uint32_t> held;  // sequence indices, unordered
    WorkerMode mode{};
    std::optional<Tick> recycle_by;  // nothing: not recycling, or the command was given
  };
  struct ModelHealth {
    std::uint32_t num_up = 0;
    bool was_up = false;
    Tick down_since{};
  };

  // serving_core.cc: requests
  Request* find(GenerationHandle handle);
  const Request* find(GenerationHandle handle) const;
  GenerationHandle handle_of(std::uint32_t request) const;
  Sequence* find_choice(GenerationHandle handle, std::uint32_t choice);
  Result<void> check_model(std::uint32_t model, Tick now) const;
  Result<void> check_fit(const GenerationSpec& spec) const;
  Error overloaded(std::uint32_t model, std::string detail) const;
  std::uint32_t next_request_slot() const;
  std::uint32_t take_request_slot();
  Ask ask_of(const GenerationSpec& spec, TenantId tenant, AccountId account) const;
  void set_limits(const CoreLimits& limits);
  void set_accounts(std::span<const std::pair<AccountId, AccountSpec>> accounts);
  void set_num_tenants(std::uint32_t num_tenants);
  void enforce_limits(Tick now);
  void shrink(std::uint32_t request, Error lowered, Tick now);
  OutputPredictor& predictor(TenantId tenant, std::uint32_t model);
  std::uint32_t take_sequence_slot(SequenceId id);
  void fail_request(std::uint32_t request, Error error, DiscardCause cause, Tick now);
  // The same, because the worker gave up one of its sequences (`effects.failed`).
  void fail_sequence(std::uint32_t sequence, const SequenceEffects& effects, Error error, Tick now);
  void begin_failure(std::uint32_t request, Error error);
  void close_choices(std::uint32_t request, DiscardCause cause, EndReason reason, Tick now);
  void end_request(std::uint32_t request, Tick now);
  TenantArrival arrival_of(const GenerationSpec& spec) const;
  void stop_tripped(Tick now);
  void set_due(std::uint32_t request);
  void handle_due(std::uint32_t request, Tick now);
  void check_drained();

  // serving_core_steps.cc: records and the life of sequences
  void cover(Sequence& sequence, Tick now);
  bool extend(Sequence& sequence, Tick now);
  void cover_waiting(Tick now);
  // An entry with its share of what stands behind the entries.
  struct Entry {
    const StepEntry& head;
    std::span<const TopLogprob> top;
    std::span<const float> values;
  };
  bool take_entry(std::uint32_t worker, const Entry& taken, Tick now);
  const char* entry_fault(const Sequence& sequence, const Entry& taken) const;
  const char* token_fault(const Sequence& sequence, const StepEntry& entry) const;
  const char* prompt_fault(const Sequence& sequence, const Entry& taken) const;
  const char* top_fault(const Sequence& sequence, const Entry& taken) const;
  void note_cached(std::uint32_t index, std::uint32_t cached);
  void take_prompt_token(Sequence& sequence, const Entry& taken);
  void take_prompt_end(std::uint32_t sequence, const Entry& taken, Tick now);
  void take_token(std::uint32_t sequence, const Entry& taken, Tick now);
  void notify(Sequence& sequence);
  void observe_token(Sequence& sequence, Tick now);
  void apply(std::uint32_t sequence, const SequenceEffects& effects, EndReason reason, Tick now);
  void client_over(std::uint32_t sequence, EndReason reason, Tick now);
  void leave_worker(std::uint32_t sequence, Tick now);
  void clear_suspect(Sequence& sequence);
  void judge(std::uint32_t model, std::span<const RequestId> evidence,
             std::span<const std::uint32_t> in_step, Tick now);
  void forget(std::uint32_t sequence);

  // serving_core_dispatch.cc: from the queue to workers
  void dispatch(Tick now);
  void dispatch_model(std::uint32_t model, Tick now);
  bool can_take(std::uint32_t worker, Tick now) const;
  void look_again_at(Tick due);
  void recycle_if_due(std::uint32_t worker, Tick now);
  std::optional<WorkerId> pick_worker(const Sequence& sequence, Tick now);
  void send(std::uint32_t sequence, WorkerId worker, Tick now);
  void requeue(std::uint32_t sequence, Tick now);
  QueueItem queue_item(std::uint32_t sequence) const;
  void leave_queue(std::uint32_t sequence, Tick now);

  CoreParams params_;
  std::unique_ptr<LeaseBook> leases_;
  Ledger ledger_;
  std::vector<OutputPredictor> predictors_;  // [tenant][model]
  TenantBreaker breaker_;
  WorkerBreaker worker_breaker_;
  RequestQueue queue_;
  Router router_;
  std::vector<PoisonLedger> poison_;  // per model: one model's trials hold up no other's
  DueQueue due_;
  IdIndex index_;
  std::vector<Worker> workers_;
  std::vector<ModelHealth> health_;
  std::vector<ModelCounters> counters_;
  std::vector<Request> requests_;
  std::deque<std::uint32_t> free_requests_;  // reused in order, so that stats stay readable a while
  std::vector<Sequence> sequences_;
  std::vector<std::uint32_t> free_sequences_;
  // Sequences that were on a worker before and wait for one again, by model; sooner than the queue.
  std::vector<std::set<std::pair<SequenceId, std::uint32_t>>> resuming_;
  std::vector<Command> commands_;
  std::vector<Notice> notices_;
  std::vector<WorkerSnapshot> snapshots_;
  std::vector<TokenId> output_ids_;              // scratch of submission()
  std::vector<GenerationHandle> lease_waiting_;  // requests whose extension waits for the store
  std::uint64_t num_live_requests_ = 0;
  std::uint64_t num_on_worker_ = 0;
  Duration typical_request_{std::chrono::seconds{1}};
  std::optional<Tick> drain_until_;
  std::optional<Tick> breaker_due_;  // something waits for a breaker or for the retry budget
  bool drained_ = false;
};

}  // namespace sluice::gw
