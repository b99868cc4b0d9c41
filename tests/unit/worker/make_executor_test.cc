// From a model's configuration to its executor: the built-in canned model, and what cannot be
// loaded.
#include "worker/make_executor.h"

#include <gtest/gtest.h>

#include "config/load_config.h"
#include "tests/support/canned_config.h"
#include "tests/support/worker_builders.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace sluice::eng {
namespace {

TEST(MakeExecutor, TheCannedModelStreamsReadableText) {
  const cfg::Model model = test::canned_model_config();
  const auto executor = make_executor(model);
  ASSERT_TRUE(executor) << executor.error().detail;
  const auto tokenizer = tok::Tokenizer::load(cfg::tokenizer_path(model));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ((*executor)->facts().vocab_size, tokenizer->vocabulary().size);
  EXPECT_NE((*executor)->facts().weights_digest, 0u);
  ManualClock clock;
  Engine engine(**executor, clock, scheduler_limits((*executor)->facts(), {1, 2}));
  const Submission submission = Submission(1).output_max(300).temperature(1.0f);
  ASSERT_TRUE(engine.scheduler().add(submission.view(), clock.now()));
  Endings endings;
  while (engine.scheduler().has_sequences()) {
    engine.plan();
    collect(engine.compute().entries, endings);
  }
  ASSERT_EQ(endings[1].tokens.size(), 300u);
  std::string text;
  for (const TokenId id : endings[1].tokens) {
    if (id != *tokenizer->vocabulary().eos) {
      EXPECT_FALSE(tokenizer->is_special(id)) << id;
    }
    text += tokenizer->piece_bytes(id);
  }
  EXPECT_TRUE(tok::is_valid_utf8(text));
  EXPECT_GT(text.size(), 300u);
}

TEST(MakeExecutor, AMissingTokenizerIsAnErrorThatNamesIt) {
  cfg::Model model = test::canned_model_config();
  model.tokenizer = "/nowhere/tokenizer.model";
  const auto executor = make_executor(model);
  ASSERT_FALSE(executor);
  EXPECT_NE(executor.error().detail.find("/nowhere/tokenizer.model"), std::string::npos);
}

// The module lies beside the programs where the toolkit was found; either way the reason is told.
TEST(MakeExecutor, CudaWithoutADeviceIsAnErrorThatSaysSo) {
  cfg::Model model;
  model.tokenizer = cfg::tokenizer_path(model);
  model.kind = cfg::ModelKind::llama;
  model.path = SLUICE_GOLDEN_DIR "/tiny_llama/bf16_sharded";
  model.device = cfg::DeviceKind::cuda;
  const auto executor = make_executor(model);
  if (executor || executor.error().code == Errc::bad_file) GTEST_SKIP() << "there is a CUDA device";
  EXPECT_EQ(executor.error().detail.rfind("device: cuda: ", 0), 0u) << executor.error().detail;
  EXPECT_EQ(executor.error().param, "device");
}

}  // namespace
}  // namespace sluice::eng
