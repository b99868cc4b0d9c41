// Many seeds of the simulated system; each prints what to replay. TEST_SEED runs one,
// TEST_SEEDS=a:b a range (scripts/seed_hunt.sh).
#include "sim/serving_sim.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace sluice::sim {
namespace {

SimParams params_of(std::uint64_t seed) {
  SimParams params;
  params.seed = seed;
  params.num_workers = 1 + static_cast<std::uint32_t>(seed % 3);
  params.has_poison = seed % 4 != 0;
  params.faults = static_cast<std::uint32_t>(seed % 12);
  params.flood_requests = seed % 5 == 0 ? 150 : 0;
  return params;
}

SimReport run(std::uint64_t seed) {
  const SimReport report = ServingSim(params_of(seed)).run();
  EXPECT_EQ(report.violation, "") << "TEST_SEED=" << seed;
  return report;
}

TEST(ServingSim, KeepsEveryPromiseForEverySeed) {
  std::uint64_t first = 1, last = 200;
  if (const char* one = std::getenv("TEST_SEED")) {
    first = last = std::strtoull(one, nullptr, 10);
  } else if (const char* range = std::getenv("TEST_SEEDS")) {
    char* rest = nullptr;
    first = std::strtoull(range, &rest, 10);
    last = *rest == ':' ? std::strtoull(rest + 1, nullptr, 10) : first;
  }
  SimReport sum;
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    const SimReport report = run(seed);
    sum.events += report.events;
    sum.steps += report.steps;
    sum.admitted += report.admitted;
    sum.refused += report.refused;
    sum.finished += report.finished;
    sum.cancelled += report.cancelled;
    sum.failed += report.failed;
    sum.limited += report.limited;
    sum.tripped += report.tripped;
    sum.poisoned += report.poisoned;
    sum.failovers += report.failovers;
    sum.preemptions += report.preemptions;
    sum.unsent += report.unsent;
  }
  std::printf(
      "events %llu steps %llu admitted %llu refused %llu finished %llu cancelled %llu "
      "failed %llu limited %llu tripped %llu poisoned %llu failovers %llu preemptions %llu unsent "
      "%llu\n",
      static_cast<unsigned long long>(sum.events), static_cast<unsigned long long>(sum.steps),
      static_cast<unsigned long long>(sum.admitted), static_cast<unsigned long long>(sum.refused),
      static_cast<unsigned long long>(sum.finished), static_cast<unsigned long long>(sum.cancelled),
      static_cast<unsigned long long>(sum.failed), static_cast<unsigned long long>(sum.limited),
      static_cast<unsigned long long>(sum.tripped), static_cast<unsigned long long>(sum.poisoned),
      static_cast<unsigned long long>(sum.failovers),
      static_cast<unsigned long long>(sum.preemptions),
      static_cast<unsigned long long>(sum.unsent));
  if (last - first < 100) return;
  // A world in which nothing happens proves nothing.
  EXPECT_GT(sum.failovers, 100u);
  EXPECT_GT(sum.preemptions, 100u);
  EXPECT_GT(sum.poisoned, 50u);
  EXPECT_GT(sum.unsent, 20u);
  EXPECT_GT(sum.limited, 20u);
  EXPECT_GT(sum.tripped, 1000u);
  EXPECT_GT(sum.finished, sum.admitted / 2);
}

Duration p99(std::vector<Duration> ttft) {
  std::sort(ttft.begin(), ttft.end());
  return ttft[ttft.size() * 99 / 100];
}

// 800 small requests in 20 s beside a tenant whose prompts alone would take the prefill of a worker
// five times over, ten times its half. The same world without the flood, and with the breaker off.
TEST(ServingSim, AFloodOfLongPromptsMovesTheFirstTokenOfOthersByAtMostTwoSteps) {
  for (const std::uint64_t seed : {11, 12, 13}) {
    SimParams params;
    params.seed = seed;
    params.num_workers = 1;
    params.num_requests = 800;
    params.faults = 0;
    params.has_poison = false;
    params.is_measured = true;
    const Duration step = params.step_base + 96 * params.per_prefill_token;
    const double prompts_per_second = 96 / std::chrono::duration<double>(step).count() / 496;
    const auto flood = static_cast<std::uint32_t>(10 * 0.5 * prompts_per_second * 20);

    const SimReport calm = ServingSim(params).run();
    params.flood_requests = flood;
    const SimReport guarded = ServingSim(params).run();
    params.tenant_breaker.is_enabled = false;
    const SimReport open = ServingSim(params).run();
    for (const SimReport* report : {&calm, &guarded, &open}) {
      EXPECT_EQ(report->violation, "") << "seed " << seed;
    }
    const double worth = 1.0 / static_cast<double>(step.count());
    std::printf(
        "flood %u: p99 of the first token, in steps: calm %.2f guarded %.2f breaker off "
        "%.2f; served %zu %zu %zu\n",
        flood, static_cast<double>(p99(calm.ttft).count()) * worth,
        static_cast<double>(p99(guarded.ttft).count()) * worth,
        static_cast<double>(p99(open.ttft).count()) * worth, calm.ttft.size(), guarded.ttft.size(),
        open.ttft.size());
    EXPECT_EQ(calm.ttft.size(), 800u);
    EXPECT_EQ(guarded.ttft.size(), 800u) << "nobody else is refused";
    EXPECT_LE(p99(guarded.ttft) - p99(calm.ttft), 2 * step);
    EXPECT_GT(p99(open.ttft) - p99(calm.ttft), 2 * step) << "the flood is none";
    EXPECT_GT(guarded.tripped, flood / 2);
  }
}

TEST(ServingSim, SeedsThatOnceFailedPass) {
  std::ifstream file(SLUICE_SEEDS_FILE);
  ASSERT_TRUE(file);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::uint64_t seed = 0;
    if (words >> seed) run(seed);
  }
}

TEST(ServingSim, TheSameSeedGivesTheSameWorld) {
  const SimReport a = run(5);
  const SimReport b = run(5);
  EXPECT_EQ(a.events, b.events);
  EXPECT_EQ(a.took, b.took);
  EXPECT_EQ(a.steps, b.steps);
}

}  // namespace
}  // namespace sluice::sim
