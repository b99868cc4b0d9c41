// The executor's shell: options checked, the device opened and filled, the transformer called.
#include "worker/executor_cuda.h"

#include <cstdio>

#include "worker/executor_facts.h"

namespace sluice::eng {
namespace {

[[noreturn]] void stop(const Error& error) {
  check_failed("the device works", error.detail.c_str(), __FILE__, __LINE__);
}

}  // namespace

Result<std::unique_ptr<ExecutorCuda>> ExecutorCuda::open(const ExecutorCudaOptions& options,
                                                         const krn::cuda::DeviceTable& table) {
  WorkerFacts facts;
  facts.context_tokens = options.context_tokens;
  facts.block_tokens = options.block_tokens;
  facts.num_blocks = options.num_blocks;
  facts.sequences_max = options.sequences_max;
  facts.step_tokens_max = options.step_tokens_max;
  facts.continuity = Continuity::tokens;
  const Result<void> checked = check_sizes(facts);
  if (!checked) return checked.error();
  Result<Device> device = Device::open(table, options.device);
  if (!device) return device.error();
  const Result<ModelWeights> weights = load_weights(options.directory, options.load);
  if (!weights) return weights.error();
  facts = model_facts(
      facts, *weights,
      std::string(table.name) + "/f32" + matrix_form_suffix(options.load.matrices) + "/kv-f32");
  std::unique_ptr<ExecutorCuda> executor(new ExecutorCuda(facts, std::move(*device)));
  const Result<void> allocated = executor->allocate(*weights, options.recordings_max);
  if (!allocated) return allocated.error();
  return executor;
}

Result<void> ExecutorCuda::allocate(const ModelWeights& weights, std::uint32_t recordings_max) {
  const ModelConfig& c = weights.config;
  kv_ = {nullptr, facts_.num_blocks, c.num_layers, c.num_kv_heads, c.head_dim, facts_.block_tokens};
  const std::size_t block_bytes =
      krn::kv_block_floats(kv_) * sizeof(float);  // below 2^36 by the ranges
  kv_memory_ = device_.allocate(facts_.num_blocks, block_bytes, "KV blocks");
  kv_.data = kv_memory_.floats();
  // Device memory may hold what another process left there (P7).
  device_.run(device_.table().clear, "KV blocks", kv_memory_.data(),
              facts_.num_blocks * block_bytes);
  Result<DeviceWeights> uploaded = upload_weights(weights, device_);
  if (!uploaded) return uploaded.error();
  const DeviceTransformerLimits limits{
      {facts_.step_tokens_max, logit_rows_max(facts_), facts_.sequences_max, facts_.context_tokens},
      rows_.table_blocks_max(),
      recordings_max};
  Result<DeviceTransformer> transformer =
      DeviceTransformer::make(device_, c, std::move(*uploaded), limits, kv_);
  if (!transformer) return transformer.error();
  transformer_ = std::make_unique<DeviceTransformer>(std::move(*transformer));
  costs_ = step_costs(weights, WeightStorage::float32, krn::KvType::f32);
  return {};
}

Result<std::span<const float>> ExecutorCuda::try_forward(std::span<const SequenceSpan> spans) {
  const TokenBatch batch = rows_.fill(spans);
  work_ = step_work(costs_, batch);
  const bool was_recording = transformer_->recording_failure().empty();
  Result<std::span<const float>> logits = transformer_->forward(batch);
  if (was_recording && !transformer_->recording_failure().empty()) {
    std::fprintf(stderr, "event=device_records_no_steps why=\"%s\"\n",
                 transformer_->recording_failure().c_str());
  }
  return logits;
}

std::string ExecutorCuda::description() const {
  return std::string(device_.table().name) + " weights=f32 kv=f32";
}

Result<void> ExecutorCuda::try_zero_blocks(std::span<const BlockId> blocks) {
  const std::size_t floats = krn::kv_block_floats(kv_);
  for (const BlockId block : blocks) {
    CHECK(block.value < facts_.num_blocks);
    device_.run(device_.table().clear, "KV blocks", kv_.data + block.value * floats,
                floats * sizeof(float));
  }
  return device_.check();
}

std::span<const float> ExecutorCuda::forward(std::span<const SequenceSpan> spans) {
  const Result<std::span<const float>> logits = try_forward(spans);
  if (!logits) stop(logits.error());
  return *logits;
}

void ExecutorCuda::zero_blocks(std::span<const BlockId> blocks) {
  const Result<void> done = try_zero_blocks(blocks);
  if (!done) stop(done.error());
}

}  // namespace sluice::eng
