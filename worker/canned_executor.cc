// Hashing through a block table; rows by copy of noise plus a handful of candidates.
#include "worker/canned_executor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "shared/check.h"
#include "shared/random.h"

namespace sluice::eng {
namespace {

constexpr std::uint32_t kNoiseOffsets = 1024;
// Candidates lie above 0: noise is never drawn by itself, and a bias of 100 lifts it above all
// else.
constexpr float kNoiseTop = -50.0f;
constexpr std::uint32_t kCandidates = 4;
constexpr float kCandidateSpan = 4.0f;
constexpr float kEosLogit = 40.0f;  // wins at any temperature
constexpr std::uint64_t kStart = 0x736c756963650001ull;

std::uint64_t fold_block(std::uint64_t fold, std::uint64_t first_slot, std::uint32_t index) {
  return fold + mix64(first_slot ^ index);
}

Tick monotonic_now() {
  return SystemClock().now();
}

// Sleeps until `end`; never returns before it.
void sleep_until(Tick end) {
  const std::int64_t ns = end.time_since_epoch().count();
  const timespec at{static_cast<std::time_t>(ns / 1'000'000'000),
                    static_cast<long>(ns % 1'000'000'000)};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
  }
}

std::vector<std::uint32_t> fall_table(const std::string& marker) {
  std::vector<std::uint32_t> fall(marker.size() + 1, 0);
  for (std::uint32_t i = 1, matched = 0; i < marker.size(); ++i) {
    while (matched > 0 && marker[i] != marker[matched]) matched = fall[matched];
    if (marker[i] == marker[matched]) ++matched;
    fall[i + 1] = matched;
  }
  return fall;
}

}  // namespace

CannedExecutor::CannedExecutor(CannedModel model)
    : model_(std::move(model)),
      kv_(std::size_t{model_.facts.num_blocks} * model_.facts.block_tokens),
      logits_(std::size_t{logit_rows_max(model_.facts)} * model_.facts.vocab_size),
      noise_(std::size_t{model_.facts.vocab_size} + kNoiseOffsets),
      marker_fall_(fall_table(model_.crash_marker)) {
  CHECK(!model_.readable_ids.empty());
  CHECK(model_.crash_marker.empty() || model_.pieces.size() == model_.facts.vocab_size);
  for (std::size_t i = 0; i < noise_.size(); ++i)
    noise_[i] = kNoiseTop - static_cast<float>(mix64(i) >> 40) * 0x1.0p-22f;
  std::uint64_t digest = mix64(model_.facts.vocab_size) ^ mix64(model_.eos_period);
  digest = mix64(digest ^ (model_.eos ? *model_.eos + 1 : 0));
  for (const TokenId id : model_.readable_ids) digest = mix64(digest ^ id);
  model_.facts.weights_digest = digest;
  model_.facts.kernel_path = mix64(kStart);
  model_.facts.embedding_size = kCannedEmbedding;
}

CannedExecutor::Slot& CannedExecutor::slot(const SequenceSpan& span, std::uint32_t position) {
  const std::uint32_t block_tokens = model_.facts.block_tokens;
  const BlockId block = span.blocks[position / block_tokens];
  return kv_[std::size_t{block.value} * block_tokens + position % block_tokens];
}

std::span<const float> CannedExecutor::forward(std::span<const SequenceSpan> spans) {
  const Tick started = model_.step_duration > Duration::zero() ? monotonic_now() : Tick{};
  const std::size_t vocab_size = model_.facts.vocab_size;
  std::size_t num_rows = 0;
  hidden_.clear();
  for (const SequenceSpan& span : spans) {
    compute(span);
    const auto end = span.start + static_cast<std::uint32_t>(span.ids.size());
    CHECK(span.num_logits <= span.ids.size() &&
          num_rows + span.num_logits <= logit_rows_max(model_.facts));
    for (std::uint32_t position = end - span.num_logits; position < end; ++position)
      write_logits(slot(span, position).hash, logits_.data() + num_rows++ * vocab_size);
    if (!span.wants_hidden) continue;
    for (std::uint32_t position = span.start; position < end; ++position)
      add_hidden(slot(span, position).hash);
  }
  if (model_.step_duration > Duration::zero()) sleep_until(started + model_.step_duration);
  return std::span(logits_).first(num_rows * vocab_size);
}

// Fills the slots of the span's ids. What came before is read from the slots alone.
void CannedExecutor::compute(const SequenceSpan& span) {
  const std::uint32_t block_tokens = model_.facts.block_tokens;
  const auto end = span.start + static_cast<std::uint32_t>(span.ids.size());
  CHECK(!span.ids.empty() && span.blocks.size() * block_tokens >= end);
  Slot before{kStart, 0, 0};
  std::uint64_t fold = 0;
  if (span.start > 0) {
    before = slot(span, span.start - 1);
    for (std::uint32_t b = 0; b < span.start / block_tokens; ++b)
      fold = fold_block(fold, slot(span, b * block_tokens).hash, b);
  }
  for (std::uint32_t position = span.start; position < end; ++position) {
    if (position > span.start && position % block_tokens == 0) {
      const std::uint32_t b = position / block_tokens - 1;
      fold = fold_block(fold, slot(span, b * block_tokens).hash, b);
    }
    const TokenId id = span.ids[position - span.start];
    before.hash = mix64(mix64(before.hash ^ id) + fold) | 1;
    if (!model_.crash_marker.empty()) before.matched = match_marker(before.matched, id);
    slot(span, position) = before;
  }
}

void CannedExecutor::add_hidden(std::uint64_t hash) {
  for (std::uint32_t d = 0; d < kCannedEmbedding; ++d) {
    const auto bits = static_cast<std::int32_t>(mix64(hash ^ mix64(d)) >> 40) - (1 << 23);
    hidden_.push_back(static_cast<float>(bits) * 0x1.0p-23f);
  }
}

void CannedExecutor::write_logits(std::uint64_t hash, float* row) const {
  const std::uint64_t bits = mix64(hash);
  const std::size_t vocab_size = model_.facts.vocab_size;
  std::memcpy(row, noise_.data() + bits % kNoiseOffsets, vocab_size * sizeof(float));
  std::uint64_t draw = bits;
  const std::uint64_t num_readable = model_.readable_ids.size();
  for (std::uint32_t i = 0; i < kCandidates; ++i) {
    draw = mix64(draw);
    const TokenId id = model_.readable_ids[((draw >> 32) * num_readable) >> 32];
    row[id] = static_cast<float>(draw & 0xffffff) * (kCandidateSpan * 0x1.0p-24f);
  }
  if (model_.eos && model_.eos_period > 0 && mix64(draw) % model_.eos_period == 0)
    row[*model_.eos] = kEosLogit;
}

// Bytes of the marker that match the end of the text after `id`. A complete match is the crash that
// tests ask for.
std::uint32_t CannedExecutor::match_marker(std::uint32_t matched, TokenId id) const {
  const std::string& marker = model_.crash_marker;
  for (const char byte : model_.pieces[id]) {
    while (matched > 0 && marker[matched] != byte) matched = marker_fall_[matched];
    if (marker[matched] == byte) ++matched;
    if (matched == marker.size()) std::abort();
  }
  return matched;
}

void CannedExecutor::zero_blocks(std::span<const BlockId> blocks) {
  const std::size_t block_tokens = model_.facts.block_tokens;
  for (const BlockId block : blocks)
    std::fill_n(kv_.begin() + static_cast<std::ptrdiff_t>(block.value * block_tokens), block_tokens,
                Slot{});
}

bool CannedExecutor::is_zero_for_test(std::span<const BlockId> blocks) const {
  const std::size_t block_tokens = model_.facts.block_tokens;
  return std::ranges::all_of(blocks, [&](BlockId block) {
    const auto slots = std::span(kv_).subspan(block.value * block_tokens, block_tokens);
    return std::ranges::all_of(slots, [](const Slot& slot) { return slot.hash == 0; });
  });
}

}  // namespace sluice::eng
