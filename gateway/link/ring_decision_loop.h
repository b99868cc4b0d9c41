// RingDecisionLoop: the shell of the serving core over real rings. Owns the links to the workers,
// the journal and the control channel; runs the gateway's one thread.
//
//   turn:   io.poll()  ->  drain every ring (bounded)  ->  commands  ->  notices (one per choice)
//   sleep:  look at the rings a while if a worker whose steps are short has work; set `sleeping` in
//           every submit region, look at the rings once more, and wait in io.run_one(): sockets,
//           doorbells, control channel and the timer wake it. Without work there is no timer and
//           no spinning.
//
// A sequence that ended keeps its journal slot until its usage is on the disk (settled_slots.h).
// Tokens that are ready together reach their sink in one call; a lone token at once.
// Thread rule: everything on the thread that calls run() or turn().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "config/config.h"
#include "gateway/core/serving_core.h"
#include "gateway/link/decision_loop.h"
#include "gateway/link/settled_slots.h"
#include "gateway/link/worker_link.h"
#include "gateway/store/redis_quota_store.h"
#include "gateway/store/usage_recovery.h"
#include "shared/clock.h"
#include "shared/control.h"
#include "shared/journal.h"

namespace sluice::gw {

struct LinkCounters {
  std::uint64_t worker_epochs = 0;       // workers that came up
  std::uint64_t corrupt_epochs = 0;      // reported to the parent
  std::uint64_t records = 0;             // read from step rings
  std::uint64_t submissions = 0;         // written
  std::uint64_t submissions_unsent = 0;  // the ring had no room
  std::uint64_t doorbells = 0;           // rung: system calls
  std::uint64_t sleeps = 0;
  std::uint64_t quota_waits = 0;     // requests that waited for the store of shared limits
  std::uint64_t quota_timeouts = 0;  // of them, until their time was over
  std::uint64_t store_refusals = 0;  // requests refused because usage cannot be stored
};

struct ModelGauges {
  std::uint64_t running = 0;  // sequences in the workers' batches
  std::uint64_t waiting = 0;  // in the queue, resuming, or in a worker's look-ahead
  std::uint32_t workers_up = 0;
};

// A tenant of the configuration that was made, replaced or is gone. `number`: what callers name it
// by (Caller::tenant); the same for its name until the next whole configuration.
struct TenantChange {
  TenantId number;
  const cfg::TenantUpdate& update;
};

// What the HTTP side hears of the parent; called on the loop's thread, each may be empty.
struct LoopHooks {
  // Adds what is not in the file to a new configuration, before it is applied.
  std::function<cfg::Config(const cfg::Config&)> complete;
  std::function<void(const cfg::Config&)> reload;                      // after limits were swapped
  std::function<void(std::span<const TenantChange>)> tenants_changed;  // likewise
  std::function<void()> drain;                                         // take no new connections
  std::function<void(const BreakerEvent&, const std::string& tenant)> breaker_moved;
  std::function<void(const WorkerBreakerEvent&)> worker_breaker_moved;
  // The store of shared limits; `reason`: why it is not connected.
  std::function<void(bool is_connected, const std::string& reason)> quota_store_moved;
  // All requests ended. Whoever sets it calls say_drained() when the last bytes are written.
  std::function<void()> requests_drained;
};

LeaseParams lease_params(const cfg::QuotaStore& config);

class RingDecisionLoop final : public DecisionLoop {
 public:
  // `config` was validated. All references outlive the loop.
  RingDecisionLoop(boost::asio::io_context& io, const Clock& clock, const cfg::Config& config,
                   Journal journal, ControlChannel control);
  ~RingDecisionLoop() override;

  LoopHooks hooks;

  void run();   // until the parent closes the control channel or quit()
  bool turn();  // one round without waiting; true when it may have made more to do
  void wait();  // until something may be ready
  void quit();
  bool is_stopped() const { return stopped_; }
  // Limits, tenants and keys of `config` act from now on, also on what runs.
  void apply(const cfg::Config& config);
  // The same for single tenants, each behind its parent, in time that does not grow with the
  // others. REQUIRES: the configuration has tenants.
  void apply(std::span<const cfg::TenantUpdate> updates);
  bool has_tenants() const { return has_tenants_; }
  // Nothing where no tenant had this name since the start.
  std::optional<AccountQuota> quota_of(const std::string& tenant) const;
  void say_ready(std::uint16_t port);
  void say_drained();

  Result<LeaseState> lease(const GenerationSpec& spec, QuotaWaiter& waiter) override;
  Result<LeaseState> lease_count(Caller caller, QuotaWaiter& waiter) override;
  void forget(QuotaWaiter& waiter) override;
  Result<void> count_request(Caller caller) override;
  Result<void> precheck(Caller caller, std::uint32_t model) override;
  Result<GenerationHandle> submit(GenerationSpec spec, GenerationSink& sink) override;
  std::span<const OutputToken> pending(GenerationHandle handle, std::uint32_t choice) override;
  std::span<const TopLogprob> pending_top(GenerationHandle handle, std::uint32_t choice) override;
  PromptResult prompt_result(GenerationHandle handle, std::uint32_t choice) override;
  void accept(GenerationHandle handle, std::uint32_t choice, std::uint32_t count) override;
  void stop(GenerationHandle handle, std::uint32_t choice) override;
  void cancel(GenerationHandle handle, CancelCause cause) override;
  GenerationStats stats(GenerationHandle handle) const override;
  LimitsView limits(Caller caller) const override;
  QuotaView quota(Caller caller) const override;
  ModelFacts model_facts(std::uint32_t model) const override;
  UsageStoreState usage_store_state() const override { return settled_.state(journal_); }
  QuotaStoreState quota_store_state() const override;

  // The books of a former gateway, before the first request.
  LedgerNames ledger_names() const;
  Result<void> charge_settled(std::span<const Ledger::SettledCharge> charges);
  // From now on what is settled goes there; without, it is in the journal's totals alone. Its
  // capacity is SettledSlots::writer_capacity(journal()).
  void set_usage_writer(std::unique_ptr<UsageWriter> writer);
  const SettledSlots& settled() const { return settled_; }
  // Where the configuration shares limits, after the books were charged; until then, and while it
  // is away, who has a limit is refused. Its hook has to wake the loop.
  void set_quota_store(std::unique_ptr<RedisQuotaStore> store);
  const RedisQuotaStore* quota_store() const { return quota_store_.get(); }
  std::size_t num_quota_waiters() const { return waiters_.size(); }

  const ServingCore& core() const { return *core_; }
  // By configured tenant. Opened by force: until reset.
  TenantBreakerView breaker(TenantId tenant) const;
  void force_open(TenantId tenant);
  void reset_breaker(TenantId tenant);
  void force_open(WorkerId worker);
  void reset_breaker(WorkerId worker);
  // `recycling`: what it runs may finish for as long as a drain may take (queue.drain_timeout).
  void set_worker_mode(WorkerId worker, WorkerMode mode);
  // Of the tenants that a worker's sequences belong to.
  std::vector<std::string> tenants_on(WorkerId worker) const;
  const Journal& journal() const { return journal_; }
  const LinkCounters& counters() const { return counters_; }
  ModelGauges gauges(std::uint32_t model) const;
  std::uint32_t num_workers() const { return static_cast<std::uint32_t>(links_.size()); }
  std::uint32_t num_models() const { return static_cast<std::uint32_t>(facts_.size()); }

 private:
  struct Waits;  // the Asio side: control descriptor, bells, timer
  struct Salt {
    std::uint64_t words[2];
  };
  void handle_control();
  void handle(ControlMessage& message);
  void worker_up(ControlMessage& message);
  void worker_down(const ControlMessage& message);
  void reload(const std::string& text);
  void send(const ControlMessage& message);
  void report_corrupt(WorkerId worker, Epoch epoch, const std::string& reason);

  bool drain_links();
  bool drain(WorkerLink& link, std::size_t records_max);
  void carry_out();
  void carry_out(const Command& command);
  void write_submit(const Command& command);
  bool deliver();
  bool are_links_quiet() const;
  bool is_answer_near() const;
  void spin();
  void sleep();
  void ring_bells();
  void report_breakers();
  void take_quota_news();
  void call_waiters();
  void send_asks();
  std::optional<Tick> next_quota_due() const;

  void set_breakers(const cfg::Breakers& config);
  CoreLimits map_tenants(const cfg::Config& config);
  using AccountSpecs = std::vector<std::pair<AccountId, AccountSpec>>;
  TenantId number_inside(const std::string& tenant);
  AccountId account_of(const std::string& tenant, const cfg::ApiKey* key);
  void map_tenant(std::uint32_t outside, const cfg::Tenant& tenant, AccountSpecs& specs);
  AccountSpec spec_without_rights(AccountId account) const;
  std::optional<Error> store_refusal(AccountId account);
  template <class Ask>
  Result<LeaseState> lease(QuotaWaiter& waiter, Ask ask);
  std::string counter_key(const LeasePlace& place) const;
  JournalEntry journal_entry(std::uint32_t sequence) const;
  static JournalUse journal_use(const ResourceUse& use);
  TenantId inner(TenantId tenant) const;
  AccountId account(Caller caller) const;
  void read_wall();

  const Clock& clock_;
  Journal journal_;
  ControlChannel control_;
  Duration drain_timeout_;
  std::size_t ring_bytes_;
  std::unique_ptr<ServingCore> core_;
  std::vector<std::unique_ptr<WorkerLink>> links_;  // by WorkerId; empty while it is down
  std::vector<ModelFacts> facts_;                   // by model
  // Tenants keep their number inside for as long as the process lives, found again by name; outside
  // they are indices of the current configuration.
  std::vector<std::string> tenant_names_;
  std::map<std::string, TenantId> tenants_inside_;  // by name
  std::vector<TenantId> inner_tenants_;             // [outside] -> inside
  std::map<std::string, std::uint32_t> outside_;    // by name, also of tenants that are gone
  std::map<std::string, std::uint32_t> models_;     // by name
  bool has_tenants_ = false;                        // otherwise there is the default one
  // Accounts likewise, by tenant and digest of the key (its name may move to another key); a
  // tenant's own has no digest.
  std::map<std::pair<std::string, std::string>, AccountId> accounts_;
  std::vector<AccountName> account_names_;    // by AccountId: what the books know it as
  std::vector<AccountName> unstored_names_;   // of them, new to the books
  std::vector<std::uint64_t> model_digests_;  // by model
  SettledSlots settled_;
  struct TenantAccounts {
    AccountId tenant;
    std::vector<AccountId> keys;
  };
  std::vector<TenantAccounts> caller_accounts_;  // [outside]
  std::vector<Salt> salts_;                      // by inner tenant: drawn at random, kept secret
  std::vector<std::uint32_t> slots_;             // journal slot by sequence table index
  std::vector<GenerationSink*> sinks_;           // by request table index
  struct Waiting {
    QuotaWaiter* waiter = nullptr;
    std::uint64_t since = 0;  // exchange
    Tick until;
  };
  Duration quota_wait_max_;
  std::unique_ptr<RedisQuotaStore> quota_store_;
  std::uint64_t quota_connection_ = 0;  // RedisQuotaStore::News
  bool is_quota_connected_ = false;
  std::string quota_reason_;
  std::map<std::uint64_t, Waiting> waiters_;            // by arrival
  std::map<QuotaWaiter*, std::uint64_t> waiter_order_;  // key of waiters_
  std::uint64_t next_waiter_ = 1;
  LinkCounters counters_;
  Tick now_;
  bool stopped_ = false;
  bool said_drained_ = false;
  std::unique_ptr<Waits> waits_;
};

}  // namespace sluice::gw
