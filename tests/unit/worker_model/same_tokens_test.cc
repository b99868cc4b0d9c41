// P2 on logits, bit for bit: whatever the batch, chunk borders, block numbers, block size,
// preemption, shared prefix, number of threads and kernel path, a token's logits are those of the
// sequence alone, one token at a time, on the scalar path.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "tests/support/executor_driver.h"
#include "tests/support/model_files.h"
#include "tests/support/seed.h"
#include "worker/executor_cpu.h"

namespace sluice::test {
namespace {

using Rows = std::vector<std::vector<float>>;

std::string tiny_model(const char* name) {
  return SLUICE_GOLDEN_DIR "/tiny_llama/" + std::string(name);
}

std::unique_ptr<eng::ExecutorCpu> open(const std::string& directory, const char* kernels,
                                       std::uint32_t threads, std::uint32_t block_tokens,
                                       krn::KvType kv_type = krn::KvType::f32) {
  eng::ExecutorCpuOptions options;
  options.kv_type = kv_type;
  options.directory = directory;
  options.kernels = kernels;
  options.threads = threads;
  options.block_tokens = block_tokens;
  options.num_blocks = 2048 / block_tokens;
  options.step_tokens_max = 256;
  options.sequences_max = 16;
  auto executor = eng::ExecutorCpu::open(options);
  EXPECT_TRUE(executor.has_value()) << executor.error().detail;
  return std::move(*executor);
}

bool same_row(std::span<const float> got, const std::vector<float>& want) {
  return got.size() == want.size() && std::memcmp(got.data(), want.data(), got.size_bytes()) == 0;
}

// Prompts of assorted lengths; the second begins like the first.
std::vector<std::vector<TokenId>> make_prompts(std::uint32_t vocab, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<std::vector<TokenId>> prompts;
  for (const std::size_t length : {70u, 83u, 1u, 17u, 64u, 129u, 40u}) {
    std::vector<TokenId> ids(length);
    for (TokenId& id : ids) id = static_cast<TokenId>(uniform(rng, 0, vocab - 1));
    prompts.push_back(std::move(ids));
  }
  std::copy(prompts[0].begin(), prompts[0].begin() + 64, prompts[1].begin());
  return prompts;
}

// The oracle: the scalar path, one thread, alone, token by token, blocks of 64.
std::vector<Rows> oracle_rows(const std::string& directory,
                              const std::vector<std::vector<TokenId>>& prompts,
                              krn::KvType kv_type = krn::KvType::f32) {
  const auto executor = open(directory, "scalar", 1, 64, kv_type);
  std::vector<Rows> rows;
  for (const auto& ids : prompts) {
    rows.push_back(
        logits_alone(*executor, {ids, consecutive_blocks(blocks_for(ids.size(), 64))}, 1));
  }
  return rows;
}

// A random life of all prompts on one executor: random batches and chunks, blocks drawn from a
// shuffled free list that are dirty from other sequences, sequences thrown back to the start.
class RandomLife {
 public:
  RandomLife(eng::ExecutorCpu& executor, const std::vector<std::vector<TokenId>>& prompts,
             const std::vector<Rows>& want, std::uint64_t seed)
      : executor_(executor), want_(want), rng_(seed), facts_(executor.facts()) {
    for (const auto& ids : prompts) sequences_.push_back({ids, {}, 0});
    free_.resize(facts_.num_blocks);
    std::iota(free_.begin(), free_.end(), 0u);
  }

  void run() {
    std::size_t preemptions = 6;
    while (step()) {
      DrivenSequence& victim = sequences_[pick(sequences_.size())];
      if (preemptions > 0 && victim.computed > 0 && victim.left() > 0 && pick(4) == 0) {
        give_back(victim);
        --preemptions;
      }
    }
  }

 private:
  struct Member {
    std::size_t index;
    std::size_t num_tokens;
  };

  std::size_t pick(std::size_t n) { return static_cast<std::size_t>(uniform(rng_, 0, n - 1)); }

  void give_back(DrivenSequence& sequence) {
    for (const BlockId block : sequence.blocks) free_.push_back(block.value);
    sequence.blocks.clear();
    sequence.computed = 0;
  }

  void grow(DrivenSequence& sequence, std::size_t tokens) {
    while (sequence.blocks.size() < blocks_for(tokens, facts_.block_tokens)) {
      std::swap(free_[pick(free_.size())], free_.back());
      sequence.blocks.push_back(BlockId(free_.back()));
      free_.pop_back();
    }
  }

  bool step() {
    std::vector<Member> members;
    std::size_t budget = facts_.step_tokens_max;
    bool unfinished = false;
    for (std::size_t i = 0; i < sequences_.size(); ++i) {
      DrivenSequence& sequence = sequences_[i];
      if (sequence.left() == 0) continue;
      unfinished = true;
      if (pick(3) == 0) continue;
      const std::size_t most = std::min({sequence.left(), budget, std::size_t{1} << pick(8)});
      if (most == 0) continue;
      const std::size_t n = 1 + pick(most);
      budget -= n;
      grow(sequence, sequence.computed + n);
      members.push_back({i, n});
    }
    std::shuffle(members.begin(), members.end(), rng_);
    std::vector<eng::SequenceSpan> spans;
    for (const Member& m : members)
      spans.push_back(sequences_[m.index].span(m.num_tokens, pick(4) != 0));
    if (!spans.empty()) check(spans, members);
    return unfinished;
  }

  void check(const std::vector<eng::SequenceSpan>& spans, const std::vector<Member>& members) {
    const std::span<const float> logits = executor_.forward(spans);
    std::size_t row = 0;
    for (std::size_t i = 0; i < spans.size(); ++i) {
      DrivenSequence& sequence = sequences_[members[i].index];
      sequence.computed += static_cast<std::uint32_t>(members[i].num_tokens);
      if (spans[i].num_logits == 0) continue;
      const auto got = logits.subspan(row++ * facts_.vocab_size, facts_.vocab_size);
      ASSERT_TRUE(same_row(got, want_[members[i].index][sequence.computed - 1]))
          << "sequence " << members[i].index << " position " << sequence.computed - 1;
    }
    ASSERT_EQ(row * facts_.vocab_size, logits.size());
  }

  eng::ExecutorCpu& executor_;
  const std::vector<Rows>& want_;
  std::mt19937_64 rng_;
  WorkerFacts facts_;
  std::vector<DrivenSequence> sequences_;
  std::vector<std::uint32_t> free_;
};

void check_model(const std::string& directory, std::initializer_list<std::uint32_t> thread_counts,
                 std::initializer_list<std::uint32_t> block_sizes, std::size_t num_prompts,
                 krn::KvType kv_type = krn::KvType::f32) {
  const std::uint64_t seed = test_seed(20240607);
  const std::uint32_t vocab = open(directory, "scalar", 1, 16)->facts().vocab_size;
  auto prompts = make_prompts(vocab, seed);
  prompts.resize(std::min(num_prompts, prompts.size()));
  const std::vector<Rows> want = oracle_rows(directory, prompts, kv_type);
  for (const krn::KernelTable* const* t = krn::usable_kernels(); *t != nullptr; ++t) {
    for (const std::uint32_t threads : thread_counts) {
      for (const std::uint32_t block_tokens : block_sizes) {
        SCOPED_TRACE(testing::Message() << directory << " " << (*t)->name << " threads " << threads
                                        << " block " << block_tokens << " TEST_SEED=" << seed);
        const auto executor = open(directory, (*t)->name, threads, block_tokens, kv_type);
        RandomLife(*executor, prompts, want, seed + block_tokens + threads).run();
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(SameTokens, InRandomBatchesChunksBlocksAndPreemptionsOfTheTinyModels) {
  for (const char* name : {"bf16_sharded", "f32_interleaved", "f16_llama3"}) {
    check_model(tiny_model(name), {1, 2}, {8, 16, 32, 64}, 7);
  }
}

// A sliding window, biases, norms of heads.
TEST(SameTokens, OfTheOtherArchitectures) {
  check_model(tiny_model("mistral_window"), {1, 2}, {8, 16, 64}, 7);
  check_model(tiny_model("qwen2_bias"), {2}, {8, 32}, 7);
  check_model(tiny_model("qwen3_norm"), {2}, {16}, 7);
}

TEST(SameTokens, WithNarrowCaches) {
  for (const krn::KvType type : {krn::KvType::f16, krn::KvType::int8}) {
    check_model(tiny_model("mistral_window"), {2}, {8, 16}, 7, type);
    check_model(tiny_model("f32_interleaved"), {1}, {32}, 7, type);
  }
}

// Large enough that kernels are shared between threads even for a single token.
TEST(SameTokens, WithOneTwoAndThreeThreadsOnAModelThatIsSharedBetweenThem) {
  for (const char* dtype : {"BF16", "F32"}) {
    const TemporaryDirectory directory;
    RandomModel model;
    model.vocab_size = 500;
    model.num_layers = 1;
    model.dtype = dtype;
    write_random_model(directory.path(), model);
    check_model(directory.path(), {1, 2, 3}, {16}, 4);
  }
}

TEST(SameTokens, ForEveryChunkSize) {
  const auto prompts = make_prompts(97, 5);
  const std::vector<Rows> want = oracle_rows(tiny_model("f32_interleaved"), {prompts[1]});
  for (const krn::KernelTable* const* t = krn::usable_kernels(); *t != nullptr; ++t) {
    const auto executor = open(tiny_model("f32_interleaved"), (*t)->name, 1, 8);
    for (std::size_t chunk = 1; chunk <= prompts[1].size(); ++chunk) {
      const Rows got = logits_alone(*executor, {prompts[1], consecutive_blocks(11, 3)}, chunk);
      for (std::size_t i = 0; i < got.size(); ++i) {
        if (got[i].empty()) continue;
        ASSERT_TRUE(same_row(got[i], want[0][i])) << chunk << " " << i;
      }
    }
  }
}

TEST(SameTokens, WhenAPrefixIsSharedByBlocks) {
  const auto prompts = make_prompts(160, 9);
  const std::vector<Rows> want = oracle_rows(tiny_model("bf16_sharded"), {prompts[0], prompts[1]});
  for (const krn::KernelTable* const* t = krn::usable_kernels(); *t != nullptr; ++t) {
    const auto executor = open(tiny_model("bf16_sharded"), (*t)->name, 1, 16);
    logits_alone(*executor, {prompts[0], consecutive_blocks(5)}, 31);
    // The first 64 tokens are equal: four blocks of the first, then blocks of its own.
    DrivenSequence second{prompts[1], consecutive_blocks(4), 64};
    for (const BlockId block : consecutive_blocks(2, 100)) second.blocks.push_back(block);
    const Rows got = logits_alone(*executor, second, 7);
    for (std::size_t i = 64; i < got.size(); ++i) {
      if (got[i].empty()) continue;
      ASSERT_TRUE(same_row(got[i], want[1][i])) << i;
    }
    ASSERT_FALSE(got.back().empty());
  }
}

TEST(SameTokens, AfterBlocksHeldGarbageAndWereZeroed) {
  const auto prompts = make_prompts(160, 11);
  const std::vector<Rows> want = oracle_rows(tiny_model("bf16_sharded"), {prompts[3]});
  const auto executor = open(tiny_model("bf16_sharded"), "auto", 1, 16);
  logits_alone(*executor, {prompts[5], consecutive_blocks(9)}, 50);
  const std::vector<BlockId> used = consecutive_blocks(9);
  executor->zero_blocks(used);
  const Rows got = logits_alone(*executor, {prompts[3], {used[8], used[2]}}, 17);
  EXPECT_TRUE(same_row(got.back(), want[0].back()));
}

}  // namespace
}  // namespace sluice::test
