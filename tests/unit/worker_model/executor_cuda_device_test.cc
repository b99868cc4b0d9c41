// ExecutorCuda on a real device, where there is one: logits beside those of the CPU, in prefill and
// in decode; the golden digest of a worker; recorded steps beside plain ones, bit by bit. Skips
// itself, visibly, without a device.
#include <gtest/gtest.h>

#include <set>

#include "tests/support/executor_driver.h"
#include "tests/support/model_files.h"
#include "worker/executor_cpu.h"
#include "worker/executor_cuda.h"
#include "worker/golden_digest.h"

namespace sluice::test {
namespace {

// cuBLAS sums in orders of its own: a few dozen units of 2^-24 of logits within +-20.
constexpr float kDeviceLogitBound = 2e-4f;
const char* const kModels[] = {"bf16_sharded", "f32_interleaved", "f16_llama3"};

std::string model_path(const char* name) {
  return SLUICE_GOLDEN_DIR "/tiny_llama/" + std::string(name);
}

class ExecutorCudaOnADevice : public testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    table_ = krn::cuda::load_device_module(SLUICE_CUDA_MODULE, why);
    ASSERT_NE(table_, nullptr) << why;
    if (table_->num_devices(why) == 0) GTEST_SKIP() << "no CUDA device here: " << why;
  }
  std::unique_ptr<eng::ExecutorCuda> open(const std::string& directory,
                                          std::uint32_t recordings_max) {
    eng::ExecutorCudaOptions options;
    options.directory = directory;
    options.recordings_max = recordings_max;
    auto executor = eng::ExecutorCuda::open(options, *table_);
    EXPECT_TRUE(executor.has_value()) << executor.error().detail;
    return std::move(*executor);
  }
  const krn::cuda::DeviceTable* table_ = nullptr;
};

std::unique_ptr<eng::ExecutorCpu> open_cpu(const char* name) {
  eng::ExecutorCpuOptions options;
  options.directory = model_path(name);
  auto executor = eng::ExecutorCpu::open(options);
  EXPECT_TRUE(executor.has_value());
  return std::move(*executor);
}

TEST_F(ExecutorCudaOnADevice, AgreesWithTheCpu) {
  for (const char* name : kModels) {
    const auto cpu = open_cpu(name);
    const auto cuda = open(model_path(name), 32);
    std::vector<TokenId> ids;
    for (TokenId i = 0; i < 150; ++i) ids.push_back((5 + 37 * i + i * i) % 90);
    const DrivenSequence sequence{ids, consecutive_blocks(10, 7)};
    const auto want = logits_alone(*cpu, sequence, 1);
    for (const std::size_t chunk : {1u, 17u, 150u}) {
      const auto got = logits_alone(*cuda, sequence, chunk);
      for (std::size_t i = 0; i < got.size(); ++i)
        for (std::size_t v = 0; v < got[i].size(); ++v)
          ASSERT_NEAR(got[i][v], want[i][v], kDeviceLogitBound) << name << " chunk " << chunk;
    }
  }
}

TEST_F(ExecutorCudaOnADevice, TheGoldenDigestIsThatOfTheCpusTokens) {
  const auto go_on = [] { return true; };
  std::set<std::uint64_t> digests;
  for (const char* name : kModels) {
    SCOPED_TRACE(name);
    const auto cpu = open_cpu(name);
    TokensOf tokens(*cpu);
    const auto want = eng::GoldenDigest(tokens, BlockId(40)).take(go_on);
    EXPECT_GT(tokens.margin_min, 10 * kDeviceLogitBound);
    for (const std::uint32_t recordings_max : {0u, 32u}) {
      const auto cuda = open(model_path(name), recordings_max);
      eng::GoldenDigest golden(*cuda, BlockId(3));
      EXPECT_EQ(golden.take(go_on), want);
      EXPECT_EQ(golden.take(go_on), want);
      EXPECT_EQ(cuda->num_replays() > 8, recordings_max > 0);
    }
    digests.insert(want.value());
  }
  EXPECT_EQ(digests.size(), 3u);  // other weights, another number
}

// Up to 32 tokens a step, so through our own kernel and through cuBLAS; contexts beyond one chunk
// of attention; more shapes than there is room for.
TEST_F(ExecutorCudaOnADevice, ARecordedStepHasTheBitsOfAPlainOne) {
  const TemporaryDirectory directory;
  write_random_model(directory.path(), {});
  const struct {
    std::string directory;
    std::uint32_t start;
  } cases[] = {
      {model_path("bf16_sharded"), 0}, {model_path("f16_llama3"), 0}, {directory.path(), 506}};
  for (const auto& c : cases)
    for (const std::size_t count : {4u, 8u, 32u}) {
      SCOPED_TRACE(c.directory + " " + std::to_string(count));
      const auto plain = walk_in_shapes(*open(c.directory, 0), count, c.start, 3);
      for (const std::uint32_t recordings_max : {32u, 2u}) {
        const auto cuda = open(c.directory, recordings_max);
        ASSERT_EQ(walk_in_shapes(*cuda, count, c.start, 3), plain) << recordings_max;
        EXPECT_GE(cuda->num_replays(), 16u);
      }
    }
}

}  // namespace
}  // namespace sluice::test
