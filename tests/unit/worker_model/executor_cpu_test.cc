// ExecutorCpu beyond its logits: facts, options, memory that becomes zero, and no allocation per
// step.
#include "worker/executor_cpu.h"

#include <gtest/gtest.h>

#include "tests/support/allocation_count.h"
#include "tests/support/executor_driver.h"
#include "tests/support/model_files.h"

namespace sluice::test {
namespace {

eng::ExecutorCpuOptions tiny_options(const char* name = "bf16_sharded") {
  eng::ExecutorCpuOptions options;
  options.directory = SLUICE_GOLDEN_DIR "/tiny_llama/" + std::string(name);
  options.num_blocks = 64;
  return options;
}

TEST(ExecutorCpu, SaysItsFacts) {
  eng::ExecutorCpuOptions options = tiny_options();
  options.kernels = "scalar";
  const auto executor = eng::ExecutorCpu::open(options);
  ASSERT_TRUE(executor.has_value()) << executor.error().detail;
  const WorkerFacts facts = (*executor)->facts();
  EXPECT_EQ(facts.vocab_size, 160u);
  EXPECT_EQ(facts.context_tokens, 512u);  // the model's, below the 4096 asked for
  EXPECT_EQ(facts.block_tokens, 16u);
  EXPECT_EQ(facts.num_blocks, 64u);
  EXPECT_EQ(facts.sequences_max, 64u);
  EXPECT_EQ(facts.step_tokens_max, 512u);
  EXPECT_STREQ((*executor)->kernel_name(), "scalar");
  // Two layers, K and V, 2 heads of 12, 16 slots, 4 bytes, 64 blocks.
  EXPECT_EQ((*executor)->kv_bytes(), 2u * 2 * 2 * 12 * 16 * 4 * 64);
}

TEST(ExecutorCpu, DigestAndKernelPathTellModelsAndPathsApart) {
  eng::ExecutorCpuOptions options = tiny_options();
  options.kernels = "scalar";
  const auto first = eng::ExecutorCpu::open(options);
  options.threads = 2;
  const auto again = eng::ExecutorCpu::open(options);
  options = tiny_options("f16_llama3");
  const auto other = eng::ExecutorCpu::open(options);
  ASSERT_TRUE(first.has_value() && again.has_value() && other.has_value());
  EXPECT_EQ((*first)->facts().weights_digest, (*again)->facts().weights_digest);
  EXPECT_EQ((*first)->facts().kernel_path, (*again)->facts().kernel_path);
  EXPECT_NE((*first)->facts().weights_digest, (*other)->facts().weights_digest);
  options = tiny_options();
  options.kernels = "scalar";
  for (const eng::MatrixForm form : {eng::MatrixForm::int8, eng::MatrixForm::int4}) {
    options.load.matrices = form;
    const auto quantized = eng::ExecutorCpu::open(options);
    ASSERT_TRUE(quantized.has_value());
    EXPECT_EQ((*first)->facts().weights_digest, (*quantized)->facts().weights_digest);
    EXPECT_NE((*first)->facts().kernel_path, (*quantized)->facts().kernel_path);
  }
  options.load = {};
  for (const krn::KvType type : {krn::KvType::f16, krn::KvType::int8}) {
    options.kv_type = type;
    const auto narrow = eng::ExecutorCpu::open(options);
    ASSERT_TRUE(narrow.has_value());
    EXPECT_NE((*first)->facts().kernel_path, (*narrow)->facts().kernel_path);
    // Heads of 12: 48 bytes, 24, or 12 and a scale.
    const std::size_t per_position = type == krn::KvType::f16 ? 24 : 16;
    EXPECT_EQ((*narrow)->kv_bytes(), (*first)->kv_bytes() * per_position / 48);
  }
  if (std::string((*other)->kernel_name()) != "scalar") {
    EXPECT_NE((*first)->facts().kernel_path, (*other)->facts().kernel_path);
  }
}

TEST(ExecutorCpu, RefusesOptionsOutOfRangeByName) {
  const auto refused = [](auto change) {
    eng::ExecutorCpuOptions options = tiny_options();
    change(options);
    const auto executor = eng::ExecutorCpu::open(options);
    return executor ? std::string("accepted") : executor.error().param;
  };
  using O = eng::ExecutorCpuOptions;
  EXPECT_EQ(refused([](O& o) { o.context_tokens = 0; }), "context_tokens");
  EXPECT_EQ(refused([](O& o) { o.block_tokens = 24; }), "block_tokens");
  EXPECT_EQ(refused([](O& o) { o.num_blocks = 0; }), "num_blocks");
  EXPECT_EQ(refused([](O& o) { o.sequences_max = 257; }), "sequences_max");
  EXPECT_EQ(refused([](O& o) { o.step_tokens_max = 0; }), "step_tokens_max");
  EXPECT_EQ(refused([](O& o) { o.threads = 65; }), "threads");
  EXPECT_EQ(refused([](O& o) { o.kernels = "neon"; }), "kernels");
  EXPECT_EQ(refused([](O& o) {
              o.num_blocks = 0xffffffffu;
              o.block_tokens = 64;
            }),
            "num_blocks");
}

// The logits of the golden files are this state times the head, which is the embedding here.
TEST(ExecutorCpu, HiddenStatesAreWhatTheHeadSees) {
  const auto executor = eng::ExecutorCpu::open(tiny_options("f32_interleaved"));
  ASSERT_TRUE(executor.has_value());
  const WorkerFacts facts = (*executor)->facts();
  const eng::ModelWeights& weights = (*executor)->weights();
  ASSERT_TRUE(weights.config.tied_embeddings);
  ASSERT_EQ(weights.embedding_type, krn::WeightType::f32);
  ASSERT_EQ(facts.embedding_size, weights.config.hidden_size);
  const auto* table = static_cast<const float*>(weights.embedding);
  const DrivenSequence other{std::vector<TokenId>(3, 9), consecutive_blocks(1, 20)};
  const DrivenSequence sequence{{5, 40, 2, 77, 11}, consecutive_blocks(1)};
  eng::SequenceSpan spans[] = {other.span(3), sequence.span(5, 4)};
  spans[1].wants_hidden = true;
  const std::span<const float> logits = (*executor)->forward(spans);
  ASSERT_EQ(logits.size(), 5 * facts.vocab_size);
  const eng::HiddenRows hidden = (*executor)->hidden();
  ASSERT_EQ(hidden.num_rows, 5u);
  for (std::size_t row = 1; row < 5; ++row) {  // the first has no logits
    for (std::size_t v = 0; v < facts.vocab_size; ++v) {
      double product = 0.0;
      for (std::size_t d = 0; d < facts.embedding_size; ++d)
        product += double{hidden.data[row * hidden.stride + d]} *
                   double{table[v * facts.embedding_size + d]};
      ASSERT_NEAR(double{logits[row * facts.vocab_size + v]}, product, 1e-4);
    }
  }
}

// Counted by hand for the tiny model: 2 layers, hidden 48, inner 88, 4 heads of 12 and 2 of K and
// V, vocabulary 160 (10 panels of 16), bfloat16 weights, float KV.
TEST(ExecutorCpu, SaysWhatAStepTook) {
  const auto executor = eng::ExecutorCpu::open(tiny_options());
  ASSERT_TRUE(executor.has_value());
  const std::uint64_t qkv_weights = 96 * 48;
  const std::uint64_t tail_weights = 48 * 48 + 176 * 48 + 48 * 88;
  const std::uint64_t layer_weights = qkv_weights + tail_weights;
  const std::uint64_t head_weights = 160 * 48;
  const std::uint64_t position_bytes = 2 * 24 * 4;  // K and V of one position in one layer
  const std::uint64_t embedding_row_bytes = 48 * 2;

  DrivenSequence sequence{std::vector<TokenId>(40, 7), consecutive_blocks(3)};
  eng::SequenceSpan span = sequence.span(5, false);  // a chunk: positions 0..4, no logits
  (*executor)->forward({&span, 1});
  eng::StepWork work = (*executor)->last_work();
  // Token t attends to t + 1 positions; each takes a product of q and k and one with v. Nobody
  // reads what the last layer would make of these tokens: it only stores their K and V.
  EXPECT_EQ(work.operations, 2 * (layer_weights + qkv_weights) * 5 + 4 * 48 * (1 + 2 + 3 + 4 + 5));
  EXPECT_EQ(work.bytes_moved,
            2 * (layer_weights + qkv_weights) + 2 * position_bytes * 5 + 5 * embedding_row_bytes);

  sequence.computed = 5;
  const DrivenSequence other{std::vector<TokenId>(3, 9), consecutive_blocks(1, 20)};
  const eng::SequenceSpan spans[] = {sequence.span(1), other.span(3)};
  (*executor)->forward(spans);
  work = (*executor)->last_work();
  EXPECT_EQ(work.operations, 2 * (layer_weights + qkv_weights) * 4 + 2 * tail_weights * 2 +
                                 4 * 48 * (6 + 1 + 2 + 3) + 4 * 48 * (6 + 3) +
                                 2 * head_weights * 2);
  EXPECT_EQ(work.bytes_moved, 2 * (2 * layer_weights + position_bytes * (6 + 3)) +
                                  4 * embedding_row_bytes + 2 * head_weights);

  (*executor)->forward({});
  EXPECT_EQ((*executor)->last_work().operations, 0u);
  EXPECT_EQ((*executor)->last_work().bytes_moved, 0u);
}

// Three layers that see 37 positions, K and V of 2 heads of 12.
TEST(ExecutorCpu, AStepReadsNoMoreThanTheWindow) {
  const auto executor = eng::ExecutorCpu::open(tiny_options("mistral_window"));
  ASSERT_TRUE(executor.has_value());
  DrivenSequence sequence{std::vector<TokenId>(60, 7), consecutive_blocks(4)};
  const std::uint64_t vocab_size = (*executor)->facts().vocab_size;
  const auto attention_of = [&](std::uint32_t start, std::size_t count) {
    sequence.computed = start;
    const eng::SequenceSpan span = sequence.span(count, static_cast<std::uint32_t>(count));
    (*executor)->forward({&span, 1});
    const std::uint64_t weights = 3 * (96 * 32 + 32 * 48 + 112 * 32 + 32 * 56) + vocab_size * 32;
    return (*executor)->last_work().operations - 2 * weights * count;
  };
  EXPECT_EQ(attention_of(0, 2), 3u * 4 * 48 * (1 + 2));
  EXPECT_EQ(attention_of(2, 36), 3u * 4 * 48 * (38u * 39 / 2 - 3 - 1))
      << "the last sees 37, not 38";
  EXPECT_EQ(attention_of(38, 2), 3u * 4 * 48 * (2 * 37));
  const std::uint64_t before = (*executor)->last_work().bytes_moved;
  attention_of(50, 2);
  EXPECT_EQ((*executor)->last_work().bytes_moved, before) << "however long the sequence is";

  const auto bytes_with = [&](std::uint32_t num_logits) {
    sequence.computed = 0;
    const eng::SequenceSpan span = sequence.span(60, num_logits);
    (*executor)->forward({&span, 1});
    return (*executor)->last_work().bytes_moved;
  };
  EXPECT_EQ(bytes_with(1), bytes_with(60))
      << "written are all, and what the last sees is among them";
}

// What the last layer would make of the other rows is left out. The random model is the one whose
// matrices are all quantized: rows of the others are no whole blocks, or few of them.
TEST(ExecutorCpu, RowsThatNobodyReadChangeNoBit) {
  const TemporaryDirectory random;
  write_random_model(random.path(), {});
  for (const char* model :
       {"f32_interleaved", "f16_llama3", "mistral_window", "qwen2_bias", "qwen3_norm", "random"}) {
    for (const eng::MatrixForm form : {eng::MatrixForm::stored, eng::MatrixForm::int8}) {
      eng::ExecutorCpuOptions options = tiny_options(model);
      if (model == std::string_view("random")) options.directory = random.path();
      options.load.matrices = form;
      options.threads = 2;
      options.sequences_max = 192;  // with so many rows of logits a step
      const auto executor = eng::ExecutorCpu::open(options);
      ASSERT_TRUE(executor.has_value()) << executor.error().detail;
      const std::size_t vocab_size = (*executor)->facts().vocab_size;
      std::vector<DrivenSequence> sequences;
      for (std::uint32_t s = 0; s < 5; ++s) {
        DrivenSequence sequence{{}, consecutive_blocks(6, 6 * s)};
        for (std::uint32_t i = 0; i < 90; ++i)
          sequence.ids.push_back(static_cast<TokenId>((7 * s + 37 * i + i * i) % 90));
        sequences.push_back(std::move(sequence));
      }
      const std::size_t tokens[] = {70, 1, 83, 5, 33};
      const auto forward = [&](const std::array<std::uint32_t, 5>& num_logits, bool wants_hidden) {
        std::vector<eng::SequenceSpan> spans;
        for (std::size_t s = 0; s < 5; ++s)
          spans.push_back(sequences[s].span(tokens[s], num_logits[s]));
        spans[3].wants_hidden = wants_hidden;
        const std::span<const float> logits = (*executor)->forward(spans);
        return std::vector<float>(logits.begin(), logits.end());
      };
      const std::vector<float> all = forward({70, 1, 83, 5, 33}, false);
      const std::vector<float> some = forward({0, 1, 50, 2, 0}, true);
      ASSERT_EQ(some.size(), 53 * vocab_size);
      const eng::HiddenRows hidden = (*executor)->hidden();
      ASSERT_EQ(hidden.num_rows, 5u);
      const std::vector<float> states(hidden.data, hidden.data + 5 * hidden.stride);
      const auto rows_of_all = [&](std::size_t row, std::size_t count) {
        return std::vector<float>(
            all.begin() + static_cast<std::ptrdiff_t>(row * vocab_size),
            all.begin() + static_cast<std::ptrdiff_t>((row + count) * vocab_size));
      };
      std::vector<float> wanted = rows_of_all(70, 1);
      const std::vector<float> tails[] = {rows_of_all(71 + 33, 50), rows_of_all(71 + 83 + 3, 2)};
      for (const auto& tail : tails) wanted.insert(wanted.end(), tail.begin(), tail.end());
      EXPECT_EQ(some, wanted) << model;

      // K and V of the last layer were stored for rows that nobody read.
      EXPECT_TRUE(forward({0, 0, 0, 0, 0}, false).empty());
      for (DrivenSequence& sequence : sequences) sequence.computed = 83;
      const eng::SequenceSpan next = sequences[2].span(1);
      const std::span<const float> behind_unread = (*executor)->forward({&next, 1});
      const std::vector<float> kept(behind_unread.begin(), behind_unread.end());
      for (DrivenSequence& sequence : sequences) sequence.computed = 0;
      forward({70, 1, 83, 5, 33}, true);
      const eng::HiddenRows again = (*executor)->hidden();
      for (std::size_t row = 0; row < 5; ++row) {
        const auto of = [&](const float* data) {
          return std::vector<float>(
              data + row * hidden.stride,
              data + row * hidden.stride + (*executor)->facts().embedding_size);
        };
        EXPECT_EQ(of(states.data()), of(again.data)) << model;
      }
      const std::span<const float> behind_read = (*executor)->forward({&next, 1});
      EXPECT_EQ(kept, std::vector<float>(behind_read.begin(), behind_read.end())) << model;
    }
  }
}

// Few threads take a prompt of quantized weights in longer pieces than many do.
TEST(ExecutorCpu, ThePiecesOfAPromptChangeNoBit) {
  const TemporaryDirectory random;
  write_random_model(random.path(), {});
  const auto logits_with = [&](std::uint32_t threads, std::size_t tokens) {
    eng::ExecutorCpuOptions options = tiny_options();
    options.directory = random.path();
    options.load.matrices = eng::MatrixForm::int8;
    options.threads = threads;
    options.sequences_max = 256;  // with so many rows of logits a step
    const auto executor = eng::ExecutorCpu::open(options);
    EXPECT_TRUE(executor.has_value());
    DrivenSequence sequence{{}, consecutive_blocks(20)};
    for (std::uint32_t i = 0; i < tokens; ++i)
      sequence.ids.push_back(static_cast<TokenId>((37 * i + i * i) % 90));
    const eng::SequenceSpan span = sequence.span(tokens, static_cast<std::uint32_t>(tokens));
    const std::span<const float> logits = (*executor)->forward({&span, 1});
    return std::vector<float>(logits.begin(), logits.end());
  };
  for (const std::size_t tokens : {95u, 97u, 200u, 263u, 300u}) {
    const std::vector<float> one = logits_with(1, tokens);
    ASSERT_EQ(one.size(), tokens * 1000);
    EXPECT_EQ(one, logits_with(3, tokens)) << tokens;
    EXPECT_EQ(one, logits_with(8, tokens)) << tokens;
  }
}

TEST(ExecutorCpu, MeasuresTheMachineWhenAsked) {
  eng::ExecutorCpuOptions options = tiny_options();
  const auto silent = eng::ExecutorCpu::open(options);
  ASSERT_TRUE(silent.has_value());
  EXPECT_EQ((*silent)->facts().peak_operations_per_second, 0u);
  EXPECT_EQ((*silent)->facts().peak_bytes_per_second, 0u);
  options.measures_limits = true;
  options.kernels = "scalar";
  options.threads = 2;
  const auto measured = eng::ExecutorCpu::open(options);
  ASSERT_TRUE(measured.has_value());
  EXPECT_NE((*measured)->description().find("kernels=scalar threads=2 "), std::string::npos)
      << (*measured)->description();
  if (krn::usable_probe() == nullptr) GTEST_SKIP() << "no vector unit to measure";
  EXPECT_GT((*measured)->facts().peak_operations_per_second, 0u);
  EXPECT_GT((*measured)->facts().peak_bytes_per_second, 0u);
}

TEST(ExecutorCpu, AStepWithoutWantedLogitsReturnsNone) {
  const auto executor = eng::ExecutorCpu::open(tiny_options());
  ASSERT_TRUE(executor.has_value());
  const DrivenSequence sequence{{1, 2, 3}, consecutive_blocks(1)};
  const eng::SequenceSpan span = sequence.span(3, false);
  EXPECT_TRUE((*executor)->forward({&span, 1}).empty());
  EXPECT_TRUE((*executor)->forward({}).empty());
}

TEST(ExecutorCpu, AllocatesNothingPerStep) {
  for (const std::uint32_t threads : {1u, 2u}) {
    eng::ExecutorCpuOptions options = tiny_options();
    options.threads = threads;
    const auto executor = eng::ExecutorCpu::open(options);
    ASSERT_TRUE(executor.has_value());
    std::vector<DrivenSequence> sequences;
    for (std::uint32_t i = 0; i < 4; ++i) {
      DrivenSequence sequence{std::vector<TokenId>(200, i + 1), consecutive_blocks(13, 13 * i)};
      sequences.push_back(sequence);
    }
    std::vector<eng::SequenceSpan> spans(4);
    const std::uint64_t before = allocation_count();
    float sum = 0;
    for (int step = 0; step < 60; ++step) {
      for (std::size_t i = 0; i < 4; ++i) spans[i] = sequences[i].span(1 + i % 3);
      for (std::size_t i = 0; i < 4; ++i)
        sequences[i].computed += static_cast<std::uint32_t>(1 + i % 3);
      sum += (*executor)->forward(spans)[0];
    }
    EXPECT_EQ(allocation_count(), before) << threads;
    EXPECT_NE(sum, 0.0f);
  }
}

using ExecutorCpuDeathTest = testing::Test;

TEST(ExecutorCpuDeathTest, ASpanBeyondItsBlocksIsOurOwnBug) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto executor = eng::ExecutorCpu::open(tiny_options());
  ASSERT_TRUE(executor.has_value());
  const DrivenSequence sequence{std::vector<TokenId>(17, 1), consecutive_blocks(1)};
  const eng::SequenceSpan span = sequence.span(17);
  EXPECT_DEATH(static_cast<void>((*executor)->forward({&span, 1})), "blocks");
}

}  // namespace
}  // namespace sluice::test
