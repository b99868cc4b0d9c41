// Writes request bodies and heads; see request_mix.h.
#include "gateway/bench/request_mix.h"

#include <simdjson.h>

#include <array>
#include <string_view>

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

std::string body_of(const RequestOptions& options, const std::string& members,
                    std::uint32_t index) {
  std::string body = R"({"model":)";
  append_quoted(body, options.model);
  if (options.endpoint == Endpoint::chat) {
    body += R"(,"messages":[{"role":"user","content":)";
    append_quoted(body, prompt_of(options, index));
    body += "}]";
  } else {
    body += R"(,"prompt":)";
    append_quoted(body, prompt_of(options, index));
  }
  body += R"(,"max_tokens":)" + std::to_string(options.max_tokens);
  if (options.stream) body += R"(,"stream":true,"stream_options":{"include_usage":true})";
  if (!members.empty()) body += "," + members;
  return body + "}";
}

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
  std::string head = "POST " + options.base_path;
  head += options.endpoint == Endpoint::chat ? "/chat/completions" : "/completions";
  head += " HTTP/1.1\r\nHost: " + options.host + "\r\nContent-Type: application/json\r\n";
  if (!options.api_key.empty()) head += "Authorization: Bearer " + options.api_key + "\r\n";
  head += "Content-Length: ";

  std::vector<std::string> requests;
  std::size_t bytes = 0;
  for (std::uint32_t i = 0; i < options.num_prompts; ++i) {
    const std::string body = body_of(options, *members, i);
    requests.push_back(head + std::to_string(body.size()) + "\r\n\r\n" + body);
    bytes += requests.back().size();
    if (bytes > kRequestMixBytesMax)
      return make_error(Errc::invalid_value, "the requests take more than 1 GiB: use fewer prompts",
                        "prompts");
  }
  return requests;
}

}  // namespace sluice::bench
