// RingDecisionLoop: its turns - control messages, rings, spinning, sleeping.
#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "config/load_config.h"
#include "gateway/link/ring_decision_loop.h"
#include "gateway/link/ring_loop_waits.h"
#include "shared/check.h"

namespace sluice::gw {

namespace {

// Records of one worker in one turn: the others and the sockets wait no longer than this.
constexpr std::size_t kRecordsPerTurn = 64;
// A wake-up through eventfd costs 50 to 90 us where the CPU was halted: it is cheaper to look at
// the rings for a while, but only when the answer is about to come. Looking yields: the worker that
// was just woken may wait for this very CPU (a guest takes halted CPUs for busy ones). With one CPU
// for all there is nothing to see before the worker has it.
constexpr Duration kSpin = std::chrono::microseconds(150);
// Deadlines are met within a step, not within a microsecond: fewer timers.
constexpr Duration kTimerGrain = std::chrono::milliseconds(10);

bool has_a_cpu_for_each_side() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

int duplicate(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  CHECK(copy >= 0);
  return copy;
}

}  // namespace

RingDecisionLoop::Waits::Waits(boost::asio::io_context& context, int control_fd,
                               std::size_t num_workers)
    : io(context),
      control(context, duplicate(control_fd)),
      bells(num_workers),
      sleeping(num_workers),
      timer(context),
      can_look(has_a_cpu_for_each_side()) {}

void RingDecisionLoop::Waits::watch_control(std::function<bool()> on_readable) {
  on_control = std::move(on_readable);
  wait_control();
}

void RingDecisionLoop::Waits::wait_control() {
  control.async_wait(Descriptor::wait_read, [this](const boost::system::error_code& error) {
    if (error) return;  // closed with the loop
    if (on_control()) wait_control();
  });
}

void RingDecisionLoop::Waits::watch_bell(WorkerId worker, int bell_fd) {
  bells[worker.value] = std::make_unique<Descriptor>(io, duplicate(bell_fd));
  wait_bell(*bells[worker.value]);
}

void RingDecisionLoop::Waits::wait_bell(Descriptor& bell) {
  bell.async_wait(Descriptor::wait_read, [this, &bell](const boost::system::error_code& error) {
    if (error) return;  // the worker went down: `bell` is gone
    shm::drain_doorbell(bell.native_handle());
    wait_bell(bell);
  });
}

void RingDecisionLoop::Waits::arm(Tick due, Tick now) {
  if (armed && *armed <= due) return;
  armed = due;
  timer.expires_after(std::max(due - now, kTimerGrain));
  timer.async_wait([this](const boost::system::error_code& error) {
    if (!error) armed.reset();  // the turn looks at the clock
  });
}

void RingDecisionLoop::run() {
  while (!stopped_) {
    if (turn()) continue;
    if (stopped_) return;
    wait();
  }
}

void RingDecisionLoop::quit() {
  stopped_ = true;
}

bool RingDecisionLoop::turn() {
  if (waits_->io.stopped()) waits_->io.restart();
  waits_->io.poll();
  now_ = clock_.now();
  read_wall();
  settled_.free_durable(journal_);
  bool is_busy = drain_links();
  if (const std::optional<Tick> due = core_->next_due(); due && *due <= now_) {
    core_->tick(now_);
    carry_out();
    is_busy = true;
  }
  take_quota_news();
  is_busy |= deliver();
  send_asks();
  report_breakers();
  ring_bells();
  return is_busy;
}

bool RingDecisionLoop::drain_links() {
  bool has_read = false;
  for (const std::unique_ptr<WorkerLink>& link : links_) {
    if (!link) continue;
    link->flush();
    has_read |= drain(*link, kRecordsPerTurn);
  }
  return has_read;
}

bool RingDecisionLoop::drain(WorkerLink& link, std::size_t records_max) {
  std::size_t count = 0;
  for (; count < records_max; ++count) {
    if (count > 0 && !link.knows_more()) break;
    const LinkRead read = link.read();
    if (read == LinkRead::empty) break;
    ++counters_.records;
    if (read == LinkRead::step) {
      core_->wrote(link.worker(), link.submit_position());
      core_->step(link.worker(), link.step(), now_);
    } else if (read == LinkRead::reject) {
      core_->reject(link.worker(), link.reject(), now_);
    } else {
      core_->corrupt(link.worker(), link.fault());
    }
    carry_out();
  }
  if (count > 0) link.release();
  return count > 0;
}

void RingDecisionLoop::ring_bells() {
  for (const std::unique_ptr<WorkerLink>& link : links_) {
    if (link && link->ring()) ++counters_.doorbells;
  }
}

bool RingDecisionLoop::are_links_quiet() const {
  for (const std::unique_ptr<WorkerLink>& link : links_) {
    if (link && !link->is_empty()) return false;
  }
  return true;
}

bool RingDecisionLoop::is_answer_near() const {
  if (!waits_->can_look || !core_->is_busy()) return false;
  return std::any_of(links_.begin(), links_.end(),
                     [](const auto& link) { return link && link->last_step() < kSpin; });
}

void RingDecisionLoop::spin() {
  const Tick until = clock_.now() + kSpin;
  while (are_links_quiet() && clock_.now() < until) ::sched_yield();
}

void RingDecisionLoop::wait() {
  if (is_answer_near()) {
    spin();
    if (!are_links_quiet()) return;
  }
  for (std::size_t i = 0; i < links_.size(); ++i) {
    if (links_[i]) waits_->sleeping[i].emplace(links_[i]->own_region(), links_[i]->awaited());
  }
  // Once more under the flag, so that no wake-up is lost (doorbell.h): records, and room for
  // cancels.
  const bool is_quiet = are_links_quiet();
  for (const std::unique_ptr<WorkerLink>& link : links_) {
    if (link) link->flush();
  }
  ring_bells();
  if (is_quiet) sleep();
  for (auto& scope : waits_->sleeping) scope.reset();
}

void RingDecisionLoop::sleep() {
  for (const std::optional<Tick> due : {core_->next_due(), next_quota_due()})
    if (due) waits_->arm(*due, clock_.now());
  ++counters_.sleeps;
  if (waits_->io.stopped()) waits_->io.restart();
  waits_->io.run_one();
  ring_bells();  // a worker need not wait for the poll of the next turn
}

void RingDecisionLoop::say_ready(std::uint16_t port) {
  ControlMessage message;
  message.kind = ControlKind::ready;
  message.value = port;
  send(message);
}

void RingDecisionLoop::say_drained() {
  if (std::exchange(said_drained_, true)) return;
  ControlMessage message;
  message.kind = ControlKind::drained;
  send(message);
}

// The parent reads its end always; when it does not, it is gone or broken, and so is this gateway.
void RingDecisionLoop::send(const ControlMessage& message) {
  if (const Result<void> sent = control_.send(message); !sent) quit();
}

void RingDecisionLoop::handle_control() {
  ControlMessage message;
  while (!stopped_) {
    const Result<bool> received = control_.try_receive(message);
    if (!received) {
      quit();  // the parent is gone, or what it says makes no sense
      return;
    }
    if (!*received) return;
    handle(message);
  }
}

void RingDecisionLoop::handle(ControlMessage& message) {
  now_ = clock_.now();
  switch (message.kind) {
    case ControlKind::worker_up:
      worker_up(message);
      break;
    case ControlKind::worker_down:
      worker_down(message);
      break;
    case ControlKind::reload:
      reload(message.text);
      break;
    case ControlKind::drain:
      if (hooks.drain) hooks.drain();
      core_->drain(now_, drain_timeout_);
      break;
    default:
      quit();
      return;
  }
  carry_out();
}

void RingDecisionLoop::worker_up(ControlMessage& message) {
  const WorkerId id = message.worker;
  const std::uint32_t model = message.value;
  if (id.value >= links_.size() || model >= facts_.size() || links_[id.value]) {
    quit();
    return;
  }
  auto link = WorkerLink::open(message, journal_.gateway_epoch(), ring_bytes_);
  if (!link) {
    report_corrupt(id, message.epoch, link.error().detail);
    return;
  }
  links_[id.value] = std::move(*link);
  WorkerLink& opened = *links_[id.value];
  waits_->watch_bell(id, opened.bell_fd());
  ++counters_.worker_epochs;
  const WorkerFacts& facts = opened.facts();
  facts_[model] = {
      facts.vocab_size,    facts.context_tokens, facts.weights_digest, facts.kernel_path, 0,
      facts.embedding_size};
  ControlMessage attach;
  attach.kind = ControlKind::attach_request;
  attach.worker = id;
  attach.epoch = opened.epoch();
  attach.gateway_epoch = journal_.gateway_epoch();
  attach.fds.emplace_back(duplicate(opened.submit_fd()));
  send(attach);
  core_->worker_up(id, model, opened.epoch(), facts, opened.origin(), now_);
}

void RingDecisionLoop::worker_down(const ControlMessage& message) {
  const WorkerId id = message.worker;
  if (id.value >= links_.size() || !links_[id.value]) return;  // its start was refused
  WorkerLink& link = *links_[id.value];
  if (link.epoch() != message.epoch) return;
  // It is reaped: what it committed is all there will be. A ring holds a bounded number of records.
  while (drain(link, kRecordsPerTurn)) {
  }
  const std::vector<SequenceId> suspects = link.suspects();
  waits_->forget(id);
  links_[id.value].reset();
  core_->worker_down(id, message.reason, suspects, now_);
}

void RingDecisionLoop::reload(const std::string& text) {
  const auto config = cfg::parse_config(text, "reload");
  if (!config) return;  // the parent has validated it: an error here is its bug, limits stay
  apply(hooks.complete ? hooks.complete(*config) : *config);
}

void RingDecisionLoop::apply(const cfg::Config& config) {
  QueueParams queue;
  queue.requests_max = config.queue.requests_max;
  queue.tokens_max = config.queue.tokens_max;
  drain_timeout_ = config.queue.drain_timeout;
  core_->reload(map_tenants(config), queue, config.queue.wait_max, now_);
  if (settled_.writer() != nullptr)
    settled_.writer()->name_accounts(std::exchange(unstored_names_, {}));
  set_breakers(config.breakers);
  if (hooks.reload) hooks.reload(config);
  carry_out();
}

std::optional<AccountQuota> RingDecisionLoop::quota_of(const std::string& tenant) const {
  const auto at = accounts_.find({tenant, std::string()});
  if (at == accounts_.end()) return std::nullopt;
  const Ledger& ledger = core_->ledger();
  const Tick now = clock_.now();
  return AccountQuota{ledger.own_quota(at->second, now), ledger.model_quotas(at->second, now),
                      ledger.shadow_refusals(at->second)};
}

void RingDecisionLoop::report_corrupt(WorkerId worker, Epoch epoch, const std::string& reason) {
  ++counters_.corrupt_epochs;
  ControlMessage message;
  message.kind = ControlKind::worker_corrupt;
  message.worker = worker;
  message.epoch = epoch;
  message.text = reason;
  send(message);
}

}  // namespace sluice::gw
