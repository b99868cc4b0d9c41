// RingDecisionLoop with real rings, a real journal file and a real control channel; the test plays
// the parent, RingWorker the worker, Sink the handler.
#include "gateway/link/ring_decision_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "config/load_config.h"
#include "tests/unit/gateway_link/ring_worker.h"

namespace sluice::gw {
namespace {

struct Sink final : GenerationSink {
  RingDecisionLoop* loop = nullptr;
  GenerationHandle handle;
  std::vector<std::vector<TokenId>> taken;
  std::uint32_t num_finished = 0, num_calls = 0;
  std::optional<Error> failure;
  bool takes = true;
  bool quits_when_over = false;

  void on_tokens(std::uint32_t choice) override {
    ++num_calls;
    if (takes) take(choice);
  }
  void on_failed(const Error& error) override {
    EXPECT_FALSE(failure);
    failure = error;
  }
  void take(std::uint32_t choice) {
    const auto pending = loop->pending(handle, choice);
    for (const OutputToken& token : pending) {
      taken[choice].push_back(token.id);
      num_finished += token.finish != FinishReason::none ? 1 : 0;
    }
    loop->accept(handle, choice, static_cast<std::uint32_t>(pending.size()));
    if (quits_when_over && num_finished == taken.size()) loop->quit();
  }
};

class Gateway : public testing::Test {
 protected:
  static constexpr std::size_t kRing = 64 << 10;

  void SetUp() override {
    char name[] = "/tmp/sluice-journal-XXXXXX";
    const int fd = ::mkstemp(name);
    ASSERT_GE(fd, 0);
    ::close(fd);
    ::unlink(name);
    path_ = name;
    config_.ring_bytes = kRing;
    config_.models[0].workers = 2;
    config_.tenants.resize(2);
    config_.tenants[0].name = "a";
    config_.tenants[1].name = "b";
    for (cfg::Tenant& tenant : config_.tenants) {
      cfg::ApiKey key;
      key.name = "key of " + tenant.name;
      key.sha256.fill(static_cast<std::uint8_t>(tenant.name[0]));
      tenant.keys.push_back(key);
    }
    start();
  }
  void TearDown() override {
    loop_.reset();
    for (const char* end : {"", ".db", ".db-wal", ".db-shm"}) ::unlink((path_ + end).c_str());
  }

  // A gateway, or the next one after its death.
  void start() {
    loop_.reset();
    io_ = std::make_unique<boost::asio::io_context>(1);
    auto file = Journal::create_file(path_.c_str(), 64);
    ASSERT_TRUE(file) << file.error().detail;
    recovered_.clear();
    auto journal = has_books_ ? Journal::open_keeping(std::move(*file), recovered_)
                              : Journal::open(std::move(*file), recovered_);
    ASSERT_TRUE(journal) << journal.error().detail;
    std::optional<UsageBook> book;
    if (has_books_) {
      book.emplace(std::move(*UsageBook::open(path_ + ".db")));
      ASSERT_TRUE(recover_usage(*book, *journal, recovered_, unix_s()));
    }
    auto pair = ControlChannel::make_pair();
    ASSERT_TRUE(pair);
    parent_ = ControlChannel(std::move(pair->first));
    loop_ = std::make_unique<RingDecisionLoop>(*io_, clock_, config_, std::move(*journal),
                                               ControlChannel(std::move(pair->second)));
    if (!book) return;
    const auto charges = ledger_charges(*book, loop_->ledger_names(), unix_s());
    ASSERT_TRUE(charges);
    ASSERT_TRUE(loop_->charge_settled(*charges));
    UsageWriterOptions options;
    options.gather_time = std::chrono::milliseconds(10);
    loop_->set_usage_writer(std::make_unique<UsageWriter>(
        std::move(*book), SettledSlots::writer_capacity(loop_->journal()), std::move(options)));
  }
  static std::int64_t unix_s() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  // From here on with a usage book, as the gateway's wiring has it.
  void start_with_books() {
    has_books_ = true;
    start();
  }
  void wait_until_stored() {
    const UsageWriter& writer = *loop_->settled().writer();
    while (writer.num_durable() < writer.num_pushed()) std::this_thread::yield();
    loop_->turn();
  }
  UsageEntry stored() {
    UsageEntry sum;
    UsageBook book = std::move(*UsageBook::open(path_ + ".db"));
    for (const UsageSum& each : *book.sums(UsagePeriod::day, 0)) {
      sum.requests += each.requests;
      sum.prompt += each.prompt;
      sum.output += each.output;
      sum.cost += each.cost;
    }
    return sum;
  }
  std::uint64_t used_today(const char* tenant) const {
    const CounterView day =
        loop_->quota_of(tenant).value().own[index_of(LimitKind::tokens_per_day)];
    return day.spent + day.reserved;
  }

  // Brings a worker up (again) and carries its attach request back, as the parent does.
  void up(RingWorker& worker) {
    ASSERT_TRUE(parent_.send(worker.up()));
    loop_->turn();
    ControlMessage request;
    ASSERT_TRUE(*parent_.try_receive(request));
    ASSERT_EQ(request.kind, ControlKind::attach_request);
    worker.attach(request);
    worker.publish();
    loop_->turn();
  }
  void down(const RingWorker& worker, DownReason reason) {
    ControlMessage message;
    message.kind = ControlKind::worker_down;
    message.worker = worker.id;
    message.epoch = worker.epoch;
    message.reason = reason;
    ASSERT_TRUE(parent_.send(message));
    loop_->turn();
  }

  GenerationSpec spec(std::uint64_t seed, std::uint32_t output_max = 20, std::uint32_t choices = 1,
                      std::uint32_t prompt = 20) const {
    GenerationSpec made = CoreHarness::spec(seed, output_max, choices, prompt);
    made.arrival = clock_.now();
    return made;
  }
  void submit(Sink& sink, GenerationSpec made) {
    sink.loop = loop_.get();
    sink.taken.resize(made.choices);
    const auto handle = loop_->submit(std::move(made), sink);
    ASSERT_TRUE(handle) << handle.error().detail;
    sink.handle = *handle;
  }
  void rounds(RingWorker& worker, int count) {
    for (int i = 0; i < count; ++i) {
      worker.turn();
      while (loop_->turn()) {
      }
    }
    loop_->core().check_invariants();
    loop_->journal().check_invariants();
  }

  SystemClock clock_;
  cfg::Config config_;
  std::string path_;
  std::unique_ptr<boost::asio::io_context> io_;
  ControlChannel parent_;
  std::vector<Journal::Recovered> recovered_;
  std::unique_ptr<RingDecisionLoop> loop_;
  bool has_books_ = false;
};

TEST_F(Gateway, StreamsThroughTheRingsAndBillsInTheJournal) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink sink;
  submit(sink, spec(1, 20, 3));
  EXPECT_EQ(loop_->journal().num_live(), 3u);
  rounds(worker, 20);
  for (std::uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(sink.taken[choice], undisturbed(spec(1, 20), choice));
  }
  EXPECT_EQ(loop_->journal().num_live(), 0u);
  EXPECT_EQ(loop_->journal().totals().accepted, 60u);
  EXPECT_EQ(loop_->journal().totals().prompt, 20u);
  EXPECT_EQ(loop_->journal().totals().requests, 1u);
  EXPECT_EQ(loop_->core().counters(0).accepted, 60u);
  EXPECT_EQ(loop_->stats(sink.handle).completion_tokens, 60u);
  EXPECT_EQ(loop_->model_facts(0).workers_ready, 1u);
}

TEST_F(Gateway, TokensThatAreReadyTogetherArriveInOneCall) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink sink;
  submit(sink, spec(1));
  for (int i = 0; i < 10; ++i) worker.turn();
  loop_->turn();
  EXPECT_EQ(sink.taken[0].size(), 10u);
  EXPECT_EQ(sink.num_calls, 1u);
}

TEST_F(Gateway, DrainsADeadWorkersRecordsAndGoesOnElsewhere) {
  RingWorker first(WorkerId{0}, Epoch{1}, kRing);
  RingWorker second(WorkerId{1}, Epoch{1}, kRing);
  up(first);
  Sink sink;
  submit(sink, spec(7, 30));
  for (int i = 0; i < 9; ++i) first.turn();  // nobody has read these yet
  up(second);
  down(first, DownReason::killed);
  rounds(second, 30);
  EXPECT_EQ(sink.taken[0], undisturbed(spec(7, 30), 0));
  EXPECT_EQ(second.generated, 21u) << "committed tokens were computed again";
  EXPECT_EQ(loop_->stats(sink.handle).num_failovers, 1u);
}

TEST_F(Gateway, TheNextGatewayTakesTheWorkerOverAndDiscardsWhatWasNotItsOwn) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink lost;
  submit(lost, spec(3, 40));
  rounds(worker, 5);
  lost.takes = false;
  for (int i = 0; i < 4; ++i) worker.turn();
  start();  // the former loop dies without a word
  ASSERT_EQ(recovered_.size(), 1u);
  EXPECT_EQ(recovered_[0].accepted, 5u);
  EXPECT_EQ(loop_->journal().totals().accepted, 5u);
  ASSERT_TRUE(parent_.send(worker.up()));
  loop_->turn();
  worker.turn();  // before the worker hears of the new gateway
  ControlMessage request;
  ASSERT_TRUE(*parent_.try_receive(request));
  Sink sink;
  submit(sink, spec(4, 10));
  loop_->turn();
  worker.attach(request);
  rounds(worker, 12);
  EXPECT_EQ(sink.taken[0], undisturbed(spec(4, 10), 0));
  const auto& counters = loop_->core().counters(0);
  EXPECT_EQ(counters.discarded[static_cast<std::size_t>(DiscardCause::gateway_restart)], 5u);
  EXPECT_EQ(loop_->counters().corrupt_epochs, 0u);
}

TEST_F(Gateway, GarbageOnTheStepRingCostsTheWorkerItsEpoch) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink sink;
  submit(sink, spec(3, 10));
  const std::vector<std::byte> garbage(77, std::byte{0xee});
  ASSERT_TRUE(worker.writer->try_write(RecordType::step, garbage));
  loop_->turn();
  ControlMessage message;
  ASSERT_TRUE(*parent_.try_receive(message));
  EXPECT_EQ(message.kind, ControlKind::worker_corrupt);
  EXPECT_EQ(message.epoch, Epoch{1});
  EXPECT_FALSE(message.text.empty());
  down(worker, DownReason::corrupt);
  RingWorker next(WorkerId{0}, Epoch{2}, kRing);
  up(next);
  rounds(next, 10);
  EXPECT_EQ(sink.taken[0], undisturbed(spec(3, 10), 0));
}

TEST_F(Gateway, AWorkerThatLiesAboutItselfIsRefused) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  ControlMessage lie = worker.up();
  lie.facts.vocab_size = 0;
  ASSERT_TRUE(parent_.send(lie));
  loop_->turn();
  ControlMessage message;
  ASSERT_TRUE(*parent_.try_receive(message));
  EXPECT_EQ(message.kind, ControlKind::worker_corrupt);
  EXPECT_EQ(loop_->model_facts(0).workers_ready, 0u);
}

TEST_F(Gateway, NeitherSubmissionsNorCancelsAreLostWhenTheRingIsFull) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  std::vector<Sink> sinks(12);
  for (std::size_t i = 0; i < sinks.size(); ++i) submit(sinks[i], spec(i, 10, 1, 3000));
  EXPECT_GT(loop_->counters().submissions_unsent, 0u);
  for (std::size_t i = 0; i < 4; ++i) loop_->cancel(sinks[i].handle, CancelCause::client_gone);
  rounds(worker, 60);
  for (std::size_t i = 4; i < sinks.size(); ++i) {
    EXPECT_EQ(sinks[i].taken[0], undisturbed(spec(i, 10, 1, 3000), 0)) << i;
  }
  EXPECT_EQ(loop_->counters().corrupt_epochs, 0u)
      << loop_->core().worker(WorkerId{0}).corrupt_reason();
  EXPECT_TRUE(worker.sequences.empty());
  EXPECT_EQ(loop_->core().num_held(WorkerId{0}), 0u);
  EXPECT_EQ(loop_->journal().num_live(), 0u);
}

TEST_F(Gateway, TenantsKeepTheirNumbersAndSaltsWhenTheConfigurationIsReordered) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  const auto salt_of = [&](std::uint32_t tenant) {
    Sink sink;
    GenerationSpec made = spec(tenant, 1);
    made.tenant = TenantId{tenant};
    submit(sink, made);
    rounds(worker, 2);
    return worker.salts.back();
  };
  const std::uint64_t a = salt_of(0);
  const std::uint64_t b = salt_of(1);
  EXPECT_NE(a, b);
  EXPECT_NE(a, 0u);
  cfg::Config next = config_;
  std::swap(next.tenants[0], next.tenants[1]);
  next.tenants[0].limits.concurrent_requests = 1;
  bool was_told = false;
  loop_->hooks.reload = [&](const cfg::Config&) { was_told = true; };
  ControlMessage message;
  message.kind = ControlKind::reload;
  message.text = cfg::print_config(next, cfg::Secrets::full);
  const auto parsed = cfg::parse_config(message.text, "test");
  ASSERT_TRUE(parsed) << parsed.error().detail;
  ASSERT_TRUE(parent_.send(message));
  loop_->turn();
  ASSERT_TRUE(was_told);
  EXPECT_EQ(salt_of(0), b);
  EXPECT_EQ(salt_of(1), a);
}

// Single tenants come, change and go: what runs of others goes on, numbers stay, and in the end the
// ledger holds what the whole configuration would have made of it.
TEST_F(Gateway, SingleTenantsAreReplacedAndTheOthersGoOn) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  std::vector<std::uint32_t> told;
  loop_->hooks.tenants_changed = [&](std::span<const TenantChange> changes) {
    for (const TenantChange& change : changes) told.push_back(change.number.value);
  };
  const auto start = [&](Sink& sink, std::uint32_t tenant) {
    GenerationSpec made = spec(tenant + 1, 200);
    made.tenant = TenantId{tenant};
    made.key = 0;
    submit(sink, made);
    rounds(worker, 3);
    EXPECT_FALSE(sink.failure);
  };
  Sink of_a, of_b, of_c;
  start(of_a, 0);
  start(of_b, 1);
  cfg::TenantUpdate b{"b", config_.tenants[1]};
  b.tenant->limits.concurrent_requests = 0;
  cfg::TenantUpdate c{"c", config_.tenants[0]};
  c.tenant->name = "c";
  c.tenant->parent = "a";
  c.tenant->weight = 3;
  c.tenant->keys[0].name = "key of c";
  c.tenant->keys[0].sha256.fill(99);
  const std::vector<cfg::TenantUpdate> updates{b, c};
  loop_->apply(updates);
  EXPECT_EQ(told, (std::vector<std::uint32_t>{1, 2}));
  start(of_c, 2);
  ASSERT_TRUE(of_b.failure);
  EXPECT_EQ(of_b.failure->code, Errc::concurrency_limit);
  EXPECT_FALSE(of_a.failure);
  EXPECT_EQ(loop_->quota_of("a")->own[index_of(LimitKind::concurrent_requests)].spent, 2u)
      << "its own and that of c, which hangs below";

  // As the whole configuration has it.
  const auto specs = [&] {
    std::vector<AccountSpec> all;
    for (std::uint32_t i = 0; i < loop_->core().ledger().num_accounts(); ++i)
      all.push_back(loop_->core().ledger().spec(AccountId{i}));
    return all;
  };
  const std::vector<AccountSpec> one_by_one = specs();
  cfg::Config whole = config_;
  whole.tenants[1] = *b.tenant;
  whole.tenants.push_back(*c.tenant);
  loop_->apply(whole);
  EXPECT_TRUE(specs() == one_by_one);
  EXPECT_EQ(loop_->core().ledger().num_accounts(), 6u);

  // A key is exchanged, then the tenant goes, and comes back under its number.
  c.tenant->keys[0].sha256.fill(98);
  loop_->apply(std::span(&c, 1));
  rounds(worker, 2);
  ASSERT_TRUE(of_c.failure);
  EXPECT_EQ(of_c.failure->code, Errc::invalid_api_key);
  Sink again, last;
  start(again, 2);
  const cfg::TenantUpdate gone{"c", std::nullopt};
  loop_->apply(std::span(&gone, 1));
  rounds(worker, 2);
  ASSERT_TRUE(again.failure);
  EXPECT_EQ(again.failure->code, Errc::invalid_api_key);
  loop_->apply(std::span(&c, 1));
  EXPECT_EQ(told.back(), 2u);
  start(last, 2);
  EXPECT_FALSE(of_a.failure);
  EXPECT_EQ(loop_->core().ledger().num_accounts(), 7u) << "numbers are found again";
}

TEST_F(Gateway, DrainsAndSaysSo) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink sink;
  submit(sink, spec(3, 4));
  ControlMessage message;
  message.kind = ControlKind::drain;
  ASSERT_TRUE(parent_.send(message));
  loop_->turn();
  Sink refused;
  EXPECT_FALSE(loop_->submit(spec(4), refused));
  rounds(worker, 4);
  EXPECT_EQ(sink.taken[0].size(), 4u);
  ASSERT_TRUE(*parent_.try_receive(message));
  EXPECT_EQ(message.kind, ControlKind::drained);
}

TEST_F(Gateway, EndsWhenTheParentIsGone) {
  parent_ = ControlChannel();
  loop_->run();
  EXPECT_TRUE(loop_->is_stopped());
}

TEST_F(Gateway, ASlotIsFreeOnceItsUsageIsOnTheDisk) {
  config_.models[0].price_input = 2;
  config_.models[0].price_output = 5;
  start_with_books();
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink sink;
  submit(sink, spec(1, 20, 3));
  rounds(worker, 20);
  ASSERT_TRUE(loop_->count_request({TenantId{0}, kNoKey}));
  wait_until_stored();
  EXPECT_EQ(loop_->journal().num_live(), 0u);
  EXPECT_EQ(loop_->settled().num_waiting(), 0u);
  EXPECT_EQ(stored().requests, 2u);
  EXPECT_EQ(stored().prompt, loop_->journal().totals().prompt);
  EXPECT_EQ(stored().output, loop_->journal().totals().accepted);
  EXPECT_EQ(stored().cost, 20u * 2 + 60 * 5);
  EXPECT_EQ(used_today("a"), 80u);
}

// Dies with one request settled and perhaps not stored, one half-way, none of which may be free.
TEST_F(Gateway, TheNextGatewayGoesOnWithTheBooks) {
  config_.tenants[0].limits.tokens_per_minute = 100;
  start_with_books();
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink first, second;
  submit(first, spec(1, 10));
  rounds(worker, 12);
  submit(second, spec(2, 40));
  rounds(worker, 5);
  const std::uint64_t billed = loop_->journal().totals_with_live().accepted;
  EXPECT_EQ(billed, 15u);
  config_.tenants.insert(config_.tenants.begin(), cfg::Tenant{});  // other numbers, same names
  config_.tenants[0].name = "c";
  start();
  EXPECT_EQ(stored().output, billed);
  EXPECT_EQ(stored().requests, 2u);
  EXPECT_EQ(loop_->journal().num_live(), 0u);
  EXPECT_EQ(used_today("a"), 40 + billed);
  EXPECT_EQ(used_today("b"), 0u);
  EXPECT_EQ(used_today("c"), 0u);
  EXPECT_EQ(loop_->core().ledger().num_open(), 0u);
  RingWorker next(WorkerId{0}, Epoch{2}, kRing);
  up(next);
  GenerationSpec more = spec(3, 26);  // 55 + 46 > 100
  more.tenant = TenantId{1};
  Sink sink;
  sink.loop = loop_.get();
  const auto refused = loop_->submit(more, sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::tokens_rate_limited);
  more.output_tokens_max = 25;
  submit(sink, more);
}

TEST_F(Gateway, AFullDiskRefusesLimitsFirstThenEveryoneAndPasses) {
  config_.tenants[0].limits.tokens_per_day = 1'000'000;
  start_with_books();
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  const auto former = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto try_one = [&](std::uint32_t tenant) -> std::optional<Error> {
    Sink sink;
    sink.loop = loop_.get();
    sink.taken.resize(1);
    GenerationSpec made = spec(tenant, 1);
    made.tenant = TenantId{tenant};
    const auto handle = loop_->submit(std::move(made), sink);
    if (!handle) return handle.error();
    sink.handle = *handle;
    rounds(worker, 2);
    return std::nullopt;
  };
  EXPECT_FALSE(try_one(0));
  EXPECT_EQ(loop_->usage_store_state(), UsageStoreState::storing);
  while (!loop_->settled().writer()->is_failing()) std::this_thread::yield();
  EXPECT_EQ(loop_->usage_store_state(), UsageStoreState::failing);
  const std::optional<Error> refused = try_one(0);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code, Errc::quota_store_unavailable);
  EXPECT_TRUE(refused->retry_after);
  EXPECT_FALSE(loop_->precheck({TenantId{0}, kNoKey}, 0));
  EXPECT_FALSE(loop_->count_request({TenantId{0}, kNoKey}));
  std::uint64_t num_more = 0;
  std::optional<Error> full;
  while (!full && num_more < 100) {
    full = try_one(1);
    num_more += full ? 0 : 1;
  }
  ASSERT_TRUE(full);
  EXPECT_EQ(full->code, Errc::quota_store_unavailable);
  EXPECT_EQ(num_more, 32u);  // half of the journal's slots, then the one that is beyond them
  EXPECT_EQ(loop_->usage_store_state(), UsageStoreState::full);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, former);
  wait_until_stored();
  EXPECT_EQ(loop_->usage_store_state(), UsageStoreState::storing);
  EXPECT_FALSE(try_one(0));
  EXPECT_FALSE(try_one(1));
  wait_until_stored();
  EXPECT_EQ(stored().output, 1 + num_more + 2);
  EXPECT_EQ(loop_->journal().totals().accepted, 1 + num_more + 2);
}

// Both sides on threads of their own, each asleep most of the time: every token needs a wake-up.
TEST_F(Gateway, WakesForEveryRecordAndSleepsOtherwise) {
  RingWorker worker(WorkerId{0}, Epoch{1}, kRing);
  up(worker);
  Sink sink;
  sink.quits_when_over = true;
  submit(sink, spec(5, 300));
  std::atomic<bool> is_over{false};
  std::thread thread([&] {
    while (!is_over) {
      if (worker.turn()) continue;
      const shm::SleepScope scope(worker.step, shm::WakeFor::records);
      if (!worker.reader->is_empty()) continue;
      shm::wait_doorbell(worker.bell.get(), std::chrono::milliseconds(50));
      shm::drain_doorbell(worker.bell.get());
    }
  });
  loop_->run();
  is_over = true;
  thread.join();
  EXPECT_EQ(sink.taken[0], undisturbed(spec(5, 300), 0));
}

}  // namespace
}  // namespace sluice::gw
