// The executor's shell: options checked, memory made, spans flattened for the transformer.
#include "worker/executor_cpu.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "kernels/pack.h"
#include "shared/limits.h"

namespace sluice::eng {
namespace {

constexpr std::uint32_t kThreadsMax = 64;
constexpr std::uint32_t kStepTokensMax = 1u << 16;

// FNV-1a: equal names, equal hashes, on every host.
std::uint64_t name_hash(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

Result<void> check_options(const ExecutorCpuOptions& o) {
  const auto in = [](std::uint32_t value, std::uint32_t max) { return value >= 1 && value <= max; };
  const auto bad = [](const char* key, std::string allowed) {
    return make_error(Errc::bad_config, std::string(key) + " must be " + std::move(allowed), key);
  };
  if (!in(o.context_tokens, kContextTokensMax)) return bad("context_tokens", "1 to 1048576");
  if (!krn::is_block_tokens(o.block_tokens)) return bad("block_tokens", "8, 16, 32 or 64");
  if (o.num_blocks < 1) return bad("num_blocks", "at least 1");
  if (!in(o.sequences_max, kBatchSequencesMax)) return bad("sequences_max", "1 to 256");
  if (!in(o.step_tokens_max, kStepTokensMax)) return bad("step_tokens_max", "1 to 65536");
  if (!in(o.threads, kThreadsMax)) return bad("threads", "1 to 64");
  return {};
}

}  // namespace

ExecutorCpu::ExecutorCpu(const ExecutorCpuOptions& options, ModelWeights weights,
                         const krn::KernelTable& kernels)
    : options_(options), weights_(std::move(weights)), kernels_(&kernels), team_(options.threads) {
  const ModelConfig& c = weights_.config;
  options_.context_tokens = std::min(options_.context_tokens, c.context_tokens);
  kv_ = {nullptr,        options_.num_blocks, c.num_layers,
         c.num_kv_heads, c.head_dim,          options_.block_tokens};
}

Result<std::unique_ptr<ExecutorCpu>> ExecutorCpu::open(const ExecutorCpuOptions& options) {
  const Result<void> checked = check_options(options);
  if (!checked) return checked.error();
  const krn::KernelTable* kernels = krn::find_kernels(options.kernels.c_str());
  if (kernels == nullptr) {
    return make_error(
        Errc::bad_config,
        "kernels '" + printable(options.kernels) + "' are unknown or this CPU can't run them",
        "kernels");
  }
  Result<ModelWeights> weights = load_weights(options.directory);
  if (!weights) return weights.error();
  std::unique_ptr<ExecutorCpu> executor(new ExecutorCpu(options, std::move(*weights), *kernels));

  ExecutorCpu& e = *executor;
  std::size_t kv_bytes = krn::kv_block_floats(e.kv_) * sizeof(float);  // below 2^36 by the ranges
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
  if (options.measures_limits) e.limits_ = krn::measure_limits(e.team_);
  const TransformerLimits limits{options.step_tokens_max, options.sequences_max,
                                 options.sequences_max, e.options_.context_tokens};
  Result<Transformer> transformer = Transformer::make(e.weights_, *kernels, e.team_, limits);
  if (!transformer) return transformer.error();
  e.transformer_ = std::make_unique<Transformer>(std::move(*transformer));
  const std::size_t table =
      (e.options_.context_tokens + options.block_tokens - 1) / options.block_tokens;
  e.ids_.reserve(options.step_tokens_max);
  e.tables_.reserve(table * options.sequences_max);
  e.spans_.reserve(options.sequences_max);
  e.logit_rows_.reserve(options.sequences_max);
  return executor;
}

WorkerFacts ExecutorCpu::facts() const {
  WorkerFacts facts;
  facts.vocab_size = weights_.config.vocab_size;
  facts.context_tokens = options_.context_tokens;
  facts.block_tokens = options_.block_tokens;
  facts.num_blocks = options_.num_blocks;
  facts.sequences_max = options_.sequences_max;
  facts.step_tokens_max = options_.step_tokens_max;
  for (std::size_t i = 0; i < 8; ++i) {
    facts.weights_digest = (facts.weights_digest << 8) | weights_.digest[i];
  }
  // The paths agree bit for bit where the tests ran; a stream still moves only between equal ones,
  // because the RoPE table comes from the host's libm, which is chosen by CPU as well.
  facts.kernel_path = name_hash(std::string("cpu/") + kernels_->name + "/lanes16/kv-f32");
  facts.peak_operations_per_second = static_cast<std::uint64_t>(limits_.operations_per_second);
  facts.peak_bytes_per_second = static_cast<std::uint64_t>(limits_.bytes_per_second);
  return facts;
}

std::string ExecutorCpu::description() const {
  char text[160];
  std::snprintf(text, sizeof text,
                "cpu kernels=%s threads=%zu kv=f32 peak_gflops=%.1f peak_gbytes_per_s=%.1f",
                kernels_->name, team_.num_threads(), limits_.operations_per_second / 1e9,
                limits_.bytes_per_second / 1e9);
  return text;
}

// Matrices and attention; norms, rotations and activations are left out (about one per cent of the
// operations). Each weight is read once per step, however many tokens share it.
StepWork ExecutorCpu::work_of_step() const {
  const ModelConfig& c = weights_.config;
  const auto elements = [](const krn::PackedMatrix& w) { return std::uint64_t{w.rows} * w.cols; };
  const LayerWeights& layer = weights_.layers.front();  // all layers have one shape
  const std::uint64_t layer_elements = elements(layer.qkv) + elements(layer.attention_out) +
                                       elements(layer.gate_up) + elements(layer.down);
  const std::uint64_t position_bytes = std::uint64_t{2} * c.kv_width() * sizeof(float);
  std::uint64_t attended = 0;   // pairs of a new token and a position that it sees
  std::uint64_t positions = 0;  // of KV, read or written
  for (const krn::AttentionSpan& span : spans_) {
    attended += span.num_tokens * span.start + span.num_tokens * (span.num_tokens + 1) / 2;
    positions += span.start + span.num_tokens;
  }
  const std::uint64_t head_bytes =
      krn::packed_bytes(weights_.head.rows, weights_.head.cols, weights_.head.type);
  StepWork work;
  work.operations = c.num_layers * (2 * layer_elements * ids_.size() + 4 * c.q_width() * attended) +
                    2 * elements(weights_.head) * logit_rows_.size();
  work.bytes_moved = c.num_layers * position_bytes * positions +
                     ids_.size() * c.hidden_size * krn::weight_bytes(weights_.embedding_type);
  if (!ids_.empty()) work.bytes_moved += weights_.matrix_bytes_per_token - head_bytes;
  if (!logit_rows_.empty()) work.bytes_moved += head_bytes;
  return work;
}

// Our own scheduler made the spans: what is wrong with them is a bug, not input.
void ExecutorCpu::flatten(std::span<const SequenceSpan> spans) {
  ids_.clear();
  tables_.clear();
  spans_.clear();
  logit_rows_.clear();
  CHECK(spans.size() <= options_.sequences_max);
  for (const SequenceSpan& span : spans) {
    const std::size_t end = std::size_t{span.start} + span.ids.size();
    const std::size_t num_blocks = (end + options_.block_tokens - 1) / options_.block_tokens;
    CHECK(!span.ids.empty() && end <= options_.context_tokens && span.blocks.size() >= num_blocks);
    CHECK(ids_.size() + span.ids.size() <= options_.step_tokens_max);
    spans_.push_back({ids_.size(), span.ids.size(), span.start, tables_.data() + tables_.size()});
    for (std::size_t b = 0; b < num_blocks; ++b) {
      CHECK(span.blocks[b].value < options_.num_blocks);
      tables_.push_back(span.blocks[b].value);
    }
    for (const TokenId id : span.ids) {
      CHECK(id < weights_.config.vocab_size);
      ids_.push_back(id);
    }
    if (span.wants_logits) logit_rows_.push_back(static_cast<std::uint32_t>(ids_.size() - 1));
  }
}

std::span<const float> ExecutorCpu::forward(std::span<const SequenceSpan> spans) {
  flatten(spans);
  work_ = work_of_step();
  return transformer_->forward({ids_, spans_, logit_rows_}, kv_);
}

void ExecutorCpu::zero_blocks(std::span<const BlockId> blocks) {
  const std::size_t floats = krn::kv_block_floats(kv_);
  for (const BlockId block : blocks) {
    CHECK(block.value < options_.num_blocks);
    std::memset(kv_.data + block.value * floats, 0, floats * sizeof(float));
  }
}

}  // namespace sluice::eng
