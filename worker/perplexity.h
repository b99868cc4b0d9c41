// Perplexity of a text by a model, as llama.cpp's llama-perplexity and most publications of
// quantized models define it: the text's ids in chunks of `context_tokens`, each computed alone;
// where the vocabulary adds a beginning-of-sequence id it takes the place of each chunk's first.
// Scored are the ids of the second half of a chunk, so that each has half a context before it:
//
//   chunk  | b x x x x x x x | x s s s s s s s |      perplexity = exp(mean of -log p(s | before))
//            0                 context / 2
//
// What is left behind the last whole chunk counts nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <optional>
#include <span>
#include <string_view>

#include "shared/ids.h"
#include "shared/result.h"
#include "worker/executor.h"

namespace sluice::eng {

struct PerplexityOptions {
  std::uint32_t context_tokens = 512;  // of a chunk, at least 4
  std::uint64_t chunks_max = 0;        // 0: all
  std::optional<TokenId> bos;          // replaces the first id of each chunk
};

struct Perplexity {
  std::uint64_t num_chunks = 0;
  std::uint64_t num_scored = 0;
  double mean_nll = 0;        // negative log-likelihood of a scored id
  double value = 0;           // exp(mean_nll)
  double standard_error = 0;  // of value
};

// on_chunk is called behind each chunk. The executor has blocks for one chunk, numbered from 0.
// Errors: invalid_value (fewer ids than one chunk, a chunk longer than the model's context).
Result<Perplexity> measure_perplexity(Executor& executor, std::span<const TokenId> ids,
                                      const PerplexityOptions& options,
                                      const std::function<void(const Perplexity&)>& on_chunk);

// `sluice perplexity`, without the command's name. 0; 1 when a file can't be read; 2 for wrong use.
int run_perplexity(std::span<char* const> arguments, std::ostream& out, std::ostream& errors);

}  // namespace sluice::eng
