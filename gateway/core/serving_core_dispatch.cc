// ServingCore, part 3: from the queue to the workers, and what a submission consists of.
#include <algorithm>

#include "gateway/core/serving_core.h"
#include "gateway/core/serving_tables.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {
// A sequence gets room for its whole output when it is dispatched, up to here; longer ones grow.
constexpr std::size_t kOutputsReserved = 4096;
}  // namespace

void ServingCore::dispatch(Tick now) {
  for (std::uint32_t model = 0; model < health_.size(); ++model) dispatch_model(model, now);
}

void ServingCore::dispatch_model(std::uint32_t model, Tick now) {
  if (num_waiting(model) == 0) return;
  const auto can_any_take = [&] {
    for (std::uint32_t i = 0; i < workers_.size(); ++i)
      if (workers_[i].account.model() == model && can_take(i, now)) return true;
    return false;
  };
  if (const auto due = worker_breaker_.next_retry(now)) look_again_at(*due);
  // Those that ran before go first: their clients are in the middle of a stream. One that must wait
  // (held as a suspect, no equal worker) does not block the others.
  auto& resuming = resuming_[model];
  for (auto next = resuming.begin(); next != resuming.end() && can_any_take();) {
    const auto [id, index] = *next;
    ++next;
    if (!poison_[model].may_run(sequences_[index].request_id)) continue;
    if (sequences_[index].is_retry && !worker_breaker_.may_retry(now)) {
      look_again_at(worker_breaker_.retry_due(now));
      continue;
    }
    if (const std::optional<WorkerId> worker = pick_worker(sequences_[index], now)) {
      send(index, *worker, now);
    }
  }
  while (can_any_take()) {
    const QueueItem* item = queue_.next(model, now);
    if (item == nullptr) return;
    const std::optional<WorkerId> worker = pick_worker(sequences_[item->index], now);
    if (!worker) return;
    send(item->index, *worker, now);
  }
}

bool ServingCore::can_take(std::uint32_t worker, Tick now) const {
  return workers_[worker].mode == WorkerMode::serving && workers_[worker].account.can_take() &&
         worker_breaker_.can_take(WorkerId{worker}, now);
}

void ServingCore::set_worker_mode(WorkerId id, WorkerMode mode, Duration patience, Tick now) {
  CHECK(id.value < workers_.size());
  Worker& worker = workers_[id.value];
  if (mode == WorkerMode::recycling) {
    if (!worker.account.is_up() || worker.mode == WorkerMode::recycling) return;
    worker.recycle_by = now + patience;
  } else if (worker.mode == WorkerMode::recycling && !worker.recycle_by) {
    return;  // its end is under way
  } else {
    worker.recycle_by.reset();
  }
  worker.mode = mode;
  recycle_if_due(id.value, now);
  dispatch(now);
}

void ServingCore::recycle_if_due(std::uint32_t index, Tick now) {
  Worker& worker = workers_[index];
  if (!worker.recycle_by || (!worker.held.empty() && now < *worker.recycle_by)) return;
  worker.recycle_by.reset();
  commands_.push_back({.kind = CommandKind::recycle,
                       .sequence = 0,
                       .id = {},
                       .worker = WorkerId{index},
                       .value = 0});
}

std::vector<TenantId> ServingCore::tenants_on(WorkerId id) const {
  std::set<TenantId> tenants;
  for (const std::uint32_t index : workers_[id.value].held)
    tenants.insert(sequences_[index].tenant);
  return {tenants.begin(), tenants.end()};
}

void ServingCore::look_again_at(Tick due) {
  breaker_due_ = breaker_due_ ? std::min(*breaker_due_, due) : due;
}

std::optional<WorkerId> ServingCore::pick_worker(const Sequence& sequence, Tick now) {
  snapshots_.clear();
  for (std::uint32_t i = 0; i < workers_.size(); ++i) {
    const WorkerAccount& account = workers_[i].account;
    if (!account.is_up() || account.model() != sequence.model) continue;
    const bool is_equal =
        !sequence.was_sent || (account.facts().weights_digest == sequence.weights_digest &&
                               account.facts().kernel_path == sequence.kernel_path);
    snapshots_.push_back({WorkerId{i}, account.epoch(), is_equal && can_take(i, now),
                          static_cast<std::uint32_t>(workers_[i].held.size())});
  }
  return router_.pick(snapshots_, sequence.prefix);
}

void ServingCore::send(std::uint32_t index, WorkerId id, Tick now) {
  leave_queue(index, now);
  Sequence& sequence = sequences_[index];
  Request& request = requests_[sequence.request];
  Worker& worker = workers_[id.value];
  ModelCounters& counters = counters_[sequence.model];
  sequence.state.dispatch();
  sequence.worker = id;
  sequence.held_at = static_cast<std::uint32_t>(worker.held.size());
  worker.held.push_back(index);
  ++num_on_worker_;
  sequence.meter.begin(sequence.prompt_tokens + static_cast<std::uint32_t>(sequence.outputs.size()),
                       worker.time, now);
  breaker_.took_kv(sequence.tenant, sequence.meter.tokens(), now);
  worker.account.submitted(sequence.prompt_tokens + sequence.outputs.size());
  const auto kind = sequence.is_retry ? DispatchKind::retry : DispatchKind::first;
  sequence.is_retry = false;
  sequence.is_probe = worker_breaker_.dispatched(id, kind, now);
  router_.remember(sequence.prefix, id, worker.account.epoch());
  request.stats.worker = id;
  // Output goes on here, and this worker does not promise the bits of the one before.
  if (!sequence.outputs.empty() && worker.account.facts().continuity == Continuity::tokens)
    request.stats.exact = false;
  if (!sequence.was_sent) {
    sequence.was_sent = true;
    sequence.weights_digest = worker.account.facts().weights_digest;
    sequence.kernel_path = worker.account.facts().kernel_path;
    sequence.dispatched = now;
    const SamplingParams& sampling = request.spec.sampling;
    if (sampling.wants_logprob != 0)
      sequence.num_top =
          std::min<std::uint32_t>(sampling.num_top_logprobs, worker.account.facts().vocab_size);
    if (sequence.wants_prompt_scores) sequence.prompt_logprobs.reserve(sequence.prompt_tokens);
    sequence.outputs.reserve(std::min<std::size_t>(sequence.output_tokens_max, kOutputsReserved));
    counters.queue_time.observe(now - sequence.admitted);
    if (!request.was_dispatched) {
      request.was_dispatched = true;
      request.dispatched = now;
      counters.prompt_tokens += sequence.prompt_tokens;
      queue_.charge(sequence.tenant, sequence.model, sequence.size, sequence.prompt_tokens);
      breaker_.prefilled(sequence.tenant, sequence.prompt_tokens, now);
    }
    sequence.has_slot = true;
    commands_.push_back({.kind = CommandKind::open_slot,
                         .sequence = index,
                         .id = sequence.id,
                         .worker = id,
                         .value = 0});
  }
  set_due(sequence.request);
  commands_.push_back({.kind = CommandKind::write_submit,
                       .sequence = index,
                       .id = sequence.id,
                       .worker = id,
                       .value = 0});
}

void ServingCore::requeue(std::uint32_t index, Tick now) {
  Sequence& sequence = sequences_[index];
  sequence.is_resuming = true;
  sequence.waiting_since = now;
  resuming_[sequence.model].emplace(sequence.id, index);
  set_due(sequence.request);
}

QueueItem ServingCore::queue_item(std::uint32_t index) const {
  const Sequence& sequence = sequences_[index];
  const GenerationSpec& spec = requests_[sequence.request].spec;
  QueueItem item;
  item.id = sequence.id;
  item.index = index;
  item.tenant = sequence.tenant;
  item.model = sequence.model;
  item.prompt_tokens = sequence.prompt_tokens;
  item.tokens = sequence.output_tokens_max + (sequence.choice == 0 ? sequence.prompt_tokens : 0);
  item.requests = sequence.choice + 1 == spec.choices ? 1 : 0;
  item.priority = spec.priority;
  item.arrival = sequence.admitted;
  return item;
}

void ServingCore::leave_queue(std::uint32_t index, Tick now) {
  Sequence& sequence = sequences_[index];
  if (sequence.is_queued) {
    queue_.remove(queue_item(index));
    breaker_.left_queue(sequence.tenant, now);
    sequence.is_queued = false;
  }
  if (sequence.is_resuming) {
    resuming_[sequence.model].erase({sequence.id, index});
    sequence.is_resuming = false;
  }
}

void ServingCore::submit_written(std::uint32_t index, std::uint64_t ring_position) {
  workers_[sequences_[index].worker.value].account.written(ring_position);
}

void ServingCore::wrote(WorkerId worker, std::uint64_t ring_position) {
  workers_[worker.value].account.wrote(ring_position);
}

void ServingCore::submit_unsent(std::uint32_t index) {
  Sequence& sequence = sequences_[index];
  workers_[sequence.worker.value].account.unsent();
  const Tick waiting_since = sequence.waiting_since;
  apply(index, sequence.state.unsent(), EndReason::error, waiting_since);
}

void ServingCore::submit_refused(std::uint32_t index, Tick now) {
  Sequence& sequence = sequences_[index];
  workers_[sequence.worker.value].account.unsent();
  workers_[sequence.worker.value].account.retry();
  apply(index, sequence.state.unsent(), EndReason::error, now);
  fail_request(sequence.request,
               make_error(Errc::context_length_exceeded,
                          "the request does not fit the transport to the worker"),
               DiscardCause::failed, now);
}

Submission ServingCore::submission(std::uint32_t index) {
  const Sequence& sequence = sequences_[index];
  const GenerationSpec& spec = requests_[sequence.request].spec;
  output_ids_.clear();
  for (const OutputToken& token : sequence.outputs) output_ids_.push_back(token.id);
  Submission submission{};
  submission.head.sequence = sequence.id.value;
  submission.head.choice = sequence.choice;
  submission.head.num_prompt_ids = sequence.prompt_tokens;
  submission.head.num_output_ids = static_cast<std::uint32_t>(output_ids_.size());
  submission.head.output_ids_max = sequence.output_tokens_max;
  submission.head.num_stop_ids = static_cast<std::uint32_t>(spec.stop_ids.size());
  submission.head.num_bias = static_cast<std::uint32_t>(spec.bias.size());
  submission.head.priority = spec.priority;
  submission.head.sampling = spec.sampling;
  submission.head.task = sequence.task;
  submission.head.check_golden = sequence.is_probe ? 1 : 0;
  // After the end of an epoch only what is missing is computed again.
  const auto num_scored = static_cast<std::uint32_t>(sequence.prompt_logprobs.size());
  if (sequence.wants_prompt_scores && num_scored + 1 < sequence.prompt_tokens)
    submission.head.prompt_logprobs_from = num_scored + 1;
  submission.prompt = spec.prompt;
  submission.output = output_ids_;
  submission.stop_ids = spec.stop_ids;
  submission.bias = spec.bias;
  submission.tenant = sequence.tenant;
  return submission;
}

JournalFacts ServingCore::journal_facts(std::uint32_t index) const {
  const Sequence& sequence = sequences_[index];
  const Request& request = requests_[sequence.request];
  const std::uint32_t prompt_tokens = sequence.choice == 0 ? sequence.prompt_tokens : 0;
  return {
      request.id,     sequence.id,     sequence.tenant, request.spec.account,
      sequence.model, sequence.choice, prompt_tokens,   sequence.output_tokens_max + prompt_tokens,
      request.prices, request.admitted};
}

void ServingCore::check_invariants() const {
  queue_.check_invariants();
  breaker_.check_invariants();
  worker_breaker_.check_invariants();
  ledger_.check_invariants();
  for (const PoisonLedger& ledger : poison_) ledger.check_invariants();
  std::vector<std::uint64_t> pending(counters_.size(), 0);
  std::uint64_t num_live = 0, num_known = 0, num_queued = 0, num_resuming = 0, num_held = 0;
  std::uint64_t num_reserved = 0;
  for (const Request& request : requests_) {
    if (request.state == Request::State::ended) continue;
    ++num_live;
    std::uint32_t open = 0;
    for (const std::uint32_t index : request.choices) {
      if (index == kNoSequence) continue;
      ++open;
      CHECK(sequences_[index].state.is_client_open());
      CHECK(&requests_[sequences_[index].request] == &request);
    }
    CHECK(open == request.num_open);
    CHECK((open > 0) == (request.state == Request::State::live));
    CHECK(static_cast<bool>(request.reservation) == (open > 0));
    num_reserved += open > 0 ? 1 : 0;
  }
  for (std::uint32_t index = 0; index < sequences_.size(); ++index) {
    const Sequence& sequence = sequences_[index];
    if (sequence.id.value == 0) continue;
    ++num_known;
    CHECK(index_.find(sequence.id) == index);
    const SequenceState& state = sequence.state;
    const bool waits = sequence.is_queued || sequence.is_resuming;
    CHECK(waits == (state.phase() == SequencePhase::waiting));
    CHECK(state.phase() != SequencePhase::over);
    num_queued += sequence.is_queued ? 1 : 0;
    num_resuming += sequence.is_resuming ? 1 : 0;
    pending[sequence.model] += state.num_pending();
    if (state.is_client_open()) {
      CHECK(sequence.outputs.size() == state.num_generated());
      CHECK(sequence.top.size() == std::size_t{state.num_pending()} * sequence.num_top);
    }
    if (!state.is_on_worker()) continue;
    ++num_held;
    const Worker& worker = workers_[sequence.worker.value];
    CHECK(worker.account.is_up() && worker.held.at(sequence.held_at) == index);
  }
  CHECK(num_reserved == ledger_.num_open());
  CHECK(num_live == num_live_requests_ && num_known == index_.size());
  CHECK(num_queued == queue_.sequences() && num_held == num_on_worker_);
  for (const auto& resuming : resuming_) num_resuming -= resuming.size();
  CHECK(num_resuming == 0);
  for (std::size_t model = 0; model < counters_.size(); ++model) {
    CHECK(counters_[model].is_balanced() && counters_[model].pending == pending[model]);
  }
}

}  // namespace sluice::gw
