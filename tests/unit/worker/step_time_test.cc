// The step time predictor: unknown, learnt, and extrapolated.
#include "worker/core/step_time.h"

#include <gtest/gtest.h>

namespace sluice::eng {
namespace {

using std::chrono::microseconds;

TEST(StepTime, KnowsNothingBeforeTheFirstStep) {
  EXPECT_EQ(StepTime{}.predict(64), Duration::zero());
}

TEST(StepTime, FollowsWhatItSees) {
  StepTime time;
  time.observe(64, microseconds(100));
  EXPECT_EQ(time.predict(64), microseconds(100));
  for (int i = 0; i < 100; ++i) time.observe(64, microseconds(200));
  EXPECT_NEAR(static_cast<double>(time.predict(64).count()), 200e3, 200);
}

TEST(StepTime, ScalesUpInProportionAndNeverDown) {
  StepTime time;
  time.observe(64, microseconds(100));
  EXPECT_EQ(time.predict(512), microseconds(800));
  EXPECT_EQ(time.predict(1), microseconds(100));
}

}  // namespace
}  // namespace sluice::eng
