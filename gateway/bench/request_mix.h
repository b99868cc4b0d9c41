// RequestMix: the HTTP requests of a load run, built once before it so that sending one costs a
// write. Prompts are a fixed text, or seeded words of about one token each, behind a shared prefix;
// those of a dataset; or words in the lengths of a trace, where equal block ids give equal words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gateway/bench/dataset.h"
#include "gateway/bench/trace.h"
#include "shared/result.h"

namespace sluice::bench {

enum class Endpoint : std::uint8_t { completions, chat };

struct RequestOptions {
  std::string host;  // Host header: name:port
  std::string base_path = "/v1";
  Endpoint endpoint = Endpoint::completions;
  std::string model = "brook";
  bool stream = false;
  std::string prompt;  // fixed text; empty: words
  std::uint32_t prompt_words = 16;
  std::uint32_t prefix_words = 0;  // equal in all requests, before the words
  std::uint32_t num_prompts = 64;  // different requests; they are sent in turn
  std::uint32_t max_tokens = 16;
  std::string extra_json;  // an object; its members join every request
  std::string api_key;
  std::uint64_t seed = 1;
};

inline constexpr std::size_t kRequestMixBytesMax = 1u << 30;

// Errors: invalid_value (extra_json is not an object, the mix would be too large, or a prompt does
// not fit the endpoint).
Result<std::vector<std::string>> make_requests(const RequestOptions& options);
// One for each prompt; without its own max_tokens it asks for options.max_tokens.
Result<std::vector<std::string>> make_requests(const RequestOptions& options,
                                               const std::vector<DatasetPrompt>& dataset);
// One for each request of the trace, with its prompt's and answer's length.
Result<std::vector<std::string>> make_requests(const RequestOptions& options, const Trace& trace);

// `count` seeded words, separated by blanks.
std::string seeded_words(std::uint64_t seed, std::uint32_t stream, std::uint32_t count);

}  // namespace sluice::bench
