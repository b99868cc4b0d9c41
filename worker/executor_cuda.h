// ExecutorCuda: a model of the Llama family from a Hugging Face directory on a CUDA device:
// weights, activations and the paged KV cache in device memory, kernels of kernels/cuda, GEMMs
// through cuBLAS.
//
// It sees the device only through a DeviceTable: the tests run the same code on the CPU. A row's
// bits may depend on its batch mates, because cuBLAS chooses its kernel by shape: its facts say
// continuity `tokens` (P2). Hidden states stay on the device: embedding_size is 0. After open()
// nothing is allocated, recordings of launches excepted (DeviceTransformer). One thread, the one
// that opened it.
#pragma once

#include <memory>
#include <string>

#include "worker/batch_rows.h"
#include "worker/cuda/device_transformer.h"
#include "worker/executor.h"
#include "worker/step_work.h"

namespace sluice::eng {

struct ExecutorCudaOptions {
  std::string directory;                // config.json and safetensors
  LoadOptions load;                     // what becomes of the weights, and how
  std::uint32_t context_tokens = 4096;  // the model's own bound holds too
  std::uint32_t block_tokens = 16;      // 8, 16, 32 or 64
  std::uint32_t num_blocks = 4096;
  std::uint32_t sequences_max = 64;     // spans of a step
  std::uint32_t step_tokens_max = 512;  // new tokens of a step
  // Shapes of small steps whose launches are kept, each about a megabyte of device memory; 0: none.
  std::uint32_t recordings_max = 32;
  int device = 0;  // index among those that the driver shows
};

class ExecutorCuda final : public Executor {
 public:
  // The device is looked for before the weights are read. Errors: bad_config (option, no device),
  // bad_file and io_error (file, tensor, reason; the device), over_capacity (memory of either
  // side).
  static Result<std::unique_ptr<ExecutorCuda>> open(const ExecutorCudaOptions& options,
                                                    const krn::cuda::DeviceTable& table);

  // As forward() and zero_blocks(), with the device's failure as an error. It stays: a device that
  // failed computes nothing more for this process.
  Result<std::span<const float>> try_forward(std::span<const SequenceSpan> spans);
  Result<void> try_zero_blocks(std::span<const BlockId> blocks);

  WorkerFacts facts() const override { return facts_; }
  // The driver goes on opening device files while it works.
  DeviceAccess device_access() const override { return DeviceAccess::files; }
  // A failed device stops the process with its reason: the worker's streams go on elsewhere (P3).
  std::span<const float> forward(std::span<const SequenceSpan> spans) override;
  StepWork last_work() const override { return work_; }
  std::string description() const override;
  std::uint64_t num_replays() const { return transformer_->num_replays(); }
  void zero_blocks(std::span<const BlockId> blocks) override;

 private:
  ExecutorCuda(const WorkerFacts& facts, Device device)
      : facts_(facts), device_(std::move(device)), rows_(facts) {}
  Result<void> allocate(const ModelWeights& weights, std::uint32_t recordings_max);

  WorkerFacts facts_;
  Device device_;           // outlives all that lies in its memory
  DeviceBuffer kv_memory_;  // zero at the start
  krn::PagedKv kv_;         // its data is device memory
  std::unique_ptr<DeviceTransformer> transformer_;
  BatchRows rows_;
  StepCosts costs_;
  StepWork work_;
};

}  // namespace sluice::eng
