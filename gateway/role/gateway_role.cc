// Wiring of the gateway process, in the order in which it starts: control channel, configuration,
// tokenizers, journal, decision loop, the books of the gateway before, listener; then the loop.
#include "gateway/role/gateway_role.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "config/load_config.h"
#include "gateway/http/server.h"
#include "gateway/http/service.h"
#include "gateway/link/ring_decision_loop.h"
#include "gateway/logging.h"
#include "gateway/role/core_metrics.h"
#include "gateway/role/ring_fleet.h"
#include "gateway/store/gateway_id.h"
#include "gateway/store/redis_quota_store.h"
#include "gateway/store/usage_book.h"
#include "gateway/store/usage_recovery.h"
#include "gateway/store/usage_writer.h"
#include "shared/check.h"
#include "shared/confinement.h"

namespace sluice::gw {
namespace {

// Prompts and keys must not reach a core file; descriptors are one per connection.
void set_up_process() {
  give_up_privileges();
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file limit is an error of the write
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
}

// Each connection takes a descriptor. With fewer than configured the gateway still runs: at the
// limit it stops accepting until others close, so that new clients wait in the kernel's queue.
void warn_of_few_descriptors(std::uint32_t connections_max) {
  constexpr rlim_t kOthers = 64;  // rings, doorbells, journal, log
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= connections_max + kOthers)
    return;
  spdlog::warn("event=descriptors_few limit={} connections_max={} wanted={}", files.rlim_cur,
               connections_max, connections_max + kOthers);
}

std::uint64_t random_word() {
  std::uint64_t word = 0;
  CHECK(::getrandom(&word, sizeof word, 0) == sizeof word);
  return word;
}

std::int64_t unix_s_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// The first message says what to be. Waits for it: there is nothing else to do yet.
Result<ControlMessage> wait_for_start(ControlChannel& control) {
  ControlMessage message;
  for (;;) {
    const Result<bool> received = control.try_receive(message);
    if (!received) return received.error();
    if (*received) break;
    pollfd waited{control.fd(), POLLIN, 0};
    ::poll(&waited, 1, -1);
  }
  if (message.kind != ControlKind::gateway_start || message.fds.size() != 1)
    return make_error(Errc::corrupt_record, "the parent's first message is no gateway_start");
  return message;
}

Result<ServedModel> load_model(const cfg::Model& model) {
  Result<tok::Tokenizer> tokenizer = tok::Tokenizer::load(cfg::tokenizer_path(model));
  if (!tokenizer) return tokenizer.error();
  Result<tok::ChatTemplate> chat_template =
      tok::ChatTemplate::choose(model.chat_template, *tokenizer);
  if (!chat_template)
    return make_error(Errc::bad_config,
                      "model " + model.name + ": " + chat_template.error().detail);
  Result<GenerationConfig> generation =
      load_generation_config(cfg::model_path(model), tokenizer->vocabulary().size);
  if (!generation) return generation.error();
  return ServedModel{model, std::move(*tokenizer), std::move(*chat_template),
                     std::move(*generation)};
}

Result<std::vector<ServedModel>> load_models(const cfg::Config& config) {
  std::vector<ServedModel> models;
  for (const cfg::Model& model : config.models) {
    Result<ServedModel> loaded = load_model(model);
    if (!loaded) return loaded.error();
    models.push_back(std::move(*loaded));
  }
  return models;
}

// What a former gateway left in the journal goes into the usage book: its clients are gone, what it
// had billed stays billed.
Result<UsageBook> recover_books(const cfg::Config& config, Journal& journal,
                                std::span<const Journal::Recovered> left) {
  Result<UsageBook> book = UsageBook::open(config.state_dir + "/store.db");
  if (!book) return book;
  std::vector<std::string> models;
  for (const cfg::Model& model : config.models) models.push_back(model.name);
  if (const Result<void> named = book->name_models(models); !named) return named.error();
  const Result<UsageRecovery> recovery = recover_usage(*book, journal, left, unix_s_now());
  if (!recovery) return recovery.error();
  if (recovery->slots > 0)
    spdlog::warn("event=journal_recovered slots={} output_tokens={} power_lost={}", recovery->slots,
                 recovery->output, journal.is_power_lost());
  return book;
}

// The book charges the ledger of this process with the last minute, this day and this month; from
// then on the store thread has it. Its hooks only post: the log and the loop are this thread's.
Result<void> charge_and_write(RingDecisionLoop& loop, UsageBook book, boost::asio::io_context& io) {
  const auto charges = ledger_charges(book, loop.ledger_names(), unix_s_now());
  if (!charges) return charges.error();
  if (const Result<void> charged = loop.charge_settled(*charges); !charged) return charged;
  UsageWriterOptions options;
  options.failed = [&io](const Error& error) {
    boost::asio::post(io, [detail = error.detail] {
      spdlog::error("event=usage_store_failing reason=\"{}\"", detail);
    });
  };
  options.recovered = [&io] {
    boost::asio::post(io, [] { spdlog::info("event=usage_store_recovered"); });
  };
  options.written = [&io] { boost::asio::post(io, [] {}); };  // a turn frees the journal's slots
  loop.set_usage_writer(std::make_unique<UsageWriter>(
      std::move(book), SettledSlots::writer_capacity(loop.journal()), std::move(options)));
  return {};
}

// The thread that shares limits with other gateways; from then on they can be leased.
Result<void> share_limits(RingDecisionLoop& loop, const cfg::Config& config,
                          boost::asio::io_context& io) {
  const cfg::QuotaStore& from = config.quota_store;
  if (from.kind == cfg::QuotaStoreKind::local) return {};
  Result<std::string> password = cfg::quota_store_password(from);
  if (!password) return password.error();
  Result<std::string> id = load_gateway_id(config.state_dir);
  if (!id) return id.error();
  QuotaStoreOptions options;
  options.redis = {
      from.address,         from.port,           from.database, from.username, std::move(*password),
      from.connect_timeout, from.command_timeout};
  options.key_prefix = from.key_prefix;
  options.gateway = std::move(*id);
  options.leases = lease_params(from);
  options.retry_max = std::min<Duration>(options.retry_max, from.lease_time / 4);
  options.has_news = [&io] { boost::asio::post(io, [] {}); };  // a turn takes them
  loop.set_quota_store(std::make_unique<RedisQuotaStore>(std::move(options)));
  return {};
}

void log_quota_store(bool is_connected, const std::string& reason) {
  if (is_connected)
    spdlog::info("event=quota_store_connected");
  else
    spdlog::warn("event=quota_store_unavailable reason=\"{}\"", reason);
}

void log_breaker(const BreakerEvent& event, const std::string& tenant, Tick now) {
  const bool is_worse = event.to != BreakerState::closed && event.to != BreakerState::half_open;
  const auto retry = std::chrono::ceil<std::chrono::seconds>(event.retry_at - now);
  spdlog::log(is_worse ? spdlog::level::warn : spdlog::level::info,
              "event=breaker_moved tenant=\"{}\" from={} to={} reason={} retry_after_s={}", tenant,
              breaker_state_name(event.from), breaker_state_name(event.to),
              breaker_reason_name(event.reason),
              event.to == BreakerState::open ? retry.count() : 0);
}

void log_worker_breaker(const WorkerBreakerEvent& event, Tick now) {
  const bool is_open = event.to == BreakerState::open;
  const auto retry = std::chrono::ceil<std::chrono::seconds>(event.retry_at - now);
  spdlog::log(is_open ? spdlog::level::warn : spdlog::level::info,
              "event=worker_breaker_moved worker={} from={} to={} reason={} retry_after_s={}",
              event.worker.value, breaker_state_name(event.from), breaker_state_name(event.to),
              worker_breaker_reason_name(event.reason), is_open ? retry.count() : 0);
}

// For the audit log; names only, nothing to escape.
std::string transition_json(BreakerState from, std::string_view reason) {
  return std::string("{\"from\":\"")
      .append(breaker_state_name(from))
      .append("\",\"reason\":\"")
      .append(reason)
      .append("\"}");
}

// Saying `drained` takes both: no request runs, and the last answer has left.
class DrainState {
 public:
  DrainState(RingDecisionLoop& loop, Server& server, Service& service)
      : loop_(loop), server_(server), service_(service) {}
  void begin() {
    if (service_.is_draining) return;
    service_.is_draining = true;
    spdlog::info("event=drain_begun connections={}", server_.num_sessions());
    server_.begin_drain([this] {
      is_empty_ = true;
      say_if_done();
    });
  }
  void requests_done() {
    are_requests_done_ = true;
    say_if_done();
  }

 private:
  void say_if_done() {
    if (is_empty_ && are_requests_done_) loop_.say_drained();
  }
  RingDecisionLoop& loop_;
  Server& server_;
  Service& service_;
  bool is_empty_ = false;
  bool are_requests_done_ = false;
};

Result<void> serve(ControlChannel control, ControlMessage& start, const cfg::Config& config) {
  Result<std::vector<ServedModel>> models = load_models(config);
  if (!models) return models.error();
  std::vector<Journal::Recovered> left;
  Result<Journal> journal = Journal::open_keeping(std::move(start.fds[0]), left);
  if (!journal) return journal.error();
  Result<UsageBook> book = recover_books(config, *journal, left);
  if (!book) return book.error();

  boost::asio::io_context io(1);
  const SystemClock clock;
  Result<std::unique_ptr<AdminService>> opened =
      AdminService::open(config.state_dir, config, random_word(), unix_s_now());
  if (!opened) return opened.error();
  const std::unique_ptr<AdminService> admin = std::move(*opened);
  const cfg::Config merged = admin->merged(unix_s_now());
  RingDecisionLoop loop(io, clock, merged, std::move(*journal), std::move(control));
  if (const Result<void> charged = charge_and_write(loop, std::move(*book), io); !charged)
    return charged.error();
  loop.hooks.quota_store_moved = log_quota_store;
  if (const Result<void> shared = share_limits(loop, config, io); !shared) return shared.error();
  Service service(merged, std::move(*models), loop, clock, random_word(), unix_s_now());
  service.set_admin(*admin);
  service.append_core_metrics = [&](std::string& out) { append_core_metrics(out, loop, service); };
  // Destroyed (and its threads joined) before `io`, which it posts to.
  service.pool = std::make_unique<TokenizePool>(config.tokenizing.pool_threads,
                                                [&io](std::shared_ptr<EncodeJob> job) {
                                                  boost::asio::post(io, [job = std::move(job)] {
                                                    if (job->on_done) job->on_done(*job);
                                                  });
                                                });
  Server server(io, service);

  const std::uint16_t port =
      start.value != 0 ? static_cast<std::uint16_t>(start.value) : config.listen.port;
  const Result<std::uint16_t> bound = server.listen(config.listen.address, port);
  if (!bound) return bound.error();
  if (config.confine_processes) {
    if (const auto confined = confine_gateway(); !confined) return confined.error();
  }
  DrainState drain(loop, server, service);
  loop.hooks.reload = [&](const cfg::Config& fresh) {
    service.reload(fresh);
    server.recheck_keys();
    if (const Result<void> tls = server.reload_certificate(fresh.listen); !tls)
      spdlog::error("event=certificate_kept reason=\"{}\"", tls.error().detail);
    spdlog::info("event=reloaded");
  };
  loop.hooks.complete = [&](const cfg::Config& fresh) {
    admin->set_base(fresh);
    admin->reload_admin_keys();
    return admin->merged(unix_s_now());
  };
  loop.hooks.tenants_changed = [&](std::span<const TenantChange> changes) {
    std::vector<TenantId> numbers;
    for (const TenantChange& change : changes) {
      service.update(change.number, change.update);
      numbers.push_back(change.number);
    }
    server.recheck_keys(std::move(numbers));
  };
  // Keys end when their time comes: one timer for the next one.
  boost::asio::steady_timer expiry(io);
  std::function<void()> await_expiry;
  const auto apply_updates = [&](std::span<const cfg::TenantUpdate> updates) {
    // Between no tenants and some the default one comes or goes, too.
    if (admin->has_tenants() && loop.has_tenants())
      loop.apply(updates);
    else
      loop.apply(admin->merged(unix_s_now()));
    await_expiry();
  };
  await_expiry = [&] {
    const std::optional<std::int64_t> next = admin->directory().next_expiry(unix_s_now());
    if (!next) return;
    expiry.expires_after(std::chrono::seconds(std::min<std::int64_t>(*next - unix_s_now(), 3600)));
    expiry.async_wait([&](const boost::system::error_code& error) {
      if (!error) apply_updates(admin->take_expired(unix_s_now()));
    });
  };
  RingFleet fleet(loop, service);
  admin->set_hooks({[&io](std::function<void()> job) { boost::asio::post(io, std::move(job)); },
                    unix_s_now, [&](const std::string& tenant) { return loop.quota_of(tenant); },
                    apply_updates, &fleet});
  await_expiry();
  // Once in the life of a state directory, and not through the log.
  if (!admin->first_admin_key().empty())
    std::fprintf(stderr, "sluice: the first admin key, shown only now: %s\n",
                 admin->first_admin_key().c_str());
  loop.hooks.drain = [&] { drain.begin(); };
  loop.hooks.breaker_moved = [&](const BreakerEvent& event, const std::string& tenant) {
    log_breaker(event, tenant, clock.now());
    admin->record("breaker." + std::string(breaker_state_name(event.to)), "tenant:" + tenant,
                  transition_json(event.from, breaker_reason_name(event.reason)));
  };
  loop.hooks.worker_breaker_moved = [&](const WorkerBreakerEvent& event) {
    log_worker_breaker(event, clock.now());
    admin->record("breaker." + std::string(breaker_state_name(event.to)),
                  "worker:" + std::to_string(event.worker.value),
                  transition_json(event.from, worker_breaker_reason_name(event.reason)));
  };
  loop.hooks.requests_drained = [&] { drain.requests_done(); };
  admin->restore_orders();
  warn_of_few_descriptors(config.http.connections_max);
  spdlog::info("event=listening address={} port={}", config.listen.address, *bound);
  loop.say_ready(*bound);
  loop.run();
  server.close_all();
  // What was in flight completes before the sessions go: its memory lies inside them.
  io.restart();
  io.poll();
  return {};
}

}  // namespace

int run_gateway_role(UniqueFd control_fd) {
  set_up_process();
  ControlChannel control(std::move(control_fd));
  Result<ControlMessage> start = wait_for_start(control);
  if (!start) return start.error().code == Errc::client_gone ? 0 : 1;
  const Result<cfg::Config> config = cfg::parse_config(start->text, "configuration");
  log_to_stderr("gateway", config ? config->log_level : "info");
  if (!config) {
    spdlog::error("event=start_failed reason=\"{}\"", config.error().detail);
    return 1;
  }
  const UniqueFd channel(::dup(control.fd()));  // to say why, should the start fail
  ControlChannel reply{UniqueFd(channel ? ::dup(channel.get()) : -1)};
  const Result<void> served = serve(std::move(control), *start, *config);
  if (served) return 0;
  spdlog::error("event=start_failed reason=\"{}\"", served.error().detail);
  ControlMessage failed;
  failed.kind = ControlKind::failed;
  failed.text = served.error().detail;
  (void)reply.send(failed).has_value();
  return 1;
}

}  // namespace sluice::gw
