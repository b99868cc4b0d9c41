// epoll over signals, a timer, and each child's pidfd and control channel.
#include "gateway/parent/parent.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "config/load_config.h"
#include "gateway/logging.h"
#include "gateway/parent/child_process.h"
#include "gateway/parent/ready_line.h"
#include "gateway/parent/state_dir.h"
#include "gateway/parent/supervision.h"
#include "shared/check.h"
#include "shared/confinement.h"
#include "shared/doorbell.h"
#include "shared/journal.h"
#include "shared/progress_page.h"
#include "shared/shm_region.h"

namespace sluice::gw {
namespace {

// A child that closed its channel and lives on serves nobody.
constexpr Duration kChannelLostMax = std::chrono::seconds(1);

// What the parent keeps of a child. The gateway uses the first block only.
struct Child {
  ChildProcess process;
  std::string last_words;  // why it failed: its own text, or what it did wrong
  std::optional<Tick> channel_lost_at;

  std::uint32_t model = 0;
  Epoch epoch{};
  WorkerFacts facts;
  UniqueFd worker_bell, gateway_bell;
  shm::Region step;
  std::optional<shm::Region> submit;  // the last one that a gateway made for this epoch
};

UniqueFd duplicate(const UniqueFd& fd) {
  return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

// A child's words in our log: one line, no quotes, bounded.
std::string loggable(const std::string& text) {
  constexpr std::size_t kLogTextMax = 200;
  std::string out = text.substr(0, kLogTextMax);
  for (char& c : out)
    if (c < 0x20 || c > 0x7e || c == '"') c = '?';
  return out;
}

// Tags of epoll events: two per child, then the parent's own.
constexpr std::uint64_t kSignalTag = ~std::uint64_t{0};
constexpr std::uint64_t kTimerTag = kSignalTag - 1;

class Parent {
 public:
  explicit Parent(ParentOptions options)
      : options_(std::move(options)),
        supervision_(options_.config.supervision, options_.config.queue.drain_timeout,
                     count_workers(options_.config)) {}

  int run();

  static std::uint32_t count_workers(const cfg::Config& config) {
    std::uint32_t count = 0;
    for (const cfg::Model& model : config.models) count += model.workers;
    return count;
  }

 private:
  Result<void> open_files();
  Result<void> open_events();
  void handle_event(std::uint64_t tag);
  void handle_signals();
  void handle_timer();
  void handle_child(std::size_t index);
  void handle_exit(std::size_t index, ExitFacts facts);
  void handle_channel(std::size_t index);
  Actions from_gateway(ControlMessage& message);
  Actions from_worker(std::size_t index, ControlMessage& message);
  Actions attach_submit(ControlMessage& message);
  Actions accuse(std::size_t index, const std::string& why);
  void reload();

  void apply(Actions actions);
  Actions carry_out(const Action& action);
  Actions start_gateway();
  Actions start_worker(std::size_t index, Epoch epoch);
  Actions worker_up(std::size_t index);
  Actions send(std::size_t index, const ControlMessage& message);
  Actions watch_worker(std::size_t index);
  Result<void> adopt(std::size_t index, ChildProcess process);
  void set_timer();
  void end_all();

  // children_[0] is the gateway, worker i is at i + 1.
  static ChildId id_of(std::size_t index) {
    return index == 0 ? kGatewayChild
                      : worker_child(WorkerId(static_cast<std::uint32_t>(index - 1)));
  }
  static std::size_t index_of(ChildId id) {
    return id.kind == ChildId::Kind::gateway ? 0 : std::size_t{id.worker.value} + 1;
  }
  Tick now() const { return clock_.now(); }

  ParentOptions options_;
  SystemClock clock_;
  Supervision supervision_;
  std::optional<StateDir> state_dir_;
  UniqueFd journal_, epoll_, signals_, timer_;
  std::vector<Child> children_;
  std::uint32_t port_ = 0;  // bound last; 0: none yet
  std::optional<int> exit_code_;
};

Result<void> Parent::open_files() {
  const auto path = cfg::effective_state_dir(options_.config);
  if (!path) return path.error();
  auto dir = StateDir::open(*path);
  if (!dir) return dir.error();
  state_dir_ = std::move(*dir);
  // As many again for settled sequences that wait for the disk (gateway/link/settled_slots.h).
  auto journal =
      Journal::create_file(state_dir_->journal_path().c_str(), 2 * options_.config.journal_slots);
  if (!journal) return journal.error();
  journal_ = std::move(*journal);
  return {};
}

Result<void> Parent::open_events() {
  // A write beyond a file limit and a peer that is gone are errors of the call, not signals.
  for (const int signal : {SIGPIPE, SIGXFSZ}) ::signal(signal, SIG_IGN);
  sigset_t handled;
  ::sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) ::sigaddset(&handled, signal);
  if (::sigprocmask(SIG_BLOCK, &handled, nullptr) != 0) return system_error("sigprocmask");
  signals_.reset(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!signals_ || !timer_ || !epoll_) return system_error("making the event descriptors");
  for (const auto& [fd, tag] : {std::pair(signals_.get(), kSignalTag), {timer_.get(), kTimerTag}}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return system_error("epoll_ctl");
  }
  return {};
}

int Parent::run() {
  if (auto opened = open_events(); !opened) {
    std::fprintf(stderr, "sluice: %s\n", opened.error().detail.c_str());
    return 1;
  }
  if (auto opened = open_files(); !opened) {
    std::fprintf(stderr, "sluice: %s\n", opened.error().detail.c_str());
    return 1;
  }
  children_.resize(1 + count_workers(options_.config));
  std::size_t index = 1;
  for (std::uint32_t model = 0; model < options_.config.models.size(); ++model)
    for (std::uint32_t i = 0; i < options_.config.models[model].workers; ++i)
      children_[index++].model = model;
  apply(supervision_.start());
  while (!exit_code_) {
    set_timer();
    std::array<epoll_event, 16> events;
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count && !exit_code_; ++i)
      handle_event(events[static_cast<std::size_t>(i)].data.u64);
  }
  end_all();
  return *exit_code_;
}

void Parent::handle_event(std::uint64_t tag) {
  if (tag == kSignalTag) return handle_signals();
  if (tag == kTimerTag) return handle_timer();
  const auto index = static_cast<std::size_t>(tag / 2);
  if (tag % 2 == 0)
    handle_child(index);
  else
    handle_channel(index);
}

void Parent::handle_signals() {
  signalfd_siginfo facts;
  while (::read(signals_.get(), &facts, sizeof facts) == sizeof facts && !exit_code_) {
    switch (facts.ssi_signo) {
      case SIGHUP:
        reload();
        break;
      case SIGCHLD:
        for (std::size_t i = 0; i < children_.size(); ++i) handle_child(i);
        break;
      default:
        spdlog::info("event=terminating signal={}", facts.ssi_signo);
        apply(supervision_.terminate(static_cast<int>(facts.ssi_signo), now()));
    }
  }
}

void Parent::handle_timer() {
  std::uint64_t expirations = 0;
  [[maybe_unused]] const auto got = ::read(timer_.get(), &expirations, sizeof expirations);
  apply(supervision_.tick(now()));
  for (std::size_t i = 0; i < children_.size() && !exit_code_; ++i) {
    Child& child = children_[i];
    if (child.channel_lost_at && now() - *child.channel_lost_at > kChannelLostMax)
      apply(accuse(i, "closed its control channel"));
    if (i > 0 && !exit_code_) apply(watch_worker(i));
  }
}

void Parent::set_timer() {
  const Duration at = supervision_.next_tick(now()).time_since_epoch();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(at);
  itimerspec when{};
  when.it_value = {static_cast<std::time_t>(whole.count()),
                   static_cast<long>((at - whole).count())};
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

// What a worker left unread is compared by positions; both are input and only compared.
Actions Parent::watch_worker(std::size_t index) {
  const Child& child = children_[index];
  const WorkerId worker = id_of(index).worker;
  if (!supervision_.is_watched(worker)) return {};
  WatchFacts facts;
  if (const auto page = shm::read_progress(child.step)) {
    facts.page_readable = true;
    facts.phase = page->phase;
    facts.step = page->step;
    constexpr std::uint64_t kNanosecondsMax = std::uint64_t{1} << 62;
    facts.step_predicted =
        Duration(static_cast<std::int64_t>(std::min(page->step_predicted_ns, kNanosecondsMax)));
    facts.heartbeat = Tick(Duration(static_cast<std::int64_t>(page->heartbeat_ns)));
  }
  if (child.submit) {
    const shm::RegionHeader& reader = child.step.header();
    const shm::RegionHeader& writer = child.submit->header();
    const bool attached = reader.read_epoch.load() == shm::ring_epoch(writer);
    facts.read_position = attached ? reader.read_position.load() : 0;
    facts.has_unread = writer.write_position.load() != facts.read_position;
  }
  return supervision_.watch(worker, facts, now());
}

void Parent::handle_child(std::size_t index) {
  Child& child = children_[index];
  while (child.process) {
    const int pid = child.process.pid();
    // Its last words are in the channel before it ends.
    if (child.process.has_channel()) handle_channel(index);
    if (exit_code_) return;
    const ChildChange change = child.process.poll_change();
    switch (change.kind) {
      case ChildChange::Kind::none:
        return;
      case ChildChange::Kind::stopped:
        spdlog::warn("event=child_stopped child=\"{}\" pid={}", describe(id_of(index)), pid);
        apply(supervision_.stopped(id_of(index), now()));
        break;
      case ChildChange::Kind::continued:
        apply(supervision_.continued(id_of(index)));
        break;
      case ChildChange::Kind::exited:
        return handle_exit(index, change.exit);
    }
  }
}

void Parent::handle_exit(std::size_t index, ExitFacts facts) {
  Child& child = children_[index];
  spdlog::info("event=child_exited child=\"{}\" epoch={} how=\"{}\"{}", describe(id_of(index)),
               child.epoch.value, describe(facts),
               child.last_words.empty() ? "" : " said=\"" + child.last_words + "\"");
  child.channel_lost_at.reset();
  const std::string said = std::exchange(child.last_words, {});
  apply(supervision_.exited(id_of(index), facts, said, now()));
}

void Parent::handle_channel(std::size_t index) {
  Child& child = children_[index];
  while (child.process && child.process.has_channel() && !exit_code_) {
    ControlMessage message;
    const auto received = child.process.channel().try_receive(message);
    if (received && !*received) return;
    if (!received) {
      child.process.close_channel();
      child.channel_lost_at = now();
      if (received.error().code != Errc::client_gone) apply(accuse(index, received.error().detail));
      return;
    }
    apply(index == 0 ? from_gateway(message) : from_worker(index, message));
  }
}

Actions Parent::accuse(std::size_t index, const std::string& why) {
  spdlog::error("event=child_misbehaved child=\"{}\" why=\"{}\"", describe(id_of(index)), why);
  if (children_[index].last_words.empty()) children_[index].last_words = why;
  return supervision_.misbehaved(id_of(index));
}

Actions Parent::from_gateway(ControlMessage& message) {
  switch (message.kind) {
    case ControlKind::ready:
      if (message.value == 0 || message.value > 65535) return accuse(0, "said a port out of range");
      port_ = message.value;
      spdlog::info("event=gateway_ready epoch={} port={}", children_[0].epoch.value, port_);
      return supervision_.gateway_ready(now());
    case ControlKind::failed:
      children_[0].last_words = std::move(message.text);
      return {};
    case ControlKind::attach_request:
      return attach_submit(message);
    case ControlKind::worker_corrupt:
      spdlog::error("event=worker_corrupt worker={} epoch={} why=\"{}\"", message.worker.value,
                    message.epoch.value, message.text);
      return supervision_.worker_corrupt(message.worker, message.epoch);
    case ControlKind::worker_recycle:
      spdlog::info("event=worker_recycled worker={} epoch={}", message.worker.value,
                   message.epoch.value);
      return supervision_.worker_recycle(message.worker, message.epoch);
    case ControlKind::drained:
      return supervision_.gateway_drained(now());
    default:
      return accuse(0, "sent a message that is not the gateway's to send");
  }
}

// Requests about a former epoch crossed its worker_down: nothing to attach to.
Actions Parent::attach_submit(ControlMessage& message) {
  if (!supervision_.is_up(message.worker, message.epoch)) return {};
  if (message.fds.size() != 1) return accuse(0, "attach_request without its region");
  const std::size_t index = index_of(worker_child(message.worker));
  Child& child = children_[index];
  auto region = shm::Region::attach(
      std::move(message.fds[0]),
      {shm::RegionKind::submit, message.worker, message.epoch, message.gateway_epoch});
  if (!region) return accuse(0, "submit region: " + region.error().detail);
  child.submit = std::move(*region);
  ControlMessage attach;
  attach.kind = ControlKind::attach;
  attach.worker = message.worker;
  attach.epoch = message.epoch;
  attach.gateway_epoch = message.gateway_epoch;
  attach.fds.push_back(duplicate(child.submit->fd()));
  return send(index, attach);
}

Actions Parent::from_worker(std::size_t index, ControlMessage& message) {
  Child& child = children_[index];
  const WorkerId worker = id_of(index).worker;
  if (message.kind == ControlKind::failed) {
    child.last_words = std::move(message.text);
    return {};
  }
  if (message.kind == ControlKind::drained) return supervision_.worker_drained(worker, child.epoch);
  if (message.kind != ControlKind::worker_hello)
    return accuse(index, "sent a message that is not a worker's to send");
  if (supervision_.is_up(worker, child.epoch)) return accuse(index, "said hello twice");
  if (message.fds.size() != 1) return accuse(index, "hello without a step region");
  auto region = shm::Region::attach(std::move(message.fds[0]),
                                    {shm::RegionKind::step, worker, child.epoch, Epoch(0)});
  if (!region) return accuse(index, "step region: " + region.error().detail);
  child.step = std::move(*region);
  child.facts = message.facts;
  spdlog::info("event=worker_up worker={} epoch={} pid={} executor=\"{}\"", worker.value,
               child.epoch.value, child.process.pid(), loggable(message.text));
  return supervision_.worker_hello(worker, now());
}

void Parent::reload() {
  if (!options_.reload) {
    spdlog::warn("event=reload_ignored why=\"no configuration file was given\"");
    return;
  }
  auto loaded = options_.reload();
  if (!loaded) {
    spdlog::error("event=reload_refused detail=\"{}\"", loaded.error().detail);
    return;
  }
  // What is built into running processes stays until the next start.
  cfg::Config next = std::move(*loaded);
  const cfg::Config& old = options_.config;
  if (next.models != old.models || next.listen != old.listen || next.state_dir != old.state_dir ||
      next.journal_slots != old.journal_slots || next.ring_bytes != old.ring_bytes ||
      next.confine_processes != old.confine_processes || next.quota_store != old.quota_store)
    spdlog::warn(
        "event=reload_partial why=\"models, listen, state_dir, journal_slots, ring_bytes, "
        "quota_store and confine_processes change at the next start\"");
  next.models = old.models;
  next.listen = old.listen;
  next.state_dir = old.state_dir;
  next.journal_slots = old.journal_slots;
  next.ring_bytes = old.ring_bytes;
  next.confine_processes = old.confine_processes;
  next.quota_store = old.quota_store;
  options_.config = std::move(next);
  supervision_.set_limits(options_.config.supervision, options_.config.queue.drain_timeout);
  spdlog::info("event=reload_accepted");
  if (!children_[0].process) return;  // the next gateway starts with it
  ControlMessage message;
  message.kind = ControlKind::reload;
  message.text = cfg::print_config(options_.config, cfg::Secrets::full);
  apply(send(0, message));
}

// Actions may lead to further ones (a spawn that fails); they run in order.
void Parent::apply(Actions actions) {
  for (std::size_t i = 0; i < actions.size() && !exit_code_; ++i) {
    Actions more = carry_out(actions[i]);
    actions.insert(actions.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
  }
}

Actions Parent::carry_out(const Action& action) {
  const std::size_t index = index_of(action.child);
  switch (action.kind) {
    case ActionKind::spawn:
      return index == 0 ? start_gateway() : start_worker(index, action.epoch);
    case ActionKind::kill:
      spdlog::warn("event=child_killed child=\"{}\" epoch={} reason={}", describe(action.child),
                   action.epoch.value, static_cast<unsigned>(action.reason));
      children_[index].process.kill();
      return {};
    case ActionKind::worker_up:
      return worker_up(index);
    case ActionKind::worker_down: {
      ControlMessage message;
      message.kind = ControlKind::worker_down;
      message.worker = action.child.worker;
      message.epoch = action.epoch;
      message.reason = action.reason;
      return send(0, message);
    }
    case ActionKind::drain: {
      ControlMessage message;
      message.kind = ControlKind::drain;
      return send(index, message);
    }
    case ActionKind::close:
      children_[index].process.close_channel();
      return {};
    case ActionKind::announce_ready:
      std::fputs(ready_text(options_.config, static_cast<std::uint16_t>(port_)).c_str(), stdout);
      std::fflush(stdout);
      return {};
    case ActionKind::exit:
      if (!action.text.empty()) std::fprintf(stderr, "sluice: %s\n", action.text.c_str());
      exit_code_ = action.exit_code;
      return {};
  }
  return {};
}

Result<void> Parent::adopt(std::size_t index, ChildProcess process) {
  Child& child = children_[index];
  child.process = std::move(process);
  child.last_words.clear();
  child.channel_lost_at.reset();
  for (const auto& [fd, tag] : {std::pair(child.process.pidfd(), 2 * index),
                                {child.process.channel().fd(), 2 * index + 1}}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return system_error("epoll_ctl");
  }
  return {};
}

Actions Parent::start_gateway() {
  children_[0].epoch = Epoch(children_[0].epoch.value + 1);
  auto process = ChildProcess::spawn(options_.gateway_command);
  if (!process) return supervision_.spawn_failed(kGatewayChild, process.error().detail, now());
  if (auto adopted = adopt(0, std::move(*process)); !adopted)
    return accuse(0, adopted.error().detail);
  ControlMessage message;
  message.kind = ControlKind::gateway_start;
  message.value = port_;
  cfg::Config config = options_.config;
  config.state_dir = state_dir_->path();  // the gateway keeps its tables there
  message.text = cfg::print_config(config, cfg::Secrets::full);
  message.fds.push_back(duplicate(journal_));
  return send(0, message);
}

// A worker needs neither keys nor the listener: what it does not know it cannot leak.
cfg::Config for_worker(cfg::Config config) {
  config.tenants.clear();
  config.listen = cfg::Listen{};
  return config;
}

Actions Parent::start_worker(std::size_t index, Epoch epoch) {
  Child& child = children_[index];
  const ChildId id = id_of(index);
  child.epoch = epoch;
  child.submit.reset();
  child.step = shm::Region();
  auto worker_bell = shm::make_doorbell();
  auto gateway_bell = shm::make_doorbell();
  if (!worker_bell || !gateway_bell)
    return supervision_.spawn_failed(id, "no descriptors for the doorbells", now());
  child.worker_bell = std::move(*worker_bell);
  child.gateway_bell = std::move(*gateway_bell);
  auto process = ChildProcess::spawn(options_.worker_command);
  if (!process) return supervision_.spawn_failed(id, process.error().detail, now());
  if (auto adopted = adopt(index, std::move(*process)); !adopted)
    return accuse(index, adopted.error().detail);
  ControlMessage message;
  message.kind = ControlKind::worker_start;
  message.worker = id.worker;
  message.epoch = epoch;
  message.value = child.model;
  message.text = cfg::print_config(for_worker(options_.config), cfg::Secrets::full);
  message.fds.push_back(duplicate(child.worker_bell));
  message.fds.push_back(duplicate(child.gateway_bell));
  return send(index, message);
}

Actions Parent::worker_up(std::size_t index) {
  Child& child = children_[index];
  ControlMessage message;
  message.kind = ControlKind::worker_up;
  message.worker = id_of(index).worker;
  message.epoch = child.epoch;
  message.value = child.model;
  message.facts = child.facts;
  message.fds.push_back(duplicate(child.step.fd()));
  message.fds.push_back(duplicate(child.worker_bell));
  message.fds.push_back(duplicate(child.gateway_bell));
  if (child.submit) message.fds.push_back(duplicate(child.submit->fd()));
  return send(0, message);
}

// A peer that is gone is met again as its exit; one that does not read is ended.
Actions Parent::send(std::size_t index, const ControlMessage& message) {
  Child& child = children_[index];
  if (!child.process || !child.process.has_channel()) return {};
  const auto sent = child.process.channel().send(message);
  if (sent || sent.error().code == Errc::client_gone) return {};
  return accuse(index, sent.error().detail);
}

void Parent::end_all() {
  for (Child& child : children_)
    if (child.process) child.process.kill();
  for (Child& child : children_)
    if (child.process) child.process.reap();
}

}  // namespace

int run_parent(ParentOptions options) {
  log_to_stderr("parent", options.config.log_level);
  const std::uint32_t num_workers = Parent::count_workers(options.config);
  if (num_workers == 0 || num_workers > kWorkersMax) {
    std::fprintf(stderr, "sluice: %u workers are configured; allowed: 1..%u\n", num_workers,
                 kWorkersMax);
    return 1;
  }
  // Keys of the configuration live in this process.
  give_up_privileges();
  if (options.config.confine_processes) {
    if (const auto confined = confine_service(); !confined) {
      std::fprintf(stderr, "sluice: %s\n", confined.error().detail.c_str());
      return 1;
    }
  }
  return Parent(std::move(options)).run();
}

}  // namespace sluice::gw
