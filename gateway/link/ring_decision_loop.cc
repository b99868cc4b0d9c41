// RingDecisionLoop: handlers' calls, commands and notices. The loop itself is in
// ring_loop_turns.cc.
#include "gateway/link/ring_decision_loop.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "gateway/link/ring_loop_waits.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

std::uint64_t unix_ms() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(since).count());
}

QueueParams queue_params(const cfg::Config& config) {
  QueueParams params;
  params.requests_max = config.queue.requests_max;
  params.tokens_max = config.queue.tokens_max;
  return params;
}

TenantBreakerParams breaker_params(const cfg::TenantBreakers& config) {
  TenantBreakerParams params;
  params.is_enabled = config.enabled;
  params.window = config.window;
  params.share_permille = config.share_permille;
  params.contended_min = config.contended_min;
  params.bad_ends_permille = config.bad_ends_permille;
  params.bad_ends_min = config.bad_ends_min;
  params.long_prompt_permille = config.long_prompt_permille;
  params.long_prompts_max = config.long_prompts_max;
  params.open_min = config.open_min;
  params.open_max = config.open_max;
  params.probes = config.probes;
  return params;
}

WorkerBreakerParams breaker_params(const cfg::WorkerBreakers& config) {
  WorkerBreakerParams params;
  params.is_enabled = config.enabled;
  params.failures_max = config.failures_max;
  params.bad_logits_max = config.bad_logits_max;
  params.slow_factor = config.slow_factor;
  params.slow_floor = config.slow_floor;
  params.slow_steps_max = config.slow_steps_max;
  params.open_min = config.open_min;
  params.open_max = config.open_max;
  params.probes = config.probes;
  params.retry_permille = config.retry_permille;
  params.retries_burst = config.retries_burst;
  return params;
}

LimitSet limit_set(const cfg::LimitValues& limits) {
  LimitSet set;
  set[LimitKind::requests_per_minute] = limits.requests_per_minute;
  set[LimitKind::tokens_per_minute] = limits.tokens_per_minute;
  set[LimitKind::input_tokens_per_minute] = limits.input_tokens_per_minute;
  set[LimitKind::output_tokens_per_minute] = limits.output_tokens_per_minute;
  set[LimitKind::tokens_per_day] = limits.tokens_per_day;
  set[LimitKind::monthly_budget] = limits.monthly_budget;
  set[LimitKind::concurrent_requests] = limits.concurrent_requests;
  set[LimitKind::concurrent_kv_tokens] = limits.concurrent_kv_tokens;
  set[LimitKind::output_tokens_max] = limits.output_tokens_max;
  return set;
}

static_assert(static_cast<int>(cfg::QuotaMode::synchronous) ==
              static_cast<int>(LeaseMode::synchronous));

// Overrides of models that are not served (any more) act on nothing.
AccountSpec account_spec(const cfg::Limits& limits, ReservationMode mode,
                         const std::map<std::string, std::uint32_t>& models) {
  AccountSpec spec;
  spec.mode = mode;
  spec.is_shadow = limits.shadow;
  spec.limits = limit_set(limits);
  for (const cfg::ModelOverride& fresh : limits.model_overrides)
    if (const auto at = models.find(fresh.model); at != models.end())
      spec.models.push_back({at->second, limit_set(fresh)});
  for (const cfg::TemporaryOverride& fresh : limits.temporary_overrides) {
    const auto at = models.find(fresh.model);
    if (at == models.end() && !fresh.model.empty()) continue;
    TemporaryLimits& temporary = spec.temporary.emplace_back();
    if (!fresh.model.empty()) temporary.model = at->second;
    temporary.limits = limit_set(fresh);
    temporary.until_unix_s = fresh.until;
  }
  return spec;
}
static_assert(static_cast<int>(cfg::Reserving::quantile) ==
              static_cast<int>(ReservationMode::quantile));

Error store_unavailable() {
  Error error = make_error(Errc::quota_store_unavailable,
                           "what is used cannot be stored at the moment, so nothing is admitted");
  error.retry_after = std::chrono::seconds(1);  // the store thread tries that often
  return error;
}

std::size_t request_index(GenerationHandle handle) {
  return static_cast<std::size_t>(handle.value & 0xffffffffu) - 1;
}

}  // namespace

LeaseParams lease_params(const cfg::QuotaStore& config) {
  LeaseParams params;
  params.mode = static_cast<LeaseMode>(config.mode);
  params.lease_time = config.lease_time;
  params.block_permille = config.block_permille;
  return params;
}

RingDecisionLoop::RingDecisionLoop(boost::asio::io_context& io, const Clock& clock,
                                   const cfg::Config& config, Journal journal,
                                   ControlChannel control)
    : clock_(clock),
      journal_(std::move(journal)),
      control_(std::move(control)),
      drain_timeout_(config.queue.drain_timeout),
      ring_bytes_(config.ring_bytes),
      facts_(config.models.size()),
      slots_(journal_.num_slots()),
      quota_wait_max_(config.quota_store.wait_max),
      now_(clock.now()) {
  CoreParams params;
  params.queue = queue_params(config);
  params.queue_wait_max = config.queue.wait_max;
  params.worker_grace =
      std::max<Duration>(params.worker_grace, 2 * config.supervision.restart_delay_max);
  params.sequences_max = journal_.num_slots() / 2;  // settled_slots.h
  params.num_models = static_cast<std::uint32_t>(config.models.size());
  params.num_workers = 0;
  for (const cfg::Model& model : config.models) {
    params.num_workers += model.workers;
    model_digests_.push_back(model_digest(model.name));
  }
  params.limits = map_tenants(config);
  if (config.quota_store.kind == cfg::QuotaStoreKind::redis)
    params.leases = lease_params(config.quota_store);
  params.lease_wait_max = config.quota_store.wait_max;
  params.tenant_breaker = breaker_params(config.breakers.tenants);
  params.worker_breaker = breaker_params(config.breakers.workers);
  params.first_id = SequenceId{journal_.take_id()};
  core_ = std::make_unique<ServingCore>(std::move(params));
  read_wall();
  links_.resize(core_->num_workers());
  waits_ = std::make_unique<Waits>(io, control_.fd(), links_.size());
  waits_->watch_control([this] {
    handle_control();
    return !stopped_;
  });
}

RingDecisionLoop::~RingDecisionLoop() {
  settled_.stop(journal_);
}

TenantId RingDecisionLoop::number_inside(const std::string& tenant) {
  const TenantId next{static_cast<std::uint32_t>(tenant_names_.size())};
  const TenantId number = tenants_inside_.emplace(tenant, next).first->second;
  if (number != next) return number;
  tenant_names_.push_back(tenant);
  Salt salt{};
  CHECK(::getrandom(salt.words, sizeof salt.words, 0) == static_cast<ssize_t>(sizeof salt.words));
  salts_.push_back(salt);
  return number;
}

// The account of a tenant (no key) or of its key, new ones at the end.
AccountId RingDecisionLoop::account_of(const std::string& tenant, const cfg::ApiKey* key) {
  const std::string digest =
      key == nullptr ? std::string() : std::string(key->sha256.begin(), key->sha256.end());
  const std::string key_name = key == nullptr ? std::string() : key->name;
  const auto next = static_cast<std::uint32_t>(accounts_.size());
  const AccountId id = accounts_.emplace(std::pair(tenant, digest), AccountId{next}).first->second;
  if (id.value == next) {
    account_names_.push_back({account_digest(tenant, digest), tenant, key_name});
  } else if (account_names_[id.value].key == key_name) {
    return id;
  }
  account_names_[id.value].key = key_name;
  unstored_names_.push_back(account_names_[id.value]);
  return id;
}

// What left the configuration keeps its number, without the right to go on.
AccountSpec RingDecisionLoop::spec_without_rights(AccountId account) const {
  AccountSpec spec = core_->ledger().spec(account);
  spec.standing = Standing::revoked;
  spec.parent.reset();  // what runs knows its path; nothing new comes this way
  return spec;
}

// Numbers the tenant and its keys; what they may spend, its account first. Its parent's account is
// the caller's to set.
void RingDecisionLoop::map_tenant(std::uint32_t outside, const cfg::Tenant& tenant,
                                  AccountSpecs& specs) {
  inner_tenants_[outside] = number_inside(tenant.name);
  TenantAccounts& accounts = caller_accounts_[outside];
  accounts.tenant = account_of(tenant.name, nullptr);
  const auto mode = static_cast<ReservationMode>(tenant.limits.reserve);
  AccountSpec spec = account_spec(tenant.limits, mode, models_);
  if (tenant.blocked) spec.standing = Standing::blocked;
  specs.emplace_back(accounts.tenant, std::move(spec));
  accounts.keys.clear();
  for (const cfg::ApiKey& key : tenant.keys) {
    const AccountId id = account_of(tenant.name, &key);
    accounts.keys.push_back(id);
    specs.emplace_back(id, account_spec(key.limits, mode, models_));
    specs.back().second.parent = accounts.tenant;
  }
}

// Assigns inner numbers to new names and returns the limits by inner number.
CoreLimits RingDecisionLoop::map_tenants(const cfg::Config& config) {
  std::vector<cfg::Tenant> defaults;
  has_tenants_ = !config.tenants.empty();
  if (!has_tenants_) defaults.emplace_back().limits = config.default_limits;
  const std::vector<cfg::Tenant>& tenants = has_tenants_ ? config.tenants : defaults;
  CoreLimits limits;
  for (std::uint32_t i = 0; i < accounts_.size(); ++i)
    limits.accounts.push_back(spec_without_rights(AccountId{i}));
  models_.clear();
  for (const cfg::Model& model : config.models) {
    if (models_.size() < facts_.size())  // models are those of the start
      models_.emplace(model.name, static_cast<std::uint32_t>(models_.size()));
  }
  outside_.clear();
  inner_tenants_.assign(tenants.size(), TenantId{});
  caller_accounts_.assign(tenants.size(), {});
  AccountSpecs specs;
  for (std::uint32_t i = 0; i < tenants.size(); ++i) {
    outside_.emplace(tenants[i].name, i);
    map_tenant(i, tenants[i], specs);
  }
  limits.accounts.resize(accounts_.size());
  for (auto& [id, spec] : specs) limits.accounts[id.value] = std::move(spec);
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    if (tenants[i].parent.empty()) continue;
    const auto at = accounts_.find({tenants[i].parent, std::string()});
    CHECK(at != accounts_.end());  // was validated
    limits.accounts[caller_accounts_[i].tenant.value].parent = at->second;
  }
  for (const cfg::Model& model : config.models) {
    limits.prices.push_back({model.price_input, model.price_cached, model.price_output});
  }
  limits.prices.resize(facts_.size());  // models are those of the start
  limits.num_tenants = static_cast<std::uint32_t>(tenant_names_.size());
  limits.weights.assign(limits.num_tenants, 1);
  for (std::size_t i = 0; i < tenants.size(); ++i)
    limits.weights[inner_tenants_[i].value] = tenants[i].weight;
  return limits;
}

void RingDecisionLoop::apply(std::span<const cfg::TenantUpdate> updates) {
  CHECK(has_tenants_);
  LimitsChange change;
  std::vector<TenantChange> changes;
  for (const cfg::TenantUpdate& update : updates) {
    const auto next = static_cast<std::uint32_t>(inner_tenants_.size());
    const auto known = outside_.find(update.name);
    if (known == outside_.end() && !update.tenant) continue;
    const std::uint32_t outside = known == outside_.end() ? next : known->second;
    if (outside == next) {
      outside_.emplace(update.name, next);
      inner_tenants_.emplace_back();
      caller_accounts_.emplace_back();
    }
    TenantAccounts former = caller_accounts_[outside];
    const std::size_t first = change.accounts.size();
    if (update.tenant) {
      map_tenant(outside, *update.tenant, change.accounts);
      if (const std::string& parent = update.tenant->parent; !parent.empty()) {
        const auto at = accounts_.find({parent, std::string()});
        CHECK(at != accounts_.end());  // the directory blocks those without
        change.accounts[first].second.parent = at->second;
      }
      change.weights.emplace_back(inner_tenants_[outside], update.tenant->weight);
    } else {
      change.accounts.emplace_back(former.tenant, spec_without_rights(former.tenant));
      caller_accounts_[outside].keys.clear();
    }
    const std::vector<AccountId>& keys = caller_accounts_[outside].keys;
    for (const AccountId key : former.keys)
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        change.accounts.emplace_back(key, spec_without_rights(key));
    changes.push_back({TenantId{outside}, update});
  }
  core_->change_limits(change, now_);
  if (settled_.writer() != nullptr)
    settled_.writer()->name_accounts(std::exchange(unstored_names_, {}));
  if (hooks.tenants_changed) hooks.tenants_changed(changes);
  carry_out();
}

AccountId RingDecisionLoop::account(Caller caller) const {
  CHECK(caller.tenant.value < caller_accounts_.size());
  const TenantAccounts& accounts = caller_accounts_[caller.tenant.value];
  if (caller.key == kNoKey) return accounts.tenant;
  CHECK(caller.key < accounts.keys.size());
  return accounts.keys[caller.key];
}

void RingDecisionLoop::read_wall() {
  core_->set_wall(now_, static_cast<std::int64_t>(unix_ms()));
}

LedgerNames RingDecisionLoop::ledger_names() const {
  LedgerNames names;
  for (const auto& [of, id] : accounts_) {
    names.accounts.emplace(account_names_[id.value].account, id);
    if (of.second.empty()) names.tenants.emplace(of.first, id);
  }
  for (std::uint32_t i = 0; i < model_digests_.size(); ++i)
    names.models.emplace(model_digests_[i], i);
  return names;
}

Result<void> RingDecisionLoop::charge_settled(std::span<const Ledger::SettledCharge> charges) {
  for (const Ledger::SettledCharge& charge : charges)
    if (const Result<void> done = core_->charge_settled(charge, now_); !done) return done;
  return {};
}

void RingDecisionLoop::set_usage_writer(std::unique_ptr<UsageWriter> writer) {
  settled_.set_writer(std::move(writer), journal_);
  settled_.writer()->name_accounts(std::exchange(unstored_names_, {}));
}

// Why nothing of the account may begin now. Nothing: it may.
std::optional<Error> RingDecisionLoop::store_refusal(AccountId account) {
  settled_.free_durable(journal_);
  const UsageStoreState state = settled_.state(journal_);
  if (state == UsageStoreState::storing) return std::nullopt;
  if (state == UsageStoreState::failing && !core_->ledger().is_limited(account))
    return std::nullopt;
  ++counters_.store_refusals;
  return store_unavailable();
}

TenantId RingDecisionLoop::inner(TenantId tenant) const {
  CHECK(tenant.value < inner_tenants_.size());
  return inner_tenants_[tenant.value];
}

Result<void> RingDecisionLoop::count_request(Caller caller) {
  const AccountId id = account(caller);
  if (std::optional<Error> refused = store_refusal(id)) return std::move(*refused);
  if (!settled_.can_count()) return store_unavailable();
  const Result<void> counted = core_->count_request(id, clock_.now());
  if (!counted) return counted;
  settled_.count_request(account_names_[id.value].account, static_cast<std::int64_t>(unix_ms()));
  return {};
}

Result<void> RingDecisionLoop::precheck(Caller caller, std::uint32_t model) {
  if (std::optional<Error> refused = store_refusal(account(caller))) return std::move(*refused);
  return core_->precheck(inner(caller.tenant), account(caller), model, clock_.now());
}

Result<GenerationHandle> RingDecisionLoop::submit(GenerationSpec spec, GenerationSink& sink) {
  spec.account = account({spec.tenant, spec.key});
  if (std::optional<Error> refused = store_refusal(spec.account)) return std::move(*refused);
  spec.tenant = inner(spec.tenant);
  const RequestId request{journal_.take_id()};
  std::array<SequenceId, kChoicesMax> ids;
  CHECK(spec.choices <= ids.size());
  for (std::uint32_t i = 0; i < spec.choices; ++i) ids[i] = SequenceId{journal_.take_id()};
  const std::span<const SequenceId> used = std::span(ids).first(spec.choices);
  const auto handle = core_->submit(std::move(spec), request, used, clock_.now());
  if (handle) {
    const std::size_t index = request_index(*handle);
    if (index >= sinks_.size()) sinks_.resize(index + 1, nullptr);
    sinks_[index] = &sink;
  }
  carry_out();
  return handle;
}

std::span<const OutputToken> RingDecisionLoop::pending(GenerationHandle handle,
                                                       std::uint32_t choice) {
  return core_->pending(handle, choice);
}

std::span<const TopLogprob> RingDecisionLoop::pending_top(GenerationHandle handle,
                                                          std::uint32_t choice) {
  return core_->pending_top(handle, choice);
}

PromptResult RingDecisionLoop::prompt_result(GenerationHandle handle, std::uint32_t choice) {
  return core_->prompt_result(handle, choice);
}

void RingDecisionLoop::accept(GenerationHandle handle, std::uint32_t choice, std::uint32_t count) {
  core_->accept(handle, choice, count, clock_.now());
  carry_out();
}

void RingDecisionLoop::stop(GenerationHandle handle, std::uint32_t choice) {
  core_->stop(handle, choice, clock_.now());
  carry_out();
}

void RingDecisionLoop::cancel(GenerationHandle handle, CancelCause cause) {
  core_->cancel(handle, cause, clock_.now());
  carry_out();
}

GenerationStats RingDecisionLoop::stats(GenerationHandle handle) const {
  return core_->stats(handle);
}

LimitsView RingDecisionLoop::limits(Caller caller) const {
  return core_->limits(account(caller), clock_.now());
}

QuotaView RingDecisionLoop::quota(Caller caller) const {
  return core_->ledger().quota(account(caller), clock_.now());
}

void RingDecisionLoop::set_breakers(const cfg::Breakers& config) {
  core_->set_tenant_breaker(breaker_params(config.tenants));
  core_->set_worker_breaker(breaker_params(config.workers));
}

TenantBreakerView RingDecisionLoop::breaker(TenantId tenant) const {
  return core_->tenant_breaker().view(inner(tenant));
}

void RingDecisionLoop::force_open(TenantId tenant) {
  core_->force_open(inner(tenant), clock_.now());
  carry_out();
}

void RingDecisionLoop::reset_breaker(TenantId tenant) {
  core_->reset_breaker(inner(tenant), clock_.now());
}

void RingDecisionLoop::force_open(WorkerId worker) {
  core_->force_open(worker, clock_.now());
  carry_out();
}

void RingDecisionLoop::reset_breaker(WorkerId worker) {
  core_->reset_breaker(worker, clock_.now());
  carry_out();
}

void RingDecisionLoop::set_worker_mode(WorkerId worker, WorkerMode mode) {
  core_->set_worker_mode(worker, mode, drain_timeout_, clock_.now());
  carry_out();
}

std::vector<std::string> RingDecisionLoop::tenants_on(WorkerId worker) const {
  std::vector<std::string> names;
  for (const TenantId tenant : core_->tenants_on(worker))
    names.push_back(tenant_names_[tenant.value]);
  return names;
}

// Outside of any event of the core: the hook may do what it likes.
void RingDecisionLoop::report_breakers() {
  std::deque<BreakerEvent>& events = core_->breaker_events();
  for (; !events.empty(); events.pop_front()) {
    if (hooks.breaker_moved)
      hooks.breaker_moved(events.front(), tenant_names_[events.front().tenant.value]);
  }
  std::deque<WorkerBreakerEvent>& workers = core_->worker_breaker_events();
  for (; !workers.empty(); workers.pop_front()) {
    if (hooks.worker_breaker_moved) hooks.worker_breaker_moved(workers.front());
  }
}

ModelFacts RingDecisionLoop::model_facts(std::uint32_t model) const {
  CHECK(model < facts_.size());
  ModelFacts facts = facts_[model];
  facts.workers_ready = gauges(model).workers_up;
  return facts;
}

ModelGauges RingDecisionLoop::gauges(std::uint32_t model) const {
  ModelGauges gauges;
  gauges.waiting = core_->num_waiting(model);
  for (std::uint32_t i = 0; i < links_.size(); ++i) {
    const WorkerAccount& worker = core_->worker(WorkerId{i});
    if (!worker.is_up() || worker.is_corrupt() || worker.model() != model) continue;
    const StepRecord& last = worker.last();
    ++gauges.workers_up;
    gauges.running += last.num_running;
    gauges.waiting += last.num_waiting;
  }
  return gauges;
}

// A command may cause further ones; they are carried out in the same pass. Sinks are never called.
void RingDecisionLoop::carry_out() {
  std::vector<Command>& commands = core_->commands();
  for (std::size_t i = 0; i < commands.size(); ++i) carry_out(Command(commands[i]));
  commands.clear();
}

void RingDecisionLoop::carry_out(const Command& command) {
  switch (command.kind) {
    case CommandKind::open_slot: {
      const auto slot = journal_.try_open_slot(journal_entry(command.sequence));
      CHECK(slot.has_value());  // settled_slots.h says why
      slots_[command.sequence] = *slot;
      return;
    }
    case CommandKind::write_submit:
      write_submit(command);
      return;
    case CommandKind::write_cancel:
      if (WorkerLink* link = links_[command.worker.value].get()) link->write_cancel(command.id);
      return;
    case CommandKind::accept_slot:
      journal_.accept(slots_[command.sequence], command.value);
      journal_.set_use(slots_[command.sequence], journal_use(command.use));
      return;
    case CommandKind::cache_slot:
      journal_.set_cached(slots_[command.sequence], command.value);
      return;
    case CommandKind::absorb_slot:
      journal_.set_use(slots_[command.sequence], journal_use(command.use));
      settled_.settle(journal_, slots_[command.sequence]);
      return;
    case CommandKind::report_corrupt: {
      const WorkerAccount& account = core_->worker(command.worker);
      report_corrupt(command.worker, account.epoch(), account.corrupt_reason());
      return;
    }
    case CommandKind::recycle: {
      ControlMessage message;
      message.kind = ControlKind::worker_recycle;
      message.worker = command.worker;
      message.epoch = core_->worker(command.worker).epoch();
      send(message);
      return;
    }
    case CommandKind::drained:
      if (hooks.requests_drained) {
        hooks.requests_drained();
      } else {
        say_drained();
      }
      return;
  }
}

// Milliseconds are enough for reports, and a file's numbers stay below 2^53.
JournalUse RingDecisionLoop::journal_use(const ResourceUse& use) {
  constexpr std::uint64_t kDeviceMsMax = 0xffffffff;
  return {use.kv_token_us / 1000,
          static_cast<std::uint32_t>(std::min(use.device_ns / 1'000'000, kDeviceMsMax))};
}

// What the books of this process and of the next one need to charge the sequence.
JournalEntry RingDecisionLoop::journal_entry(std::uint32_t sequence) const {
  const JournalFacts facts = core_->journal_facts(sequence);
  JournalEntry entry{};
  entry.request = facts.request;
  entry.sequence = facts.sequence;
  entry.tenant = facts.tenant;
  entry.choice = facts.choice;
  entry.prompt_tokens = facts.prompt_tokens;
  entry.reserved_tokens = facts.reserved_tokens;
  // The wall clock of its admission: the ledger of the next process charges the same second.
  const auto age = std::chrono::floor<std::chrono::milliseconds>(clock_.now() - facts.admitted);
  const auto age_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(age.count(), 0));
  const std::uint64_t now_ms = unix_ms();
  entry.admitted_unix_ms = now_ms - std::min(now_ms, age_ms);
  entry.tenant_key = account_names_[facts.account.value].account;
  entry.model_key = model_digests_[facts.model];
  entry.price_input = facts.prices.input;
  entry.price_cached = facts.prices.cached;
  entry.price_output = facts.prices.output;
  return entry;
}

void RingDecisionLoop::write_submit(const Command& command) {
  WorkerLink* link = links_[command.worker.value].get();
  CHECK(link != nullptr);  // the core sends to workers that are up
  const Submission submission = core_->submission(command.sequence);
  const Salt& salt = salts_[submission.tenant.value];
  switch (link->write_submit(submission, salt.words)) {
    case WorkerLink::Written::yes:
      ++counters_.submissions;
      core_->submit_written(command.sequence, link->submit_position());
      return;
    case WorkerLink::Written::no_room:
      ++counters_.submissions_unsent;
      core_->submit_unsent(command.sequence);
      return;
    case WorkerLink::Written::too_large:
      core_->submit_refused(command.sequence, now_);
      return;
  }
}

bool RingDecisionLoop::deliver() {
  std::vector<Notice>& notices = core_->notices();
  const bool had_any = !notices.empty();
  for (std::size_t i = 0; i < notices.size(); ++i) {
    const Notice notice = notices[i];  // a sink may add others
    GenerationSink* sink = sinks_[request_index(notice.handle)];
    if (notice.kind == NoticeKind::failed) {
      if (const std::optional<Error> error = core_->take_failure(notice.handle)) {
        sink->on_failed(*error);
      }
    } else if (core_->take_token_notice(notice)) {
      sink->on_tokens(notice.choice);
    }
  }
  notices.clear();
  carry_out();
  return had_any;
}

}  // namespace sluice::gw
