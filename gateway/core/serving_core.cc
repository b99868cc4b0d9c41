// ServingCore, part 1: requests - admission, what handlers do with them, their end, time.
#include "gateway/core/serving_core.h"

#include <algorithm>
#include <utility>

#include "gateway/core/serving_tables.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

constexpr std::size_t kRestingRequests = 64;  // ended ones whose stats stay readable
constexpr Duration kRetryMin = std::chrono::seconds(1);
constexpr Duration kRetryMax = std::chrono::seconds(60);

Error retryable(Errc code, std::string detail, Duration after) {
  Error error = make_error(code, std::move(detail));
  error.retry_after = std::chrono::ceil<std::chrono::milliseconds>(after);
  return error;
}

Error circuit_open(Duration after) {
  return retryable(Errc::tenant_circuit_open, "the circuit breaker of this tenant is open", after);
}

// What a failure says about the tenant.
TenantEnd tenant_end(DiscardCause cause) {
  const bool is_bad = cause == DiscardCause::cancelled || cause == DiscardCause::deadline ||
                      cause == DiscardCause::limit;
  return is_bad ? TenantEnd::bad : TenantEnd::neutral;
}

std::uint64_t bounded_tokens(const GenerationSpec& spec) {
  return spec.prompt.size() + std::uint64_t{spec.choices} * spec.output_tokens_max;
}

}  // namespace

ServingCore::ServingCore(CoreParams params)
    : params_(std::move(params)),
      ledger_(LedgerParams{params_.num_models, params_.sequences_max}),
      breaker_(params_.tenant_breaker, params_.limits.num_tenants),
      worker_breaker_(params_.worker_breaker, params_.num_workers, params_.num_models),
      queue_(params_.queue, params_.num_models, params_.limits.num_tenants),
      poison_(params_.num_models),
      index_(params_.sequences_max),
      workers_(params_.num_workers),
      health_(params_.num_models),
      counters_(params_.num_models),
      resuming_(params_.num_models) {
  for (Worker& worker : workers_) worker.held.reserve(2 * kBatchSequencesMax);
  commands_.reserve(4096);
  notices_.reserve(4096);
  snapshots_.reserve(workers_.size());
  if (params_.leases) {
    leases_ = std::make_unique<LeaseBook>(*params_.leases);
    ledger_.share(*leases_);
  }
  set_limits(params_.limits);
}

ServingCore::~ServingCore() = default;

Result<void> ServingCore::count_request(AccountId account, Tick now) {
  return ledger_.count_request(account, now);
}

Result<void> ServingCore::precheck(TenantId tenant, AccountId account, std::uint32_t model,
                                   Tick now) {
  if (const Result<void> checked = check_model(model, now); !checked) return checked.error();
  if (const auto after = breaker_.check(tenant, now)) {
    breaker_.count_refusal(tenant);
    return circuit_open(*after);
  }
  if (!queue_.has_room(1, 1)) return overloaded(model, "the queue is full");
  return ledger_.check_request(account, model, now, typical_request_);
}

Result<void> ServingCore::check_model(std::uint32_t model, Tick now) const {
  CHECK(model < health_.size());
  if (drain_until_) {
    return retryable(Errc::overloaded, "the server is shutting down",
                     std::max(kRetryMin, *drain_until_ - now));
  }
  const ModelHealth& health = health_[model];
  if (health.num_up > 0) return {};
  if (!health.was_up) {
    return retryable(Errc::model_loading, "no worker of this model is ready yet", kRetryMin);
  }
  if (now - health.down_since <= params_.worker_grace) return {};
  return retryable(Errc::no_healthy_worker, "no worker of this model is healthy", kRetryMin);
}

Result<void> ServingCore::check_fit(const GenerationSpec& spec) const {
  CHECK(!spec.prompt.empty());
  CHECK(spec.task == SequenceTask::generate || spec.output_tokens_max == 0);
  CHECK(spec.choices > 0 && spec.choices <= kChoicesMax);
  const std::uint64_t longest = spec.prompt.size() + std::uint64_t{spec.output_tokens_max};
  std::uint64_t most = 0;
  bool is_known = false;
  for (const Worker& worker : workers_) {
    if (!worker.account.is_up() || worker.account.model() != spec.model) continue;
    const WorkerFacts& facts = worker.account.facts();
    most = std::max(most,
                    std::min<std::uint64_t>(facts.context_tokens,
                                            std::uint64_t{facts.num_blocks} * facts.block_tokens));
    is_known = true;
  }
  if (!is_known || longest <= most) return {};
  return make_error(Errc::context_length_exceeded,
                    "the prompt has " + std::to_string(spec.prompt.size()) + " tokens and " +
                        std::to_string(spec.output_tokens_max) +
                        " are asked for; together at most " + std::to_string(most) + " are allowed",
                    "max_tokens");
}

Duration ServingCore::overload_retry_after(std::uint32_t model) const {
  std::uint64_t tokens_per_second = 0;
  for (const Worker& worker : workers_) {
    if (worker.account.is_up() && worker.account.model() == model) {
      tokens_per_second += worker.account.tokens_per_second();
    }
  }
  if (tokens_per_second == 0) return kRetryMin;
  const std::uint64_t seconds = queue_.tokens() / tokens_per_second + 1;
  return std::clamp<Duration>(std::chrono::seconds(std::min<std::uint64_t>(seconds, 3600)),
                              kRetryMin, kRetryMax);
}

Error ServingCore::overloaded(std::uint32_t model, std::string detail) const {
  return retryable(Errc::overloaded, std::move(detail), overload_retry_after(model));
}

Result<GenerationHandle> ServingCore::submit(GenerationSpec spec, RequestId request,
                                             std::span<const SequenceId> ids, Tick now) {
  CHECK(ids.size() == spec.choices);
  if (const Result<void> checked = check_model(spec.model, now); !checked) return checked.error();
  if (const Result<void> checked = check_fit(spec); !checked) return checked.error();
  if (spec.deadline && *spec.deadline <= now) {
    return make_error(Errc::deadline_exceeded, "the deadline has passed already");
  }
  const auto refused_for = breaker_.arrive(spec.tenant, arrival_of(spec), now);
  stop_tripped(now);
  if (refused_for) return circuit_open(*refused_for);
  const std::uint64_t tokens = bounded_tokens(spec);
  if (tokens > params_.queue.tokens_max) {
    return make_error(Errc::request_exceeds_quota_capacity,
                      "the request needs " + std::to_string(tokens) + " tokens, the queue takes " +
                          std::to_string(params_.queue.tokens_max));
  }
  if (index_.size() + spec.choices > params_.sequences_max) {
    return overloaded(spec.model, "too many live sequences");
  }
  if (!queue_.has_room(1, tokens)) return overloaded(spec.model, "the queue is full");
  const Ask ask = ask_of(spec, spec.tenant, spec.account);
  Result<Reservation> reservation = ledger_.open(ask, now, typical_request_);
  if (!reservation) return reservation.error();
  const std::uint32_t granted = ledger_.first_grant(ask);

  const std::uint32_t slot = take_request_slot();
  Request& entry = requests_[slot];
  entry.state = Request::State::live;
  entry.id = request;
  entry.spec = std::move(spec);
  entry.reservation = std::move(*reservation);
  entry.mode = ledger_.mode(ask.account);
  entry.prices = ledger_.prices(entry.reservation);
  entry.lowered.reset();
  entry.limit_error.reset();
  entry.lease_wait.reset();
  entry.num_open = entry.spec.choices;
  entry.was_dispatched = false;
  entry.ticket = breaker_.admit(entry.spec.tenant, size_class(entry.spec.prompt.size()), now);
  entry.end = TenantEnd::neutral;
  entry.admitted = now;
  entry.dispatched = entry.first_token = entry.last_token = Tick{};
  entry.stats = GenerationStats{};
  entry.stats.prompt_tokens = static_cast<std::uint32_t>(entry.spec.prompt.size());
  const std::uint64_t prefix = Router::prefix_hash(entry.spec.tenant, entry.spec.prompt);
  for (std::uint32_t choice = 0; choice < entry.spec.choices; ++choice) {
    const std::uint32_t index = take_sequence_slot(ids[choice]);
    Sequence& sequence = sequences_[index];
    sequence.request_id = request;
    sequence.request = slot;
    sequence.choice = choice;
    sequence.model = entry.spec.model;
    sequence.tenant = entry.spec.tenant;
    sequence.size = size_class(entry.spec.prompt.size());
    sequence.prompt_tokens = entry.stats.prompt_tokens;
    sequence.output_tokens_max = entry.spec.output_tokens_max;
    sequence.output_tokens_granted = granted;
    sequence.task = entry.spec.task;
    sequence.wants_prompt_scores = choice == 0 &&
                                   entry.spec.prompt_scores == PromptScores::wanted &&
                                   entry.spec.prompt.size() > 1;
    sequence.prefix = prefix;
    sequence.arrival = entry.spec.arrival;
    sequence.admitted = sequence.waiting_since = now;
    entry.choices.push_back(index);
    sequence.is_queued = true;
    queue_.push(queue_item(index));
    breaker_.queued(sequence.tenant, now);
  }
  ++counters_[entry.spec.model].requests;
  ++num_live_requests_;
  set_due(slot);
  const GenerationHandle handle = handle_of(slot);
  stop_tripped(now);  // this one waits behind a burst
  dispatch_model(entry.spec.model, now);
  return handle;
}

Result<LeaseState> ServingCore::lease(const GenerationSpec& spec, TenantId tenant,
                                      AccountId account, std::uint64_t since, Tick now) {
  return ledger_.lease(ask_of(spec, tenant, account), since, now);
}

Result<LeaseState> ServingCore::lease_request(AccountId account, std::uint64_t since, Tick now) {
  return ledger_.lease_request(account, since, now);
}

void ServingCore::store_connected(Duration settling, Tick now) {
  ledger_.report_leases(settling, now);
}

void ServingCore::store_lost() {
  leases_->lost();
}

std::vector<LeaseAsk> ServingCore::begin_exchange(std::size_t asks_max, Tick now) {
  return ledger_.begin_exchange(asks_max, now);
}

void ServingCore::end_exchange(const LeaseAnswers& answers, Tick now) {
  leases_->end_exchange(answers, now);
  cover_waiting(now);
}

TenantArrival ServingCore::arrival_of(const GenerationSpec& spec) const {
  TenantArrival arrival;
  arrival.size = size_class(spec.prompt.size());
  arrival.prompt_tokens = static_cast<std::uint32_t>(spec.prompt.size());
  for (const Worker& worker : workers_) {
    if (!worker.account.is_up() || worker.account.model() != spec.model) continue;
    const WorkerFacts& facts = worker.account.facts();
    arrival.context_tokens = std::max(arrival.context_tokens, facts.context_tokens);
    arrival.sequences_max += facts.sequences_max;
  }
  return arrival;
}

// Ends what tenants run whose breaker opened for what it does to the others. Before anything is
// dispatched: a submission that is still to be written cannot be taken back. What trips while
// dispatching is stopped by the next event, the next step at the latest.
void ServingCore::stop_tripped(Tick now) {
  while (breaker_.has_to_stop()) {
    for (const TenantId tenant : breaker_.take_to_stop()) {
      const Duration after = breaker_.check(tenant, now).value_or(kRetryMin);
      for (std::uint32_t slot = 0; slot < requests_.size(); ++slot) {
        if (requests_[slot].spec.tenant != tenant) continue;
        fail_request(slot, circuit_open(after), DiscardCause::limit, now);
      }
    }
  }
}

void ServingCore::force_open(TenantId tenant, Tick now) {
  breaker_.force_open(tenant, now);
  stop_tripped(now);
}

void ServingCore::reset_breaker(TenantId tenant, Tick now) {
  breaker_.reset(tenant, now);
}

void ServingCore::force_open(WorkerId worker, Tick now) {
  worker_breaker_.force_open(worker, now);
}

void ServingCore::reset_breaker(WorkerId worker, Tick now) {
  worker_breaker_.reset(worker, now);
  dispatch(now);
}

std::uint32_t ServingCore::next_request_slot() const {
  return free_requests_.size() >= kRestingRequests ? free_requests_.front()
                                                   : static_cast<std::uint32_t>(requests_.size());
}

Ask ServingCore::ask_of(const GenerationSpec& spec, TenantId tenant, AccountId account) const {
  constexpr std::uint32_t kPermille = 900;
  Ask ask;
  ask.account = account;
  ask.model = spec.model;
  ask.choices = spec.choices;
  ask.prompt_tokens = static_cast<std::uint32_t>(spec.prompt.size());
  ask.output_tokens_max = spec.output_tokens_max;
  ask.output_tokens_likely =
      predictors_[tenant.value * params_.num_models + spec.model].quantile_tokens(kPermille);
  ask.tag = next_request_slot();
  return ask;
}

OutputPredictor& ServingCore::predictor(TenantId tenant, std::uint32_t model) {
  return predictors_[tenant.value * params_.num_models + model];
}

std::uint32_t ServingCore::take_request_slot() {
  const std::uint32_t slot = next_request_slot();
  if (slot < requests_.size()) {
    free_requests_.pop_front();
  } else {
    requests_.emplace_back();
  }
  ++requests_[slot].generation;
  requests_[slot].choices.clear();
  return slot;
}

std::uint32_t ServingCore::take_sequence_slot(SequenceId id) {
  std::uint32_t index;
  if (!free_sequences_.empty()) {
    index = free_sequences_.back();
    free_sequences_.pop_back();
  } else {
    index = static_cast<std::uint32_t>(sequences_.size());
    sequences_.emplace_back();
  }
  sequences_[index].id = id;
  index_.insert(id, index);
  return index;
}

GenerationHandle ServingCore::handle_of(std::uint32_t request) const {
  return {(std::uint64_t{requests_[request].generation} << 32) | (request + 1)};
}

const ServingCore::Request* ServingCore::find(GenerationHandle handle) const {
  const std::uint64_t index = (handle.value & 0xffffffffu) - 1;
  if (!handle || index >= requests_.size()) return nullptr;
  const Request& request = requests_[index];
  return request.generation == handle.value >> 32 ? &request : nullptr;
}

ServingCore::Request* ServingCore::find(GenerationHandle handle) {
  return const_cast<Request*>(std::as_const(*this).find(handle));
}

bool ServingCore::is_live(GenerationHandle handle) const {
  const Request* request = find(handle);
  return request != nullptr && request->state == Request::State::live;
}

ServingCore::Sequence* ServingCore::find_choice(GenerationHandle handle, std::uint32_t choice) {
  Request* request = find(handle);
  if (request == nullptr || request->state != Request::State::live) return nullptr;
  if (choice >= request->choices.size() || request->choices[choice] == kNoSequence) return nullptr;
  return &sequences_[request->choices[choice]];
}

std::span<const TopLogprob> ServingCore::pending_top(GenerationHandle handle,
                                                     std::uint32_t choice) const {
  const Sequence* sequence = const_cast<ServingCore*>(this)->find_choice(handle, choice);
  if (sequence == nullptr) return {};
  return std::span(sequence->top).first(pending(handle, choice).size() * sequence->num_top);
}

PromptResult ServingCore::prompt_result(GenerationHandle handle, std::uint32_t choice) const {
  const Sequence* sequence = const_cast<ServingCore*>(this)->find_choice(handle, choice);
  if (sequence == nullptr) return {};
  PromptResult result{sequence->prompt_logprobs, sequence->prompt_top, sequence->embedding, {}};
  if (sequence->output_tokens_max == 0 && sequence->state.has_news())
    result.finish = sequence->state.finish();
  return result;
}

std::span<const OutputToken> ServingCore::pending(GenerationHandle handle,
                                                  std::uint32_t choice) const {
  const Sequence* sequence = const_cast<ServingCore*>(this)->find_choice(handle, choice);
  if (sequence == nullptr) return {};
  const std::size_t first = sequence->state.num_accepted();
  // Incremental: what is not reserved yet reaches no client.
  const bool is_cut = requests_[sequence->request].mode == ReservationMode::incremental;
  const std::size_t end =
      is_cut ? std::min<std::size_t>(sequence->outputs.size(), sequence->output_tokens_granted)
             : sequence->outputs.size();
  return std::span(sequence->outputs).subspan(first, end > first ? end - first : 0);
}

void ServingCore::accept(GenerationHandle handle, std::uint32_t choice, std::uint32_t count,
                         Tick now) {
  Sequence* sequence = find_choice(handle, choice);
  if (sequence == nullptr || (count == 0 && !sequence->state.has_news())) return;
  const std::uint32_t index = requests_[sequence->request].choices[choice];
  const SequenceEffects effects = sequence->state.accept(count);
  sequence->top.erase(sequence->top.begin(),
                      sequence->top.begin() + std::ptrdiff_t{count} * sequence->num_top);
  ModelCounters& counters = counters_[sequence->model];
  counters.accepted += count;
  counters.pending -= count;
  Request& request = requests_[sequence->request];
  request.stats.completion_tokens += count;
  ledger_.settle(request.reservation, count, now);
  if (count > 0) {
    commands_.push_back({.kind = CommandKind::accept_slot,
                         .sequence = index,
                         .id = sequence->id,
                         .worker = {},
                         .value = sequence->state.num_accepted(),
                         .use = sequence->meter.use()});
  }
  const bool by_length = sequence->state.finish() == FinishReason::length;
  apply(index, effects, by_length ? EndReason::length : EndReason::stop, now);
}

void ServingCore::stop(GenerationHandle handle, std::uint32_t choice, Tick now) {
  Sequence* sequence = find_choice(handle, choice);
  if (sequence == nullptr) return;
  const std::uint32_t index = requests_[sequence->request].choices[choice];
  apply(index, sequence->state.close(DiscardCause::stop_overrun), EndReason::stop, now);
}

void ServingCore::cancel(GenerationHandle handle, CancelCause cause, Tick now) {
  Request* request = find(handle);
  if (request == nullptr || request->state == Request::State::ended) return;
  if (request->state == Request::State::failed) {
    take_failure(handle);
    return;
  }
  const auto slot = static_cast<std::uint32_t>(request - requests_.data());
  request->end = tenant_end(discard_cause(cause));
  close_choices(slot, discard_cause(cause), EndReason::abort, now);
  // One that left may release others from probation.
  if (poison_[requests_[slot].spec.model].num_suspects() > 0) dispatch(now);
}

void ServingCore::close_choices(std::uint32_t slot, DiscardCause cause, EndReason reason,
                                Tick now) {
  for (std::size_t choice = 0; choice < requests_[slot].choices.size(); ++choice) {
    const std::uint32_t index = requests_[slot].choices[choice];
    if (index == kNoSequence) continue;
    apply(index, sequences_[index].state.close(cause), reason, now);
  }
}

void ServingCore::begin_failure(std::uint32_t slot, Error error) {
  Request& request = requests_[slot];
  CHECK(request.state == Request::State::live);
  request.error = std::move(error);
  request.state = Request::State::failed;
  notices_.push_back({NoticeKind::failed, handle_of(slot), 0});
}

void ServingCore::fail_request(std::uint32_t slot, Error error, DiscardCause cause, Tick now) {
  if (requests_[slot].state != Request::State::live) return;
  const bool is_breakers = error.code == Errc::tenant_circuit_open;
  requests_[slot].end = is_breakers ? TenantEnd::neutral : tenant_end(cause);
  begin_failure(slot, std::move(error));
  close_choices(slot, cause, EndReason::error, now);
}

void ServingCore::fail_sequence(std::uint32_t index, const SequenceEffects& effects, Error error,
                                Tick now) {
  const std::uint32_t slot = sequences_[index].request;
  requests_[slot].end = TenantEnd::neutral;
  begin_failure(slot, std::move(error));
  apply(index, effects, EndReason::error, now);
  close_choices(slot, DiscardCause::failed, EndReason::error, now);
}

std::optional<Error> ServingCore::take_failure(GenerationHandle handle) {
  Request* request = find(handle);
  if (request != nullptr && request->state == Request::State::live && request->limit_error) {
    fail_request(static_cast<std::uint32_t>(request - requests_.data()),
                 std::move(*request->limit_error), DiscardCause::limit, request->last_token);
  }
  if (request == nullptr || request->state != Request::State::failed) return std::nullopt;
  Error error = std::move(request->error);
  request->state = Request::State::ended;
  free_requests_.push_back(static_cast<std::uint32_t>(request - requests_.data()));
  --num_live_requests_;
  check_drained();
  return error;
}

// All of its clients are done. A failed one keeps its slot until the failure was handed over.
void ServingCore::end_request(std::uint32_t slot, Tick now) {
  Request& request = requests_[slot];
  breaker_.end(request.spec.tenant, request.end, request.ticket, now);
  if (request.was_dispatched) {
    ledger_.settle_prompt(request.reservation,
                          std::min(request.stats.cached_tokens, request.stats.prompt_tokens));
  }
  ledger_.close(std::move(request.reservation),
                request.was_dispatched ? PromptUse::computed : PromptUse::unused);
  due_.set(slot, std::nullopt);
  request.spec.prompt = {};
  request.spec.bias = {};
  request.spec.stop_ids = {};
  if (request.state == Request::State::failed) return;
  request.state = Request::State::ended;
  free_requests_.push_back(slot);
  --num_live_requests_;
  check_drained();
}

GenerationStats ServingCore::stats(GenerationHandle handle) const {
  const Request* request = find(handle);
  if (request == nullptr) return {};
  GenerationStats stats = request->stats;
  if (request->was_dispatched) stats.queued = request->dispatched - request->admitted;
  if (request->first_token != Tick{}) {
    stats.prefill = request->first_token - request->dispatched;
    stats.decode = request->last_token - request->first_token;
  }
  return stats;
}

void ServingCore::set_due(std::uint32_t slot) {
  const Request& request = requests_[slot];
  std::optional<Tick> due = request.spec.deadline;
  const auto sooner = [&](Tick tick) { due = due ? std::min(*due, tick) : tick; };
  if (!request.was_dispatched) sooner(request.admitted + params_.queue_wait_max);
  for (const std::uint32_t index : request.choices) {
    if (index == kNoSequence || !sequences_[index].is_resuming) continue;
    sooner(sequences_[index].waiting_since + params_.queue_wait_max);
  }
  if (request.lease_wait) sooner(request.lease_wait->until);
  due_.set(slot, due);
}

void ServingCore::handle_due(std::uint32_t slot, Tick now) {
  const Request& request = requests_[slot];
  if (request.spec.deadline && *request.spec.deadline <= now) {
    fail_request(slot, make_error(Errc::deadline_exceeded, "the deadline has passed"),
                 DiscardCause::deadline, now);
    return;
  }
  if (request.lease_wait && request.lease_wait->until <= now) {
    // As a refused extension: behind the tokens that are covered.
    requests_[slot].lease_wait.reset();
    requests_[slot].limit_error = retryable(
        Errc::quota_store_unavailable, "the store of shared limits does not answer", kRetryMin);
    notices_.push_back({NoticeKind::failed, handle_of(slot), 0});
    set_due(slot);
    return;
  }
  bool waited = !request.was_dispatched && request.admitted + params_.queue_wait_max <= now;
  for (const std::uint32_t index : request.choices) {
    if (index == kNoSequence || !sequences_[index].is_resuming) continue;
    waited |= sequences_[index].waiting_since + params_.queue_wait_max <= now;
  }
  if (!waited) {
    set_due(slot);
    return;
  }
  const std::uint32_t model = request.spec.model;
  Error error =
      health_[model].num_up > 0 && !request.was_dispatched
          ? overloaded(model, "waited too long in the queue")
          : retryable(Errc::no_healthy_worker, "no worker could go on with the request", kRetryMin);
  fail_request(slot, std::move(error), DiscardCause::failed, now);
}

void ServingCore::tick(Tick now) {
  if (drain_until_ && *drain_until_ <= now) {
    for (std::uint32_t slot = 0; slot < requests_.size(); ++slot) {
      fail_request(slot, make_error(Errc::preempted, "the server is shutting down"),
                   DiscardCause::shutdown, now);
    }
  }
  while (const std::optional<std::uint32_t> slot = due_.pop_due(now)) handle_due(*slot, now);
  ledger_.advance(now);
  enforce_limits(now);
  for (Worker& worker : workers_) worker.account.retry();
  breaker_due_.reset();
  for (std::uint32_t i = 0; i < workers_.size(); ++i) recycle_if_due(i, now);
  stop_tripped(now);
  dispatch(now);
}

std::optional<Tick> ServingCore::next_due() const {
  std::optional<Tick> due = due_.next_due();
  if (num_live_requests_ == 0) return due;
  for (const std::optional<Tick> other : {drain_until_, ledger_.next_change(), breaker_due_}) {
    if (other) due = due ? std::min(*due, *other) : *other;
  }
  for (const Worker& worker : workers_)
    if (worker.recycle_by) due = due ? std::min(*due, *worker.recycle_by) : *worker.recycle_by;
  return due;
}

LimitsView ServingCore::limits(AccountId account, Tick now) const {
  LimitsView view = ledger_.limits(account, now);
  const auto left = [](std::uint64_t bound, std::uint64_t used) {
    return bound > used ? bound - used : 0;
  };
  if (!view.has_requests_limit) {
    view.requests_limit = params_.queue.requests_max;
    view.requests_remaining = left(view.requests_limit, queue_.requests());
  }
  if (!view.has_tokens_limit) {
    view.tokens_limit = params_.queue.tokens_max;
    view.tokens_remaining = left(view.tokens_limit, queue_.tokens());
  }
  return view;
}

// What the shell hands over was validated by the configuration: an error here is our own bug.
void ServingCore::set_limits(const CoreLimits& limits) {
  CHECK(limits.accounts.size() >= ledger_.num_accounts());
  std::vector<std::pair<AccountId, AccountSpec>> accounts;
  accounts.reserve(limits.accounts.size());
  for (std::uint32_t i = 0; i < limits.accounts.size(); ++i)
    accounts.emplace_back(AccountId{i}, limits.accounts[i]);
  set_accounts(accounts);
  for (std::uint32_t i = 0; i < limits.prices.size(); ++i) {
    CHECK(ledger_.set_prices(i, limits.prices[i]).has_value());
  }
  set_num_tenants(limits.num_tenants);
  for (std::uint32_t i = 0; i < limits.num_tenants; ++i) {
    const std::uint32_t weight = i < limits.weights.size() ? limits.weights[i] : 1;
    breaker_.set_weight(TenantId{i}, weight);
    queue_.set_weight(TenantId{i}, weight);
  }
}

void ServingCore::set_accounts(std::span<const std::pair<AccountId, AccountSpec>> accounts) {
  // Whoever gets another parent leaves the old one first: between two trees there may be a cycle.
  for (const auto& [id, spec] : accounts) {
    const bool is_new = id.value >= ledger_.num_accounts();
    if (!is_new && ledger_.spec(id).parent == spec.parent) continue;
    AccountSpec alone = spec;
    alone.parent.reset();
    CHECK(ledger_.set_account(id, alone).has_value());
  }
  for (const auto& [id, spec] : accounts) CHECK(ledger_.set_account(id, spec).has_value());
}

void ServingCore::set_num_tenants(std::uint32_t num_tenants) {
  predictors_.resize(std::size_t{num_tenants} * params_.num_models);
  breaker_.set_tenants(num_tenants);
  queue_.set_tenants(num_tenants);
}

// The newest go first: they are those that would not have been admitted.
void ServingCore::enforce_limits(Tick now) {
  for (const Reservation::Key key : ledger_.take_affected_newest_first()) {
    std::optional<Error> error = ledger_.fault(key, now);
    if (!error) continue;
    const auto slot = static_cast<std::uint32_t>(ledger_.tag(key));
    if (ledger_.try_shrink(key, now) > 0)
      shrink(slot, std::move(*error), now);
    else
      fail_request(slot, std::move(*error), DiscardCause::limit, now);
  }
}

// What its reservation has left is shared out among its choices: in equal parts, but none gets more
// than it had.
void ServingCore::shrink(std::uint32_t slot, Error lowered, Tick now) {
  Request& request = requests_[slot];
  request.mode = ReservationMode::incremental;
  request.lowered = std::move(lowered);
  std::vector<std::pair<std::uint32_t, std::uint32_t>> had;  // tokens, sequence
  for (const std::uint32_t index : request.choices) {
    if (index == kNoSequence) continue;
    const Sequence& sequence = sequences_[index];
    had.emplace_back(sequence.output_tokens_granted - sequence.state.num_accepted(), index);
  }
  std::sort(had.begin(), had.end());
  std::uint64_t left = ledger_.unspent(request.reservation);
  for (std::size_t i = 0; i < had.size(); ++i) {
    const auto share = std::min<std::uint64_t>(had[i].first, left / (had.size() - i));
    Sequence& sequence = sequences_[had[i].second];
    sequence.output_tokens_granted =
        sequence.state.num_accepted() + static_cast<std::uint32_t>(share);
    left -= share;
  }
  CHECK(left == 0);
  for (const auto& [tokens, index] : had) cover(sequences_[index], now);
}

void ServingCore::set_wall(Tick now, std::int64_t unix_ms) {
  ledger_.set_wall(now, unix_ms);
  enforce_limits(now);
}

Result<void> ServingCore::charge_settled(const Ledger::SettledCharge& settled, Tick now) {
  return ledger_.charge_settled(settled, now);
}

void ServingCore::reload(const CoreLimits& limits, const QueueParams& queue, Duration wait_max,
                         Tick now) {
  set_limits(limits);
  ledger_.advance(now);
  enforce_limits(now);
  queue_.set_bounds(queue.requests_max, queue.tokens_max);
  params_.queue.requests_max = queue.requests_max;
  params_.queue.tokens_max = queue.tokens_max;
  params_.queue_wait_max = wait_max;
}

void ServingCore::change_limits(const LimitsChange& change, Tick now) {
  set_accounts(change.accounts);
  std::size_t num_tenants = breaker_.num_tenants();
  for (const auto& [tenant, weight] : change.weights)
    num_tenants = std::max<std::size_t>(num_tenants, tenant.value + 1);
  set_num_tenants(static_cast<std::uint32_t>(num_tenants));
  for (const auto& [tenant, weight] : change.weights) {
    breaker_.set_weight(tenant, weight);
    queue_.set_weight(tenant, weight);
  }
  ledger_.advance(now);
  enforce_limits(now);
}

void ServingCore::drain(Tick now, Duration timeout) {
  drain_until_ = now + timeout;
  check_drained();
}

void ServingCore::check_drained() {
  if (!drain_until_ || drained_ || num_live_requests_ > 0) return;
  drained_ = true;
  commands_.push_back(
      {.kind = CommandKind::drained, .sequence = 0, .id = {}, .worker = {}, .value = 0});
}

std::uint32_t ServingCore::num_held(WorkerId worker) const {
  return static_cast<std::uint32_t>(workers_[worker.value].held.size());
}

std::uint64_t ServingCore::num_waiting(std::uint32_t model) const {
  return queue_.sequences(model) + resuming_[model].size();
}

bool ServingCore::take_token_notice(const Notice& notice) {
  Sequence* sequence = find_choice(notice.handle, notice.choice);
  if (sequence == nullptr || !sequence->is_dirty) return false;
  sequence->is_dirty = false;
  return sequence->state.has_news();
}

}  // namespace sluice::gw
