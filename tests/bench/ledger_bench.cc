// What admission costs: one request's life in the ledger (open, settle, close a choice, close) in
// CPU nanoseconds, with 1, 1,000 and 100,000 tenants of one key each, picked at random; also with
// limits that are shared with other gateways and a store of no cost. Requests come every 50 us, so
// of 100,000 tenants each comes once in 5 s, when its leases are over: every request then asks for
// them anew. Goal: at most 10 us. Usage: ledger_bench [repeats]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "gateway/core/ledger.h"
#include "shared/check.h"
#include "shared/random.h"

namespace sluice::gw {
namespace {

constexpr std::uint64_t kRequests = 50'000;  // of one measurement

double cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

AccountSpec spec_of_tenant() {
  AccountSpec tenant;
  tenant.limits[LimitKind::requests_per_minute] = 1'000'000'000;
  tenant.limits[LimitKind::tokens_per_minute] = 1'000'000'000'000;
  tenant.limits[LimitKind::tokens_per_day] = 1'000'000'000'000;
  tenant.limits[LimitKind::monthly_budget] = 1'000'000'000'000'000;
  tenant.limits[LimitKind::concurrent_requests] = 1'000;
  return tenant;
}

enum class Sharing : std::uint8_t { alone, leased };

// A ledger that every tenant has used: built once, measured often.
class Gateway {
 public:
  Gateway(std::uint32_t num_tenants, Sharing sharing)
      : num_tenants_(num_tenants), leases_(LeaseParams{}), ledger_({1, 1024}) {
    if (sharing == Sharing::leased) ledger_.share(leases_);
    is_leased_ = sharing == Sharing::leased;
    const AccountSpec tenant = spec_of_tenant();
    for (std::uint32_t i = 0; i < num_tenants; ++i) {
      CHECK(ledger_.set_account(AccountId{2 * i}, tenant).has_value());
      AccountSpec key;
      key.parent = AccountId{2 * i};
      key.limits = tenant.limits;
      CHECK(ledger_.set_account(AccountId{2 * i + 1}, key).has_value());
    }
    CHECK(ledger_.set_prices(0, {10, 1, 20}).has_value());
    ledger_.set_wall(now_, 1'700'000'000'000);
    if (is_leased_) ledger_.report_leases(Duration{0}, now_);
    const std::uint64_t warm = std::max<std::uint64_t>(num_tenants, kRequests);
    for (std::uint64_t i = 0; i < warm; ++i)
      CHECK(live(static_cast<std::uint32_t>(i % num_tenants)));
  }

  // Limits so low that a minute is full after two requests, and of each tenant it is.
  void fill_minutes() {
    AccountSpec tenant = spec_of_tenant();
    tenant.limits[LimitKind::tokens_per_minute] = 1000;
    for (std::uint32_t i = 0; i < num_tenants_; ++i) {
      CHECK(ledger_.set_account(AccountId{2 * i}, tenant).has_value());
      for (int request = 0; request < 5; ++request) live(i);
    }
  }

  struct Cost {
    double total = 0;      // ns per request, exchanges with the store included
    double exchanges = 0;  // of it
    double asks = 0;       // limits reported, per request
    std::uint64_t refused = 0;
  };
  Cost measure(std::uint64_t seed) {
    exchanging_ns_ = 0;
    const std::uint64_t asks = leases_.num_asks();
    Cost cost;
    const double start = cpu_ns();
    for (std::uint64_t i = 0; i < kRequests; ++i)
      cost.refused +=
          live(static_cast<std::uint32_t>(mix64(seed ^ mix64(i)) % num_tenants_)) ? 0 : 1;
    cost.total = (cpu_ns() - start) / kRequests;
    cost.exchanges = exchanging_ns_ / kRequests;
    cost.asks = static_cast<double>(leases_.num_asks() - asks) / kRequests;
    return cost;
  }

 private:
  void exchange() {
    if (!leases_.next_due() || *leases_.next_due() > now_) return;
    const double start = cpu_ns();
    LeaseAnswers answers;
    for (const LeaseAsk& ask : ledger_.begin_exchange(512, now_))
      answers.answers.emplace_back().granted = ask.want;
    leases_.end_exchange(answers, now_);
    exchanging_ns_ += cpu_ns() - start;
  }
  bool live(std::uint32_t tenant) {
    const Ask ask{AccountId{2 * tenant + 1}, 0, 1, 200, 256, 0, 7};
    now_ += std::chrono::microseconds(50);
    if (is_leased_) {
      exchange();
      const std::uint64_t since = leases_.next_exchange();
      while (ledger_.lease(ask, since, now_).value() == LeaseState::pending) exchange();
    }
    Result<Reservation> opened = ledger_.open(ask, now_, std::chrono::seconds(1));
    if (!opened) return false;
    for (int step = 0; step < 4; ++step) ledger_.settle(*opened, 10, now_);
    ledger_.close_choice(*opened, 256, 40);
    ledger_.close(std::move(*opened), PromptUse::computed);
    return true;
  }

  const std::uint32_t num_tenants_;
  LeaseBook leases_;
  Ledger ledger_;
  bool is_leased_ = false;
  Tick now_{std::chrono::seconds(1000)};
  double exchanging_ns_ = 0;
};

void report(const char* what, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf("  %-40s %8.0f ns (%.0f .. %.0f)\n", what, values[values.size() / 2], values.front(),
              values.back());
}

void run(std::uint32_t num_tenants, int repeats) {
  std::printf("%u tenants, two levels, CPU per request\n", num_tenants);
  std::vector<double> admitted, refused, leased, exchanges, asks;
  const auto seeds = static_cast<std::uint64_t>(repeats);
  {
    Gateway gateway(num_tenants, Sharing::alone);
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      const Gateway::Cost cost = gateway.measure(seed);
      CHECK(cost.refused == 0);
      admitted.push_back(cost.total);
    }
    // The dear answer: the window is full, and the moment at which it has room is looked for.
    gateway.fill_minutes();
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      const Gateway::Cost cost = gateway.measure(seed);
      CHECK(cost.refused > kRequests / 2);
      refused.push_back(cost.total);
    }
  }
  report("admitted: open, 4 settles, close", admitted);
  report("most refused: limit reached, Retry-After", refused);
  Gateway gateway(num_tenants, Sharing::leased);
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    const Gateway::Cost cost = gateway.measure(seed);
    CHECK(cost.refused == 0);
    leased.push_back(cost.total - cost.exchanges);
    exchanges.push_back(cost.exchanges);
    asks.push_back(cost.asks);
  }
  report("admitted from leases", leased);
  report("beside it: reports and answers", exchanges);
  std::printf("  %-40s %8.3f\n", "limits reported per request", asks[asks.size() / 2]);
}

}  // namespace
}  // namespace sluice::gw

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  for (const std::uint32_t tenants : {1u, 1000u, 100'000u}) sluice::gw::run(tenants, repeats);
  return 0;
}
