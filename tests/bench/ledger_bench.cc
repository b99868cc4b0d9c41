// What admission costs: one request's life in the ledger (open, settle, close a choice, close) in
// CPU nanoseconds, with 1, 1,000 and 100,000 tenants of one key each, picked at random; also with
// limits that are shared with other gateways, where everything is leased already and a store of no
// cost takes the reports. Goal: at most 10 us. Usage: ledger_bench [repeats]
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

constexpr std::uint64_t kRequests = 200'000;

double cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

struct Cost {
  double admitted = 0, refused = 0;  // ns per request
};

AccountSpec spec_of_tenant() {
  AccountSpec tenant;
  tenant.limits[LimitKind::requests_per_minute] = 1'000'000'000;
  tenant.limits[LimitKind::tokens_per_minute] = 1'000'000'000'000;
  tenant.limits[LimitKind::tokens_per_day] = 1'000'000'000'000;
  tenant.limits[LimitKind::monthly_budget] = 1'000'000'000'000'000;
  tenant.limits[LimitKind::concurrent_requests] = 1'000;
  return tenant;
}

struct LeaseCost {
  double total = 0;      // ns per request, reports and answers included
  double exchanges = 0;  // of it
  double asks = 0;       // limits reported, per request
};

LeaseCost measure_leased(std::uint32_t num_tenants, std::uint64_t seed) {
  LeaseBook leases(LeaseParams{});
  Ledger ledger({1, 1024});
  ledger.share(leases);
  const AccountSpec tenant = spec_of_tenant();
  for (std::uint32_t i = 0; i < num_tenants; ++i) {
    CHECK(ledger.set_account(AccountId{2 * i}, tenant).has_value());
    AccountSpec key;
    key.parent = AccountId{2 * i};
    key.limits = tenant.limits;
    CHECK(ledger.set_account(AccountId{2 * i + 1}, key).has_value());
  }
  Tick now{std::chrono::seconds(1000)};
  ledger.set_wall(now, 1'700'000'000'000);
  ledger.report_leases(Duration{0}, now);
  double exchanging = 0;
  const auto exchange = [&] {
    if (!leases.next_due() || *leases.next_due() > now) return;
    const double start = cpu_ns();
    LeaseAnswers answers;
    for (const LeaseAsk& ask : ledger.begin_exchange(512, now)) {
      answers.answers.emplace_back().granted = ask.want;
    }
    leases.end_exchange(answers, now);
    exchanging += cpu_ns() - start;
  };
  const auto life = [&](std::uint64_t i) {
    const auto who = static_cast<std::uint32_t>(mix64(seed ^ i) % num_tenants);
    const Ask ask{AccountId{2 * who + 1}, 0, 1, 200, 256, 0, i};
    now += std::chrono::microseconds(50);
    exchange();
    const std::uint64_t since = leases.next_exchange();
    while (ledger.lease(ask, since, now).value() == LeaseState::pending) exchange();
    Result<Reservation> opened = ledger.open(ask, now, std::chrono::seconds(1));
    CHECK(opened.has_value());
    for (int step = 0; step < 4; ++step) ledger.settle(*opened, 10, now);
    ledger.close_choice(*opened, 256, 40);
    ledger.close(std::move(*opened), PromptUse::computed);
  };
  for (std::uint64_t i = 0; i < std::max<std::uint64_t>(kRequests, 4 * num_tenants); ++i) life(i);
  exchanging = 0;
  const std::uint64_t asks = leases.num_asks();
  const double start = cpu_ns();
  for (std::uint64_t i = 0; i < kRequests; ++i) life(i);
  return {(cpu_ns() - start) / kRequests, exchanging / kRequests,
          static_cast<double>(leases.num_asks() - asks) / kRequests};
}

Cost measure(std::uint32_t num_tenants, std::uint64_t seed) {
  Ledger ledger({1, 1024});
  AccountSpec tenant = spec_of_tenant();
  for (std::uint32_t i = 0; i < num_tenants; ++i) {
    CHECK(ledger.set_account(AccountId{2 * i}, tenant).has_value());
    AccountSpec key;
    key.parent = AccountId{2 * i};
    key.limits = tenant.limits;
    CHECK(ledger.set_account(AccountId{2 * i + 1}, key).has_value());
  }
  CHECK(ledger.set_prices(0, {10, 1, 20}).has_value());
  Tick now{std::chrono::seconds(1000)};
  ledger.set_wall(now, 1'700'000'000'000);
  const auto life = [&](std::uint64_t i) {
    const auto who = static_cast<std::uint32_t>(mix64(seed ^ i) % num_tenants);
    const Ask ask{AccountId{2 * who + 1}, 0, 1, 200, 256, 0, i};
    now += std::chrono::microseconds(50);
    Result<Reservation> opened = ledger.open(ask, now, std::chrono::seconds(1));
    if (!opened) return false;
    for (int step = 0; step < 4; ++step) ledger.settle(*opened, 10, now);
    ledger.close_choice(*opened, 256, 40);
    ledger.close(std::move(*opened), PromptUse::computed);
    return true;
  };
  for (std::uint64_t i = 0; i < std::max<std::uint64_t>(kRequests, 4 * num_tenants); ++i) life(i);
  double start = cpu_ns();
  for (std::uint64_t i = 0; i < kRequests; ++i) CHECK(life(i));
  Cost cost;
  cost.admitted = (cpu_ns() - start) / kRequests;
  // The dear answer: the window is full, and the moment at which it has room is looked for.
  for (std::uint32_t i = 0; i < num_tenants; ++i) {
    tenant.limits[LimitKind::tokens_per_minute] = 1000;
    CHECK(ledger.set_account(AccountId{2 * i}, tenant).has_value());
  }
  for (std::uint64_t i = 0; i < 8 * std::uint64_t{num_tenants}; ++i) life(i);
  std::uint64_t refused = 0;
  start = cpu_ns();
  for (std::uint64_t i = 0; i < kRequests; ++i) refused += life(i) ? 0 : 1;
  cost.refused = (cpu_ns() - start) / kRequests;
  CHECK(refused > kRequests / 2);
  return cost;
}

void report(const char* what, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf("  %-40s %8.0f ns (%.0f .. %.0f)\n", what, values[values.size() / 2], values.front(),
              values.back());
}

}  // namespace
}  // namespace sluice::gw

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  for (const std::uint32_t tenants : {1u, 1000u, 100'000u}) {
    std::vector<double> admitted, refused, leased, exchanges, asks;
    for (int i = 0; i < repeats; ++i) {
      const auto cost = sluice::gw::measure(tenants, static_cast<std::uint64_t>(i));
      admitted.push_back(cost.admitted);
      refused.push_back(cost.refused);
      const auto shared = sluice::gw::measure_leased(tenants, static_cast<std::uint64_t>(i));
      leased.push_back(shared.total - shared.exchanges);
      exchanges.push_back(shared.exchanges);
      asks.push_back(shared.asks);
    }
    std::printf("%u tenants, two levels, CPU per request\n", tenants);
    sluice::gw::report("admitted: open, 4 settles, close", admitted);
    sluice::gw::report("most refused: limit reached, Retry-After", refused);
    sluice::gw::report("admitted from leases", leased);
    sluice::gw::report("beside it: reports and answers", exchanges);
    std::printf("  %-40s %8.3f\n", "limits reported per request", asks[asks.size() / 2]);
  }
  return 0;
}
