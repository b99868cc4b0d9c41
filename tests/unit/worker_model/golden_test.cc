// The committed tiny models against an independent implementation (PyTorch, float64): logits within
// 1e-4 and 200 greedy tokens exactly, on every kernel path; every margin of the two best logits
// exceeds 1e-3, so equal tokens follow from the logits' bound.
#include <gtest/gtest.h>

#include <sstream>

#include "tests/support/golden_model.h"
#include "worker/executor_cpu.h"
#include "worker/model/inspect.h"

namespace sluice::test {
namespace {

const char* const kModels[] = {"bf16_sharded",   "f32_interleaved", "f16_llama3",
                               "mistral_window", "qwen2_bias",      "qwen3_norm"};

std::string model_path(const std::string& name) {
  return SLUICE_GOLDEN_DIR "/tiny_llama/" + name;
}

TEST(Golden, LogitsAndGreedyTokensAgreeWithTheIndependentImplementation) {
  for (const char* name : kModels) {
    const std::vector<Expectation> lines = read_expectations(model_path(name) + "/expected.jsonl");
    ASSERT_EQ(lines.size(), 3u);
    for (const krn::KernelTable* const* t = krn::usable_kernels(); *t != nullptr; ++t) {
      eng::ExecutorCpuOptions options;
      options.directory = model_path(name);
      options.kernels = (*t)->name;
      options.num_blocks = 64;
      auto executor = eng::ExecutorCpu::open(options);
      ASSERT_TRUE(executor.has_value()) << executor.error().detail;
      for (const Expectation& line : lines) {
        SCOPED_TRACE(testing::Message()
                     << name << " " << (*t)->name << " prompt " << line.prompt_ids.size());
        EXPECT_GT(line.smallest_margin, 1e-3);
        EXPECT_EQ(line.greedy_ids.size(), 200u);
        const Comparison got = compare(**executor, line, 512);
        EXPECT_TRUE(got.finite);
        EXPECT_LE(got.logit_error_max, 1e-4);
        EXPECT_EQ(got.greedy_equal, line.greedy_ids.size());
      }
    }
  }
}

// Rounded caches move logits (their spread is about 4) by little: f16 by no more than 2 % of a
// unit, int8 by half a unit at most.
TEST(Golden, NarrowCachesStayNearTheIndependentImplementation) {
  for (const char* name : {"bf16_sharded", "mistral_window", "qwen3_norm"}) {
    for (const krn::KvType type : {krn::KvType::f16, krn::KvType::int8}) {
      eng::ExecutorCpuOptions options;
      options.directory = model_path(name);
      options.num_blocks = 64;
      options.kv_type = type;
      auto executor = eng::ExecutorCpu::open(options);
      ASSERT_TRUE(executor.has_value()) << executor.error().detail;
      for (Expectation& line : read_expectations(model_path(name) + "/expected.jsonl")) {
        line.greedy_ids.resize(1);
        const Comparison got = compare(**executor, line, 512);
        EXPECT_TRUE(got.finite);
        EXPECT_LE(got.logit_error_max, type == krn::KvType::f16 ? 0.02 : 0.5) << name;
        EXPECT_GT(got.logit_error_max, 5e-5) << "the cache is not what was asked for";
      }
    }
  }
}

TEST(Inspect, PrintsTheModelAndItsDigest) {
  std::ostringstream out;
  std::ostringstream errors;
  EXPECT_EQ(eng::inspect_model(model_path("bf16_sharded"), out, errors), 0) << errors.str();
  EXPECT_EQ(errors.str(), "");
  EXPECT_NE(out.str().find("vocabulary           160\n"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find("matrices             BF16\n"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find("parameters           54768\n"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find("model-00003-of-00003.safetensors"), std::string::npos) << out.str();
}

TEST(Inspect, SaysWhatIsWrongInOneLine) {
  std::ostringstream out;
  std::ostringstream errors;
  EXPECT_EQ(eng::inspect_model("/nonexistent", out, errors), 1);
  EXPECT_EQ(out.str(), "");
  EXPECT_EQ(errors.str(), "error: config.json: cannot be opened: No such file or directory\n");
}

}  // namespace
}  // namespace sluice::test
