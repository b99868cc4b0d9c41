// The executor's shell: options checked, memory made, the transformer called.
#include "worker/executor_cpu.h"

#include <cstdio>
#include <cstring>

#include "worker/executor_facts.h"

namespace sluice::eng {
namespace {

constexpr std::uint32_t kThreadsMax = 64;

}  // namespace

ExecutorCpu::ExecutorCpu(const WorkerFacts& facts, const ExecutorCpuOptions& options,
                         ModelWeights weights, const krn::KernelTable& kernels)
    : facts_(facts),
      weights_(std::move(weights)),
      kernels_(&kernels),
      team_(options.threads),
      rows_(facts),
      costs_(step_costs(weights_, WeightStorage::as_loaded, options.kv_type)) {
  const ModelConfig& c = weights_.config;
  kv_ = {nullptr,    facts_.num_blocks,   c.num_layers,   c.num_kv_heads,
         c.head_dim, facts_.block_tokens, options.kv_type};
}

Result<std::unique_ptr<ExecutorCpu>> ExecutorCpu::open(const ExecutorCpuOptions& options) {
  WorkerFacts facts;
  facts.context_tokens = options.context_tokens;
  facts.block_tokens = options.block_tokens;
  facts.num_blocks = options.num_blocks;
  facts.sequences_max = options.sequences_max;
  facts.step_tokens_max = options.step_tokens_max;
  const Result<void> checked = check_sizes(facts);
  if (!checked) return checked.error();
  if (options.threads < 1 || options.threads > kThreadsMax)
    return make_error(Errc::bad_config, "threads must be 1 to 64", "threads");
  const krn::KernelTable* kernels = krn::find_kernels(options.kernels.c_str());
  if (kernels == nullptr) {
    return make_error(
        Errc::bad_config,
        "kernels '" + printable(options.kernels) + "' are unknown or this CPU can't run them",
        "kernels");
  }
  Result<ModelWeights> weights = load_weights(options.directory, options.load);
  if (!weights) return weights.error();
  // The paths agree bit for bit where the tests ran; a stream still moves only between equal ones,
  // because the RoPE table comes from the host's libm, which is chosen by CPU as well.
  facts = model_facts(facts, *weights,
                      std::string("cpu/") + kernels->name + "/lanes16" +
                          matrix_form_suffix(options.load.matrices) + "/kv-" +
                          kv_type_name(options.kv_type));
  facts.embedding_size = weights->config.hidden_size;
  std::unique_ptr<ExecutorCpu> executor(
      new ExecutorCpu(facts, options, std::move(*weights), *kernels));

  ExecutorCpu& e = *executor;
  std::size_t kv_bytes = krn::kv_block_bytes(e.kv_);  // below 2^36 by the ranges
  if (__builtin_mul_overflow(kv_bytes, std::size_t{options.num_blocks}, &kv_bytes))
    kv_bytes = SIZE_MAX;
  e.kv_memory_ = krn::AlignedBuffer::allocate(kv_bytes);
  if (e.kv_memory_.empty()) {
    return make_error(Errc::over_capacity,
                      "the system refuses " + std::to_string(kv_bytes) + " bytes for " +
                          std::to_string(options.num_blocks) + " KV blocks",
                      "num_blocks");
  }
  e.kv_.data = e.kv_memory_.floats();
  if (options.measures_limits) {
    const krn::AlignedBuffer& memory = e.weights_.memory;
    e.limits_ = krn::measure_limits(e.team_, {memory.floats(), memory.bytes() / sizeof(float)});
    e.facts_.peak_operations_per_second =
        static_cast<std::uint64_t>(e.limits_.operations_per_second);
    e.facts_.peak_bytes_per_second = static_cast<std::uint64_t>(e.limits_.bytes_per_second);
  }
  const TransformerLimits limits{options.step_tokens_max, logit_rows_max(facts),
                                 options.sequences_max, facts.context_tokens};
  Result<Transformer> transformer = Transformer::make(e.weights_, *kernels, e.team_, limits);
  if (!transformer) return transformer.error();
  e.transformer_ = std::make_unique<Transformer>(std::move(*transformer));
  return executor;
}

std::span<const float> ExecutorCpu::forward(std::span<const SequenceSpan> spans) {
  const TokenBatch batch = rows_.fill(spans);
  work_ = step_work(costs_, batch);
  num_hidden_ = batch.hidden_rows.size();
  return transformer_->forward(batch, kv_);
}

std::string ExecutorCpu::description() const {
  char text[160];
  std::snprintf(text, sizeof text,
                "cpu kernels=%s threads=%zu kv=%s peak_gflops=%.1f peak_gbytes_per_s=%.1f",
                kernels_->name, team_.num_threads(), kv_type_name(kv_.type),
                limits_.operations_per_second / 1e9, limits_.bytes_per_second / 1e9);
  return text;
}

void ExecutorCpu::zero_blocks(std::span<const BlockId> blocks) {
  const std::size_t bytes = krn::kv_block_bytes(kv_);
  for (const BlockId block : blocks) {
    CHECK(block.value < facts_.num_blocks);
    std::memset(reinterpret_cast<char*>(kv_.data) + block.value * bytes, 0, bytes);
  }
}

}  // namespace sluice::eng
