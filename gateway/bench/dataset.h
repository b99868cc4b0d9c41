// Dataset: prompts of a file, for `sluice bench --dataset`. JSON lines, each an object with one of
//
//   "prompt"    a text; for completions also the ids of tokens: [1, 15043, ...]
//   "messages"  a chat, as the API takes it
//   "turns"     texts (MT-Bench): the first one counts
//
// and, if it differs from the run's, "max_tokens". Other members are passed over. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/result.h"

namespace sluice::bench {

enum class PromptKind : std::uint8_t { text, ids, messages };

struct DatasetPrompt {
  PromptKind kind = PromptKind::text;
  std::string value;  // the text, or JSON
  std::optional<std::uint32_t> max_tokens;
};

// Errors: invalid_value, with the number of the line; param "dataset".
Result<std::vector<DatasetPrompt>> parse_dataset(std::string_view text);

}  // namespace sluice::bench
