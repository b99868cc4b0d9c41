// GenerationConfig: what a model's own files say about generating with it. Hugging Face's
// `generation_config.json`, and in a GGUF file the keys `general.sampling.*`, give the sampling
// parameters that its makers recommend and the ids that end its output. They hold where a request
// says nothing, as in vLLM (`--generation-config auto`). Constant after loading.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gateway/api/openai_types.h"
#include "shared/gguf.h"
#include "shared/ids.h"
#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::size_t kGenerationConfigBytesMax = 64u << 10;
inline constexpr std::size_t kEosIdsMax = 64;

struct GenerationConfig {
  std::optional<float> temperature;         // 0..2
  std::optional<float> top_p;               // (0, 1]
  std::optional<float> min_p;               // [0, 1]
  std::optional<float> repetition_penalty;  // (0, 2]
  std::optional<std::uint32_t> top_k;       // 0 is off
  std::vector<TokenId> eos_ids;             // besides the vocabulary's own

  // Fills in what the request left open.
  void apply_to(GenerationRequest& request) const;
};

// `text`: a generation_config.json; read in place. Unknown keys are ignored. Errors: bad_file, with
// the key and what is allowed.
Result<GenerationConfig> parse_generation_config(std::string text, std::uint32_t vocab_size);

// From the keys of a GGUF file; a top_k of -1 is off, too. Errors: bad_file, with the key and what
// is allowed.
Result<GenerationConfig> read_gguf_generation(const GgufHeader& header, std::uint32_t vocab_size);

// model: a directory, whose generation_config.json says nothing where it is missing, or a GGUF
// file. Errors: bad_file with the path.
Result<GenerationConfig> load_generation_config(const std::string& model, std::uint32_t vocab_size);

}  // namespace sluice::gw
