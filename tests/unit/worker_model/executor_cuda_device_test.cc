// ExecutorCuda on a real device, where there is one: logits beside those of the CPU, in prefill and
// in decode. Skips itself, visibly, without a device.
#include <gtest/gtest.h>

#include "tests/support/executor_driver.h"
#include "worker/executor_cpu.h"
#include "worker/executor_cuda.h"

namespace sluice::test {
namespace {

// cuBLAS sums in orders of its own: a few dozen units of 2^-24 of logits within +-20.
constexpr float kDeviceLogitBound = 2e-4f;

TEST(ExecutorCudaOnADevice, AgreesWithTheCpu) {
  std::string why;
  const krn::cuda::DeviceTable* const table =
      krn::cuda::load_device_module(SLUICE_CUDA_MODULE, why);
  ASSERT_NE(table, nullptr) << why;
  if (table->num_devices(why) == 0) GTEST_SKIP() << "no CUDA device here: " << why;
  for (const char* name : {"bf16_sharded", "f32_interleaved", "f16_llama3"}) {
    const std::string directory = SLUICE_GOLDEN_DIR "/tiny_llama/" + std::string(name);
    eng::ExecutorCpuOptions cpu_options;
    cpu_options.directory = directory;
    eng::ExecutorCudaOptions cuda_options;
    cuda_options.directory = directory;
    const auto cpu = eng::ExecutorCpu::open(cpu_options);
    const auto cuda = eng::ExecutorCuda::open(cuda_options, *table);
    ASSERT_TRUE(cpu.has_value());
    ASSERT_TRUE(cuda.has_value()) << cuda.error().detail;
    std::vector<TokenId> ids;
    for (TokenId i = 0; i < 150; ++i) ids.push_back((5 + 37 * i + i * i) % 90);
    const DrivenSequence sequence{ids, consecutive_blocks(10, 7)};
    const auto want = logits_alone(**cpu, sequence, 1);
    for (const std::size_t chunk : {1u, 17u, 150u}) {
      const auto got = logits_alone(**cuda, sequence, chunk);
      for (std::size_t i = 0; i < got.size(); ++i)
        for (std::size_t v = 0; v < got[i].size(); ++v)
          ASSERT_NEAR(got[i][v], want[i][v], kDeviceLogitBound) << name << " chunk " << chunk;
    }
  }
}

}  // namespace
}  // namespace sluice::test
