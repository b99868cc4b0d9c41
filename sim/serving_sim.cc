// ServingSim: events and their handling; what must hold is in serving_sim_checks.cc.
#include "sim/serving_sim.h"

#include <algorithm>
#include <utility>

#include "shared/check.h"
#include "shared/random.h"
#include "sim/fake_model.h"

namespace sluice::sim {

namespace {

constexpr std::uint32_t kTenants = 4;  // accounts 0..3; 4 is a key of tenant 1
constexpr std::int64_t kUnixMs = 1'700'000'000'000;
constexpr std::size_t kSubmitRingRecords = 6;
constexpr std::size_t kStepRingRecords = 4;
constexpr std::uint64_t kRecordBytes = 64;
constexpr Duration kReap = std::chrono::milliseconds(3);
constexpr Duration kRestart = std::chrono::milliseconds(400);
constexpr Duration kStallFound = std::chrono::seconds(2);

eng::SchedulerLimits scheduler_limits() {
  eng::SchedulerLimits limits;
  limits.num_blocks = 42;  // tight: preemption happens
  limits.block_tokens = 16;
  limits.sequences_max = 8;
  limits.waiting_max = 8;
  limits.step_tokens_max = 96;
  limits.context_tokens = 512;
  limits.intake_tokens_max = 48;  // three blocks: look-ups and giving back take several steps
  limits.vocab_size = kVocab;
  limits.hash_key = {11, 12};
  return limits;
}

WorkerFacts facts() {
  const eng::SchedulerLimits limits = scheduler_limits();
  return {.vocab_size = limits.vocab_size,
          .context_tokens = limits.context_tokens,
          .block_tokens = limits.block_tokens,
          .num_blocks = limits.num_blocks,
          .sequences_max = limits.sequences_max,
          .step_tokens_max = limits.step_tokens_max,
          .weights_digest = 1,
          .kernel_path = 1};
}

}  // namespace

bool ServingSim::Client::is_over() const {
  return is_refused || is_gone || failure ||
         std::count(is_finished.begin(), is_finished.end(), false) == 0;
}

ServingSim::ServingSim(const SimParams& params)
    : params_(params),
      workers_(params.num_workers),
      clients_(params.num_requests + params.flood_requests) {
  gw::CoreParams core;
  core.queue.requests_max = 24;
  core.queue_wait_max = std::chrono::seconds(15);
  core.sequences_max = 128;
  core.num_workers = params.num_workers;
  using gw::LimitKind;
  limits_.num_tenants = kTenants;
  limits_.accounts.resize(kTenants + 1);
  limits_.prices = {{2, 1, 3}};
  limits_.accounts[1].limits[LimitKind::tokens_per_minute] = 2000;
  limits_.accounts[1].limits[LimitKind::monthly_budget] = 12'000;
  limits_.accounts[2].limits[LimitKind::concurrent_requests] = 4;
  limits_.accounts[2].limits[LimitKind::requests_per_minute] = 30;
  limits_.accounts[3].mode = gw::ReservationMode::incremental;
  limits_.accounts[3].limits[LimitKind::tokens_per_minute] = 600;
  limits_.accounts[3].limits[LimitKind::concurrent_kv_tokens] = 500;
  limits_.accounts[4].parent = AccountId{1};
  limits_.accounts[4].limits[LimitKind::tokens_per_minute] = 900;
  if (params.is_measured) limits_.accounts[2] = {};
  core.limits = limits_;
  core.tenant_breaker = params.tenant_breaker;
  core_ = std::make_unique<gw::ServingCore>(std::move(core));
  core_->set_wall(now_, kUnixMs);
}

ServingSim::~ServingSim() = default;

std::uint64_t ServingSim::dice(std::uint64_t bound) {
  return random_bits({params_.seed, 0, 0}, static_cast<std::uint32_t>(rolls_++)) % bound;
}

void ServingSim::push(Duration after, EventKind kind, std::uint32_t subject, Epoch epoch) {
  events_.push({now_ + after, order_++, kind, subject, epoch.value});
}

SimReport ServingSim::run() {
  const Tick start = now_;
  const auto span = static_cast<std::uint64_t>(params_.arrivals_over.count());
  const auto any_time = [&] { return Duration{static_cast<std::int64_t>(dice(span))}; };
  for (std::uint32_t i = 0; i < params_.num_workers; ++i) push(Duration{0}, EventKind::restart, i);
  const auto even_time = [&](std::uint32_t i, std::uint32_t count) {
    return params_.arrivals_over / count * i + Duration{static_cast<std::int64_t>(dice(1'000'000))};
  };
  for (std::uint32_t i = 0; i < params_.num_requests; ++i) {
    push(params_.is_measured ? even_time(i, params_.num_requests) : any_time(), EventKind::arrive,
         i);
  }
  for (std::uint32_t i = 0; i < params_.flood_requests; ++i) {
    push(even_time(i, params_.flood_requests), EventKind::arrive, params_.num_requests + i);
  }
  constexpr EventKind kFaults[] = {EventKind::crash, EventKind::kill, EventKind::stall,
                                   EventKind::kill,  EventKind::jump, EventKind::limits};
  for (std::uint32_t i = 0; i < params_.faults; ++i) {
    push(any_time(), kFaults[dice(std::size(kFaults))],
         static_cast<std::uint32_t>(dice(params_.num_workers)));
  }
  const Tick latest = now_ + params_.arrivals_over + std::chrono::seconds(300);
  while (!events_.empty() && report_.violation.empty()) {
    const Event event = events_.top();
    events_.pop();
    now_ = std::max(now_, event.at);
    ++report_.events;
    happen(event);
    if (const auto due = core_->next_due(); due && *due <= now_) {
      core_->tick(now_);
      carry_out();
      wake_gateway();
    }
    check();
    if (events_.empty() || events_.top().at > now_) {
      // The timer of the loop: deadlines and waits without any other event before them.
      const auto due = core_->next_due();
      if (due && (events_.empty() || *due < events_.top().at)) {
        events_.push({*due, order_++, EventKind::gateway_turn, 0, 0});
      }
    }
    if (now_ > latest) violate("the system did not come to rest");
  }
  if (report_.violation.empty()) check_end();
  report_.took = now_ - start;
  const gw::ModelCounters& counters = core_->counters(0);
  report_.failovers = counters.failovers;
  for (std::uint32_t id = 0; id < core_->num_workers(); ++id)
    report_.preemptions += core_->meter(WorkerId{id}).counters().preemptions;
  report_.poisoned = counters.condemned;
  return report_;
}

void ServingSim::happen(const Event& event) {
  const std::uint32_t id = event.subject;
  const bool is_current = event.kind < EventKind::worker_turn || event.epoch == 0 ||
                          workers_[id].epoch.value == event.epoch;
  if (!is_current) return;  // of a former epoch of that worker
  switch (event.kind) {
    case EventKind::arrive:
      arrive(id);
      return;
    case EventKind::leave:
      if (clients_[id].is_over()) return;
      clients_[id].is_gone = true;
      ++report_.cancelled;
      core_->cancel(clients_[id].handle, gw::CancelCause::client_gone, now_);
      carry_out();
      return;
    case EventKind::take:
      take(id, 1 + static_cast<std::uint32_t>(dice(4)));
      if (!clients_[id].is_over())
        push(std::chrono::milliseconds(20 + dice(200)), EventKind::take, id);
      return;
    case EventKind::worker_turn:
      worker_turn(id);
      return;
    case EventKind::step_done:
      step_done(id);
      return;
    case EventKind::gateway_turn:
      gateway_turn();
      return;
    case EventKind::crash:
      end_epoch(id, DownReason::crashed);
      return;
    case EventKind::kill:
      end_epoch(id, DownReason::killed);
      return;
    case EventKind::stall:
      if (event.epoch != 0) {
        end_epoch(id, DownReason::stalled);
      } else if (workers_[id].scheduler) {
        workers_[id].is_stalled = true;
        push(kStallFound, EventKind::stall, id, workers_[id].epoch);
      }
      return;
    case EventKind::reaped:
      reaped(id);
      return;
    case EventKind::restart:
      restart(id);
      return;
    case EventKind::limits:
      return change_limits();
    case EventKind::jump:
      core_->set_wall(now_, kUnixMs + static_cast<std::int64_t>(dice(80'000'000)));
      carry_out();
      now_ += std::chrono::seconds(1 + dice(30));
      return;
  }
}

void ServingSim::make_mixed(std::uint32_t id) {
  Client& client = clients_[id];
  gw::GenerationSpec& spec = client.spec;
  spec.tenant = TenantId{static_cast<std::uint32_t>(dice(kTenants))};
  spec.account = AccountId{spec.tenant.value};
  if (spec.tenant.value == 1 && dice(2) == 0) spec.account = AccountId{kTenants};
  const std::size_t prompt = 1 + dice(dice(5) == 0 ? 300 : 60);
  // Half of the prompts share beginnings, so that the prefix cache has something to find.
  const std::uint64_t family = dice(2) == 0 ? dice(3) : 100 + id;
  for (std::size_t i = 0; i < prompt; ++i) {
    spec.prompt.push_back(static_cast<TokenId>(mix64(family * 10'000 + i) % (kVocab - 1)));
  }
  // Two of them, so that one may crash beside the suspects of the other.
  const std::uint32_t poisoned = params_.num_requests / 2;
  if (params_.has_poison && (id == poisoned || id == poisoned + 1)) spec.prompt[0] = kPoisonId;
  spec.sampling.seed = mix64(params_.seed ^ id);
  spec.choices = 1 + static_cast<std::uint32_t>(dice(6) == 0 ? dice(3) : 0);
  spec.output_tokens_max = 1 + static_cast<std::uint32_t>(dice(120));
  spec.stop_ids = {7, 8};
  spec.priority = static_cast<std::uint32_t>(dice(3));
  if (dice(8) == 0) spec.deadline = now_ + std::chrono::milliseconds(100 + dice(20'000));
  client.is_slow = dice(6) == 0;
  // Some want to know the log-probabilities of their prompt, a few of these nothing else.
  const std::uint64_t wish = mix64(params_.seed * 1000 + id) % 12;
  if (wish < 3) {
    spec.prompt_scores = gw::PromptScores::wanted;
    spec.sampling.wants_logprob = 1;
    if (wish == 0) spec.output_tokens_max = 0;
  }
}

// The longest prompts of one tenant, or short ones of another, each its own.
void ServingSim::make_even(std::uint32_t id) {
  gw::GenerationSpec& spec = clients_[id].spec;
  spec.tenant = TenantId{is_flood(id) ? 0u : 2u};
  spec.account = AccountId{spec.tenant.value};
  const std::size_t prompt = is_flood(id) ? scheduler_limits().context_tokens - 16 : 10 + dice(30);
  for (std::size_t i = 0; i < prompt; ++i) {
    spec.prompt.push_back(static_cast<TokenId>(mix64((100ull + id) * 10'000 + i) % (kVocab - 1)));
  }
  spec.sampling.seed = mix64(params_.seed ^ id);
  spec.output_tokens_max = 8;
}

void ServingSim::arrive(std::uint32_t id) {
  Client& client = clients_[id];
  gw::GenerationSpec& spec = client.spec;
  if (params_.is_measured || is_flood(id)) {
    make_even(id);
  } else {
    make_mixed(id);
  }
  spec.arrival = now_;
  client.taken.resize(spec.choices);
  client.is_finished.resize(spec.choices, false);
  std::vector<SequenceId> ids;
  for (std::uint32_t i = 0; i < spec.choices; ++i) ids.emplace_back(next_id_++);
  const auto handle = core_->submit(spec, RequestId{next_id_++}, ids, now_);
  if (!handle) {
    client.is_refused = true;
    ++report_.refused;
    report_.tripped += handle.error().code == Errc::tenant_circuit_open;
    carry_out();
    return;
  }
  ++report_.admitted;
  client.handle = *handle;
  client.admitted = now_;
  by_handle_[handle->value] = id;
  carry_out();
  if (client.is_slow) push(std::chrono::milliseconds(50), EventKind::take, id);
  if (!params_.is_measured && dice(7) == 0) {
    push(std::chrono::milliseconds(dice(8000)), EventKind::leave, id);
  }
}

// Lowered and raised again: what runs and does not fit any more has ended when this returns.
void ServingSim::change_limits() {
  std::optional<std::uint64_t>& running =
      limits_.accounts[2].limits[gw::LimitKind::concurrent_requests];
  running = running == 4 ? 1 : 4;
  gw::QueueParams queue;
  queue.requests_max = 24;
  core_->reload(limits_, queue, std::chrono::seconds(15), now_);
  carry_out();
  wake_gateway();
}

void ServingSim::take(std::uint32_t id, std::uint32_t most) {
  Client& client = clients_[id];
  if (client.is_over()) return;
  for (std::uint32_t choice = 0; choice < client.spec.choices; ++choice) {
    take_choice(client, choice, most);
  }
}

void ServingSim::take_choice(Client& client, std::uint32_t choice, std::uint32_t most) {
  const auto pending = core_->pending(client.handle, choice);
  const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(most, pending.size()));
  const auto id = static_cast<std::uint32_t>(&client - clients_.data());
  if (count > 0 && client.taken[choice].empty() && !is_flood(id)) {
    report_.ttft.push_back(now_ - client.spec.arrival);
  }
  const bool is_prompt_over =
      core_->prompt_result(client.handle, choice).finish != FinishReason::none;
  if (choice == 0 && client.taken[0].empty() && (count > 0 || is_prompt_over)) check_scores(client);
  if (is_prompt_over) {
    if (client.is_finished[choice]) violate("a prompt ended twice");
    client.is_finished[choice] = true;
  }
  for (const gw::OutputToken& token : pending.first(count)) {
    if (client.is_finished[choice]) violate("a token behind the end of a choice");
    client.taken[choice].push_back(token.id);
    if (token.finish != FinishReason::none) client.is_finished[choice] = true;
  }
  core_->accept(client.handle, choice, count, now_);
  carry_out();
}

void ServingSim::wake(std::uint32_t id) {
  Worker& worker = workers_[id];
  if (!worker.scheduler || worker.is_computing || worker.has_turn) return;
  worker.has_turn = true;
  push(std::chrono::microseconds(20), EventKind::worker_turn, id, worker.epoch);
}

void ServingSim::wake_gateway() {
  if (gateway_has_turn_) return;
  gateway_has_turn_ = true;
  // Now and then the gateway is late: rings fill up.
  const Duration late = !params_.is_measured && dice(10) == 0 ? std::chrono::milliseconds(30)
                                                              : std::chrono::milliseconds(0);
  push(std::chrono::microseconds(30) + late, EventKind::gateway_turn, 0);
}

void ServingSim::worker_turn(std::uint32_t id) {
  Worker& worker = workers_[id];
  worker.has_turn = false;
  if (!worker.scheduler || worker.is_stalled || worker.is_computing) return;
  if (worker.blocked) {
    if (worker.step_ring.size() >= kStepRingRecords) return;  // woken when the gateway has read
    worker.step_ring.push_back(std::move(*worker.blocked));
    worker.blocked.reset();
    wake_gateway();
  }
  read_submissions(worker);
  if (worker.scheduler->has_work()) start_step(id);
}

void ServingSim::read_submissions(Worker& worker) {
  while (!worker.submit_ring.empty() && !worker.blocked && worker.scheduler->can_take_events()) {
    Submitted submitted = std::move(worker.submit_ring.front());
    worker.submit_ring.pop_front();
    worker.read += kRecordBytes;
    if (submitted.cancel) {
      worker.scheduler->cancel(*submitted.cancel);
    } else {
      const SubmitView view{
          submitted.view.head, submitted.prompt, submitted.output, submitted.stop_ids, {}};
      if (const auto added = worker.scheduler->add(view, now_); !added) {
        Record record{};
        record.reject =
            RejectRecord{view.head.sequence, static_cast<std::uint32_t>(added.error().code), 0};
        publish(static_cast<std::uint32_t>(&worker - workers_.data()), std::move(record));
      }
    }
    while (!worker.cancels_waiting.empty() && worker.submit_ring.size() < kSubmitRingRecords) {
      Submitted cancel{};
      cancel.cancel = worker.cancels_waiting.front();
      worker.cancels_waiting.pop_front();
      worker.submit_ring.push_back(std::move(cancel));
      worker.written += kRecordBytes;
      core_->wrote(WorkerId{static_cast<std::uint32_t>(&worker - workers_.data())}, worker.written);
    }
  }
}

void ServingSim::start_step(std::uint32_t id) {
  Worker& worker = workers_[id];
  const eng::StepPlan& plan = worker.scheduler->plan();
  worker.in_step.clear();
  worker.sampled.clear();
  worker.culprit = SequenceId{};
  for (const eng::PlanItem& item : plan.items) {
    const eng::Sequence& sequence = worker.scheduler->sequence(item.slot);
    worker.in_step.push_back(item.sequence);
    if (sequence.ids[0] == kPoisonId) worker.culprit = item.sequence;
    const std::span<const TokenId> ids(sequence.ids);
    for (std::size_t next = item.start + item.ids.size() - item.num_logits + 1, row = 0;
         row < item.num_logits; ++row, ++next) {
      eng::SampledToken& sampled = worker.sampled.emplace_back();
      if (next < ids.size())
        sampled.logprob = logprob_of_last(ids.first(next + 1));
      else
        sampled.token = next_token(ids, sequence.sampling.seed, sequence.choice);
    }
  }
  worker.plan_counts = StepRecord{};
  worker.plan_counts.num_preemptions = plan.num_preemptions;
  worker.plan_counts.num_prefill_tokens = plan.num_prefill_tokens;
  worker.plan_counts.num_decode_tokens = plan.num_decode_tokens;
  worker.plan_counts.num_prefix_queries = plan.num_prefix_queries;
  worker.plan_counts.num_prefix_hits = plan.num_prefix_hits;
  worker.plan_counts.num_sequences = static_cast<std::uint32_t>(plan.items.size());
  const Duration cost = params_.step_base + params_.per_prefill_token * plan.num_prefill_tokens +
                        params_.per_decode_sequence * plan.num_decode_tokens;
  worker.plan_counts.duration_ns = static_cast<std::uint64_t>(cost.count());
  worker.is_computing = true;
  if (worker.culprit != SequenceId{}) {
    push(cost / 2, EventKind::crash, id, worker.epoch);
  } else {
    push(cost, EventKind::step_done, id, worker.epoch);
  }
}

void ServingSim::step_done(std::uint32_t id) {
  Worker& worker = workers_[id];
  if (!worker.scheduler || worker.is_stalled) return;  // it died or froze meanwhile
  const eng::StepOutcome& outcome = worker.scheduler->apply(worker.sampled);
  worker.is_computing = false;
  worker.generated += outcome.num_tokens;
  ++report_.steps;
  Record record{};
  record.head = worker.plan_counts;
  record.entries.assign(outcome.entries.begin(), outcome.entries.end());
  publish(id, std::move(record));
  wake(id);
}

void ServingSim::publish(std::uint32_t id, Record record) {
  Worker& worker = workers_[id];
  if (!record.reject) {
    const eng::Credits credits = worker.scheduler->credits();
    StepRecord& head = record.head;
    head.step = ++worker.steps;
    head.generated_total = worker.generated;
    head.submit_position = worker.read;
    head.credit_tokens = credits.tokens;
    head.credit_blocks = credits.blocks;
    head.credit_sequences = credits.sequences;
    head.num_running = worker.scheduler->num_running();
    head.num_waiting = worker.scheduler->num_waiting();
    head.num_blocks_free = worker.scheduler->blocks().num_free();
    head.num_blocks_cached = worker.scheduler->blocks().num_parked();
    head.num_slots_unfilled = worker.scheduler->num_slots_unfilled();
    head.num_entries = static_cast<std::uint32_t>(record.entries.size());
  }
  if (worker.step_ring.size() >= kStepRingRecords) {
    CHECK(!worker.blocked);
    worker.blocked = std::move(record);
  } else {
    worker.step_ring.push_back(std::move(record));
  }
  wake_gateway();
}

void ServingSim::end_epoch(std::uint32_t id, DownReason reason) {
  Worker& worker = workers_[id];
  if (!worker.scheduler) return;
  worker.reason = reason;
  worker.suspects.clear();
  // With a culprit in the world the other crashes happen between steps: random ones during steps
  // would be evidence against innocents, and three coincidences condemn.
  const bool is_culprits = std::any_of(worker.in_step.begin(), worker.in_step.end(),
                                       [&](SequenceId id_in) { return id_in == worker.culprit; });
  if (worker.is_computing && (is_culprits || !params_.has_poison)) worker.suspects = worker.in_step;
  worker.scheduler.reset();  // its uncommitted work is gone; the step ring stays
  worker.blocked.reset();
  push(kReap, EventKind::reaped, id, worker.epoch);
}

void ServingSim::reaped(std::uint32_t id) {
  drain(id);
  core_->worker_down(WorkerId{id}, workers_[id].reason, workers_[id].suspects, now_);
  carry_out();
  wake_gateway();
  push(kRestart, EventKind::restart, id);
}

void ServingSim::restart(std::uint32_t id) {
  Worker& worker = workers_[id];
  const Epoch epoch{worker.epoch.value + 1};
  worker = Worker{};
  worker.epoch = epoch;
  worker.scheduler = std::make_unique<eng::Scheduler>(scheduler_limits());
  core_->worker_up(WorkerId{id}, 0, epoch, facts(), gw::EpochOrigin::fresh, now_);
  carry_out();
}

void ServingSim::drain(std::uint32_t id) {
  Worker& worker = workers_[id];
  while (!worker.step_ring.empty()) {
    const Record record = std::move(worker.step_ring.front());
    worker.step_ring.pop_front();
    if (record.reject) {
      core_->reject(WorkerId{id}, *record.reject, now_);
    } else {
      core_->step(WorkerId{id}, {record.head, record.entries}, now_);
    }
    carry_out();
  }
}

void ServingSim::gateway_turn() {
  gateway_has_turn_ = false;
  for (std::uint32_t id = 0; id < workers_.size(); ++id) {
    drain(id);
    if (workers_[id].blocked) wake(id);
  }
  auto& notices = core_->notices();
  for (std::size_t i = 0; i < notices.size(); ++i) {
    const gw::Notice notice = notices[i];
    Client& client = clients_[by_handle_.at(notice.handle.value)];
    if (notice.kind == gw::NoticeKind::failed) {
      if (auto error = core_->take_failure(notice.handle)) {
        if (client.is_over()) violate("a request ended twice");
        const Errc code = error->code;
        report_.limited += code == Errc::tokens_rate_limited || code == Errc::concurrency_limit;
        report_.tripped += code == Errc::tenant_circuit_open;
        client.failure = std::move(error);
        ++report_.failed;
      }
    } else if (core_->take_token_notice(notice) && !client.is_slow) {
      take_choice(client, notice.choice, ~0u);
    }
  }
  notices.clear();
  carry_out();
}

void ServingSim::carry_out() {
  auto& commands = core_->commands();
  for (std::size_t i = 0; i < commands.size(); ++i) carry_out(gw::Command(commands[i]));
  commands.clear();
}

void ServingSim::carry_out(const gw::Command& command) {
  Worker& worker = workers_[command.worker.value];
  switch (command.kind) {
    case gw::CommandKind::open_slot:
      if (!journal_.emplace(command.sequence, 0).second) violate("a journal slot was open already");
      return;
    case gw::CommandKind::accept_slot:
      journal_.at(command.sequence) = command.value;
      return;
    case gw::CommandKind::cache_slot:
      if (!journal_.contains(command.sequence)) violate("cached tokens of a slot that is not open");
      return;
    case gw::CommandKind::absorb_slot:
      billed_ += journal_.at(command.sequence);
      journal_.erase(command.sequence);
      return;
    case gw::CommandKind::write_submit: {
      if (!worker.cancels_waiting.empty() || worker.submit_ring.size() >= kSubmitRingRecords) {
        ++report_.unsent;
        core_->submit_unsent(command.sequence);
        return;
      }
      Submitted submitted{};
      submitted.view = core_->submission(command.sequence);
      submitted.prompt.assign(submitted.view.prompt.begin(), submitted.view.prompt.end());
      submitted.output.assign(submitted.view.output.begin(), submitted.view.output.end());
      submitted.stop_ids.assign(submitted.view.stop_ids.begin(), submitted.view.stop_ids.end());
      submitted.view.head.salt[0] = 1 + submitted.view.tenant.value;
      worker.submit_ring.push_back(std::move(submitted));
      worker.written += kRecordBytes;
      core_->submit_written(command.sequence, worker.written);
      wake(command.worker.value);
      return;
    }
    case gw::CommandKind::write_cancel: {
      if (!worker.cancels_waiting.empty() || worker.submit_ring.size() >= kSubmitRingRecords) {
        worker.cancels_waiting.push_back(command.id);
      } else {
        Submitted cancel{};
        cancel.cancel = command.id;
        worker.submit_ring.push_back(std::move(cancel));
        worker.written += kRecordBytes;
        core_->wrote(command.worker, worker.written);
      }
      wake(command.worker.value);
      return;
    }
    case gw::CommandKind::report_corrupt:
      violate("a healthy worker was called corrupt: " +
              core_->worker(command.worker).corrupt_reason());
      return;
    case gw::CommandKind::recycle:  // nobody asks for it here
    case gw::CommandKind::drained:
      return;
  }
}

}  // namespace sluice::sim
