// The perplexity of ids by the tiny model against a naive one: each id's probability from the row
// that the model gives when all ids before it are computed at once.
#include "worker/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/executor_driver.h"
#include "worker/executor_cpu.h"

namespace sluice::test {
namespace {

constexpr std::uint32_t kBlocks = 16;

std::unique_ptr<eng::ExecutorCpu> tiny_model(std::uint32_t step_tokens_max) {
  eng::ExecutorCpuOptions options;
  options.directory = SLUICE_GOLDEN_DIR "/tiny_llama/bf16_sharded";
  options.num_blocks = kBlocks;
  options.sequences_max = 1;
  options.step_tokens_max = step_tokens_max;
  auto executor = eng::ExecutorCpu::open(options);
  EXPECT_TRUE(executor);
  return std::move(*executor);
}

std::vector<TokenId> some_ids(std::size_t count) {
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>(3 + i * i * 7 % 150));
  return ids;
}

double naive_nll(eng::Executor& executor, const std::vector<TokenId>& before, TokenId next) {
  const DrivenSequence sequence{before, consecutive_blocks(kBlocks)};
  const eng::SequenceSpan span = sequence.span(before.size());
  const std::span<const float> logits = executor.forward({&span, 1});
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  return std::log(sum) - static_cast<double>(logits[next]);
}

TEST(Perplexity, IsTheMeanOfTheSecondHalvesOfChunks) {
  const auto executor = tiny_model(256);
  const std::vector<TokenId> ids = some_ids(3 * 18 + 5);
  constexpr TokenId kBos = 1;
  double sum = 0;
  for (std::size_t chunk = 0; chunk < 3; ++chunk) {
    std::vector<TokenId> before{kBos};
    before.insert(before.end(), ids.begin() + static_cast<std::ptrdiff_t>(chunk * 18 + 1),
                  ids.begin() + static_cast<std::ptrdiff_t>(chunk * 18 + 10));
    for (std::size_t i = 10; i < 18; ++i) {
      sum += naive_nll(*executor, before, ids[chunk * 18 + i]);
      before.push_back(ids[chunk * 18 + i]);
    }
  }
  std::uint64_t calls = 0;
  const auto got = eng::measure_perplexity(
      *executor, ids, {.context_tokens = 18, .chunks_max = 0, .bos = kBos},
      [&](const eng::Perplexity& so_far) { EXPECT_EQ(so_far.num_chunks, ++calls); });
  ASSERT_TRUE(got) << got.error().detail;
  EXPECT_EQ(got->num_chunks, 3u);
  EXPECT_EQ(got->num_scored, 24u);
  EXPECT_NEAR(got->mean_nll, sum / 24, 1e-5);
  EXPECT_DOUBLE_EQ(got->value, std::exp(got->mean_nll));
  EXPECT_GT(got->standard_error, 0.0);
}

TEST(Perplexity, DoesNotDependOnTheSteps) {
  const std::vector<TokenId> ids = some_ids(400);
  const eng::PerplexityOptions options{.context_tokens = 200, .chunks_max = 0, .bos = {}};
  const auto whole = eng::measure_perplexity(*tiny_model(512), ids, options, {});
  const auto pieces = eng::measure_perplexity(*tiny_model(7), ids, options, {});
  ASSERT_TRUE(whole && pieces);
  EXPECT_EQ(whole->mean_nll, pieces->mean_nll);
  EXPECT_EQ(whole->num_scored, 2u * 99);
  const auto first = eng::measure_perplexity(
      *tiny_model(512), ids, {.context_tokens = 200, .chunks_max = 1, .bos = {}}, {});
  EXPECT_EQ(first->num_chunks, 1u);
}

TEST(Perplexity, RefusesWhatDoesNotFit) {
  const auto executor = tiny_model(256);
  const auto refused = [&](std::size_t ids, std::uint32_t context) {
    const auto got = eng::measure_perplexity(
        *executor, some_ids(ids), {.context_tokens = context, .chunks_max = 0, .bos = {}}, {});
    return got ? "accepted" : got.error().param;
  };
  EXPECT_EQ(refused(99, 100), "file");
  EXPECT_EQ(refused(1000, 513), "context");  // the model's is 512
}

}  // namespace
}  // namespace sluice::test
