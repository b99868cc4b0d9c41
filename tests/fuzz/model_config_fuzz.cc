// config.json: what is accepted lies within the documented ranges, so that later products can't
// overflow.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "shared/check.h"
#include "shared/limits.h"
#include "worker/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto config = sluice::eng::parse_model_config({reinterpret_cast<const char*>(data), size});
  if (!config) {
    CHECK(config.error().code == sluice::Errc::bad_file && !config.error().detail.empty());
    return 0;
  }
  const sluice::eng::ModelConfig& c = *config;
  const auto in = [](std::uint32_t value, std::uint32_t max) { return value >= 1 && value <= max; };
  CHECK(in(c.vocab_size, sluice::kVocabularyMax) && in(c.hidden_size, 65536));
  CHECK(in(c.intermediate_size, 262144) && in(c.num_layers, 512) && in(c.num_heads, 512));
  CHECK(in(c.num_kv_heads, c.num_heads) && c.num_heads % c.num_kv_heads == 0);
  CHECK(in(c.head_dim, 256) && c.head_dim % 2 == 0 && in(c.context_tokens, 1u << 24));
  CHECK(c.norm_eps >= 0 && c.norm_eps <= 0.1f);
  for (const sluice::TokenId id : c.eos_ids) CHECK(id < c.vocab_size);
  for (const double frequency : sluice::eng::rope_frequencies(c)) {
    CHECK(std::isfinite(frequency) && frequency >= 0 && frequency <= 1);
  }
  return 0;
}
