// The records on the rings. Fixed little-endian structs followed by arrays; every count is checked
// against the payload before use (parse_* below), because the other side's bytes are input.
//
// gateway -> worker (submit ring): Submit, Cancel, Drain.
// worker -> gateway (step ring):   Step (one per engine step), Reject.
//
// The three counters (P4): generated = tokens in Step records; accepted = entered the journal;
// discarded = the rest, by cause. No other number counts tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/ids.h"
#include "shared/limits.h"
#include "shared/result.h"
#include "shared/sampling_params.h"

namespace sluice {

enum class RecordType : std::uint16_t {
  padding = 0,
  submit = 1,
  cancel = 2,
  drain = 3,
  step = 16,
  reject = 17
};

enum class FinishReason : std::uint8_t { none = 0, stop = 1, length = 2, cancelled = 3, error = 4 };

// What is wanted of a sequence.
enum class SequenceTask : std::uint16_t {
  generate = 0,  // output tokens; none when output_ids_max is 0
  embed = 1,     // the mean of the prompt's final hidden states, of length 1
};

// One sequence to run. After a crash, a preempted drain or a gateway's retry it carries the ids
// that were already produced; the worker computes prompt + output and goes on at position
// num_output_ids.
struct SubmitRecord {
  std::uint64_t sequence;
  std::uint64_t salt[2];         // keyed prefix-cache salt of the tenant (P7); 0,0: the public salt
  std::uint32_t choice;          // for the random key
  std::uint32_t num_prompt_ids;  // >= 1
  std::uint32_t num_output_ids;  // already produced, >= 0
  // Total output allowed, counting num_output_ids: greater than that, or 0: the prompt is all.
  std::uint32_t output_ids_max;
  std::uint32_t num_stop_ids;
  std::uint32_t num_bias;
  std::uint32_t priority;        // smaller is sooner
  std::uint32_t security_class;  // classes never share a batch where policy forbids it
  // Log-probabilities of the prompt ids from this index on are wanted; 0: none. Only without
  // output.
  std::uint32_t prompt_logprobs_from;
  SequenceTask task;
  // 1: the worker is on trial. It takes its golden digest first, and rejects the sequence unless
  // that is what it was. 0: no trial.
  std::uint16_t check_golden;
  SamplingParams sampling;
  // followed by: TokenId prompt[num_prompt_ids], output[num_output_ids], stop[num_stop_ids];
  //              LogitBias bias[num_bias]
};
static_assert(sizeof(SubmitRecord) == 112);

struct CancelRecord {
  std::uint64_t sequence;  // unknown ids are ignored: it may have finished meanwhile
};

enum class EntryKind : std::uint8_t {
  token = 1,     // `token` at output position `position`; finish may be set on it
  finished = 2,  // no token: the sequence ended (finish = cancelled after a CancelRecord, or error)
  prompt_token = 3,     // log-probability of the prompt's `token` at index `position`; ascending
  prompt_finished = 4,  // the prompt was all that was asked for; finish = length
};

// One of the likeliest tokens at a position.
struct TopLogprob {
  TokenId token;
  float logprob;  // <= 0
  friend bool operator==(const TopLogprob&, const TopLogprob&) = default;
};
static_assert(sizeof(TopLogprob) == 8);

struct StepEntry {
  std::uint64_t sequence;
  std::uint32_t token;
  std::uint32_t position;  // index of this output token; the next expected one, else corrupt
  float logprob;           // natural log, of `token` under the unmodified distribution; <= 0
  std::uint32_t
      cached_tokens;  // prompt tokens found in the prefix cache; on position 0 of a submission
  EntryKind kind;
  FinishReason finish;
  std::uint8_t num_top;  // of the record's TopLogprobs; 0..kTopLogprobsMax, as many as asked for
  std::uint8_t reserved;
  std::uint32_t num_values;  // of the record's values: the embedding; on prompt_finished
};
static_assert(sizeof(StepEntry) == 32);

// A reader takes longer "durations" for this long: they are nonsense.
inline constexpr std::uint64_t kStepNsMax = 3'600'000'000'000;

// Everything that one engine step produced. Also written without entries when credits changed.
struct StepRecord {
  std::uint64_t step;              // strictly ascending within an epoch
  std::uint64_t duration_ns;       // plan to outcome
  std::uint64_t generated_total;   // of this epoch, including this record
  std::uint64_t submit_position;   // submit ring position up to which the credits know submissions
  std::uint32_t credit_tokens;     // prompt tokens that may be submitted beyond submit_position
  std::uint32_t credit_blocks;     // KV blocks, likewise
  std::uint32_t credit_sequences;  // sequences, likewise
  std::uint32_t num_running;
  std::uint32_t num_waiting;
  std::uint32_t num_blocks_free;
  std::uint32_t num_blocks_cached;   // held by the prefix cache alone: reclaimable
  std::uint32_t num_preemptions;     // in this step
  std::uint32_t num_prefill_tokens;  // computed in this step
  std::uint32_t num_decode_tokens;
  std::uint32_t num_prefix_queries;  // prompt tokens looked up, this step
  std::uint32_t num_prefix_hits;     // prompt tokens found, this step
  std::uint32_t num_sequences;       // in this step's batch
  std::uint32_t num_slots_unfilled;  // KV slots of used blocks that hold no token
  std::uint32_t num_entries;
  std::uint32_t num_top;  // sum over the entries
  // What the executor did in this step, by its own account; 0: it has no model to speak of.
  std::uint64_t forward_ns;   // of duration_ns
  std::uint64_t operations;   // multiplications and additions
  std::uint64_t bytes_moved;  // weights and KV that had to be read, KV written
  std::uint32_t num_values;   // sum over the entries
  std::uint32_t reserved;
  // followed by: StepEntry entries[num_entries], TopLogprob top[num_top], float values[num_values];
  //              an entry's share of the last two lies behind those of the entries before it
};
static_assert(sizeof(StepRecord) == 128);
static_assert(offsetof(StepRecord, num_entries) == 88);
static_assert(offsetof(StepRecord, bytes_moved) == 112);

// A submission that this worker can never run (too long for its KV memory, ids out of range).
struct RejectRecord {
  std::uint64_t sequence;
  std::uint32_t errc;             // Errc; unknown values read as internal_error
  std::uint32_t is_golden_wrong;  // not 0: the worker's golden digest is not what it was
};

struct SubmitView {
  SubmitRecord head;                // a copy
  std::span<const TokenId> prompt;  // into the reader's copy of the record
  std::span<const TokenId> output;
  std::span<const TokenId> stop_ids;
  std::span<const LogitBias> bias;
};

struct StepView {
  StepRecord head;
  std::span<const StepEntry> entries;
  std::span<const TopLogprob> top{};
  std::span<const float> values{};
};

// Check sizes, counts and enum values; ids against the vocabulary are the receiver's check.
// Errors: corrupt_record with the field named.
Result<SubmitView> parse_submit(std::span<const std::byte> payload);
Result<StepView> parse_step(std::span<const std::byte> payload);
Result<CancelRecord> parse_cancel(std::span<const std::byte> payload);
Result<RejectRecord> parse_reject(std::span<const std::byte> payload);

// Bytes of a submission with these counts; writes it into a claimed span of exactly that size.
std::size_t submit_bytes(const SubmitRecord& head);
void write_submit(std::span<std::byte> out, const SubmitRecord& head,
                  std::span<const TokenId> prompt, std::span<const TokenId> output,
                  std::span<const TokenId> stop_ids, std::span<const LogitBias> bias);

// The same for a step record.
std::size_t step_bytes(const StepRecord& head);
void write_step(std::span<std::byte> out, const StepView& step);

// The largest step record, without values, of a worker that runs so many sequences in a step and
// holds as many waiting ones: each of them ends, and every row of logits brings all that can be
// asked for.
constexpr std::size_t step_bytes_max(std::uint32_t sequences_max) {
  const std::size_t rows = std::size_t{sequences_max} + kStepScoresMax;
  const std::size_t entries = rows + 2 * std::size_t{sequences_max};
  return sizeof(StepRecord) + entries * sizeof(StepEntry) +
         rows * kTopLogprobsMax * sizeof(TopLogprob);
}

}  // namespace sluice
