// Lines of a dataset; see dataset.h.
#include "gateway/bench/dataset.h"

#include <simdjson.h>

#include "gateway/bench/line_reader.h"

namespace sluice::bench {
namespace {

constexpr const char* kParam = "dataset";
constexpr std::uint64_t kMaxTokensMax = 1u << 20;

bool are_ids(const simdjson::dom::array& values) {
  for (const simdjson::dom::element value : values) {
    std::uint64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || id > UINT32_MAX) return false;
  }
  return values.size() > 0;
}

Result<DatasetPrompt> prompt_of(const LineReader& lines, const simdjson::dom::element& root) {
  DatasetPrompt out;
  simdjson::dom::element prompt, messages, turns;
  const bool has_prompt = root["prompt"].get(prompt) == simdjson::SUCCESS;
  const bool has_messages = root["messages"].get(messages) == simdjson::SUCCESS;
  const bool has_turns = root["turns"].get(turns) == simdjson::SUCCESS;
  if (int{has_prompt} + int{has_messages} + int{has_turns} != 1)
    return lines.error("expected one of prompt, messages, turns", kParam);
  simdjson::dom::array array;
  std::string_view text;
  if (has_messages) {
    if (messages.get(array) != simdjson::SUCCESS || array.size() == 0)
      return lines.error("messages are no array with members", kParam);
    out.kind = PromptKind::messages;
    out.value = simdjson::minify(messages);
    return out;
  }
  if (has_turns) {
    if (turns.get(array) != simdjson::SUCCESS || array.at(0).get(text) != simdjson::SUCCESS)
      return lines.error("turns are no array of texts", kParam);
    out.value = text;
    return out;
  }
  if (prompt.get(text) == simdjson::SUCCESS) {
    out.value = text;
    return out;
  }
  if (prompt.get(array) != simdjson::SUCCESS || !are_ids(array))
    return lines.error("the prompt is no text and no array of ids", kParam);
  out.kind = PromptKind::ids;
  out.value = simdjson::minify(prompt);
  return out;
}

}  // namespace

Result<std::vector<DatasetPrompt>> parse_dataset(std::string_view text) {
  std::vector<DatasetPrompt> prompts;
  simdjson::dom::parser parser;
  LineReader lines(text);
  std::string_view line;
  while (lines.next(line)) {
    simdjson::dom::element root;
    if (parser.parse(simdjson::padded_string(line)).get(root) != simdjson::SUCCESS ||
        !root.is_object())
      return lines.error("not a JSON object", kParam);
    if (prompts.size() == kReplayLinesMax)
      return lines.error("more than " + std::to_string(kReplayLinesMax) + " prompts", kParam);
    Result<DatasetPrompt> prompt = prompt_of(lines, root);
    if (!prompt) return prompt.error();
    simdjson::dom::element max_tokens;
    if (root["max_tokens"].get(max_tokens) == simdjson::SUCCESS) {
      std::uint64_t value = 0;
      if (max_tokens.get(value) != simdjson::SUCCESS || value < 1 || value > kMaxTokensMax)
        return lines.error("max_tokens is no number from 1 to " + std::to_string(kMaxTokensMax),
                           kParam);
      prompt->max_tokens = static_cast<std::uint32_t>(value);
    }
    prompts.push_back(std::move(*prompt));
  }
  if (prompts.empty()) return lines.error("the dataset holds no prompt", kParam);
  return prompts;
}

}  // namespace sluice::bench
