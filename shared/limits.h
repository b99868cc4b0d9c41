// System-wide bounds that fix a format or a table, with their relations. Operator-tunable limits
// are in config/; what stands here may not be configured because both sides of a ring rely on it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

inline constexpr std::uint32_t kWorkersMax = 64;
inline constexpr std::uint32_t kModelsMax = 16;
inline constexpr std::uint32_t kBatchSequencesMax =
    256;  // sequences in one step; suspects of a crash
inline constexpr std::uint32_t kContextTokensMax = 1u << 20;
inline constexpr std::uint32_t kVocabularyMax = 1u << 20;
inline constexpr std::uint32_t kChoicesMax = 128;           // n of one request
inline constexpr std::uint32_t kEmbeddingInputsMax = 2048;  // of one request
inline constexpr std::uint32_t kStopStringsMax = 4;
inline constexpr std::uint32_t kStopStringBytesMax = 1024;
inline constexpr std::uint32_t kStopIdsMax = 64;
inline constexpr std::uint32_t kLogitBiasMax = 1024;
inline constexpr std::uint32_t kTopLogprobsMax = 20;
// Prompt tokens whose log-probabilities one step computes, beyond one per sequence: what bounds the
// rows of logits and the step's record.
inline constexpr std::uint32_t kStepScoresMax = 64;
inline constexpr std::uint32_t kEmbeddingSizeMax = 1u << 16;
// What one answer may hold: log-probabilities, each with its alternatives (some 60 bytes of JSON
// apiece; a stream holds only those of its prompt), and numbers of embeddings.
inline constexpr std::uint64_t kAnswerLogprobsMax = 1u << 19;
inline constexpr std::uint64_t kAnswerEmbeddingValuesMax = 1u << 23;

inline constexpr std::size_t kRingBytesMin = 64u << 10;
inline constexpr std::size_t kRingBytesMax = 64u << 20;
// The largest submission is a full context of ids; a record never takes more than half of its ring.
inline constexpr std::size_t kRecordBytesMax =
    (kContextTokensMax * sizeof(std::uint32_t)) + (64u << 10);
static_assert(kRecordBytesMax <= kRingBytesMax / 2);

}  // namespace sluice
