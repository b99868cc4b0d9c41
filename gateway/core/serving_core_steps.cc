// ServingCore, part 2: step records in, the life and end of sequences. The hot path of the gateway.
#include <algorithm>
#include <utility>

#include "gateway/core/serving_core.h"
#include "gateway/core/serving_tables.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {
constexpr std::size_t kOutputsKept = 4096;  // a resting slot keeps room for so many tokens
}  // namespace

void ServingCore::step(WorkerId id, const StepView& record, Tick now) {
  Worker& worker = workers_[id.value];
  if (!worker.account.is_up() || worker.account.is_corrupt()) return;
  if (const Result<void> taken = worker.account.take_step(record); !taken) {
    corrupt(id, taken.error().detail);
    return;
  }
  worker.meter.take(record.head);
  worker.time.take(record.head);
  worker_breaker_.step(
      id, std::chrono::nanoseconds(std::min(record.head.duration_ns, kStepNsMax)),
      std::uint64_t{record.head.num_prefill_tokens} + record.head.num_decode_tokens, now);
  std::span<const TopLogprob> top = record.top;
  std::span<const float> values = record.values;
  for (const StepEntry& entry : record.entries) {
    const Entry taken{entry, top.first(entry.num_top), values.first(entry.num_values)};
    top = top.subspan(entry.num_top);
    values = values.subspan(entry.num_values);
    if (!take_entry(id.value, taken, now)) break;
  }
  stop_tripped(now);
  dispatch_model(worker.account.model(), now);
}

// What is wrong with an entry of a known sequence; nullptr: nothing.
const char* ServingCore::entry_fault(const Sequence& sequence, const Entry& taken) const {
  switch (taken.head.kind) {
    case EntryKind::finished:
      return nullptr;  // the state machine judges it
    case EntryKind::token:
      if (const char* fault = token_fault(sequence, taken.head); fault != nullptr) return fault;
      return top_fault(sequence, taken);
    case EntryKind::prompt_token:
    case EntryKind::prompt_finished:
      return prompt_fault(sequence, taken);
  }
  return "kind";
}

const char* ServingCore::top_fault(const Sequence& sequence, const Entry& taken) const {
  if (taken.top.size() != sequence.num_top) return "another number of alternatives than asked for";
  const std::uint32_t vocab_size = workers_[sequence.worker.value].account.facts().vocab_size;
  for (const TopLogprob& top : taken.top)
    if (top.token >= vocab_size) return "an alternative outside the vocabulary";
  return nullptr;
}

const char* ServingCore::prompt_fault(const Sequence& sequence, const Entry& taken) const {
  const std::size_t num_scored = sequence.prompt_logprobs.size();
  const bool is_scored = !sequence.wants_prompt_scores || num_scored + 1 == sequence.prompt_tokens;
  if (taken.head.kind == EntryKind::prompt_token) {
    if (is_scored) return "log-probabilities of a prompt that were not asked for";
    if (taken.head.position != num_scored + 1) return "position is not the next one of the prompt";
    if (sequence.state.is_client_open() &&
        taken.head.token != requests_[sequence.request].spec.prompt[taken.head.position])
      return "not the prompt's token";
    return top_fault(sequence, taken);
  }
  if (sequence.output_tokens_max > 0) return "ended with its prompt, but output was asked for";
  if (!is_scored) return "ended before the log-probabilities of its prompt";
  if (taken.head.cached_tokens > sequence.prompt_tokens) return "cached_tokens";
  const WorkerFacts& facts = workers_[sequence.worker.value].account.facts();
  const std::uint32_t size = sequence.task == SequenceTask::embed ? facts.embedding_size : 0;
  return taken.values.size() == size ? nullptr : "another size of the embedding than announced";
}

const char* ServingCore::token_fault(const Sequence& sequence, const StepEntry& entry) const {
  const SequenceState& state = sequence.state;
  const WorkerFacts& facts = workers_[sequence.worker.value].account.facts();
  if (entry.position != state.num_generated()) return "position is not the next one";
  if (entry.token >= facts.vocab_size) return "token outside the vocabulary";
  if (entry.position >= sequence.output_tokens_max) return "token beyond the allowed output";
  if (entry.cached_tokens > sequence.prompt_tokens + entry.position) return "cached_tokens";
  if (sequence.wants_prompt_scores && sequence.prompt_logprobs.size() + 1 < sequence.prompt_tokens)
    return "a token before the log-probabilities of its prompt";
  const bool is_last = entry.position + 1 == sequence.output_tokens_max;
  switch (entry.finish) {
    case FinishReason::none:
      return is_last ? "the last allowed token does not finish" : nullptr;
    case FinishReason::length:
      return is_last ? nullptr : "finished by length too early";
    case FinishReason::stop:
      break;
    case FinishReason::cancelled:
    case FinishReason::error:
      return "a token cannot carry this finish reason";
  }
  if (!state.is_client_open()) return nullptr;  // its stop ids are gone with the client
  const std::vector<TokenId>& stop_ids = requests_[sequence.request].spec.stop_ids;
  const bool is_stop = std::find(stop_ids.begin(), stop_ids.end(), entry.token) != stop_ids.end();
  return is_stop ? nullptr : "finished by a token that is no stop id";
}

// A token beyond what is reserved: more is reserved before any client sees it. Where that is
// refused the request ends, behind the notices of tokens that are covered.
void ServingCore::cover(Sequence& sequence, Tick now) {
  if (sequence.state.num_generated() < sequence.output_tokens_granted) return;
  const Request& request = requests_[sequence.request];
  if (request.mode == ReservationMode::incremental && !request.lease_wait) extend(sequence, now);
}

// False: not now. With shared limits it may have to wait for their store; its tokens wait, too.
bool ServingCore::extend(Sequence& sequence, Tick now) {
  Request& request = requests_[sequence.request];
  if (request.limit_error || sequence.output_tokens_granted == sequence.output_tokens_max)
    return false;
  const std::uint32_t more =
      std::min(kGrantTokens, sequence.output_tokens_max - sequence.output_tokens_granted);
  Result<void> extended;
  if (leases_) {
    const std::uint64_t since =
        request.lease_wait ? request.lease_wait->since : leases_->next_exchange();
    const Result<LeaseState> leased =
        ledger_.lease_extension(request.reservation, more, since, now);
    if (leased && *leased == LeaseState::pending) {
      if (request.lease_wait) return false;
      request.lease_wait = {since, now + params_.lease_wait_max};
      lease_waiting_.push_back(handle_of(sequence.request));
      set_due(sequence.request);
      return false;
    }
    if (!leased) extended = leased.error();
  }
  if (request.lease_wait) {
    request.lease_wait.reset();
    set_due(sequence.request);
  }
  if (extended) extended = ledger_.extend(request.reservation, more, now, typical_request_);
  if (extended) {
    sequence.output_tokens_granted += more;
    return true;
  }
  const bool is_lowered = request.lowered && extended.error().code != Errc::quota_store_unavailable;
  request.limit_error = is_lowered ? *request.lowered : extended.error();
  notices_.push_back({NoticeKind::failed, handle_of(sequence.request), 0});
  return false;
}

// The store has answered: those whose tokens wait for an extension try again, in their order.
void ServingCore::cover_waiting(Tick now) {
  std::vector<GenerationHandle> waiting;
  waiting.swap(lease_waiting_);
  for (const GenerationHandle handle : waiting) {
    Request* request = find(handle);
    if (request == nullptr || request->state != Request::State::live || !request->lease_wait)
      continue;
    bool is_waiting = false;
    for (const std::uint32_t index : request->choices) {
      if (index == kNoSequence) continue;
      Sequence& sequence = sequences_[index];
      const auto is_short = [&] {
        return sequence.outputs.size() > sequence.output_tokens_granted;
      };
      bool is_covered = false;
      while (is_short() && extend(sequence, now)) is_covered = true;
      if (is_covered) notify(sequence);
      is_waiting |= is_short();
    }
    if (!request->lease_wait) continue;
    if (!is_waiting) {  // the choice that waited is over
      request->lease_wait.reset();
      set_due(static_cast<std::uint32_t>(request - requests_.data()));
      continue;
    }
    const bool is_listed =
        std::find(lease_waiting_.begin(), lease_waiting_.end(), handle) != lease_waiting_.end();
    if (!is_listed) lease_waiting_.push_back(handle);
  }
}

bool ServingCore::take_entry(std::uint32_t worker, const Entry& taken, Tick now) {
  const StepEntry& entry = taken.head;
  const WorkerAccount& account = workers_[worker].account;
  ModelCounters& counters = counters_[account.model()];
  const std::optional<std::uint32_t> index = index_.find(SequenceId{entry.sequence});
  if (!index) {
    if (account.origin() == EpochOrigin::former_gateway &&
        entry.sequence < params_.first_id.value) {
      if (entry.kind == EntryKind::token) {
        ++counters.generated;
        ++counters.discarded[static_cast<std::size_t>(DiscardCause::gateway_restart)];
      }
      return true;
    }
    corrupt(WorkerId{worker}, "entry of an unknown sequence");
    return false;
  }
  Sequence& sequence = sequences_[*index];
  if (!sequence.state.is_on_worker() || sequence.worker.value != worker) {
    corrupt(WorkerId{worker}, "entry of a sequence that this worker does not hold");
    return false;
  }
  if (const char* fault = entry_fault(sequence, taken); fault != nullptr) {
    corrupt(WorkerId{worker}, fault);
    return false;
  }
  if (entry.kind == EntryKind::finished) {
    // The engine gives up a sequence whose logits are NaN or infinite, and for no other reason.
    if (entry.finish == FinishReason::error) sequence.worker_end = WorkerEnd::bad_logits;
    const SequenceEffects effects = sequence.state.finished(entry.finish);
    if (effects.corrupt) {
      corrupt(WorkerId{worker}, "sequence ended without a token and without a cancel");
      return false;
    }
    if (effects.failed) {
      fail_sequence(*index, effects,
                    make_error(Errc::internal_error, "the engine gave up the sequence"), now);
    } else {
      apply(*index, effects, EndReason::error, now);
    }
    return true;
  }
  if (entry.kind == EntryKind::prompt_token) {
    take_prompt_token(sequence, taken);
    return true;  // the step that crashed may be one of the next: it stays a suspect
  }
  if (sequence.is_suspect) clear_suspect(sequence);  // it repeated the step that crashed
  if (entry.kind == EntryKind::prompt_finished) {
    take_prompt_end(*index, taken, now);
  } else {
    take_token(*index, taken, now);
  }
  return true;
}

void ServingCore::notify(Sequence& sequence) {
  if (sequence.is_dirty) return;
  sequence.is_dirty = true;
  notices_.push_back({NoticeKind::tokens, handle_of(sequence.request), sequence.choice});
}

// The prompt is billed once, with the first choice, and so is what the cache had of it.
void ServingCore::note_cached(std::uint32_t index, std::uint32_t cached) {
  const Sequence& sequence = sequences_[index];
  if (sequence.choice != 0) return;
  requests_[sequence.request].stats.cached_tokens = cached;
  if (cached == 0) return;
  commands_.push_back({.kind = CommandKind::cache_slot,
                       .sequence = index,
                       .id = sequence.id,
                       .worker = {},
                       .value = std::min(cached, sequence.prompt_tokens)});
}

void ServingCore::take_prompt_token(Sequence& sequence, const Entry& taken) {
  sequence.prompt_logprobs.push_back(taken.head.logprob);
  sequence.prompt_top.insert(sequence.prompt_top.end(), taken.top.begin(), taken.top.end());
}

void ServingCore::take_prompt_end(std::uint32_t index, const Entry& taken, Tick now) {
  Sequence& sequence = sequences_[index];
  const SequenceEffects effects = sequence.state.prompt_finished();
  CHECK(!effects.corrupt);  // a sequence without output that is on a worker
  sequence.worker_end = WorkerEnd::good;
  sequence.meter.entry(taken.head.cached_tokens, workers_[sequence.worker.value].time, now);
  if (effects.notify) {
    sequence.embedding.assign(taken.values.begin(), taken.values.end());
    note_cached(index, taken.head.cached_tokens);
    notify(sequence);
  }
  apply(index, effects, EndReason::error, now);
}

void ServingCore::take_token(std::uint32_t index, const Entry& taken, Tick now) {
  const StepEntry& entry = taken.head;
  Sequence& sequence = sequences_[index];
  ModelCounters& counters = counters_[sequence.model];
  if (sequence.state.is_client_open()) cover(sequence, now);
  const SequenceEffects effects = sequence.state.token(entry.finish);
  CHECK(!effects.corrupt);  // phase and finish reason were checked above
  if (entry.finish != FinishReason::none) sequence.worker_end = WorkerEnd::good;
  ++counters.generated;
  sequence.meter.entry(entry.cached_tokens, workers_[sequence.worker.value].time, now);
  sequence.meter.grow();
  breaker_.took_kv(sequence.tenant, 1, now);
  queue_.charge(sequence.tenant, sequence.model, sequence.size, 1);
  if (effects.notify) {
    sequence.outputs.push_back({entry.token, entry.logprob, entry.finish});
    sequence.top.insert(sequence.top.end(), taken.top.begin(), taken.top.end());
    ++counters.pending;
    if (entry.position == 0) note_cached(index, entry.cached_tokens);
    observe_token(sequence, now);
    notify(sequence);
  }
  apply(index, effects, EndReason::error, now);
}

void ServingCore::observe_token(Sequence& sequence, Tick now) {
  ModelCounters& counters = counters_[sequence.model];
  Request& request = requests_[sequence.request];
  if (sequence.first_token == Tick{}) {
    sequence.first_token = now;
    counters.ttft.observe(now - sequence.arrival);
    counters.prefill_time.observe(now - sequence.dispatched);
    if (request.first_token == Tick{}) request.first_token = now;
  } else {
    counters.itl.observe(now - sequence.last_token);
  }
  sequence.last_token = now;
  request.last_token = now;
}

void ServingCore::reject(WorkerId id, const RejectRecord& record, Tick now) {
  Worker& worker = workers_[id.value];
  if (!worker.account.is_up() || worker.account.is_corrupt()) return;
  const std::optional<std::uint32_t> index = index_.find(SequenceId{record.sequence});
  if (!index || !sequences_[*index].state.is_on_worker() || sequences_[*index].worker != id) {
    const bool is_former = worker.account.origin() == EpochOrigin::former_gateway &&
                           record.sequence < params_.first_id.value;
    if (!is_former) corrupt(id, "rejected a sequence that it does not hold");
    return;
  }
  Sequence& sequence = sequences_[*index];
  if (record.is_golden_wrong != 0) sequence.worker_end = WorkerEnd::wrong_golden;
  const auto code =
      record.errc < kErrcCount ? static_cast<Errc>(record.errc) : Errc::internal_error;
  if (sequence.state.phase() == SequencePhase::cancelling) {
    apply(*index, sequence.state.finished(FinishReason::cancelled), EndReason::abort, now);
  } else if (code == Errc::over_capacity || code == Errc::no_healthy_worker) {  // full, draining
    worker.account.hold();
    apply(*index, sequence.state.unsent(), EndReason::error, now);
  } else {
    const bool is_clients = code == Errc::context_length_exceeded || code == Errc::invalid_value;
    fail_sequence(
        *index, sequence.state.finished(FinishReason::error),
        make_error(is_clients ? code : Errc::internal_error, "the worker cannot run this request"),
        now);
  }
  dispatch_model(worker.account.model(), now);
}

void ServingCore::corrupt(WorkerId id, std::string reason) {
  WorkerAccount& account = workers_[id.value].account;
  if (!account.is_up() || account.is_corrupt()) return;
  account.condemn(std::move(reason));
  commands_.push_back(
      {.kind = CommandKind::report_corrupt, .sequence = 0, .id = {}, .worker = id, .value = 0});
}

void ServingCore::apply(std::uint32_t index, const SequenceEffects& effects, EndReason reason,
                        Tick now) {
  Sequence& sequence = sequences_[index];
  ModelCounters& counters = counters_[sequence.model];
  if (effects.discarded > 0) {
    counters.discarded[static_cast<std::size_t>(effects.cause)] += effects.discarded;
    if (effects.client_over) counters.pending -= effects.discarded;
  }
  if (effects.send_cancel) {
    commands_.push_back({.kind = CommandKind::write_cancel,
                         .sequence = index,
                         .id = sequence.id,
                         .worker = sequence.worker,
                         .value = 0});
  }
  if (effects.worker_over) leave_worker(index, now);
  if (effects.requeue) requeue(index, now);
  if (effects.client_over) client_over(index, reason, now);
  if (sequences_[index].state.phase() == SequencePhase::over) forget(index);
}

void ServingCore::client_over(std::uint32_t index, EndReason reason, Tick now) {
  Sequence& sequence = sequences_[index];
  Request& request = requests_[sequence.request];
  ModelCounters& counters = counters_[sequence.model];
  leave_queue(index, now);
  ++counters.ended[static_cast<std::size_t>(reason)];
  counters.e2e.observe(now - sequence.arrival);
  if (sequence.first_token != Tick{}) {
    counters.decode_time.observe(sequence.last_token - sequence.first_token);
  }
  if (sequence.has_slot) {
    sequence.has_slot = false;
    sequence.meter.hold(now);
    commands_.push_back({.kind = CommandKind::absorb_slot,
                         .sequence = index,
                         .id = sequence.id,
                         .worker = {},
                         .value = sequence.state.num_accepted(),
                         .use = sequence.meter.use()});
  }
  const std::uint32_t used = sequence.state.num_accepted();
  ledger_.close_choice(request.reservation, sequence.output_tokens_granted, used);
  if (reason == EndReason::stop || reason == EndReason::length) {
    if (sequence.output_tokens_max > 0) predictor(sequence.tenant, sequence.model).observe(used);
    if (request.state == Request::State::live) request.end = TenantEnd::good;
  }
  request.choices[sequence.choice] = kNoSequence;
  CHECK(request.num_open > 0);
  if (--request.num_open > 0) return;
  typical_request_ = (typical_request_ * 7 + std::max(Duration{0}, now - request.admitted)) / 8;
  end_request(sequence.request, now);
}

void ServingCore::leave_worker(std::uint32_t index, Tick now) {
  Sequence& sequence = sequences_[index];
  breaker_.gave_kv(sequence.tenant, sequence.meter.tokens(), now);
  sequence.meter.end(now);
  worker_breaker_.ended(sequence.worker, std::exchange(sequence.worker_end, WorkerEnd::neutral),
                        std::exchange(sequence.is_probe, false), now);
  std::vector<std::uint32_t>& held = workers_[sequence.worker.value].held;
  CHECK(sequence.held_at < held.size() && held[sequence.held_at] == index);
  held[sequence.held_at] = held.back();
  sequences_[held.back()].held_at = sequence.held_at;
  held.pop_back();
  --num_on_worker_;
  if (held.empty()) recycle_if_due(sequence.worker.value, now);
}

// A request is cleared when each of its suspected choices has delivered or is gone.
void ServingCore::clear_suspect(Sequence& sequence) {
  sequence.is_suspect = false;
  const Request& request = requests_[sequence.request];
  if (request.id == sequence.request_id) {
    for (const std::uint32_t choice : request.choices) {
      if (choice != kNoSequence && sequences_[choice].is_suspect) return;
    }
  }
  poison_[sequence.model].cleared(sequence.request_id);
}

void ServingCore::forget(std::uint32_t index) {
  Sequence& sequence = sequences_[index];
  CHECK(!sequence.has_slot && !sequence.is_queued && !sequence.is_resuming);
  if (sequence.is_suspect) clear_suspect(sequence);
  index_.erase(sequence.id);
  std::vector<OutputToken> outputs = std::move(sequence.outputs);
  outputs.clear();
  if (outputs.capacity() > kOutputsKept) outputs = {};
  sequence = Sequence{};
  sequence.outputs = std::move(outputs);
  free_sequences_.push_back(index);
}

void ServingCore::worker_up(WorkerId id, std::uint32_t model, Epoch epoch, const WorkerFacts& facts,
                            EpochOrigin origin, Tick now) {
  CHECK(id.value < workers_.size() && model < health_.size());
  Worker& worker = workers_[id.value];
  CHECK(!worker.account.is_up() && worker.held.empty());
  worker.account.open(model, epoch, facts, origin);
  worker.meter.open(model, facts);
  worker_breaker_.up(id, model, now);
  ++health_[model].num_up;
  health_[model].was_up = true;
  dispatch_model(model, now);
}

void ServingCore::worker_down(WorkerId id, DownReason reason, std::span<const SequenceId> suspects,
                              Tick now) {
  Worker& worker = workers_[id.value];
  if (!worker.account.is_up()) return;
  const std::uint32_t model = worker.account.model();
  worker.account.close();
  worker.recycle_by.reset();
  if (worker.mode == WorkerMode::recycling) worker.mode = WorkerMode::serving;
  CHECK(health_[model].num_up > 0);
  --health_[model].num_up;
  health_[model].down_since = now;

  // The page is input too: only what this worker really held can be a suspect, and each once.
  std::vector<std::uint32_t> in_step;
  std::vector<RequestId> evidence;
  if (reason == DownReason::crashed || reason == DownReason::stalled ||
      reason == DownReason::corrupt) {
    for (const SequenceId suspect : suspects) {
      const std::optional<std::uint32_t> index = index_.find(suspect);
      if (!index || !sequences_[*index].state.is_on_worker()) continue;
      if (sequences_[*index].worker != id) continue;
      in_step.push_back(*index);
      evidence.push_back(sequences_[*index].request_id);
    }
    std::sort(evidence.begin(), evidence.end());
    evidence.erase(std::unique(evidence.begin(), evidence.end()), evidence.end());
  }
  while (!worker.held.empty()) {
    const std::uint32_t index = worker.held.back();
    Sequence& sequence = sequences_[index];
    if (sequence.state.is_client_open()) {
      ++counters_[model].failovers;
      ++requests_[sequence.request].stats.num_failovers;
    }
    sequence.is_retry = true;
    apply(index, sequence.state.epoch_end(), EndReason::error, now);
  }
  worker_breaker_.down(id, reason, now);
  judge(model, evidence, in_step, now);
  dispatch(now);
}

// `in_step`: the sequences behind the evidence; those whose client left are gone by now.
void ServingCore::judge(std::uint32_t model, std::span<const RequestId> evidence,
                        std::span<const std::uint32_t> in_step, Tick now) {
  std::vector<RequestId> condemned;
  poison_[model].crashed(evidence, condemned);
  const auto is_alive = [&](std::uint32_t index, RequestId request) {
    return sequences_[index].id.value != 0 && sequences_[index].request_id == request;
  };
  for (const RequestId request : evidence) {
    bool is_present = false;
    for (const std::uint32_t index : in_step) {
      if (!is_alive(index, request)) continue;
      is_present = true;
      sequences_[index].is_suspect = poison_[model].is_suspect(request);
    }
    if (!is_present) poison_[model].cleared(request);  // its client is gone: it will not run again
  }
  for (const RequestId guilty : condemned) {
    for (const std::uint32_t index : in_step) {
      if (!is_alive(index, guilty)) continue;
      ++counters_[sequences_[index].model].condemned;
      fail_request(sequences_[index].request,
                   make_error(Errc::poisoned_request, "the request crashed its worker repeatedly"),
                   DiscardCause::condemned, now);
      break;
    }
  }
}

}  // namespace sluice::gw
