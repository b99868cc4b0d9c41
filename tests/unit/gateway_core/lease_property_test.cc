// Several gateways that share limits: real ledgers and lease books, a naive store, and between them
// messages that take their time or get lost. Whatever is admitted is also kept in one plain list of
// all gateways: no window of it ever holds more than the limit, but for what the header of
// lease_book.h names. Seeds are printed; TEST_SEED picks one.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "gateway/core/ledger.h"
#include "shared/random.h"
#include "tests/support/naive_quota_store.h"
#include "tests/support/seed.h"

namespace sluice::gw {
namespace {

using std::chrono::milliseconds;
using test::NaiveQuotaStore;

constexpr AccountId kTenant{0}, kKey{1};
constexpr std::int64_t kLeaseMs = 3000;
constexpr std::int64_t kBaseUnixMs = 1'700'006'399'000;  // 1 s before the end of a day
constexpr Duration kTypical = std::chrono::seconds(1);

// What one request charged, where everybody can see it.
struct Charged {
  std::int64_t at = 0;  // of its admission, ms of the common time
  Amounts amounts{};
  bool is_running = true;
  std::uint32_t gateway = 0;
};

struct Message {
  std::int64_t at = 0;  // arrival at the store
  std::vector<LeaseAsk> asks;
  std::int64_t answered_at = 0;
  std::int64_t session = 0;
  bool is_applied = false;
  LeaseAnswers answers;
};

struct Gateway {
  std::unique_ptr<LeaseBook> book;
  std::unique_ptr<Ledger> ledger;
  std::int64_t tick_offset = 0;
  std::optional<Message> message;
  std::int64_t reconnects_at = 0;
  std::int64_t session = 0;
  std::int64_t frozen_until = 0;
  std::int64_t reported_until = -1;  // admissions before it are known to the store
  struct Waiting {
    Ask ask;
    std::uint64_t since;
  };
  std::vector<Waiting> waiting;
  struct Running {
    Reservation ticket;
    std::size_t charged;
    std::uint32_t granted;
  };
  std::vector<Running> running;
};

class World {
 public:
  // calm: connections break. deaths: gateways freeze and die, the store is slow. amnesia: the store
  // loses its data.
  enum class Weather { calm, deaths, amnesia };
  World(std::uint64_t seed, LeaseMode mode, Weather weather)
      : seed_(seed), mode_(mode), weather_(weather), gateways_(3) {
    limits_[LimitKind::tokens_per_minute] = 3000;
    if (dice(2) == 0) limits_[LimitKind::requests_per_minute] = 25;
    if (dice(2) == 0) limits_[LimitKind::output_tokens_per_minute] = 1500;
    if (dice(2) == 0) limits_[LimitKind::tokens_per_day] = 9000;
    if (dice(2) == 0) limits_[LimitKind::concurrent_requests] = 6;
    if (dice(2) == 0) limits_[LimitKind::monthly_budget] = 60'000;
    for (std::uint32_t i = 0; i < gateways_.size(); ++i) start(i);
  }

  void run(int events) {
    for (int i = 0; i < events && !::testing::Test::HasFatalFailure(); ++i) {
      happen();
      for (std::uint64_t left = dice(dice(30) == 0 ? 100 : 2) + 1; left > 0; --left) {
        now_ += static_cast<std::int64_t>(dice(50));
        for (std::uint32_t g = 0; g < gateways_.size(); ++g) turn(g);
      }
    }
  }

  // Everybody is silent: what was leased comes back, and one gateway alone can have all of it.
  void check_that_all_returns() {
    for (Gateway& gateway : gateways_) {
      for (Gateway::Running& running : gateway.running) close(gateway, running);
      gateway.running.clear();
      gateway.waiting.clear();
      gateway.frozen_until = 0;
    }
    for (int i = 0; i < 3000; ++i) {
      now_ += 50;
      for (std::uint32_t g = 0; g < gateways_.size(); ++g) turn(g);
    }
    const auto largest = static_cast<std::uint32_t>(*limits_[LimitKind::tokens_per_minute]) - 1;
    for (LimitKind kind : {LimitKind::output_tokens_per_minute, LimitKind::tokens_per_day,
                           LimitKind::monthly_budget})
      limits_[kind].reset();
    for (Gateway& gateway : gateways_) set_limits(gateway);
    Ask ask = make_ask(1, largest);
    admit(1, ask);
    for (int i = 0; i < 100 && gateways_[1].running.empty(); ++i) {
      now_ += 20;
      for (std::uint32_t g = 0; g < gateways_.size(); ++g) turn(g);
    }
    ASSERT_EQ(gateways_[1].running.size(), 1u) << "a limit that nobody uses was refused";
  }

  std::uint64_t admitted = 0, refused = 0, unavailable = 0, waited = 0, deaths = 0, losses = 0;
  std::uint64_t allowed_beyond = 0, stale = 0;

 private:
  std::uint64_t dice(std::uint64_t bound) { return mix64(seed_ ^ mix64(++rolls_)) % bound; }
  Tick tick(const Gateway& gateway) const { return Tick{milliseconds(now_ + gateway.tick_offset)}; }
  std::int64_t unix_ms() const { return kBaseUnixMs + now_; }

  void set_limits(Gateway& gateway) {
    AccountSpec spec;
    spec.limits = limits_;
    EXPECT_TRUE(gateway.ledger->set_account(kTenant, spec));
    AccountSpec key;
    key.parent = kTenant;
    EXPECT_TRUE(gateway.ledger->set_account(kKey, key));
  }

  void start(std::uint32_t index) {
    Gateway& gateway = gateways_[index];
    gateway.tick_offset = static_cast<std::int64_t>(dice(100'000));
    LeaseParams params;
    params.mode = mode_;
    params.lease_time = milliseconds(kLeaseMs);
    gateway.book = std::make_unique<LeaseBook>(params);
    gateway.ledger = std::make_unique<Ledger>(LedgerParams{1, 64});
    gateway.ledger->share(*gateway.book);
    EXPECT_TRUE(gateway.ledger->set_prices(0, {3, 1, 7}));
    set_limits(gateway);
    gateway.ledger->set_wall(tick(gateway), unix_ms());
    gateway.message.reset();
    gateway.reconnects_at = now_ + static_cast<std::int64_t>(dice(300));
  }

  void happen() {
    const auto index = static_cast<std::uint32_t>(dice(gateways_.size()));
    Gateway& gateway = gateways_[index];
    if (now_ < gateway.frozen_until) return;
    switch (dice(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return admit(index, make_ask(static_cast<std::uint32_t>(1 + dice(60)),
                                     static_cast<std::uint32_t>(1 + dice(200))));
      case 4:
      case 5:
      case 6:
      case 7:
        if (gateway.running.empty()) return;
        {
          const std::size_t at = dice(gateway.running.size());
          close(gateway, gateway.running[at]);
          gateway.running.erase(gateway.running.begin() + static_cast<std::ptrdiff_t>(at));
        }
        return;
      case 8:
        if (dice(12) == 0) lose(gateway);
        return;
      case 9:
        if (weather_ == Weather::deaths && dice(30) == 0) die(index);
        return;
      case 10:
        // Everybody comes back within a lease time: what is reported late is another test.
        if (weather_ == Weather::amnesia && dice(60) == 0) {
          store_.clear();
          run_ += "x";
          for (Gateway& other : gateways_) lose(other);
        }
        return;
      default:
        if (weather_ == Weather::deaths && dice(40) == 0)
          gateway.frozen_until = now_ + static_cast<std::int64_t>(dice(2 * kLeaseMs));
        return;
    }
  }

  static Ask make_ask(std::uint32_t prompt, std::uint32_t output) {
    Ask ask;
    ask.account = kKey;
    ask.prompt_tokens = prompt;
    ask.output_tokens_max = output;
    return ask;
  }

  void admit(std::uint32_t index, const Ask& ask) {
    Gateway& gateway = gateways_[index];
    gateway.ledger->set_wall(tick(gateway), unix_ms());
    try_admit(index, {ask, gateway.book->next_exchange()});
  }

  void try_admit(std::uint32_t index, const Gateway::Waiting& waiting) {
    Gateway& gateway = gateways_[index];
    const Result<LeaseState> leased =
        gateway.ledger->lease(waiting.ask, waiting.since, tick(gateway));
    if (!leased) {
      const bool is_away = leased.error().code == Errc::quota_store_unavailable;
      ++(is_away ? unavailable : refused);
      if (!is_away && leased.error().code != Errc::insufficient_quota) {
        EXPECT_TRUE(leased.error().retry_after);
        const bool is_of_a_day = leased.error().detail.find("per day") != std::string::npos;
        const Duration most = is_of_a_day ? std::chrono::hours(24) : std::chrono::seconds(62);
        EXPECT_LE(leased.error().retry_after.value_or(milliseconds(0)), most)
            << leased.error().detail;
      }
      return;
    }
    if (*leased == LeaseState::pending) {
      ++waited;
      gateway.waiting.push_back(waiting);
      return;
    }
    Result<Reservation> opened = gateway.ledger->open(waiting.ask, tick(gateway), kTypical);
    if (!opened) {
      EXPECT_NE(opened.error().code, Errc::quota_store_unavailable);
      ++refused;
      return;
    }
    ++admitted;
    const std::uint64_t prompt = waiting.ask.prompt_tokens;
    const std::uint64_t output = waiting.ask.output_tokens_max;
    Charged& charged = charged_.emplace_back();
    charged.at = now_;
    charged.gateway = index;
    charged.amounts = {1, prompt + output, prompt, output, prompt + output, prompt * 3 + output * 7,
                       1, prompt + output};
    gateway.running.push_back(
        {std::move(*opened), charged_.size() - 1, static_cast<std::uint32_t>(output)});
    check();
  }

  void close(Gateway& gateway, Gateway::Running& running) {
    gateway.ledger->set_wall(tick(gateway), unix_ms());
    const auto used = static_cast<std::uint32_t>(dice(running.granted + 1));
    gateway.ledger->settle(running.ticket, used, tick(gateway));
    gateway.ledger->close_choice(running.ticket, running.granted, used);
    gateway.ledger->close(std::move(running.ticket), PromptUse::computed);
    Charged& charged = charged_[running.charged];
    const std::uint64_t unused = running.granted - used;
    charged.is_running = false;
    charged.amounts[index_of(LimitKind::tokens_per_minute)] -= unused;
    charged.amounts[index_of(LimitKind::output_tokens_per_minute)] -= unused;
    charged.amounts[index_of(LimitKind::tokens_per_day)] -= unused;
    charged.amounts[index_of(LimitKind::monthly_budget)] -= 7 * unused;
  }

  void lose(Gateway& gateway) {
    ++losses;
    if (gateway.message) cut_off(index_of_gateway(gateway), std::move(*gateway.message));
    gateway.message.reset();
    gateway.book->lost();
    gateway.waiting.clear();
    gateway.reconnects_at = now_ + static_cast<std::int64_t>(dice(600));
  }

  std::uint32_t index_of_gateway(const Gateway& gateway) const {
    return static_cast<std::uint32_t>(&gateway - gateways_.data());
  }
  // Nobody waits for its answer, but the store may still get it, late.
  void cut_off(std::uint32_t index, Message message) {
    if (message.is_applied || dice(2) == 0) return;
    message.at += static_cast<std::int64_t>(dice(1500));
    adrift_.push_back({index, names_[index], std::move(message)});
  }

  // For good: another one takes its place. What its last report did not tell may be admitted again.
  void die(std::uint32_t index) {
    ++deaths;
    Gateway& gateway = gateways_[index];
    std::array<std::uint64_t, kCounterKinds> untold{};
    for (Charged& charged : charged_) {
      if (charged.gateway != index) continue;
      charged.is_running = false;
      if (charged.at < gateway.reported_until) continue;
      for (std::size_t i = 0; i < kCounterKinds; ++i) untold[i] += charged.amounts[i];
    }
    if (mode_ == LeaseMode::leased)
      for (std::size_t i = kMinuteKinds; i < kCounterKinds; ++i) beyond_[i] += untold[i];
    gateway.running.clear();
    gateway.waiting.clear();
    if (gateway.message) cut_off(index, std::move(*gateway.message));
    for (Charged& charged : charged_)
      if (charged.gateway == index) charged.gateway = 1000 + index;
    names_[index] += "'";
    start(index);
  }

  void turn(std::uint32_t index) {
    Gateway& gateway = gateways_[index];
    // The store gets what is on its way, whatever becomes of the gateway.
    if (gateway.message && !gateway.message->is_applied && now_ >= gateway.message->at)
      apply(index, names_[index], *gateway.message);
    for (Adrift& adrift : adrift_) {
      if (adrift.message.is_applied || now_ < adrift.message.at) continue;
      apply(adrift.index, adrift.name, adrift.message);
    }
    if (now_ < gateway.frozen_until) return;
    gateway.ledger->set_wall(tick(gateway), unix_ms());
    if (gateway.reconnects_at > 0 && now_ >= gateway.reconnects_at) {
      gateway.reconnects_at = 0;
      gateway.session = now_;
      gateway.ledger->report_leases(Duration{0}, tick(gateway));
    }
    if (gateway.message && gateway.message->is_applied && now_ >= gateway.message->answered_at) {
      const Message message = std::move(*gateway.message);
      gateway.message.reset();
      gateway.book->end_exchange(message.answers, tick(gateway));
      std::vector<Gateway::Waiting> waiting;
      waiting.swap(gateway.waiting);
      for (const Gateway::Waiting& one : waiting) try_admit(index, one);
    }
    if (gateway.message || !gateway.book->is_connected()) return;
    std::vector<LeaseAsk> asks = gateway.ledger->begin_exchange(64, tick(gateway));
    if (asks.empty()) return;
    Message& message = gateway.message.emplace();
    message.asks = std::move(asks);
    sent_at_[index] = now_;
    const std::uint64_t slowest = weather_ == Weather::deaths ? 2000 : 300;
    const auto delay = [&] {
      return static_cast<std::int64_t>(dice(dice(20) == 0 ? slowest : 30));
    };
    message.at = now_ + delay();
    message.answered_at = message.at + delay();
    message.session = gateway.session;
  }

  void apply(std::uint32_t index, const std::string& name, Message& message) {
    message.is_applied = true;
    for (const LeaseAsk& ask : message.asks) {
      ASSERT_LE(ask.least, ask.want);
      const std::string key(limit_kind_name(ask.place.kind));
      const NaiveQuotaStore::Answer answer =
          store_.apply(key, name, ask, mode_, kLeaseMs, run_, message.session, now_);
      if (answer.is_stale) {
        ++stale;
        return;
      }
      message.answers.store_life = static_cast<std::uint64_t>(answer.life);
      message.answers.settling = milliseconds(answer.settling);
      LeaseAnswer& told = message.answers.answers.emplace_back();
      told.granted = answer.granted;
      told.others = answer.others;
      if (answer.retry > 0) told.retry_after = milliseconds(answer.retry);
      told.is_short = answer.is_short;
    }
    // The report may lack kinds that were not due: then the former moment holds.
    gateways_[index].reported_until =
        std::max<std::int64_t>(gateways_[index].reported_until, sent_at_[index] - kLeaseMs / 2);
  }

  void check() {
    Amounts sums{};
    const std::int64_t today = unix_ms() / 86'400'000;
    for (const Charged& charged : charged_) {
      for (std::size_t i = 0; i < kCounterKinds; ++i) {
        const auto kind = static_cast<LimitKind>(i);
        bool counts = now_ - charged.at < 60'000;
        if (kind == LimitKind::tokens_per_day)
          counts = (kBaseUnixMs + charged.at) / 86'400'000 == today;
        if (kind == LimitKind::monthly_budget) counts = true;  // the day is in the middle of one
        if (kind == LimitKind::concurrent_requests || kind == LimitKind::concurrent_kv_tokens)
          counts = charged.is_running;
        if (counts) sums[i] += charged.amounts[i];
      }
    }
    for (std::size_t i = 0; i < kCounterKinds; ++i) {
      const auto kind = static_cast<LimitKind>(i);
      if (!limits_[kind]) continue;
      // Running requests outlive a lease that froze or got lost.
      if (weather_ == Weather::deaths && kind == LimitKind::concurrent_requests) continue;
      ASSERT_LE(sums[i], *limits_[kind] + beyond_[i]) << limit_kind_name(kind) << " at " << now_;
      if (sums[i] > *limits_[kind]) ++allowed_beyond;
    }
  }

  std::uint64_t seed_, rolls_ = 0;
  LeaseMode mode_;
  Weather weather_;
  std::int64_t now_ = 1000;
  LimitSet limits_;
  NaiveQuotaStore store_;
  std::string run_ = "run";
  std::vector<Gateway> gateways_;
  std::vector<std::string> names_{"a", "b", "c"};
  std::array<std::int64_t, 3> sent_at_{};
  struct Adrift {
    std::uint32_t index;
    std::string name;
    Message message;
  };
  std::vector<Adrift> adrift_;
  std::vector<Charged> charged_;
  std::array<std::uint64_t, kCounterKinds> beyond_{};
};

class Leases : public ::testing::TestWithParam<std::pair<LeaseMode, World::Weather>> {};

TEST_P(Leases, NoWindowOfAllGatewaysHoldsMoreThanTheLimit) {
  std::uint64_t admitted = 0, refused = 0, unavailable = 0, waited = 0, deaths = 0;
  std::uint64_t beyond = 0, stale = 0;
  for (std::uint64_t i = 0; i < 20 && !HasFatalFailure(); ++i) {
    const std::uint64_t seed = test::test_seed(1) + i;
    SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
    World world(seed, GetParam().first, GetParam().second);
    world.run(3000);
    if (!HasFatalFailure()) world.check_that_all_returns();
    admitted += world.admitted;
    refused += world.refused;
    unavailable += world.unavailable;
    waited += world.waited;
    deaths += world.deaths;
    beyond += world.allowed_beyond;
    stale += world.stale;
  }
  EXPECT_GT(admitted, 1000u);
  EXPECT_GT(refused, 100u);
  EXPECT_GT(waited, 100u);
  EXPECT_GT(unavailable, 100u);
  if (GetParam().second == World::Weather::deaths) {
    EXPECT_GT(deaths, 20u);
    EXPECT_GT(stale, 0u);
  }
  std::printf("admitted %llu refused %llu unavailable %llu waited %llu deaths %llu beyond %llu\n",
              static_cast<unsigned long long>(admitted), static_cast<unsigned long long>(refused),
              static_cast<unsigned long long>(unavailable), static_cast<unsigned long long>(waited),
              static_cast<unsigned long long>(deaths), static_cast<unsigned long long>(beyond));
}

INSTANTIATE_TEST_SUITE_P(
    All, Leases,
    ::testing::Values(std::pair(LeaseMode::leased, World::Weather::calm),
                      std::pair(LeaseMode::synchronous, World::Weather::calm),
                      std::pair(LeaseMode::leased, World::Weather::deaths),
                      std::pair(LeaseMode::synchronous, World::Weather::deaths),
                      std::pair(LeaseMode::leased, World::Weather::amnesia),
                      std::pair(LeaseMode::synchronous, World::Weather::amnesia)));

}  // namespace
}  // namespace sluice::gw
