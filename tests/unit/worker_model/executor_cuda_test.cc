// ExecutorCuda without a GPU: the code that ships, on a device made of the SIMT shim. Its logits
// are those of ExecutorCpu within kLogitBound whatever the batch and the chunks; the orders of
// threads change no bit; every call of the device may fail, and then the error says which.
#include "worker/executor_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/support/allocation_count.h"
#include "tests/support/executor_driver.h"
#include "tests/support/golden_model.h"
#include "tests/support/model_files.h"
#include "tests/support/simt_device.h"
#include "worker/executor_cpu.h"
#include "worker/golden_digest.h"

namespace sluice::test {
namespace {

// The bound that the CPU kernels keep to an independent implementation (golden_test.cc). Both sum
// in FP32; RMSNorm and attention add in other trees, and exp comes from another library.
// Seen: 2.3e-5.
constexpr float kLogitBound = 1e-4f;
constexpr std::uint32_t kNumBlocks = 64;
const char* const kModels[] = {"bf16_sharded",   "f32_interleaved", "f16_llama3",
                               "mistral_window", "qwen2_bias",      "qwen3_norm"};

using Rows = std::vector<std::vector<float>>;

std::string model_path(const char* name) {
  return SLUICE_GOLDEN_DIR "/tiny_llama/" + std::string(name);
}

eng::ExecutorCudaOptions tiny_options(const char* name = "bf16_sharded") {
  eng::ExecutorCudaOptions options;
  options.directory = model_path(name);
  options.num_blocks = kNumBlocks;
  options.sequences_max = 8;
  options.step_tokens_max = 96;
  return options;
}

class ExecutorCuda : public testing::Test {
 protected:
  ExecutorCuda() { simt_script() = {}; }
  ~ExecutorCuda() override {
    EXPECT_EQ(simt_script().num_allocations, 0u);
    EXPECT_EQ(simt_script().num_contexts, 0u);
  }
  static std::unique_ptr<eng::ExecutorCuda> open(const eng::ExecutorCudaOptions& options) {
    auto executor = eng::ExecutorCuda::open(options, simt_device_table());
    EXPECT_TRUE(executor.has_value()) << executor.error().detail;
    return std::move(*executor);
  }
};

std::unique_ptr<eng::ExecutorCpu> open_cpu(const char* name, std::uint32_t block_tokens = 16) {
  eng::ExecutorCpuOptions options;
  options.directory = model_path(name);
  options.kernels = "scalar";
  options.block_tokens = block_tokens;
  options.num_blocks = kNumBlocks;
  auto executor = eng::ExecutorCpu::open(options);
  EXPECT_TRUE(executor.has_value());
  return std::move(*executor);
}

std::vector<TokenId> some_ids(std::size_t count, TokenId first) {
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < count; ++i)
    ids.push_back(static_cast<TokenId>((first + 37 * i + i * i) % 90));
  return ids;
}

void expect_near(std::span<const float> got, std::span<const float> want, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], kLogitBound) << what;
}

TEST_F(ExecutorCuda, AgreesWithTheCpuForEveryModelChunkAndBlockSize) {
  const struct {
    const char* name;
    std::uint32_t block_tokens;
    std::size_t chunk;
  } cases[] = {{"bf16_sharded", 16, 67},  {"f32_interleaved", 8, 24}, {"f16_llama3", 64, 67},
               {"mistral_window", 8, 67}, {"qwen2_bias", 16, 30},     {"qwen3_norm", 32, 67}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    const auto cpu = open_cpu(c.name, c.block_tokens);
    eng::ExecutorCudaOptions options = tiny_options(c.name);
    options.block_tokens = c.block_tokens;
    const auto cuda = open(options);
    EXPECT_EQ(cuda->facts().weights_digest, cpu->facts().weights_digest);
    // Over one group of attention positions (64); a table in an order of its own.
    DrivenSequence sequence{some_ids(67, 5), consecutive_blocks(9, 20)};
    std::swap(sequence.blocks[0], sequence.blocks[1]);
    const Rows want = logits_alone(*cpu, sequence, 1);
    const Rows got = logits_alone(*cuda, sequence, c.chunk);
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!got[i].empty()) expect_near(got[i], want[i], "prefill");
    }
    // Its last tokens once more, one at a time. With a GEMM that sums in one order the pass holds
    // P2: equal bits for every chunk.
    sequence.computed = 62;
    const Rows decoded = logits_alone(*cuda, sequence, 1);
    for (std::size_t i = 62; i < decoded.size(); ++i) expect_near(decoded[i], want[i], "decode");
    ASSERT_EQ(decoded.back(), got.back());
  }
}

// Rows behind the last ids of a chunk, as the log-probabilities of a prompt need them: more than
// there are sequences in a step. Hidden states stay on the device: it says that it has none.
TEST_F(ExecutorCuda, HasARowOfLogitsForEveryIdOfAPrompt) {
  const auto cpu = open_cpu("bf16_sharded");
  const auto cuda = open(tiny_options());
  EXPECT_EQ(cuda->facts().embedding_size, 0u);
  EXPECT_GT(cpu->facts().embedding_size, 0u);
  DrivenSequence sequence{some_ids(67, 5), consecutive_blocks(5)};
  const Rows want = logits_alone(*cpu, sequence, 1);
  const std::uint32_t vocab_size = cuda->facts().vocab_size;
  const eng::SequenceSpan span = sequence.span(67, 64);
  const std::span<const float> rows = cuda->forward({&span, 1});
  ASSERT_EQ(rows.size(), 64u * vocab_size);
  for (std::size_t i = 0; i < 64; ++i)
    expect_near(rows.subspan(i * vocab_size, vocab_size), want[3 + i], "prompt row");
}

TEST_F(ExecutorCuda, HostCodeNeverTouchesDeviceMemory) {
  simt_script().hides_memory = true;
  const auto cuda = open(tiny_options());
  const BlockId block(3);
  cuda->zero_blocks({&block, 1});
  EXPECT_FALSE(logits_alone(*cuda, {some_ids(5, 1), consecutive_blocks(1)}, 3).back().empty());
}

TEST_F(ExecutorCuda, GreedyTokensAreThoseOfTheIndependentImplementation) {
  for (const char* name : kModels) {
    const std::vector<Expectation> lines = read_expectations(model_path(name) + "/expected.jsonl");
    const auto cuda = open(tiny_options(name));
    Expectation line = lines[1];  // a prompt of 9 tokens
    line.greedy_ids.resize(10);
    const Comparison got = compare(*cuda, line, 96);
    EXPECT_TRUE(got.finite);
    EXPECT_LE(got.logit_error_max, 1e-4) << name;
    EXPECT_EQ(got.greedy_equal, line.greedy_ids.size()) << name;
  }
}

// Sequences of several lengths, prefill beside decode, one without logits, a shared first block.
TEST_F(ExecutorCuda, ABatchChangesNoRow) {
  const auto cpu = open_cpu("bf16_sharded");
  const auto cuda = open(tiny_options());
  std::vector<DrivenSequence> sequences{{some_ids(20, 1), consecutive_blocks(2)},
                                        {some_ids(19, 1), consecutive_blocks(2, 10)},
                                        {some_ids(5, 9), consecutive_blocks(1, 20)},
                                        {some_ids(9, 4), consecutive_blocks(1, 30)}};
  std::vector<Rows> want, alone;
  for (const DrivenSequence& sequence : sequences) {
    want.push_back(logits_alone(*cpu, sequence, 1));
    alone.push_back(logits_alone(*cuda, sequence, 1));
  }
  logits_alone(*cuda, {some_ids(16, 1), consecutive_blocks(1)}, 16);
  for (const std::size_t i : {0u, 1u}) {  // the first 16 tokens of both lie in block 0
    sequences[i].blocks[0] = BlockId(0);
    sequences[i].computed = 16;
  }
  const std::size_t lengths[] = {1, 2, 3, 4};
  for (int step = 0; step < 4; ++step) {
    std::vector<eng::SequenceSpan> spans;
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const std::size_t n =
          std::min(lengths[(i + static_cast<std::size_t>(step)) % 4], sequences[i].left());
      if (n == 0) continue;
      spans.push_back(sequences[i].span(n, i != 2));
      members.push_back(i);
    }
    const std::span<const float> logits = cuda->forward(spans);
    std::size_t row = 0;
    for (std::size_t s = 0; s < spans.size(); ++s) {
      DrivenSequence& sequence = sequences[members[s]];
      sequence.computed += static_cast<std::uint32_t>(spans[s].ids.size());
      if (spans[s].num_logits == 0) continue;
      const auto got = logits.subspan(row++ * cuda->facts().vocab_size, cuda->facts().vocab_size);
      const std::size_t position = sequence.computed - 1;
      expect_near(got, want[members[s]][position], "batch");
      ASSERT_EQ(std::vector<float>(got.begin(), got.end()), alone[members[s]][position]);
    }
    ASSERT_EQ(logits.size(), row * cuda->facts().vocab_size);
  }
}

TEST_F(ExecutorCuda, TheOrderOfThreadsChangesNoBit) {
  Rows first;
  for (const std::uint64_t seed : {1u, 1000003u, 77777u}) {
    simt_script().order_seed = seed;
    const auto cuda = open(tiny_options("f16_llama3"));
    const Rows got = logits_alone(*cuda, {some_ids(9, 3), consecutive_blocks(1)}, 4);
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << seed;
  }
}

// What a worker continues before it serves a request on trial.
TEST_F(ExecutorCuda, TheGoldenDigestIsThatOfTheCpusTokens) {
  const auto go_on = [] { return true; };
  std::set<std::uint64_t> digests;
  for (const char* name : {"bf16_sharded", "f32_interleaved", "f16_llama3"}) {
    SCOPED_TRACE(name);
    const auto cpu = open_cpu(name);
    TokensOf tokens(*cpu);
    const auto want = eng::GoldenDigest(tokens, BlockId(40)).take(go_on);
    EXPECT_GT(tokens.margin_min, 100 * kLogitBound);
    const auto cuda = open(tiny_options(name));
    eng::GoldenDigest golden(*cuda, BlockId(3));
    EXPECT_EQ(golden.take(go_on), want);
    EXPECT_EQ(golden.take(go_on), want);  // in recorded steps
    EXPECT_GT(cuda->num_replays(), 8u);
    digests.insert(want.value());
  }
  EXPECT_EQ(digests.size(), 3u);  // other weights, another number
}

// The same launches with the same arguments, also where the attention of longer contexts takes
// another number of chunks, and where shapes displace each other.
TEST_F(ExecutorCuda, ARecordedStepHasTheBitsOfAPlainOne) {
  const TemporaryDirectory directory;
  RandomModel model;  // of 2048 positions: its attention takes chunks of 512
  model.hidden_size = 32;
  model.intermediate_size = 32;
  model.num_layers = 1;
  model.num_heads = 1;
  model.num_kv_heads = 1;
  model.vocab_size = 100;
  write_random_model(directory.path(), model);
  const struct {
    std::string directory;
    std::uint32_t start, recordings_max;
    std::size_t num_recorded;
  } cases[] = {{model_path("qwen2_bias"), 0, 0, 0},
               {model_path("qwen2_bias"), 0, 32, 4},
               {directory.path(), 506, 0, 0},
               {directory.path(), 506, 32, 6},
               {directory.path(), 506, 2, 8}};
  Rows plain;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.directory + " " + std::to_string(c.recordings_max));
    simt_script() = {};
    eng::ExecutorCudaOptions options = tiny_options();
    options.directory = c.directory;
    options.num_blocks = 128;
    options.recordings_max = c.recordings_max;
    const auto cuda = open(options);
    const Rows rows = walk_in_shapes(*cuda, 2, c.start, 3);
    if (c.recordings_max == 0) plain = rows;
    ASSERT_EQ(rows, plain);
    const test::SimtDeviceScript& counted = simt_script();
    EXPECT_EQ(counted.num_recorded, c.num_recorded);
    EXPECT_EQ(counted.num_recordings, std::min<std::size_t>(c.recordings_max, c.num_recorded));
    // Of 24 steps those that were not the first of their shape.
    EXPECT_EQ(cuda->num_replays(), c.recordings_max == 0 ? 0 : 24 - c.num_recorded);
    EXPECT_EQ(counted.num_replays, cuda->num_replays());
  }
}

// Each call of the step that makes a recording fails once. Where it is one of the recording, the
// step goes on launch by launch, and so do all that follow; elsewhere the device has failed.
TEST_F(ExecutorCuda, ARecordingThatFailsIsDoneWithout) {
  const DrivenSequence sequence{some_ids(1, 1), consecutive_blocks(1)};
  const eng::SequenceSpan span = sequence.span(1);
  eng::ExecutorCudaOptions options = tiny_options();
  options.step_tokens_max = 4;
  options.sequences_max = 2;
  std::vector<float> want;
  std::size_t begin = 0, num_calls = 0, num_done_without = 0;
  {
    const auto cuda = open(options);
    cuda->forward({&span, 1});
    begin = simt_script().num_calls;
    const auto logits = cuda->forward({&span, 1});
    want.assign(logits.begin(), logits.end());
    num_calls = simt_script().num_calls - begin;
    EXPECT_EQ(cuda->num_replays(), 1u);
  }
  for (std::size_t call = 0; call < num_calls; ++call) {
    SCOPED_TRACE(call);
    simt_script() = {};
    const auto cuda = open(options);
    cuda->forward({&span, 1});
    simt_script().failing_call = begin + call;
    testing::internal::CaptureStderr();
    const auto logits = cuda->try_forward({&span, 1});
    const std::string said = testing::internal::GetCapturedStderr();
    // Before it the inputs are copied; after it come the replay, the logits, synchronize().
    const bool is_of_recording = call >= 1 && call + 3 < num_calls;
    ASSERT_EQ(logits.has_value(), is_of_recording);
    EXPECT_EQ(said.starts_with("event=device_records_no_steps why=\"device: cuda: "),
              is_of_recording)
        << said;
    if (!is_of_recording) continue;
    ++num_done_without;
    ASSERT_TRUE(std::ranges::equal(*logits, want));
    for (int i = 0; i < 2; ++i) {
      const auto next = cuda->try_forward({&span, 1});
      ASSERT_TRUE(next.has_value() && std::ranges::equal(*next, want));
    }
    EXPECT_EQ(cuda->num_replays(), 0u);
    EXPECT_EQ(simt_script().num_recordings, 0u);
  }
  EXPECT_GT(num_done_without, 20u);
}

// What a sequence reads from a zeroed block shows in its logits; zero is what it must see there.
TEST_F(ExecutorCuda, ZeroedBlocksAreZeroAndTheOthersAreKept) {
  const auto cpu = open_cpu("bf16_sharded");
  const auto cuda = open(tiny_options());
  const std::vector<TokenId> ids = some_ids(20, 2);
  const auto after = [&](eng::Executor& executor, std::vector<BlockId> zeroed) {
    logits_alone(executor, {ids, consecutive_blocks(2)}, 20);
    executor.zero_blocks(zeroed);
    DrivenSequence last{ids, consecutive_blocks(2), 19};
    return logits_alone(executor, last, 1).back();
  };
  const std::vector<float> kept = after(*cuda, {BlockId(5)});
  const std::vector<float> zeroed = after(*cuda, {BlockId(0)});
  expect_near(kept, after(*cpu, {BlockId(5)}), "kept");
  expect_near(zeroed, after(*cpu, {BlockId(0)}), "zeroed");
  EXPECT_GT(std::abs(kept[0] - zeroed[0]), 100 * kLogitBound);
}

TEST_F(ExecutorCuda, SaysItsFacts) {
  const auto cuda = open(tiny_options());
  const WorkerFacts facts = cuda->facts();
  EXPECT_EQ(facts.vocab_size, 160u);
  EXPECT_EQ(facts.context_tokens, 512u);  // the model's, below the 4096 asked for
  EXPECT_EQ(facts.num_blocks, kNumBlocks);
  EXPECT_EQ(facts.sequences_max, 8u);
  EXPECT_EQ(facts.step_tokens_max, 96u);
  EXPECT_EQ(facts.continuity, Continuity::tokens);
  const auto cpu = open_cpu("bf16_sharded");
  EXPECT_EQ(cpu->facts().continuity, Continuity::exact);
  EXPECT_NE(facts.kernel_path, cpu->facts().kernel_path);
}

TEST_F(ExecutorCuda, AStepWithoutWantedLogitsReturnsNone) {
  const auto cuda = open(tiny_options());
  const DrivenSequence sequence{{1, 2, 3}, consecutive_blocks(1)};
  const eng::SequenceSpan span = sequence.span(3, false);
  EXPECT_TRUE(cuda->forward({&span, 1}).empty());
  EXPECT_TRUE(cuda->forward({}).empty());
}

TEST_F(ExecutorCuda, RefusesWhatItCannotOpenByName) {
  const auto refused = [](auto change) {
    eng::ExecutorCudaOptions options = tiny_options();
    change(options);
    const auto executor = eng::ExecutorCuda::open(options, simt_device_table());
    return executor ? std::string("accepted") : executor.error().detail;
  };
  using O = eng::ExecutorCudaOptions;
  EXPECT_EQ(refused([](O& o) { o.block_tokens = 24; }), "block_tokens must be 8, 16, 32 or 64");
  EXPECT_EQ(refused([](O& o) { o.step_tokens_max = 65537; }), "step_tokens_max must be 1 to 65536");
  EXPECT_EQ(refused([](O& o) { o.device = 1; }), "device: cuda: there is no number 1 among 1");
  EXPECT_NE(refused([](O& o) { o.directory = "/nonexistent"; }).find("config.json"),
            std::string::npos);
  EXPECT_NE(refused([](O& o) { o.num_blocks = 0xffffffffu; }).find("KV blocks"), std::string::npos);
  simt_script().bytes_max = 400'000;  // the KV cache fits, the embedding behind it does not
  EXPECT_EQ(refused([](O&) {}), "device: cuda: it refuses 160 x 192 bytes for weights");
  simt_script().num_devices = 0;
  EXPECT_EQ(refused([](O&) {}), "device: cuda: no device to be had: this test has none");
}

// Each call fails once, from the first of open() to the last of a step: the error arrives, nothing
// leaks, and a failed device stays failed.
TEST_F(ExecutorCuda, EveryFailureOfTheDeviceBecomesAnError) {
  const DrivenSequence sequence{some_ids(3, 1), consecutive_blocks(1)};
  const eng::SequenceSpan span = sequence.span(3);  // of which one row is read
  const BlockId block(7);
  eng::ExecutorCudaOptions options = tiny_options();
  options.step_tokens_max = 4;
  options.sequences_max = 2;
  std::size_t num_failed_opens = 0, num_failed_steps = 0;
  for (std::size_t n = 0;; ++n) {
    simt_script() = {};
    simt_script().failing_call = n;
    const auto executor = eng::ExecutorCuda::open(options, simt_device_table());
    if (!executor) {
      ++num_failed_opens;
      EXPECT_EQ(executor.error().detail.rfind("device: cuda: ", 0), 0u) << executor.error().detail;
      EXPECT_EQ(executor.error().param, "device");
      continue;
    }
    const auto zeroed = (*executor)->try_zero_blocks({&block, 1});
    const auto logits = (*executor)->try_forward({&span, 1});
    if (simt_script().num_calls <= n) {  // no call of that number: all went well
      ASSERT_TRUE(zeroed && logits);
      EXPECT_EQ(logits->size(), 160u);
      break;
    }
    ++num_failed_steps;
    ASSERT_FALSE(logits);
    EXPECT_EQ(logits.error().code, Errc::io_error);
    EXPECT_NE(logits.error().detail.find("failed as the script says"), std::string::npos);
    EXPECT_FALSE((*executor)->try_forward({&span, 1}));
    EXPECT_FALSE((*executor)->try_zero_blocks({&block, 1}));
  }
  EXPECT_GT(num_failed_opens, 30u);
  EXPECT_GT(num_failed_steps, 25u);
}

// The shim allocates fibers; what counts here is the code above the device, so launches do nothing.
krn::cuda::DeviceTable idle_table() {
  namespace cuda = krn::cuda;
  cuda::DeviceTable table = simt_device_table();
  const auto nothing = [](cuda::DeviceContext&, const auto&, std::size_t) { return std::string(); };
  table.gather = nothing;
  table.rms_norm = nothing;
  table.add_rms_norm = nothing;
  table.rope_store = nothing;
  table.attention_decode = nothing;
  table.swiglu = nothing;
  table.add = nothing;
  table.matmul = [](cuda::DeviceContext&, const cuda::MatmulArgs&) { return std::string(); };
  return table;
}

TEST_F(ExecutorCuda, AllocatesNothingPerStep) {
  const krn::cuda::DeviceTable table = idle_table();
  for (const std::uint32_t recordings_max : {0u, 32u}) {
    eng::ExecutorCudaOptions options = tiny_options();
    options.recordings_max = recordings_max;
    auto opened = eng::ExecutorCuda::open(options, table);
    ASSERT_TRUE(opened.has_value());
    DrivenSequence a{some_ids(200, 1), consecutive_blocks(13)};
    DrivenSequence b{some_ids(200, 2), consecutive_blocks(13, 20)};
    const BlockId zeroed(50);
    std::size_t num_logits = 0;
    const auto step = [&] {
      const eng::SequenceSpan spans[] = {a.span(3), b.span(1)};
      (*opened)->zero_blocks({&zeroed, 1});
      num_logits += (*opened)->forward(spans).size();
      a.computed += 3;
      b.computed += 1;
    };
    for (int i = 0; i < 2; ++i) step();  // the second one is recorded
    const std::size_t live = simt_script().num_allocations, before = allocation_count();
    for (int i = 0; i < 60; ++i) step();
    EXPECT_EQ(allocation_count(), before);
    EXPECT_EQ(simt_script().num_allocations, live);
    EXPECT_EQ(num_logits, 62u * 2 * 160);
    EXPECT_EQ((*opened)->num_replays(), recordings_max == 0 ? 0u : 61u);
  }
}

using ExecutorCudaDeathTest = ExecutorCuda;

TEST_F(ExecutorCudaDeathTest, AFailedDeviceStopsTheProcessWithItsReason) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto cuda = open(tiny_options());
  const DrivenSequence sequence{some_ids(3, 1), consecutive_blocks(1)};
  const eng::SequenceSpan span = sequence.span(3);
  simt_script().failing_call = simt_script().num_calls + 4;
  EXPECT_DEATH(static_cast<void>(cuda->forward({&span, 1})), "device: cuda: rope_store: failed");
}

}  // namespace
}  // namespace sluice::test
