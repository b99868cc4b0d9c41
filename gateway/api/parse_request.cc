// The field table: every name that the API knows, and how its value is read.
#include "gateway/api/parse_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <span>

#include "gateway/api/field_reader.h"
#include "gateway/api/json_document.h"
#include "gateway/api/parse_messages.h"
#include "shared/limits.h"

namespace sluice::gw {

namespace dom = simdjson::dom;

bool FieldReader::token_ids(dom::array array, std::string_view param, std::size_t count_max,
                            std::vector<TokenId>& out) {
  if (array.size() > count_max)
    return wrong(param, "a list of at most " + std::to_string(count_max) + " token ids");
  out.reserve(out.size() + array.size());
  std::size_t index = 0;
  for (Element element : array) {
    std::int64_t id = -1;
    if (element.type() != dom::element_type::INT64 || element.get(id) != simdjson::SUCCESS ||
        id < 0 || id >= std::int64_t{kVocabularyMax})
      return wrong(std::string(param) + "[" + std::to_string(index) + "]",
                   "a token id of the model's vocabulary");
    out.push_back(static_cast<TokenId>(id));
    ++index;
  }
  return true;
}

namespace {

using Element = dom::element;

struct Reading {
  FieldReader& reader;
  GenerationRequest& request;
  std::optional<std::uint32_t> max_completion_tokens{};
  std::optional<std::int64_t> best_of{};
  bool wants_chat_logprobs = false;
  std::uint32_t top_logprobs = 0;  // chat
  bool has_stream_options = false;
  bool has_messages = false;
  bool has_prompt = false;
};

constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kInt64Min = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kInt32Min = std::numeric_limits<std::int32_t>::min();

// ---- one function per field: false after recording an error

bool read_model(Reading& r, Element v, std::string_view name) {
  if (!r.reader.text(v, name, r.request.model)) return false;
  return !r.request.model.empty() || r.reader.wrong(name, "the name of a model");
}

bool read_stop(Reading& r, Element v, std::string_view name) {
  const auto add = [&](Element element, const std::string& param) {
    std::string_view text;
    if (element.get(text) != simdjson::SUCCESS || text.empty() || text.size() > kStopStringBytesMax)
      return r.reader.wrong(param, "a string of 1 to " + std::to_string(kStopStringBytesMax) +
                                       " bytes, or a list of up to " +
                                       std::to_string(kStopStringsMax) + " such strings");
    r.request.stop.emplace_back(text);
    return true;
  };
  dom::array array;
  if (v.get(array) != simdjson::SUCCESS) return add(v, std::string(name));
  if (array.size() > kStopStringsMax)
    return r.reader.wrong(name, "at most " + std::to_string(kStopStringsMax) + " strings");
  std::size_t index = 0;
  for (Element element : array)
    if (!add(element, "stop[" + std::to_string(index++) + "]")) return false;
  return true;
}

bool read_stop_token_ids(Reading& r, Element v, std::string_view name) {
  dom::array array;
  if (v.get(array) != simdjson::SUCCESS) return r.reader.wrong(name, "a list of token ids");
  return r.reader.token_ids(array, name, kStopIdsMax, r.request.stop_token_ids);
}

bool read_logit_bias(Reading& r, Element v, std::string_view name) {
  dom::object object;
  if (v.get(object) != simdjson::SUCCESS)
    return r.reader.wrong(name, "an object from token ids to numbers");
  if (object.size() > kLogitBiasMax)
    return r.reader.wrong(name, "an object of at most " + std::to_string(kLogitBiasMax) + " ids");
  for (const dom::key_value_pair field : object) {
    const std::string param = "logit_bias." + std::string(field.key.substr(0, 32));
    TokenId id = 0;
    const char* end = field.key.data() + field.key.size();
    const auto [rest, error] = std::from_chars(field.key.data(), end, id);
    const bool is_plain = error == std::errc() && rest == end && id < kVocabularyMax &&
                          (field.key.size() == 1 || field.key.front() != '0');
    if (!is_plain) return r.reader.wrong(param, "a token id of the model's vocabulary");
    float bias = 0;
    if (!r.reader.number(field.value, param, -100, 100, "a number from -100 to 100", bias))
      return false;
    r.request.logit_bias.push_back({id, bias});
  }
  return true;
}

bool read_stream_options(Reading& r, Element v, std::string_view name) {
  dom::object object;
  if (v.get(object) != simdjson::SUCCESS) return r.reader.wrong(name, "an object");
  r.has_stream_options = true;
  StreamOptions& options = r.request.stream_options;
  for (const dom::key_value_pair field : object) {
    if (field.value.is_null()) continue;
    if (field.key == "include_usage" &&
        !r.reader.boolean(field.value, "stream_options.include_usage", options.include_usage))
      return false;
    if (field.key == "continuous_usage_stats" &&
        !r.reader.boolean(field.value, "stream_options.continuous_usage_stats",
                          options.continuous_usage_stats))
      return false;
  }
  return true;
}

bool read_response_format(Reading& r, Element v, std::string_view name) {
  dom::object object;
  std::string_view type;
  if (v.get(object) != simdjson::SUCCESS) return r.reader.wrong(name, "an object with a 'type'");
  if (object["type"].get(type) != simdjson::SUCCESS)
    return r.reader.wrong("response_format.type", "'text', 'json_object' or 'json_schema'");
  if (type == "text") return true;
  if (type == "json_object" || type == "json_schema") return r.reader.unsupported(name);
  return r.reader.wrong("response_format.type", "'text', 'json_object' or 'json_schema'");
}

bool read_tools(Reading& r, Element v, std::string_view name) {
  dom::array array;
  if (v.get(array) != simdjson::SUCCESS) return r.reader.wrong(name, "a list");
  return array.size() == 0 || r.reader.unsupported(name);
}

bool read_tool_choice(Reading& r, Element v, std::string_view name) {
  if (v.is_object()) return r.reader.unsupported(name);
  std::string_view choice;
  if (v.get(choice) != simdjson::SUCCESS)
    return r.reader.wrong(name, "'none', 'auto', 'required' or an object");
  if (choice == "none" || choice == "auto") return true;
  if (choice == "required") return r.reader.unsupported(name);
  return r.reader.wrong(name, "'none', 'auto', 'required' or an object");
}

bool read_logprobs(Reading& r, Element v, std::string_view name) {
  if (r.request.kind == ApiKind::chat) return r.reader.boolean(v, name, r.wants_chat_logprobs);
  return r.reader.integer(v, name, 0, kTopLogprobsMax, r.request.logprobs.emplace());
}

bool read_top_logprobs(Reading& r, Element v, std::string_view name) {
  return r.reader.integer(v, name, 0, kTopLogprobsMax, r.top_logprobs);
}

bool read_metadata(Reading& r, Element v, std::string_view name) {
  dom::object object;
  if (v.get(object) != simdjson::SUCCESS || object.size() > 16)
    return r.reader.wrong(name, "an object of at most 16 strings");
  for (const dom::key_value_pair field : object) {
    std::string_view text;
    if (field.key.size() > 64 || field.value.get(text) != simdjson::SUCCESS || text.size() > 512)
      return r.reader.wrong(name, "an object of strings (keys <= 64, values <= 512 bytes)");
  }
  return true;
}

bool read_service_tier(Reading& r, Element v, std::string_view name) {
  constexpr std::array<std::string_view, 5> kTiers{"auto", "default", "flex", "priority", "scale"};
  std::string_view tier;
  if (v.get(tier) == simdjson::SUCCESS &&
      std::find(kTiers.begin(), kTiers.end(), tier) != kTiers.end())
    return true;
  return r.reader.wrong(name, "'auto', 'default', 'flex', 'priority' or 'scale'");
}

bool read_modalities(Reading& r, Element v, std::string_view name) {
  dom::array array;
  if (v.get(array) != simdjson::SUCCESS || array.size() == 0)
    return r.reader.wrong(name, "a list of strings");
  for (Element element : array) {
    std::string_view kind;
    if (element.get(kind) != simdjson::SUCCESS) return r.reader.wrong(name, "a list of strings");
    if (kind != "text") return r.reader.unsupported(name);
  }
  return true;
}

bool read_sluice(Reading& r, Element v, std::string_view name) {
  dom::object object;
  if (v.get(object) != simdjson::SUCCESS) return r.reader.wrong(name, "an object");
  Element timing;
  if (object["timing"].get(timing) != simdjson::SUCCESS || timing.is_null()) return true;
  return r.reader.boolean(timing, "sluice.timing", r.request.wants_timing);
}

bool read_prompt_list(Reading& r, dom::array array, std::string_view name, std::size_t count_max) {
  GenerationRequest& request = r.request;
  if (array.at(0).is_int64()) {
    PromptInput& prompt = request.prompts.emplace_back();
    prompt.is_ids = true;
    return r.reader.token_ids(array, name, kContextTokensMax, prompt.ids);
  }
  if (array.size() > count_max)
    return r.reader.wrong(name, "a list of at most " + std::to_string(count_max) + " entries");
  const bool are_texts = array.at(0).is_string();
  std::size_t index = 0;
  for (Element element : array) {
    const std::string param = std::string(name) + "[" + std::to_string(index++) + "]";
    PromptInput& prompt = request.prompts.emplace_back();
    if (are_texts) {
      if (!r.reader.text(element, param, prompt.text)) return false;
      continue;
    }
    dom::array ids;
    if (element.get(ids) != simdjson::SUCCESS || ids.size() == 0)
      return r.reader.wrong(param, "a list of token ids");
    prompt.is_ids = true;
    if (!r.reader.token_ids(ids, param, kContextTokensMax, prompt.ids)) return false;
  }
  return true;
}

// Text, ids, or a list of either.
bool read_prompts(Reading& r, Element v, std::string_view name, std::size_t count_max) {
  r.has_prompt = true;
  if (v.is_string()) return r.reader.text(v, name, r.request.prompts.emplace_back().text);
  dom::array array;
  if (v.get(array) == simdjson::SUCCESS && array.size() > 0)
    return read_prompt_list(r, array, name, count_max);
  return r.reader.wrong(name,
                        "a string, a list of strings, token ids or a list of lists of token ids");
}

bool read_prompt(Reading& r, Element v, std::string_view name) {
  if (r.request.kind == ApiKind::chat) return true;  // unknown to chat: ignored
  return read_prompts(r, v, name, kChoicesMax);
}

bool read_input(Reading& r, Element v, std::string_view name) {
  return read_prompts(r, v, name, kEmbeddingInputsMax);
}

bool read_encoding_format(Reading& r, Element v, std::string_view name) {
  std::string_view format;
  const bool is_text = v.get(format) == simdjson::SUCCESS;
  if (!is_text || (format != "float" && format != "base64"))
    return r.reader.wrong(name, "'float' or 'base64'");
  r.request.encoding_format = format == "base64" ? EncodingFormat::base64 : EncodingFormat::floats;
  return true;
}

bool read_dimensions(Reading& r, Element v, std::string_view name) {
  return r.reader.integer(v, name, 1, kEmbeddingSizeMax, r.request.dimensions.emplace());
}

bool read_chat_messages(Reading& r, Element v, std::string_view) {
  if (r.request.kind == ApiKind::completion) return true;  // unknown to completions: ignored
  r.has_messages = true;
  return read_messages(r.reader, v, r.request.messages);
}

bool read_echo(Reading& r, Element v, std::string_view name) {
  if (!r.reader.boolean(v, name, r.request.echo)) return false;
  return !r.request.echo || r.request.kind == ApiKind::completion || r.reader.unsupported(name);
}

bool read_suffix(Reading& r, Element v, std::string_view name) {
  std::string_view text;
  if (v.get(text) != simdjson::SUCCESS) return r.reader.wrong(name, "a string");
  return text.empty() || r.reader.unsupported(name);
}

bool read_top_k(Reading& r, Element v, std::string_view name) {
  std::int64_t top_k = 0;
  if (!r.reader.integer(v, name, -1, kInt32Max, top_k)) return false;
  r.request.given.add(SamplingField::top_k);
  r.request.sampling.top_k = top_k > 0 ? static_cast<std::uint32_t>(top_k) : 0;
  return true;
}

bool read_top_p(Reading& r, Element v, std::string_view name) {
  float& top_p = r.request.sampling.top_p;
  constexpr std::string_view kAllowed = "a number above 0, at most 1";
  r.request.given.add(SamplingField::top_p);
  // The smallest positive float: a number that would round to 0 is refused with 0.
  return r.reader.number(v, name, double{std::numeric_limits<float>::min()}, 1, kAllowed, top_p);
}

bool read_repetition_penalty(Reading& r, Element v, std::string_view name) {
  r.request.given.add(SamplingField::repetition_penalty);
  return r.reader.number(v, name, double{std::numeric_limits<float>::min()}, 2,
                         "a number above 0, at most 2", r.request.sampling.repetition_penalty);
}

bool read_seed(Reading& r, Element v, std::string_view name) {
  std::int64_t seed = 0;
  if (!r.reader.integer(v, name, kInt64Min, kInt64Max, seed)) return false;
  r.request.sampling.seed = static_cast<std::uint64_t>(seed);
  r.request.has_seed = true;
  return true;
}

bool read_truncate(Reading& r, Element v, std::string_view name) {
  std::int64_t tokens = 0;
  if (!r.reader.integer(v, name, -1, kContextTokensMax, tokens)) return false;
  if (tokens == 0) return r.reader.wrong(name, "-1 or an integer above 0");
  r.request.truncate_prompt_tokens = tokens;
  return true;
}

bool read_add_special_tokens(Reading& r, Element v, std::string_view name) {
  bool wanted = false;
  if (!r.reader.boolean(v, name, wanted)) return false;
  // A chat template writes its own special tokens; a second start token would change the prompt.
  if (r.request.kind == ApiKind::chat) return !wanted || r.reader.unsupported(name);
  r.request.add_special_tokens = wanted;
  return true;
}

bool read_max_tokens(Reading& r, Element v, std::string_view name) {
  const std::int64_t low = r.request.kind == ApiKind::completion ? 0 : 1;
  return r.reader.integer(v, name, low, kContextTokensMax, r.request.max_tokens.emplace());
}

bool read_max_completion_tokens(Reading& r, Element v, std::string_view name) {
  return r.reader.integer(v, name, 1, kContextTokensMax, r.max_completion_tokens.emplace());
}

bool check_boolean(Reading& r, Element v, std::string_view name) {
  bool ignored = false;
  return r.reader.boolean(v, name, ignored);
}

bool check_text(Reading& r, Element v, std::string_view name) {
  return v.is_string() || r.reader.wrong(name, "a string");
}

// Known, not served: any value that asks for something is refused. Empty lists, empty objects and
// `Neutral` booleans ask for nothing.
template <bool Neutral>
bool refuse_unless_neutral(Reading& r, Element v, std::string_view name) {
  bool flag = false;
  dom::array array;
  dom::object object;
  if (v.get(flag) == simdjson::SUCCESS && flag == Neutral) return true;
  if (v.get(array) == simdjson::SUCCESS && array.size() == 0) return true;
  if (v.get(object) == simdjson::SUCCESS && object.size() == 0) return true;
  return r.reader.unsupported(name);
}

bool refuse_function_call(Reading& r, Element v, std::string_view name) {
  std::string_view choice;
  if (v.get(choice) == simdjson::SUCCESS && (choice == "none" || choice == "auto")) return true;
  return r.reader.unsupported(name);
}

struct Field {
  std::string_view name;
  bool (*read)(Reading&, Element, std::string_view name);
};

template <float SamplingParams::*Member>
bool read_penalty(Reading& r, Element v, std::string_view name) {
  return r.reader.number(v, name, -2, 2, "a number from -2 to 2", r.request.sampling.*Member);
}

template <bool GenerationRequest::*Member>
bool read_flag(Reading& r, Element v, std::string_view name) {
  return r.reader.boolean(v, name, r.request.*Member);
}

// Sorted by name: looked up by binary search.
constexpr std::array kFields = std::to_array<Field>({
    {"add_generation_prompt",
     [](Reading& r, Element v, std::string_view name) {
       return r.reader.boolean(v, name, r.request.add_generation_prompt.emplace());
     }},
    {"add_special_tokens", read_add_special_tokens},
    {"allowed_token_ids", refuse_unless_neutral<false>},
    {"audio", refuse_unless_neutral<false>},
    {"bad_words", refuse_unless_neutral<false>},
    {"best_of",
     [](Reading& r, Element v, std::string_view name) {
       return r.reader.integer(v, name, 1, kChoicesMax, r.best_of.emplace());
     }},
    {"chat_template", refuse_unless_neutral<false>},
    {"chat_template_kwargs", refuse_unless_neutral<false>},
    {"continue_final_message", read_flag<&GenerationRequest::continue_final_message>},
    {"documents", refuse_unless_neutral<false>},
    {"echo", read_echo},
    {"frequency_penalty", read_penalty<&SamplingParams::frequency_penalty>},
    {"function_call", refuse_function_call},
    {"functions", read_tools},
    {"guided_choice", refuse_unless_neutral<false>},
    {"guided_grammar", refuse_unless_neutral<false>},
    {"guided_json", refuse_unless_neutral<false>},
    {"guided_regex", refuse_unless_neutral<false>},
    {"ignore_eos",
     [](Reading& r, Element v, std::string_view name) {
       bool wanted = false;
       if (!r.reader.boolean(v, name, wanted)) return false;
       r.request.sampling.ignore_eos = wanted ? 1 : 0;
       return true;
     }},
    {"include_stop_str_in_output", refuse_unless_neutral<false>},
    {"logit_bias", read_logit_bias},
    {"logprobs", read_logprobs},
    {"max_completion_tokens", read_max_completion_tokens},
    {"max_tokens", read_max_tokens},
    {"messages", read_chat_messages},
    {"metadata", read_metadata},
    {"min_p",
     [](Reading& r, Element v, std::string_view name) {
       r.request.given.add(SamplingField::min_p);
       return r.reader.number(v, name, 0, 1, "a number from 0 to 1", r.request.sampling.min_p);
     }},
    {"min_tokens",
     [](Reading& r, Element v, std::string_view name) {
       return r.reader.integer(v, name, 0, kContextTokensMax, r.request.sampling.min_tokens);
     }},
    {"modalities", read_modalities},
    {"model", read_model},
    {"n",
     [](Reading& r, Element v, std::string_view name) {
       return r.reader.integer(v, name, 1, kChoicesMax, r.request.choices);
     }},
    {"parallel_tool_calls", check_boolean},
    {"presence_penalty", read_penalty<&SamplingParams::presence_penalty>},
    {"priority",
     [](Reading& r, Element v, std::string_view name) {
       return r.reader.integer(v, name, kInt32Min, kInt32Max, r.request.priority.emplace());
     }},
    {"prompt", read_prompt},
    {"prompt_logprobs", refuse_unless_neutral<false>},
    {"repetition_penalty", read_repetition_penalty},
    {"response_format", read_response_format},
    {"return_token_ids", read_flag<&GenerationRequest::return_token_ids>},
    {"seed", read_seed},
    {"service_tier", read_service_tier},
    {"skip_special_tokens", refuse_unless_neutral<true>},
    {"sluice", read_sluice},
    {"stop", read_stop},
    {"stop_token_ids", read_stop_token_ids},
    {"stream", read_flag<&GenerationRequest::stream>},
    {"stream_options", read_stream_options},
    {"structured_outputs", refuse_unless_neutral<false>},
    {"suffix", read_suffix},
    {"temperature",
     [](Reading& r, Element v, std::string_view name) {
       r.request.given.add(SamplingField::temperature);
       return r.reader.number(v, name, 0, 2, "a number from 0 to 2",
                              r.request.sampling.temperature);
     }},
    {"tool_choice", read_tool_choice},
    {"tools", read_tools},
    {"top_k", read_top_k},
    {"top_logprobs", read_top_logprobs},
    {"top_p", read_top_p},
    {"truncate_prompt_tokens", read_truncate},
    {"use_beam_search", refuse_unless_neutral<false>},
    {"user", check_text},
});
static_assert(std::is_sorted(kFields.begin(), kFields.end(),
                             [](const Field& a, const Field& b) { return a.name < b.name; }));

// Of /v1/embeddings.
constexpr std::array kEmbeddingFields = std::to_array<Field>({
    {"add_special_tokens", read_add_special_tokens},
    {"dimensions", read_dimensions},
    {"encoding_format", read_encoding_format},
    {"input", read_input},
    {"model", read_model},
    {"truncate_prompt_tokens", read_truncate},
    {"user", check_text},
});
static_assert(std::is_sorted(kEmbeddingFields.begin(), kEmbeddingFields.end(),
                             [](const Field& a, const Field& b) { return a.name < b.name; }));

const Field* find_field(ApiKind kind, std::string_view name) {
  const std::span<const Field> fields =
      kind == ApiKind::embedding ? std::span<const Field>(kEmbeddingFields) : kFields;
  const auto at = std::lower_bound(fields.begin(), fields.end(), name,
                                   [](const Field& f, std::string_view n) { return f.name < n; });
  return at != fields.end() && at->name == name ? &*at : nullptr;
}

// What the fields about log-probabilities, several sequences and echo say together.
bool check_scores(Reading& r) {
  GenerationRequest& request = r.request;
  if (r.top_logprobs > 0 && request.kind == ApiKind::completion)
    return r.reader.wrong("top_logprobs", "absent: a completion's 'logprobs' is the number");
  if (r.top_logprobs > 0 && !r.wants_chat_logprobs)
    return r.reader.wrong("top_logprobs", "0 or absent without 'logprobs': true");
  if (r.wants_chat_logprobs) request.logprobs = r.top_logprobs;
  if (request.max_tokens == 0u && !request.echo)
    return r.reader.wrong("max_tokens", "at least 1 without 'echo'");
  request.best_of = request.choices;
  if (!r.best_of) return true;
  if (*r.best_of < std::int64_t{request.choices}) return r.reader.wrong("best_of", "at least 'n'");
  if (*r.best_of > std::int64_t{request.choices} && request.kind == ApiKind::chat)
    return r.reader.unsupported("best_of");
  if (*r.best_of > std::int64_t{request.choices} && request.stream)
    return r.reader.wrong("best_of", "equal to 'n' with 'stream'");
  request.best_of = static_cast<std::uint32_t>(*r.best_of);
  return true;
}

// What no field can know alone.
bool check_relations(Reading& r) {
  GenerationRequest& request = r.request;
  if (request.model.empty()) return r.reader.wrong("model", "the name of a model");
  if (request.kind == ApiKind::chat && !r.has_messages)
    return r.reader.wrong("messages", "a list of at least one message");
  if (request.kind == ApiKind::embedding)
    return r.has_prompt || r.reader.wrong("input", "a string, a list of strings or token ids");
  if (request.kind == ApiKind::completion && !r.has_prompt)
    return r.reader.wrong("prompt", "a string, a list of strings or token ids");
  if (r.max_completion_tokens) request.max_tokens = r.max_completion_tokens;
  if (request.max_tokens && request.sampling.min_tokens > *request.max_tokens)
    return r.reader.wrong("min_tokens", "at most 'max_tokens'");
  if (!check_scores(r)) return false;
  if (request.prompts.size() * request.best_of > kChoicesMax)
    return r.reader.wrong(request.best_of > request.choices ? "best_of" : "n",
                          "so small that prompts x n is at most " + std::to_string(kChoicesMax));
  if (r.has_stream_options && !request.stream)
    return r.reader.fail(Errc::invalid_value, "stream_options",
                         "'stream_options' is only allowed with 'stream': true");
  if (request.continue_final_message && request.add_generation_prompt.value_or(false))
    return r.reader.wrong("add_generation_prompt", "false with 'continue_final_message'");
  return true;
}

Result<dom::object> parse_object(JsonDocument& document, std::string& body) {
  const Result<Element> root = document.parse(body);
  if (!root) return root.error();
  dom::object object;
  if (root->get(object) != simdjson::SUCCESS)
    return make_error(Errc::invalid_json, "the request body must be a JSON object");
  return object;
}

bool read_tokenize_field(FieldReader& reader, const dom::key_value_pair& field,
                         TokenizeRequest& request) {
  const std::string_view name = field.key;
  if (name == "model") return reader.text(field.value, name, request.model);
  if (name == "prompt") return reader.text(field.value, name, request.prompt.emplace());
  if (name == "messages") return read_messages(reader, field.value, request.messages);
  if (name == "add_special_tokens")
    return reader.boolean(field.value, name, request.add_special_tokens);
  if (name == "add_generation_prompt")
    return reader.boolean(field.value, name, request.add_generation_prompt.emplace());
  if (name == "continue_final_message")
    return reader.boolean(field.value, name, request.continue_final_message);
  if (name == "tools" || name == "chat_template" || name == "chat_template_kwargs" ||
      name == "return_token_strs") {
    dom::array array;
    bool flag = false;
    if (field.value.get(array) == simdjson::SUCCESS && array.size() == 0) return true;
    if (field.value.get(flag) == simdjson::SUCCESS && !flag) return true;
    return reader.unsupported(name);
  }
  return true;
}

}  // namespace

struct RequestParser::State {
  explicit State(std::uint64_t hash_seed) : document(hash_seed) {}
  JsonDocument document;
  FieldReader reader;
};

RequestParser::RequestParser(std::uint64_t hash_seed)
    : state_(std::make_unique<State>(hash_seed)) {}
RequestParser::~RequestParser() = default;

Result<void> RequestParser::parse_generation(std::string& body, ApiKind kind,
                                             GenerationRequest& request) {
  request.reset(kind);
  const Result<dom::object> object = parse_object(state_->document, body);
  if (!object) return object.error();
  Reading reading{.reader = state_->reader, .request = request};
  for (const dom::key_value_pair entry : *object) {
    if (entry.value.is_null()) continue;
    const Field* field = find_field(kind, entry.key);
    if (field != nullptr && !field->read(reading, entry.value, field->name))
      return state_->reader.take_error();
  }
  if (!check_relations(reading)) return state_->reader.take_error();
  return {};
}

Result<void> RequestParser::parse_tokenize(std::string& body, TokenizeRequest& request) {
  request = {};
  FieldReader& reader = state_->reader;
  const Result<dom::object> object = parse_object(state_->document, body);
  if (!object) return object.error();
  for (const dom::key_value_pair field : *object)
    if (!field.value.is_null() && !read_tokenize_field(reader, field, request))
      return reader.take_error();
  if (request.prompt.has_value() == !request.messages.empty())
    return make_error(Errc::invalid_value, "give either 'prompt' or 'messages'", "prompt");
  if (request.continue_final_message && request.add_generation_prompt.value_or(false))
    return make_error(Errc::invalid_value,
                      "'add_generation_prompt' must be false with 'continue_final_message'",
                      "add_generation_prompt");
  return {};
}

Result<void> RequestParser::parse_detokenize(std::string& body, DetokenizeRequest& request) {
  request = {};
  FieldReader& reader = state_->reader;
  const Result<dom::object> object = parse_object(state_->document, body);
  if (!object) return object.error();
  bool has_tokens = false;
  for (const dom::key_value_pair field : *object) {
    if (field.value.is_null()) continue;
    if (field.key == "model" && !reader.text(field.value, "model", request.model))
      return reader.take_error();
    if (field.key != "tokens") continue;
    dom::array array;
    has_tokens = field.value.get(array) == simdjson::SUCCESS;
    if (!has_tokens) break;
    if (!reader.token_ids(array, "tokens", kContextTokensMax, request.tokens))
      return reader.take_error();
  }
  if (!has_tokens) {
    reader.wrong("tokens", "a list of token ids");
    return reader.take_error();
  }
  return {};
}

}  // namespace sluice::gw
