// Every sequence of up to six operations on a tiny scheduler: three sequences are added or
// cancelled and steps are made in all orders, with blocks for about one and a half of them. After
// each operation the invariants hold; afterwards everything drains and each sequence has ended
// exactly once, with the tokens that it gives alone.
#include <gtest/gtest.h>

#include <array>
#include <tuple>

#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

CannedModel tiny_model() {
  CannedModel model = a_canned_model(8);
  model.facts.block_tokens = 2;
  model.facts.num_blocks = 4;
  model.facts.context_tokens = 8;
  model.facts.sequences_max = 2;
  model.facts.step_tokens_max = 3;
  return model;
}

std::array<Submission, 3> tiny_submissions() {
  return {Submission(1).prompt({3, 4, 5}).output_max(4),
          Submission(2).prompt({3, 4, 5, 6}).output_max(2).security_class(1),
          Submission(3).prompt({3, 4}).output_max(5)};
}

enum class Operation { add_1, add_2, add_3, cancel_1, cancel_3, step, count };
constexpr int kOperations = static_cast<int>(Operation::count);
constexpr int kLength = 6;

// One block at a time is looked up or given back, or all at once.
class Interleavings : public ::testing::TestWithParam<std::tuple<ClassPolicy, std::uint32_t>> {};

TEST_P(Interleavings, EndEverySequenceOnceWithItsOwnTokens) {
  const std::array<Submission, 3> submissions = tiny_submissions();
  std::array<std::vector<TokenId>, 3> alone;
  for (std::size_t i = 0; i < 3; ++i) alone[i] = run_alone(submissions[i], tiny_model()).tokens;
  int all = 1;
  for (int i = 0; i < kLength; ++i) all *= kOperations;
  for (int number = 0; number < all; ++number) {
    CannedEngine e(tiny_model(), std::get<0>(GetParam()), std::get<1>(GetParam()));
    std::array<bool, 3> was_added{};
    for (int i = 0, rest = number; i < kLength; ++i, rest /= kOperations) {
      const int operation = rest % kOperations;
      switch (static_cast<Operation>(operation)) {
        case Operation::add_1:
        case Operation::add_2:
        case Operation::add_3: {
          const auto index = static_cast<std::size_t>(operation);
          if (was_added[index]) break;
          ASSERT_TRUE(e.add(submissions[index]));
          was_added[index] = true;
          break;
        }
        case Operation::cancel_1:
          e.engine.scheduler().cancel(SequenceId{1});
          break;
        case Operation::cancel_3:
          e.engine.scheduler().cancel(SequenceId{3});
          break;
        default:
          e.step();
      }
      e.engine.scheduler().check_invariants();
    }
    e.run(200);
    e.step();
    ASSERT_FALSE(e.engine.scheduler().has_work()) << number;
    for (std::size_t i = 0; i < 3; ++i) {
      if (!was_added[i]) continue;
      const Ended& ended = e.endings[submissions[i].id()];
      ASSERT_EQ(ended.num_ends, 1u) << number;
      ASSERT_LE(ended.tokens.size(), alone[i].size()) << number;
      ASSERT_TRUE(std::equal(ended.tokens.begin(), ended.tokens.end(), alone[i].begin())) << number;
      if (ended.finish != FinishReason::cancelled) {
        ASSERT_EQ(ended.tokens, alone[i]) << number;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ClassesAndIntake, Interleavings,
                         ::testing::Combine(::testing::Values(ClassPolicy::separate,
                                                              ClassPolicy::mixed),
                                            ::testing::Values(2u, 1000u)));

}  // namespace
}  // namespace sluice::eng
