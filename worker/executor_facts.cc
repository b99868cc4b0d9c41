// Ranges, and the hash of a path's name.
#include "worker/executor_facts.h"

#include <algorithm>

#include "kernels/paged_kv.h"
#include "shared/limits.h"

namespace sluice::eng {
namespace {

constexpr std::uint32_t kStepTokensMax = 1u << 16;

// FNV-1a: equal names, equal hashes, on every host.
std::uint64_t name_hash(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

Result<void> check_sizes(const WorkerFacts& wanted) {
  const auto in = [](std::uint32_t value, std::uint32_t max) { return value >= 1 && value <= max; };
  const auto bad = [](const char* key, std::string allowed) {
    return make_error(Errc::bad_config, std::string(key) + " must be " + std::move(allowed), key);
  };
  if (!in(wanted.context_tokens, kContextTokensMax)) return bad("context_tokens", "1 to 1048576");
  if (!krn::is_block_tokens(wanted.block_tokens)) return bad("block_tokens", "8, 16, 32 or 64");
  if (wanted.num_blocks < 1) return bad("num_blocks", "at least 1");
  if (!in(wanted.sequences_max, kBatchSequencesMax)) return bad("sequences_max", "1 to 256");
  if (!in(wanted.step_tokens_max, kStepTokensMax)) return bad("step_tokens_max", "1 to 65536");
  return {};
}

WorkerFacts model_facts(WorkerFacts sizes, const ModelWeights& weights,
                        std::string_view kernel_path) {
  sizes.vocab_size = weights.config.vocab_size;
  sizes.context_tokens = std::min(sizes.context_tokens, weights.config.context_tokens);
  sizes.weights_digest = 0;
  for (std::size_t i = 0; i < 8; ++i)
    sizes.weights_digest = (sizes.weights_digest << 8) | weights.digest[i];
  sizes.kernel_path = name_hash(kernel_path);
  return sizes;
}

const char* kv_type_name(krn::KvType type) {
  switch (type) {
    case krn::KvType::f32:
      return "f32";
    case krn::KvType::f16:
      return "f16";
    case krn::KvType::int8:
      return "int8";
  }
  return "";
}

const char* matrix_form_suffix(MatrixForm form) {
  switch (form) {
    case MatrixForm::stored:
      return "";
    case MatrixForm::int8:
      return "/int8";
    case MatrixForm::int4:
      return "/int4";
  }
  return "";
}

}  // namespace sluice::eng
