// TokenizerConfig: what a Hugging Face tokenizer_config.json says beyond the vocabulary, and the
// chat template in chat_template.jinja beside it. Both files are optional; unknown fields are
// ignored.
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
  std::string bos_token, eos_token;         // texts; empty: as the vocabulary says
  std::vector<std::string> special_tokens;  // texts of added tokens that are marked special
};

// A missing file is an empty configuration. chat_template.jinja in its folder goes before the
// template of the file. Errors: bad_file.
Result<TokenizerConfig> load_tokenizer_config(const std::string& path);

// The number of rows of the model: vocab_size of a config.json; 0: it does not say. Errors:
// bad_file.
Result<std::uint32_t> load_num_rows(const std::string& path);

// A whole file of at most `bytes_max`. Errors: bad_file.
Result<std::string> read_model_file(const std::string& path, std::size_t bytes_max);

}  // namespace sluice::tok
