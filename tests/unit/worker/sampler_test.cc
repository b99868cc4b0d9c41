// The sampler against a naive one in double precision, its draws against their distribution, and
// the same bits from every instruction set.
#include "worker/core/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "shared/random.h"
#include "tests/support/seed.h"

namespace sluice::eng {
namespace {

using test::test_seed;

struct Case {
  std::vector<float> logits;
  SamplingParams sampling;
  std::vector<TokenCount> counts;
  std::vector<LogitBias> bias;
  std::vector<TokenId> stop_ids;
  std::uint32_t position = 0;

  SampleInput input() const { return {logits, sampling, counts, bias, stop_ids, 0, position}; }
};

// The distribution that a case is drawn from, step by step as the header orders them. [vocab_size]
std::vector<double> naive_distribution(const Case& c) {
  const SamplingParams& s = c.sampling;
  std::vector<double> logits(c.logits.begin(), c.logits.end());
  std::vector<bool> is_allowed(logits.size(), true);
  for (const LogitBias& bias : c.bias) logits[bias.token] += double{bias.bias};
  if (c.position < s.min_tokens)
    for (const TokenId id : c.stop_ids) is_allowed[id] = false;
  for (const TokenCount& count : c.counts) {
    double& logit = logits[count.token];
    logit = logit > 0 ? logit / double{s.repetition_penalty} : logit * double{s.repetition_penalty};
    if (count.num_output == 0) continue;
    logit -= double{s.frequency_penalty} * count.num_output + double{s.presence_penalty};
  }
  std::vector<TokenId> order;
  for (TokenId id = 0; id < logits.size(); ++id)
    if (is_allowed[id]) order.push_back(id);
  std::ranges::stable_sort(order, [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  std::vector<double> result(logits.size(), 0.0);
  if (s.temperature == 0.0f) {
    result[order[0]] = 1.0;
    return result;
  }
  const double top = logits[order[0]];
  const auto weight = [&](TokenId id) {
    return std::exp((logits[id] - top) / double{s.temperature});
  };
  std::erase_if(order, [&](TokenId id) { return weight(id) < double{s.min_p}; });
  if (s.top_k > 0 && order.size() > s.top_k) order.resize(s.top_k);
  double total = 0.0;
  for (const TokenId id : order) total += weight(id);
  double reached = 0.0;
  for (const TokenId id : order) {
    result[id] = weight(id);
    reached += weight(id);
    if (s.top_p < 1.0f && reached >= double{s.top_p} * total) break;
  }
  for (double& p : result) p /= reached;
  return result;
}

Case random_case(std::mt19937_64& random, std::size_t vocab_size) {
  Case c;
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (std::size_t i = 0; i < vocab_size; ++i) c.logits.push_back(normal(random));
  const auto unit = [&] { return static_cast<float>(random() % 1000) / 1000.0f; };
  c.sampling.seed = random();
  c.sampling.temperature = 0.2f + 1.5f * unit();
  if (random() % 2 == 0) c.sampling.top_k = static_cast<std::uint32_t>(1 + random() % vocab_size);
  if (random() % 2 == 0) c.sampling.top_p = 0.05f + 0.9f * unit();
  if (random() % 3 == 0) c.sampling.min_p = 0.3f * unit();
  c.position = static_cast<std::uint32_t>(random() % 4);
  if (random() % 2 == 0) {
    c.sampling.min_tokens = 2;
    c.stop_ids = {static_cast<TokenId>(random() % vocab_size)};
  }
  if (random() % 2 == 0) c.bias = {{static_cast<TokenId>(random() % vocab_size), 10 * unit() - 5}};
  if (random() % 2 == 0) {
    c.sampling.frequency_penalty = unit();
    c.sampling.presence_penalty = unit() - 0.5f;
    c.sampling.repetition_penalty = 0.5f + unit();
    for (TokenId id = 0; id < vocab_size; id += 3)
      c.counts.push_back({id, static_cast<std::uint32_t>(random() % 3)});
  }
  return c;
}

// Total variation between `num_draws` draws and the distribution; about sqrt(support / draws).
double distance(Sampler& sampler, Case c, const std::vector<double>& expected, int num_draws) {
  std::vector<double> seen(expected.size(), 0.0);
  for (int i = 0; i < num_draws; ++i) {
    c.sampling.seed = static_cast<std::uint64_t>(i);
    const SampledToken sampled = sampler.sample(c.input());
    EXPECT_EQ(sampled.status, SampleStatus::ok);
    EXPECT_GT(expected[sampled.token], 0.0) << "token " << sampled.token << " may not be chosen";
    seen[sampled.token] += 1.0 / num_draws;
  }
  double sum = 0.0;
  for (std::size_t i = 0; i < seen.size(); ++i) sum += std::abs(seen[i] - expected[i]);
  return sum / 2;
}

TEST(Sampler, DrawsFromTheNaiveDistributionWhateverTheParameters) {
  const std::uint64_t seed = test_seed(5);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const std::size_t vocab_size : {5u, 63u, 64u, 65u, 200u}) {
    Sampler sampler(static_cast<std::uint32_t>(vocab_size));
    for (int i = 0; i < 30; ++i) {
      const Case c = random_case(random, vocab_size);
      const std::vector<double> expected = naive_distribution(c);
      const auto support = std::ranges::count_if(expected, [](double p) { return p > 0.0; });
      constexpr int kDraws = 4000;
      EXPECT_LT(distance(sampler, c, expected, kDraws),
                0.02 + 0.8 * std::sqrt(static_cast<double>(support) / kDraws));
    }
  }
}

// Exact, not statistical: the draw is the naive inverse of the same unit where that is unambiguous.
TEST(Sampler, InvertsTheCumulativeDistributionInTheOrderOfIds) {
  std::mt19937_64 random(test_seed(6));
  constexpr std::uint32_t kVocab = 1000;
  Sampler sampler(kVocab);
  int num_compared = 0;
  for (int i = 0; i < 500; ++i) {
    Case c;
    std::normal_distribution<float> normal(0.0f, 2.0f);
    for (std::uint32_t j = 0; j < kVocab; ++j) c.logits.push_back(normal(random));
    c.sampling.seed = random();
    const std::vector<double> expected = naive_distribution(c);
    double left = random_unit({c.sampling.seed, 0, 0}, 0);
    TokenId token = 0;
    while (left >= expected[token]) left -= expected[token++];
    if (left < 1e-5 || expected[token] - left < 1e-5) continue;  // rounding may decide
    ++num_compared;
    EXPECT_EQ(sampler.sample(c.input()).token, token);
  }
  EXPECT_GT(num_compared, 400);
}

TEST(Sampler, GreedyTakesTheLowestIdAmongTheLargest) {
  Case c;
  c.logits.assign(300, -1.0f);
  c.logits[257] = c.logits[130] = c.logits[131] = 2.5f;
  c.sampling.temperature = 0.0f;
  Sampler sampler(300);
  EXPECT_EQ(sampler.sample(c.input()).token, 130u);
}

TEST(Sampler, TopKKeepsTheLowerIdsAmongEqualLogits) {
  Case c;
  c.logits.assign(200, 1.0f);
  c.sampling.top_k = 3;
  Sampler sampler(200);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    c.sampling.seed = seed;
    EXPECT_LT(sampler.sample(c.input()).token, 3u);
  }
}

TEST(Sampler, TopPKeepsTheSmallestSetAndAtLeastOne) {
  Case c;
  c.logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  Sampler sampler(3);
  const auto seen_with = [&](float top_p) {
    c.sampling.top_p = top_p;
    TokenId highest = 0;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      c.sampling.seed = seed;
      highest = std::max(highest, sampler.sample(c.input()).token);
    }
    return highest;
  };
  EXPECT_EQ(seen_with(1e-6f), 0u);
  EXPECT_EQ(seen_with(0.49f), 0u);
  EXPECT_EQ(seen_with(0.6f), 1u);
  EXPECT_EQ(seen_with(0.79f), 1u);
  EXPECT_EQ(seen_with(0.81f), 2u);
}

TEST(Sampler, MinTokensMasksStopIdsUntilThen) {
  Case c;
  c.logits = {0.0f, 9.0f, 1.0f};
  c.stop_ids = {1};
  c.sampling.temperature = 0.0f;
  c.sampling.min_tokens = 2;
  Sampler sampler(3);
  c.position = 1;
  EXPECT_EQ(sampler.sample(c.input()).token, 2u);
  c.position = 2;
  EXPECT_EQ(sampler.sample(c.input()).token, 1u);
}

TEST(Sampler, LogprobIsOfTheUnmodifiedDistributionAndOnlyWhenWanted) {
  Case c;
  c.logits = {1.0f, 2.0f, 3.0f, -4.0f};
  c.bias = {{0, 50.0f}};
  c.sampling.temperature = 0.7f;
  Sampler sampler(4);
  EXPECT_EQ(sampler.sample(c.input()).logprob, 0.0f);
  c.sampling.wants_logprob = 1;
  const SampledToken sampled = sampler.sample(c.input());
  ASSERT_EQ(sampled.token, 0u);
  const double total = std::exp(1.0) + std::exp(2.0) + std::exp(3.0) + std::exp(-4.0);
  EXPECT_NEAR(double{sampled.logprob}, 1.0 - std::log(total), 1e-6);
}

// By sorting the whole row; lower ids first among equal logits.
std::vector<TopLogprob> naive_top(const std::vector<float>& logits, std::size_t count) {
  double total = 0.0;
  for (const float logit : logits) total += std::exp(double{logit});
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  order.resize(std::min(count, order.size()));
  std::vector<TopLogprob> top;
  for (const TokenId id : order)
    top.push_back({id, static_cast<float>(double{logits[id]} - std::log(total))});
  return top;
}

TEST(Sampler, TheLikeliestTokensAreThoseOfTheUnmodifiedRow) {
  std::mt19937_64 random(test_seed(11));
  for (const std::size_t vocab_size : {1u, 5u, 64u, 65u, 1000u, 5000u}) {
    Sampler sampler(static_cast<std::uint32_t>(vocab_size));
    for (const int wanted : {0, 1, 5, 20}) {
      const auto count = static_cast<std::uint16_t>(wanted);
      Case c = random_case(random, vocab_size);
      if (vocab_size > 100)  // ties: the lower id is first
        for (std::size_t i = 0; i < vocab_size; i += 3) c.logits[i] = 9.0f;
      const SampledToken plain = sampler.sample(c.input());
      c.sampling.wants_logprob = 1;
      c.sampling.num_top_logprobs = count;
      std::vector<TopLogprob> room(count);
      SampleInput input = c.input();
      input.top = room;
      const SampledToken sampled = sampler.sample(input);
      EXPECT_EQ(sampled.token, plain.token) << "asking changes no token";
      const std::vector<TopLogprob> naive = naive_top(c.logits, count);
      ASSERT_EQ(sampled.top.size(), naive.size());
      for (std::size_t i = 0; i < naive.size(); ++i) {
        EXPECT_EQ(sampled.top[i].token, naive[i].token);
        EXPECT_NEAR(sampled.top[i].logprob, naive[i].logprob, 2e-6);
        EXPECT_LE(sampled.top[i].logprob, 0.0f);
        if (sampled.top[i].token == sampled.token) {
          EXPECT_EQ(sampled.top[i].logprob, sampled.logprob);
        }
      }
      std::vector<TopLogprob> scored_room(count);
      const SampledToken scored = sampler.score(c.logits, sampled.token, scored_room);
      EXPECT_EQ(scored.logprob, sampled.logprob);
      EXPECT_TRUE(std::ranges::equal(scored.top, sampled.top));
    }
  }
}

TEST(Sampler, ReportsRowsThatAreNotFinite) {
  Sampler sampler(130);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (const std::size_t at : {0u, 63u, 64u, 129u}) {
      Case c;
      c.logits.assign(130, 0.5f);
      c.logits[at] = bad;
      EXPECT_EQ(sampler.sample(c.input()).status, SampleStatus::bad_logits) << at;
      c.sampling.temperature = 0.0f;
      EXPECT_EQ(sampler.sample(c.input()).status, SampleStatus::bad_logits) << at;
    }
  }
}

TEST(Sampler, ReportsARowInWhichNothingMayBeChosen) {
  Case c;
  c.logits = {1.0f, 2.0f};
  c.stop_ids = {0, 1};
  c.sampling.min_tokens = 1;
  Sampler sampler(2);
  EXPECT_EQ(sampler.sample(c.input()).status, SampleStatus::bad_logits);
}

TEST(Sampler, SurvivesExtremesOfEveryParameter) {
  Case c;
  for (int i = 0; i < 70; ++i) c.logits.push_back(i % 2 == 0 ? 3.0e38f : -3.0e38f);
  for (TokenId id = 0; id < 70; ++id) c.counts.push_back({id, 1'000'000});
  Sampler sampler(70);
  for (const float temperature : {0.0f, 1e-4f, 1e-5f, 2.0f})
    for (const float repetition : {1e-30f, 1.0f, 2.0f})
      for (const float top_p : {1e-30f, 0.5f, 1.0f})
        for (const std::uint32_t top_k : {0u, 1u, 69u, 4'000'000'000u}) {
          c.sampling.temperature = temperature;
          c.sampling.repetition_penalty = repetition;
          c.sampling.frequency_penalty = -2.0f;
          c.sampling.top_p = top_p;
          c.sampling.top_k = top_k;
          const SampledToken sampled = sampler.sample(c.input());
          EXPECT_EQ(sampled.status, SampleStatus::ok);
          EXPECT_EQ(sampled.token % 2, 0u);
        }
}

TEST(Sampler, EveryInstructionSetGivesTheSameBits) {
  std::vector<const RowLoops*> variants{&row_loops_baseline()};
  if (__builtin_cpu_supports("avx2")) variants.push_back(&row_loops_avx2());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    variants.push_back(&row_loops_avx512());
  std::mt19937_64 random(test_seed(7));
  for (const std::uint32_t vocab_size : {1u, 64u, 127u, 1000u}) {
    for (int i = 0; i < 100; ++i) {
      Case c = random_case(random, vocab_size);
      c.stop_ids.clear();
      c.sampling.wants_logprob = 1;
      Sampler first(vocab_size, *variants[0]);
      const SampledToken expected = first.sample(c.input());
      for (const RowLoops* variant : variants) {
        Sampler sampler(vocab_size, *variant);
        const SampledToken sampled = sampler.sample(c.input());
        EXPECT_EQ(sampled.token, expected.token) << variant->name;
        EXPECT_EQ(sampled.logprob, expected.logprob) << variant->name;
      }
    }
  }
}

TEST(RowLoops, WeightsAreWithinTheirBoundOfExp) {
  constexpr std::uint32_t kCount = 64 * 200;
  std::vector<float> row(kCount), weights(kCount), maxima(kCount / kRowBlock),
      sums(kCount / kRowBlock);
  for (std::uint32_t i = 0; i < kCount; ++i) row[i] = -86.0f * static_cast<float>(i) / kCount;
  const RowLoops& loops = row_loops();
  ASSERT_TRUE(loops.block_maxima(row.data(), kCount, maxima.data()));
  loops.block_weights(row.data(), kCount, maxima.data(), -1e30f, 0.0f, 1.0f, 0.0f, weights.data(),
                      sums.data());
  for (std::uint32_t i = 0; i < kCount; ++i) {
    const double exact = std::exp(double{row[i]});
    EXPECT_NEAR(double{weights[i]} / exact, 1.0, 3e-7) << row[i];
  }
}

TEST(TokenCounts, CountsWhatOccurs) {
  std::mt19937_64 random(test_seed(8));
  std::map<TokenId, std::uint32_t> naive;
  TokenCounts counts;
  counts.reserve(10);  // less than what comes: it grows
  for (int i = 0; i < 3000; ++i) {
    const auto token = static_cast<TokenId>(random() % 500);
    if (i < 1000) {
      counts.add_prompt(token);
      naive[token] += 0;
    } else {
      counts.add_output(token);
      ++naive[token];
    }
  }
  ASSERT_EQ(counts.counts().size(), naive.size());
  for (const TokenCount& count : counts.counts()) EXPECT_EQ(count.num_output, naive[count.token]);
  counts.clear();
  EXPECT_TRUE(counts.is_empty());
  counts.add_output(7);
  EXPECT_EQ(counts.counts().front().num_output, 1u);
}

}  // namespace
}  // namespace sluice::eng
