// Writes request bodies and heads; see request_mix.h.
#include "gateway/bench/request_mix.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "shared/random.h"

namespace sluice::bench {
namespace {

// Common words, most of them one token of an English vocabulary.
constexpr std::array<std::string_view, 64> kWords{
    "the",   "of",   "and",  "to",    "in",    "is",    "that", "it",    "for",  "was",  "on",
    "are",   "with", "as",   "his",   "they",  "at",    "be",   "this",  "have", "from", "or",
    "one",   "had",  "by",   "word",  "but",   "not",   "what", "all",   "were", "we",   "when",
    "your",  "can",  "said", "there", "use",   "an",    "each", "which", "she",  "do",   "how",
    "their", "if",   "will", "up",    "other", "about", "out",  "many",  "then", "them", "these",
    "so",    "some", "her",  "would", "make",  "like",  "him",  "into",  "time"};
constexpr std::uint32_t kPrefixStream = ~0u;

void append_quoted(std::string& out, std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

// The members of a JSON object without its braces.
Result<std::string> members_of(const std::string& json) {
  if (json.empty()) return std::string();
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(json).get(root) != simdjson::SUCCESS || !root.is_object())
    return make_error(Errc::invalid_value, "the extra JSON is not an object", "extra");
  const std::string text = simdjson::minify(root);
  return text.substr(1, text.size() - 2);
}

std::string prompt_of(const RequestOptions& options, std::uint32_t index) {
  std::string prompt = seeded_words(options.seed, kPrefixStream, options.prefix_words);
  if (!prompt.empty()) prompt += ' ';
  prompt += options.prompt.empty() ? seeded_words(options.seed, index, options.prompt_words)
                                   : options.prompt;
  return prompt;
}

// Words of a trace's request: its blocks', or without blocks its own.
std::string prompt_of(const RequestOptions& options, const Trace& trace, std::uint32_t index) {
  const TraceRequest& request = trace.requests[index];
  if (request.num_blocks == 0) return seeded_words(options.seed, index, request.prompt_tokens);
  std::string prompt;
  std::uint32_t left = request.prompt_tokens;
  for (std::size_t b = 0; b < request.num_blocks; ++b) {
    const std::uint64_t id = trace.blocks[request.block_begin + b];
    const std::uint32_t words = std::min(left, trace.block_tokens);
    if (b > 0) prompt += ' ';
    prompt += seeded_words(options.seed ^ (id >> 32), static_cast<std::uint32_t>(id), words);
    left -= words;
  }
  return prompt;
}

// Collects the requests of a run.
class RequestWriter {
 public:
  // `members` join every body, without the braces.
  RequestWriter(const RequestOptions& options, std::string members)
      : options_(options), members_(std::move(members)) {
    head_ = "POST " + options.base_path;
    head_ += options.endpoint == Endpoint::chat ? "/chat/completions" : "/completions";
    head_ += " HTTP/1.1\r\nHost: " + options.host + "\r\nContent-Type: application/json\r\n";
    if (!options.api_key.empty()) head_ += "Authorization: Bearer " + options.api_key + "\r\n";
    head_ += "Content-Length: ";
  }

  Result<void> add(PromptKind kind, const std::string& prompt, std::uint32_t max_tokens) {
    const std::string body = body_of(kind, prompt, max_tokens);
    requests_.push_back(head_ + std::to_string(body.size()) + "\r\n\r\n" + body);
    bytes_ += requests_.back().size();
    if (bytes_ <= kRequestMixBytesMax) return {};
    return make_error(Errc::invalid_value, "the requests take more than 1 GiB: use fewer",
                      "prompts");
  }
  std::vector<std::string> take() { return std::move(requests_); }

 private:
  std::string body_of(PromptKind kind, const std::string& prompt, std::uint32_t max_tokens) const {
    std::string body = R"({"model":)";
    append_quoted(body, options_.model);
    if (kind == PromptKind::messages) {
      body += R"(,"messages":)" + prompt;
    } else if (kind == PromptKind::ids) {
      body += R"(,"prompt":)" + prompt;
    } else if (options_.endpoint == Endpoint::chat) {
      body += R"(,"messages":[{"role":"user","content":)";
      append_quoted(body, prompt);
      body += "}]";
    } else {
      body += R"(,"prompt":)";
      append_quoted(body, prompt);
    }
    body += R"(,"max_tokens":)" + std::to_string(max_tokens);
    if (options_.stream) body += R"(,"stream":true,"stream_options":{"include_usage":true})";
    if (!members_.empty()) body += "," + members_;
    return body + "}";
  }

  const RequestOptions& options_;
  std::string members_, head_;
  std::vector<std::string> requests_;
  std::size_t bytes_ = 0;
};

}  // namespace

std::string seeded_words(std::uint64_t seed, std::uint32_t stream, std::uint32_t count) {
  std::string text;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += kWords[random_bits(RandomKey{seed, stream, i}, 0) % kWords.size()];
  }
  return text;
}

Result<std::vector<std::string>> make_requests(const RequestOptions& options) {
  const Result<std::string> members = members_of(options.extra_json);
  if (!members) return members.error();
  RequestWriter writer(options, *members);
  for (std::uint32_t i = 0; i < options.num_prompts; ++i) {
    const Result<void> added =
        writer.add(PromptKind::text, prompt_of(options, i), options.max_tokens);
    if (!added) return added.error();
  }
  return writer.take();
}

Result<std::vector<std::string>> make_requests(const RequestOptions& options,
                                               const std::vector<DatasetPrompt>& dataset) {
  const Result<std::string> members = members_of(options.extra_json);
  if (!members) return members.error();
  RequestWriter writer(options, *members);
  for (const DatasetPrompt& prompt : dataset) {
    const bool is_chat = options.endpoint == Endpoint::chat;
    if (prompt.kind == (is_chat ? PromptKind::ids : PromptKind::messages))
      return make_error(Errc::invalid_value,
                        is_chat ? "prompts of ids need the endpoint completions"
                                : "messages need the endpoint chat",
                        "dataset");
    const Result<void> added =
        writer.add(prompt.kind, prompt.value, prompt.max_tokens.value_or(options.max_tokens));
    if (!added) return added.error();
  }
  return writer.take();
}

Result<std::vector<std::string>> make_requests(const RequestOptions& options, const Trace& trace) {
  const Result<std::string> members = members_of(options.extra_json);
  if (!members) return members.error();
  RequestWriter writer(options, *members);
  for (std::uint32_t i = 0; i < trace.requests.size(); ++i) {
    const Result<void> added =
        writer.add(PromptKind::text, prompt_of(options, trace, i), trace.requests[i].output_tokens);
    if (!added) return added.error();
  }
  return writer.take();
}

}  // namespace sluice::bench
