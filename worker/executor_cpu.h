// ExecutorCpu: a model of the Llama family from a Hugging Face directory or a GGUF file on the CPU
// kernels.
//
// One forward() computes the tokens of all spans together (matrices see one batch; attention runs
// per sequence) and keeps K and V in one arena of blocks. By the kernels' contract a row's
// bits depend on its own ids alone (P2). After open() nothing is allocated. One thread calls; the
// team of `threads` works inside a call and sleeps between.
#pragma once

#include <memory>
#include <string>

#include "kernels/cpu/machine_limits.h"
#include "worker/batch_rows.h"
#include "worker/executor.h"
#include "worker/model/transformer.h"
#include "worker/step_work.h"

namespace sluice::eng {

struct ExecutorCpuOptions {
  std::string directory;                // config.json and safetensors; or a GGUF file
  LoadOptions load;                     // what becomes of the weights, and how
  std::uint32_t context_tokens = 4096;  // the model's own bound holds too
  std::uint32_t block_tokens = 16;      // 8, 16, 32 or 64
  std::uint32_t num_blocks = 4096;
  std::uint32_t sequences_max = 64;        // spans of a step
  std::uint32_t step_tokens_max = 512;     // new tokens of a step
  std::uint32_t threads = 1;               // of the team, the caller included; 1..64
  krn::KvType kv_type = krn::KvType::f32;  // of the KV cache
  std::string kernels = "auto";            // or scalar, avx2, avx512, avx512vnni
  bool measures_limits = false;            // of this machine, for the facts: takes some 15 ms
};

class ExecutorCpu final : public Executor {
 public:
  // Errors: bad_file and io_error (file, tensor, reason), bad_config (option), over_capacity
  // (memory).
  static Result<std::unique_ptr<ExecutorCpu>> open(const ExecutorCpuOptions& options);

  WorkerFacts facts() const override { return facts_; }
  std::span<const float> forward(std::span<const SequenceSpan> spans) override;
  HiddenRows hidden() const override {
    return {transformer_->hidden(), transformer_->hidden_stride(), num_hidden_};
  }
  StepWork last_work() const override { return work_; }
  std::string description() const override;
  void zero_blocks(std::span<const BlockId> blocks) override;

  const ModelWeights& weights() const { return weights_; }
  const char* kernel_name() const { return kernels_->name; }
  std::size_t kv_bytes() const { return kv_memory_.bytes(); }

 private:
  ExecutorCpu(const WorkerFacts& facts, const ExecutorCpuOptions& options, ModelWeights weights,
              const krn::KernelTable& kernels);

  WorkerFacts facts_;
  ModelWeights weights_;
  const krn::KernelTable* kernels_;
  krn::ThreadPool team_;
  krn::MachineLimits limits_;  // zero: not measured
  krn::AlignedBuffer kv_memory_;
  krn::PagedKv kv_;
  std::unique_ptr<Transformer> transformer_;
  BatchRows rows_;
  StepCosts costs_;
  StepWork work_;
  std::size_t num_hidden_ = 0;  // rows of the last forward()
};

}  // namespace sluice::eng
