// KV token-seconds and device time of sequences: exact on hand-made steps, and through the core.
#include "gateway/core/resource_use.h"

#include <gtest/gtest.h>

#include "tests/unit/gateway_core/core_harness.h"

namespace sluice::gw {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

StepRecord work(std::uint64_t duration_ns, std::uint32_t prefill, std::uint32_t decode) {
  StepRecord head{};
  head.duration_ns = duration_ns;
  head.num_prefill_tokens = prefill;
  head.num_decode_tokens = decode;
  return head;
}

TEST(ResourceUse, APromptCostsTheMeanOfItsStepsAndATokenItsShare) {
  WorkerTime worker;
  worker.take(work(9'000'000, 10, 0));  // before its time
  ResourceMeter meter;
  Tick now{std::chrono::seconds(5)};
  meter.begin(100, worker, now);
  worker.take(work(6'000, 60, 0));
  worker.take(work(4'000, 39, 1));  // 100 ns a token over both
  now += milliseconds(2);
  meter.entry(20, worker, now);
  EXPECT_EQ(meter.use().device_ns, 80u * 100);
  EXPECT_EQ(meter.use().kv_token_us, 100u * 2000);
  meter.grow();
  worker.take(work(3'000, 0, 4));
  now += milliseconds(1);
  meter.entry(20, worker, now);
  EXPECT_EQ(meter.use().device_ns, 80u * 100 + 750);
  EXPECT_EQ(meter.use().kv_token_us, 100u * 2000 + 101u * 1000);
  meter.end(now + milliseconds(1));
  meter.hold(now + milliseconds(9));  // nothing is held any more
  EXPECT_EQ(meter.use().kv_token_us, 100u * 2000 + 2 * 101u * 1000);
}

TEST(ResourceUse, PartsOfAMicrosecondAreNotLost) {
  WorkerTime worker;
  ResourceMeter meter;
  Tick now{std::chrono::seconds(5)};
  meter.begin(3, worker, now);
  for (int i = 0; i < 10'000; ++i) meter.hold(now += nanoseconds(300));
  EXPECT_EQ(meter.use().kv_token_us, 3u * 3000);
  meter.hold(now - microseconds(5));  // a clock that went back counts nothing
  EXPECT_EQ(meter.use().kv_token_us, 3u * 3000);
}

TEST(ResourceUse, AWorkerThatSaysNonsenseOverflowsNothing) {
  WorkerTime worker;
  ResourceMeter meter;
  meter.begin(kContextTokensMax, worker, Tick{});
  worker.take(work(~0ull, 1, 0));
  meter.entry(~0u, worker, Tick{});
  EXPECT_EQ(meter.use().device_ns, 0u) << "more cached than held";
  meter.begin(kContextTokensMax, worker, Tick{});
  worker.take(work(~0ull, 1, 0));
  meter.entry(0, worker, Tick{});
  EXPECT_EQ(meter.use().device_ns, kContextTokensMax * kStepNsMax);
  worker.take(work(5, 0, 0));
  meter.entry(0, worker, Tick{});
  EXPECT_EQ(meter.use().device_ns, kContextTokensMax * kStepNsMax) << "a step without tokens";
}

// Two choices of 20 prompt tokens, 10 steps of 1 ms that compute both.
TEST(ResourceUse, ReachesTheJournalWithTheEndOfASequence) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  ASSERT_TRUE(h.submit(CoreHarness::spec(1, 10, 2)));
  std::uint64_t kv_token_us = 0;
  for (std::uint64_t step = 0; step < 10; ++step) {
    h.now += milliseconds(2);
    kv_token_us += 2 * (20 + step) * 2000;
    h.step(0);
    h.deliver();
  }
  EXPECT_EQ(h.used.kv_token_us, kv_token_us);
  // The fake worker calls two tokens a step its work: the first step's mean, for 20 tokens each.
  EXPECT_EQ(h.used.device_ns, 2 * (20 + 9) * 500'000u);
}

TEST(ResourceUse, WhatACancelledSequenceHeldCounts) {
  CoreHarness h(CoreHarness::params(1));
  h.up(0);
  const auto handle = h.submit(CoreHarness::spec(1, 10));
  ASSERT_TRUE(handle);
  h.now += milliseconds(7);
  h.cancel(*handle);
  EXPECT_EQ(h.used.kv_token_us, 20u * 7000);
  EXPECT_EQ(h.used.device_ns, 0u);
}

}  // namespace
}  // namespace sluice::gw
