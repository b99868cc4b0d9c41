// The input as a whole weights file: length prefix, header, data; and as a shard index. An accepted
// header must keep its invariants, and planning a small model with it must end in a plan or an
// error.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/check.h"
#include "worker/model/safetensors.h"
#include "worker/model/weight_plan.h"

namespace {

using namespace sluice;
using namespace sluice::eng;

ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 5;
  config.hidden_size = 4;
  config.intermediate_size = 3;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 2;
  config.context_tokens = 64;
  return config;
}

void check_header(const TensorTable& header, std::size_t file_bytes) {
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    CHECK(tensor.offset == end);
    CHECK(!tensor.name.empty() && tensor.shape.size() <= kTensorDimsMax);
    unsigned __int128 elements = 1;
    for (const std::uint64_t size : tensor.shape) elements *= size;
    CHECK(elements <= tensor.bytes);
    end += tensor.bytes;
  }
  CHECK(header.data_begin + end == file_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto index = parse_shard_index(text)) {
    for (const auto& [tensor, file] : *index) CHECK(file.find('/') == std::string::npos);
  }
  if (size < 8) return 0;
  const auto length = safetensors_header_length(std::span<const std::uint8_t, 8>(data, 8), size);
  if (!length) return 0;
  CHECK(*length <= size - 8);
  auto header = parse_safetensors_header(text.substr(8, *length), size);
  if (!header) {
    CHECK(header.error().code == Errc::bad_file && !header.error().detail.empty());
    return 0;
  }
  check_header(*header, size);
  std::vector<Shard> shards;
  shards.push_back({"model.safetensors", std::move(*header)});
  const auto plan = make_weight_plan(small_config(), shards, {});
  CHECK(plan || plan.error().code == Errc::bad_file);
  return 0;
}
