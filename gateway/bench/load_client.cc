// The epoll loop of the load client; see load_client.h.
#include "gateway/bench/load_client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <memory>

#include "gateway/bench/answer_reader.h"
#include "gateway/bench/arrivals.h"
#include "shared/unique_fd.h"

namespace sluice::bench {
namespace {

constexpr std::size_t kReadBytes = 256u << 10;
constexpr std::size_t kBacklogMax = 1'000'000;             // arrivals that wait for a connection
constexpr Duration kRest = std::chrono::milliseconds(10);  // of a client whose request failed
constexpr Duration kSweepEvery = std::chrono::milliseconds(50);  // timeouts and resting clients
constexpr Duration kProgressEvery = std::chrono::milliseconds(200);
constexpr std::uint32_t kSpareDescriptors = 64;

Duration own_cpu_time() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return Duration(std::chrono::seconds(t.tv_sec)) + Duration(t.tv_nsec);
}

enum class Link : std::uint8_t { closed, connecting, open };

struct Connection {
  UniqueFd fd;
  Link link = Link::closed;
  bool is_busy = false;
  bool wants_write = false;  // as registered with epoll
  bool is_measured = false;  // its request was due inside the window
  std::string_view unsent;
  AnswerReader reader;
  Tick due;  // when the request should have been sent
  Tick last_text;
  Tick rests_until;
};

class LoadClient {
 public:
  LoadClient(const LoadPlan& plan, CpuMeter& server_cpu)
      : plan_(plan),
        server_cpu_(server_cpu),
        arrivals_(plan.rate, plan.seed),
        buffer_(kReadBytes) {}

  Result<LoadResult> run(const std::function<void(const LoadProgress&)>& progress);

 private:
  enum class Phase : std::uint8_t { warmup, window, drain };

  bool is_open_loop() const { return plan_.rate > 0 || !plan_.schedule.empty(); }
  void advance_arrival();
  bool may_launch() const;
  void enter_window(Tick now);
  void leave_window(Tick now);
  bool advance_phase(Tick now);  // false: the run is over
  void launch_arrivals(Tick now);
  void launch_clients(Tick now);
  void sweep(Tick now);
  Result<void> wait(Tick now);

  void start_request(Connection& c, Tick due);
  void connect(Connection& c);
  void send(Connection& c);
  void register_interest(Connection& c, bool wants_write, bool is_new);
  void on_event(Connection& c, std::uint32_t events);
  void on_bytes(Connection& c, std::string_view bytes);
  void on_text(Connection& c, std::uint64_t events, Tick now);
  void settle(Connection& c, AnswerState state, Tick now);
  void fail(Connection& c, const std::string& kind);
  void end_request(Connection& c);
  void close(Connection& c);

  const LoadPlan& plan_;
  CpuMeter& server_cpu_;
  PoissonArrivals arrivals_;
  std::vector<char> buffer_;
  UniqueFd epoll_;
  SystemClock clock_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> idle_;  // last used first: their windows are warm
  std::vector<Connection*> resting_;
  std::deque<Tick> backlog_;  // due arrivals without a connection
  std::size_t next_request_ = 0;
  std::size_t next_scheduled_ = 0;
  Tick start_;
  std::uint32_t num_busy_ = 0;
  Phase phase_ = Phase::warmup;
  Tick window_from_, window_to_, drain_to_, next_arrival_, next_sweep_;
  Duration client_cpu_at_start_{};
  LoadResult result_;
};

bool LoadClient::may_launch() const {
  if (phase_ == Phase::drain) return false;
  return phase_ == Phase::warmup || plan_.requests_max == 0 ||
         result_.requests_started < plan_.requests_max;
}

void LoadClient::enter_window(Tick now) {
  phase_ = Phase::window;
  window_from_ = now;
  window_to_ = plan_.duration > Duration(0) ? now + plan_.duration : Tick::max();
  client_cpu_at_start_ = own_cpu_time();
  server_cpu_.start();
}

void LoadClient::leave_window(Tick now) {
  server_cpu_.stop();
  result_.client_cpu = own_cpu_time() - client_cpu_at_start_;
  result_.wall = now - window_from_;
  phase_ = Phase::drain;
  drain_to_ = now + plan_.drain;
  backlog_.clear();
}

bool LoadClient::advance_phase(Tick now) {
  if (phase_ == Phase::warmup && now >= window_from_) enter_window(now);
  if (phase_ == Phase::window) {
    const bool is_all_done =
        plan_.requests_max > 0 && num_busy_ == 0 && result_.requests_started >= plan_.requests_max;
    if (now >= window_to_ || is_all_done) leave_window(now);
  }
  return phase_ != Phase::drain || (num_busy_ > 0 && now < drain_to_);
}

Result<LoadResult> LoadClient::run(const std::function<void(const LoadProgress&)>& progress) {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return make_error(Errc::io_error, std::string("epoll: ") + std::strerror(errno));
  // The kernel may delay sleeps by 50 us to save power; arrivals should be on time.
  ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  const Tick start = start_ = clock_.now();
  window_from_ = start + plan_.warmup;
  window_to_ = Tick::max();
  next_arrival_ = start;
  if (is_open_loop())
    advance_arrival();
  else
    next_arrival_ = Tick::max();
  Tick next_progress = start;
  for (;;) {
    const Tick now = clock_.now();
    if (!advance_phase(now)) break;
    if (is_open_loop())
      launch_arrivals(now);
    else
      launch_clients(now);
    if (now >= next_sweep_) sweep(now);
    if (progress && now >= next_progress) {
      const double by_time =
          plan_.duration > Duration(0)
              ? static_cast<double>((now - start).count()) /
                    static_cast<double>((plan_.warmup + plan_.duration).count())
              : static_cast<double>(result_.requests_ok) / static_cast<double>(plan_.requests_max);
      progress({std::min(by_time, 1.0), result_.requests_ended, result_.num_failures()});
      next_progress = now + kProgressEvery;
    }
    const Result<void> waited = wait(now);
    if (!waited) return waited.error();
  }
  for (const auto& c : connections_)
    if (c->is_busy && c->is_measured) ++result_.requests_unfinished;
  if (progress) progress({1.0, result_.requests_ended, result_.num_failures()});
  return std::move(result_);
}

void LoadClient::advance_arrival() {
  if (plan_.schedule.empty())
    next_arrival_ += arrivals_.next();
  else if (next_scheduled_ < plan_.schedule.size())
    next_arrival_ = start_ + plan_.schedule[next_scheduled_++];
  else
    next_arrival_ = Tick::max();
}

void LoadClient::launch_arrivals(Tick now) {
  while (may_launch() && (now >= next_arrival_ || !backlog_.empty())) {
    const bool is_new = backlog_.empty();
    if (idle_.empty() && connections_.size() < plan_.connections) {
      connections_.push_back(std::make_unique<Connection>());
      idle_.push_back(connections_.back().get());
    }
    if (!idle_.empty()) {
      Connection& c = *idle_.back();
      idle_.pop_back();
      const Tick due = is_new ? next_arrival_ : backlog_.front();
      if (is_new)
        advance_arrival();
      else
        backlog_.pop_front();
      start_request(c, due);
      continue;
    }
    if (now < next_arrival_) return;  // only those of the backlog, and nobody is free
    if (backlog_.size() < kBacklogMax)
      backlog_.push_back(next_arrival_);
    else
      ++result_.failures["client_backlog"];
    advance_arrival();
  }
}

void LoadClient::launch_clients(Tick now) {
  while (connections_.size() < plan_.connections) {
    connections_.push_back(std::make_unique<Connection>());
    idle_.push_back(connections_.back().get());
  }
  while (may_launch() && !idle_.empty()) {
    Connection& c = *idle_.back();
    idle_.pop_back();
    start_request(c, now);
  }
}

void LoadClient::sweep(Tick now) {
  next_sweep_ = now + kSweepEvery;
  std::erase_if(resting_, [&](Connection* c) {
    if (now < c->rests_until) return false;
    idle_.push_back(c);
    return true;
  });
  for (const auto& c : connections_)
    if (c->is_busy && now - c->due > plan_.timeout) fail(*c, "timeout");
}

Result<void> LoadClient::wait(Tick now) {
  Tick until = std::min(next_sweep_, phase_ == Phase::warmup ? window_from_ : window_to_);
  if (phase_ == Phase::drain) until = std::min(next_sweep_, drain_to_);
  if (may_launch()) until = std::min(until, next_arrival_);
  const Duration left = std::max(Duration(0), until - now);
  timespec t{};
  t.tv_sec = static_cast<time_t>(left / std::chrono::seconds(1));
  t.tv_nsec = static_cast<long>((left % std::chrono::seconds(1)).count());
  std::array<epoll_event, 256> events{};
  const int count =
      ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()), &t, nullptr);
  if (count < 0 && errno != EINTR)
    return make_error(Errc::io_error, std::string("epoll: ") + std::strerror(errno));
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    on_event(*static_cast<Connection*>(event.data.ptr), event.events);
  }
  return {};
}

void LoadClient::start_request(Connection& c, Tick due) {
  c.is_busy = true;
  ++num_busy_;
  c.is_measured = phase_ == Phase::window;
  if (c.is_measured) ++result_.requests_started;
  c.due = due;
  c.reader.start(plan_.streamed);
  c.unsent = plan_.requests[next_request_++ % plan_.requests.size()];
  if (c.link == Link::closed)
    connect(c);
  else
    send(c);
}

void LoadClient::connect(Connection& c) {
  c.fd.reset(::socket(plan_.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!c.fd) return fail(c, "connect");
  const int on = 1;
  ::setsockopt(c.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  c.link = Link::connecting;
  register_interest(c, true, true);
  const int status =
      ::connect(c.fd.get(), reinterpret_cast<const sockaddr*>(&plan_.address), plan_.address_bytes);
  if (status != 0 && errno != EINPROGRESS) fail(c, "connect");
}

void LoadClient::register_interest(Connection& c, bool wants_write, bool is_new) {
  if (!is_new && c.wants_write == wants_write) return;
  c.wants_write = wants_write;
  epoll_event event{};
  event.events = EPOLLIN | (wants_write ? EPOLLOUT : 0u);
  event.data.ptr = &c;
  ::epoll_ctl(epoll_.get(), is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c.fd.get(), &event);
}

void LoadClient::send(Connection& c) {
  while (!c.unsent.empty()) {
    const ssize_t sent = ::send(c.fd.get(), c.unsent.data(), c.unsent.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return register_interest(c, true, false);
    // A server may answer (413, say) and close before it has read all: its answer still arrives.
    if (sent < 0) {
      c.unsent = {};
      break;
    }
    c.unsent.remove_prefix(static_cast<std::size_t>(sent));
  }
  register_interest(c, false, false);
  if (plan_.abort_after == 0u) {
    if (c.is_measured) ++result_.requests_aborted;
    close(c);
    end_request(c);
  }
}

void LoadClient::on_event(Connection& c, std::uint32_t events) {
  if (c.link == Link::closed) return;
  if (c.link == Link::connecting) {
    int error = 0;
    socklen_t bytes = sizeof error;
    ::getsockopt(c.fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error != 0) return fail(c, "connect");
    c.link = Link::open;
    return send(c);
  }
  if ((events & EPOLLOUT) != 0 && c.is_busy) send(c);
  if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0 || c.link != Link::open) return;
  const ssize_t got = ::recv(c.fd.get(), buffer_.data(), buffer_.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got > 0 && c.is_busy)
    return on_bytes(c, std::string_view(buffer_.data(), static_cast<std::size_t>(got)));
  if (!c.is_busy) return close(c);  // the server ended an idle connection
  const bool has_begun = c.reader.has_begun();
  const AnswerState state = c.reader.on_close();
  close(c);
  if (!has_begun) return fail(c, "reset");
  settle(c, state, clock_.now());
}

void LoadClient::on_bytes(Connection& c, std::string_view bytes) {
  const std::uint64_t before = c.reader.text_events();
  const AnswerState state = c.reader.feed(bytes);
  const Tick now = clock_.now();
  const std::uint64_t events = c.reader.text_events() - before;
  if (events > 0) on_text(c, events, now);
  if (state != AnswerState::reading) return settle(c, state, now);
  if (plan_.abort_after && c.reader.text_events() >= *plan_.abort_after) {
    if (c.is_measured) ++result_.requests_aborted;
    close(c);
    end_request(c);
  }
}

void LoadClient::on_text(Connection& c, std::uint64_t events, Tick now) {
  if (phase_ == Phase::window) result_.text_events += events;
  if (c.is_measured) {
    const bool is_first = c.reader.text_events() == events;
    const Tick since = is_first ? c.due : c.last_text;
    (is_first ? result_.ttft : result_.itl)
        .record(static_cast<std::uint64_t>((now - since).count()));
    result_.itl.record(0, events - 1);  // came in the same read
  }
  c.last_text = now;
}

void LoadClient::settle(Connection& c, AnswerState state, Tick now) {
  switch (state) {
    case AnswerState::complete:
      break;
    case AnswerState::http_error:
      return fail(c, "http_" + std::to_string(c.reader.status()));
    case AnswerState::stream_error:
      return fail(c, "stream_error");
    case AnswerState::malformed:
      return fail(c, "malformed");
    default:
      return fail(c, "truncated");
  }
  const std::uint64_t tokens = c.reader.completion_tokens().value_or(c.reader.text_events());
  if (phase_ == Phase::window) {
    ++result_.requests_ended;
    result_.completion_tokens += tokens;
    result_.prompt_tokens += c.reader.prompt_tokens().value_or(0);
  }
  if (c.is_measured) {
    ++result_.requests_ok;
    const auto taken = static_cast<std::uint64_t>((now - c.due).count());
    result_.e2e.record(taken);
    if (!plan_.streamed) result_.ttft.record(taken);  // the first token comes with the last
  }
  if (!c.reader.keep_alive()) close(c);
  end_request(c);
}

void LoadClient::fail(Connection& c, const std::string& kind) {
  if (c.is_measured) ++result_.failures[kind];
  // An error status leaves the connection usable; anything else does not.
  if (!kind.starts_with("http_") || !c.reader.keep_alive() || !c.unsent.empty()) close(c);
  c.is_busy = false;
  --num_busy_;
  c.rests_until = clock_.now() + kRest;
  resting_.push_back(&c);
}

void LoadClient::end_request(Connection& c) {
  c.is_busy = false;
  --num_busy_;
  idle_.push_back(&c);
}

void LoadClient::close(Connection& c) {
  c.fd.reset();
  c.link = Link::closed;
  c.unsent = {};
}

void raise_descriptor_limit(std::uint32_t connections) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= connections + kSpareDescriptors)
    return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

std::uint64_t LoadResult::num_failures() const {
  std::uint64_t sum = 0;
  for (const auto& [kind, count] : failures) sum += count;
  return sum;
}

Result<LoadResult> run_load(const LoadPlan& plan, CpuMeter& server_cpu,
                            const std::function<void(const LoadProgress&)>& progress) {
  raise_descriptor_limit(plan.connections);
  return LoadClient(plan, server_cpu).run(progress);
}

Result<void> resolve(const std::string& host, const std::string& port, LoadPlan& plan) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0)
    return make_error(Errc::invalid_value, host + ":" + port + ": " + ::gai_strerror(error), "url");
  std::memcpy(&plan.address, found->ai_addr, found->ai_addrlen);
  plan.address_bytes = found->ai_addrlen;
  ::freeaddrinfo(found);
  return {};
}

}  // namespace sluice::bench
