// From the configuration of a model to an executor that is ready to run.
#include "worker/make_executor.h"

#include <algorithm>
#include <future>
#include <thread>

#include "config/load_config.h"
#include "kernels/cuda/launch.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"
#include "worker/canned_executor.h"
#include "worker/executor_cpu.h"
#include "worker/executor_cuda.h"
#include "worker/golden_digest.h"

namespace sluice::eng {
namespace {

// Text that a person can read, whatever stands before and after it: whole characters, none of
// control.
bool is_readable(std::string_view bytes) {
  if (bytes.empty() || !tok::is_valid_utf8(bytes)) return false;
  return std::ranges::none_of(bytes, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

// The golden digest has blocks of its own.
std::uint32_t num_blocks_of(const cfg::Model& model) {
  return model.num_blocks + golden_blocks(model.block_tokens);
}

Result<std::unique_ptr<Executor>> make_canned(const cfg::Model& model) {
  auto tokenizer = tok::Tokenizer::load(cfg::tokenizer_path(model));
  if (!tokenizer) return tokenizer.error();
  CannedModel canned;
  canned.facts.vocab_size = tokenizer->vocabulary().size;
  canned.facts.context_tokens = model.context_tokens;
  canned.facts.block_tokens = model.block_tokens;
  canned.facts.num_blocks = num_blocks_of(model);
  canned.facts.sequences_max = model.sequences_max;
  canned.facts.step_tokens_max = model.step_tokens_max;
  canned.eos = tokenizer->vocabulary().eos;
  canned.step_duration = std::chrono::microseconds(model.canned_step_us);
  canned.crash_marker = model.canned_crash_marker;
  for (TokenId id = 0; id < canned.facts.vocab_size; ++id) {
    const std::string_view bytes = tokenizer->piece_bytes(id);
    if (!tokenizer->is_special(id) && is_readable(bytes)) canned.readable_ids.push_back(id);
    if (!canned.crash_marker.empty()) canned.pieces.emplace_back(bytes);
  }
  if (canned.readable_ids.empty())
    return make_error(Errc::bad_file, "the vocabulary has no readable piece");
  return std::unique_ptr<Executor>(std::make_unique<CannedExecutor>(std::move(canned)));
}

MatrixForm matrix_form(cfg::Quantize quantize) {
  switch (quantize) {
    case cfg::Quantize::none:
      return MatrixForm::stored;
    case cfg::Quantize::int8:
      return MatrixForm::int8;
    case cfg::Quantize::int4:
      return MatrixForm::int4;
  }
  return MatrixForm::stored;
}

krn::KvType kv_type(cfg::KvType type) {
  switch (type) {
    case cfg::KvType::f32:
      return krn::KvType::f32;
    case cfg::KvType::f16:
      return krn::KvType::f16;
    case cfg::KvType::int8:
      return krn::KvType::int8;
  }
  return krn::KvType::f32;
}

std::uint32_t threads_of(const cfg::Model& model) {
  const std::uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
  return model.threads == 0 ? cores : model.threads;
}

LoadOptions load_options(const cfg::Model& model, const LoadProgress& on_progress) {
  return {matrix_form(model.quantize), threads_of(model), on_progress};
}

Result<std::unique_ptr<Executor>> open_cpu(const cfg::Model& model,
                                           const LoadProgress& on_progress) {
  auto executor = ExecutorCpu::open({.directory = cfg::model_path(model),
                                     .load = load_options(model, on_progress),
                                     .context_tokens = model.context_tokens,
                                     .block_tokens = model.block_tokens,
                                     .num_blocks = num_blocks_of(model),
                                     .sequences_max = model.sequences_max,
                                     .step_tokens_max = model.step_tokens_max,
                                     .threads = threads_of(model),
                                     .kv_type = kv_type(model.kv_type),
                                     .kernels = model.kernels,
                                     .measures_limits = true});
  if (!executor) return executor.error();
  return std::unique_ptr<Executor>(std::move(*executor));
}

Result<std::unique_ptr<Executor>> open_cuda(const cfg::Model& model,
                                            const LoadProgress& on_progress) {
  std::string why;
  const krn::cuda::DeviceTable* const table =
      krn::cuda::load_device_module(cfg::beside_program(krn::cuda::kDeviceModule), why);
  if (table == nullptr) {
    return make_error(Errc::bad_config,
                      "device: cuda: " + why + " (a build that finds the CUDA toolkit makes it)",
                      "device");
  }
  auto executor = ExecutorCuda::open({.directory = cfg::model_path(model),
                                      .load = load_options(model, on_progress),
                                      .context_tokens = model.context_tokens,
                                      .block_tokens = model.block_tokens,
                                      .num_blocks = num_blocks_of(model),
                                      .sequences_max = model.sequences_max,
                                      .step_tokens_max = model.step_tokens_max,
                                      .device = 0},
                                     *table);
  if (!executor) return executor.error();
  return std::unique_ptr<Executor>(std::move(*executor));
}

Result<std::unique_ptr<Executor>> make_llama(const cfg::Model& model,
                                             const LoadProgress& on_progress) {
  // Beside the loading, which takes longer.
  std::future<Result<std::uint32_t>> counted = std::async(std::launch::async, [&model] {
    return tok::Tokenizer::count_pieces(cfg::tokenizer_path(model));
  });
  auto executor = model.device == cfg::DeviceKind::cuda ? open_cuda(model, on_progress)
                                                        : open_cpu(model, on_progress);
  const Result<std::uint32_t> num_pieces = counted.get();
  if (!num_pieces) return num_pieces.error();
  if (!executor) return executor.error();
  // The gateway turns ids into text by this vocabulary: every id that the model may draw must be in
  // it.
  const std::uint32_t rows = (*executor)->facts().vocab_size;
  if (rows != *num_pieces)
    return make_error(Errc::bad_file, cfg::model_path(model) + ": the model has " +
                                          std::to_string(rows) + " token rows, its tokenizer " +
                                          std::to_string(*num_pieces) + " pieces");
  return executor;
}

}  // namespace

Result<std::unique_ptr<Executor>> make_executor(const cfg::Model& model,
                                                const LoadProgress& on_progress) {
  switch (model.kind) {
    case cfg::ModelKind::canned:
      return make_canned(model);
    case cfg::ModelKind::llama:
      return make_llama(model, on_progress);
  }
  return make_error(Errc::bad_config, "unknown kind of model");
}

}  // namespace sluice::eng
