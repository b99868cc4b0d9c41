// Trace: recorded arrivals of a language-model service, for `sluice bench --trace`: when each
// request came, how many tokens its prompt and its answer had, and, where the trace says so, which
// blocks its prompt shared with others. Two formats, told apart by the first character:
//
//   CSV         a first line with names of columns, in any order and case; read are
//                 TIMESTAMP        2023-11-16 18:15:46.6805900 [Z | +hh:mm], or seconds
//                 ContextTokens    or "Request tokens"
//                 GeneratedTokens  or "Response tokens"
//               (Azure's LLM inference traces, BurstGPT); quoted fields are refused
//   JSON lines  {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [id, ...]}
//               (Mooncake's traces); each id names block_tokens tokens of the prompt, the last one
//               what is left; hash_ids may be missing
//
// An answer of 0 tokens counts as 1: nothing can be asked for less. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "shared/clock.h"
#include "shared/result.h"

namespace sluice::bench {

inline constexpr std::uint32_t kTracePromptTokensMax = 10'000'000;
inline constexpr std::uint32_t kTraceOutputTokensMax = 1u << 20;

struct TraceRequest {
  Duration at{};  // after the first request
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::size_t block_begin = 0;  // its ids are blocks[block_begin ..] of the trace; none: 0 of them
  std::size_t num_blocks = 0;
};

struct Trace {
  std::uint32_t block_tokens = 0;
  std::vector<TraceRequest> requests;  // by time; equal times in the file's order
  std::vector<std::uint64_t> blocks;
};

// Errors: invalid_value, with the number of the line; param "trace".
Result<Trace> parse_trace(std::string_view text, std::uint32_t block_tokens);

}  // namespace sluice::bench
