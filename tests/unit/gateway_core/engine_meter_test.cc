// EngineMeter: counters and rates of step records with known figures, over epochs and over the
// window; absurd figures of a worker stay numbers.
#include "gateway/core/engine_meter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace sluice::gw {
namespace {

WorkerFacts facts() {
  return {.block_tokens = 16,
          .num_blocks = 64,
          .sequences_max = 8,
          .step_tokens_max = 64,
          .peak_operations_per_second = 100'000'000'000,
          .peak_bytes_per_second = 10'000'000'000};
}

// A step of 2 ms, half of it in the executor: 12 prefill and 4 decode tokens of 5 sequences.
StepRecord busy_step() {
  StepRecord head{};
  head.duration_ns = 2'000'000;
  head.forward_ns = 1'000'000;
  head.num_prefill_tokens = 12;
  head.num_decode_tokens = 4;
  head.num_sequences = 5;
  head.operations = 25'000'000;  // of the 100 million that a millisecond allows
  head.bytes_moved = 5'000'000;  // of 10 million
  head.num_preemptions = 1;
  head.num_prefix_queries = 30;
  head.num_prefix_hits = 16;
  return head;
}

EngineMeter opened() {
  EngineMeter meter;
  meter.open(3, facts());
  return meter;
}

TEST(EngineMeter, CountsWhatTheStepsSay) {
  EngineMeter meter = opened();
  StepRecord credits{};  // nothing computed: only told
  credits.duration_ns = 77;
  meter.take(credits);
  for (int i = 0; i < 10; ++i) meter.take(busy_step());
  const EngineCounters& c = meter.counters();
  EXPECT_EQ(c.steps, 11u);
  EXPECT_EQ(c.prefill_tokens, 120u);
  EXPECT_EQ(c.decode_tokens, 40u);
  EXPECT_EQ(c.prefix_queries, 300u);
  EXPECT_EQ(c.prefix_hits, 160u);
  EXPECT_EQ(c.preemptions, 10u);
  EXPECT_DOUBLE_EQ(c.busy_seconds, 0.02);
  EXPECT_DOUBLE_EQ(c.forward_seconds, 0.01);
  EXPECT_DOUBLE_EQ(c.operations, 250e6);
  EXPECT_DOUBLE_EQ(c.bytes_moved, 50e6);
  EXPECT_EQ(c.step_tokens.count(), 10u);
  EXPECT_EQ(c.step_tokens.sum(), 160);
  EXPECT_EQ(c.step_time.count(), 10u);
  EXPECT_EQ(c.step_time.sum(), 20'000'000);
}

TEST(EngineMeter, RatesAreOfBusyTimeAndOfThePeaks) {
  EngineMeter meter = opened();
  for (int i = 0; i < 10; ++i) meter.take(busy_step());
  const EngineRates rates = meter.rates();
  EXPECT_DOUBLE_EQ(rates.prefill_tokens_per_second, 6000);
  EXPECT_DOUBLE_EQ(rates.decode_tokens_per_second, 2000);
  EXPECT_DOUBLE_EQ(rates.sequences_fill, 5.0 / 8);
  EXPECT_DOUBLE_EQ(rates.tokens_fill, 16.0 / 64);
  EXPECT_DOUBLE_EQ(rates.operations_share, 0.25);
  EXPECT_DOUBLE_EQ(rates.bandwidth_share, 0.5);
}

TEST(EngineMeter, WithoutStepsOrPeaksEverythingIsZero) {
  EngineMeter meter = opened();
  EXPECT_EQ(meter.rates().decode_tokens_per_second, 0);
  EXPECT_EQ(meter.rates().sequences_fill, 0);
  meter.open(3, {.sequences_max = 8, .step_tokens_max = 64});
  meter.take(busy_step());
  EXPECT_EQ(meter.rates().operations_share, 0);
  EXPECT_EQ(meter.rates().bandwidth_share, 0);
  EXPECT_GT(meter.rates().tokens_fill, 0);
}

TEST(EngineMeter, GoesOnOverEpochs) {
  EngineMeter meter = opened();
  meter.take(busy_step());
  meter.open(3, facts());
  meter.take(busy_step());
  EXPECT_TRUE(meter.was_up());
  EXPECT_EQ(meter.model(), 3u);
  EXPECT_EQ(meter.counters().steps, 2u);
}

TEST(EngineMeter, TheWindowForgetsWhatWasLongAgo) {
  EngineMeter meter = opened();
  for (int i = 0; i < 10'000; ++i) meter.take(busy_step());
  StepRecord slow = busy_step();
  slow.duration_ns = 20'000'000;
  for (int i = 0; i < 1000; ++i) meter.take(slow);  // 20 s of them
  EXPECT_NEAR(meter.rates().decode_tokens_per_second, 200, 20);
  EXPECT_EQ(meter.counters().decode_tokens, 44'000u);
}

TEST(EngineMeter, AbsurdFiguresStayNumbers) {
  EngineMeter meter;
  const auto most = std::numeric_limits<std::uint64_t>::max();
  for (std::uint64_t i = 0; i < 3'000'000; ++i) {
    if (i % 1'000'000 == 0)
      meter.open(0, {.sequences_max = 1, .step_tokens_max = 1, .peak_bytes_per_second = most});
    StepRecord head = busy_step();
    head.duration_ns = most;
    head.forward_ns = most;
    head.operations = most;
    head.bytes_moved = most;
    head.num_prefill_tokens = head.num_decode_tokens = 0xffffffffu;
    meter.take(head);
  }
  const EngineRates rates = meter.rates();
  for (const double rate : {rates.prefill_tokens_per_second, rates.decode_tokens_per_second,
                            rates.sequences_fill, rates.tokens_fill, rates.operations_share,
                            rates.bandwidth_share, meter.counters().busy_seconds})
    EXPECT_TRUE(std::isfinite(rate));
  EXPECT_EQ(meter.counters().step_time.sum(), std::numeric_limits<std::int64_t>::max());
}

}  // namespace
}  // namespace sluice::gw
