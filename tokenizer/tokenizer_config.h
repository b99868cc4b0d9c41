// TokenizerConfig: what a Hugging Face tokenizer_config.json says beyond the vocabulary. The file
// is optional; unknown fields are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/result.h"

namespace sluice::tok {

struct TokenizerConfig {
  std::optional<bool> add_bos_token;
  std::string chat_template;                // Jinja source; of several the one named "default"
  std::vector<std::string> special_tokens;  // texts of added tokens that are marked special
  std::string bos_token, eos_token;         // their texts; empty: none
};

// A missing file is an empty configuration. Errors: bad_file.
Result<TokenizerConfig> load_tokenizer_config(const std::string& path);

// The number of rows of the model: vocab_size of a config.json; 0: it does not say. Errors:
// bad_file.
Result<std::uint32_t> load_num_rows(const std::string& path);

// A whole file of at most `bytes_max`. Errors: bad_file.
Result<std::string> read_model_file(const std::string& path, std::size_t bytes_max);

}  // namespace sluice::tok
