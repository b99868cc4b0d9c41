// JSON files of a model directory: what is accepted of a config.json lies within the documented
// ranges, so that later products can't overflow; what is read of a tokenizer.json encodes every
// text in known ids.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/check.h"
#include "shared/limits.h"
#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/tokenizer_json.h"
#include "worker/model/model_config.h"

namespace {

void read_vocabulary(std::string_view json) {
  namespace tok = sluice::tok;
  const auto source = tok::read_tokenizer_json(std::string(json), {.bos_token = "<s>"}, 300);
  if (!source) {
    CHECK(source.error().code == sluice::Errc::bad_file && !source.error().detail.empty());
    return;
  }
  const tok::ByteLevelVocabulary& vocabulary = source->byte_level.value();
  CHECK(vocabulary.pieces.size() >= 300 && vocabulary.pieces.size() <= sluice::kVocabularyMax);
  const tok::ByteLevelBpe bpe(vocabulary, 0xFFFFFFFF);
  std::vector<sluice::TokenId> ids;
  for (const std::string_view word : {"abab", " a", "12\n"}) bpe.encode_word(word, ids);
  for (const sluice::TokenId id : ids) CHECK(vocabulary.is_normal.at(id));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read_vocabulary({reinterpret_cast<const char*>(data), size});
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
