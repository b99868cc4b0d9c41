// The seqlock under the progress page, without standalone fences.
//
// The writer makes the sequence odd, stores words with release and makes the sequence even with
// release. A reader that meets a word of an unfinished write (acquire) therefore also sees the odd
// sequence when it looks again, and drops the copy. On x86-64 all of these are plain moves.
#include "shared/progress_page.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <new>

#include "shared/check.h"

namespace sluice::shm {
namespace {

using Word = std::atomic<std::uint64_t>;

constexpr std::size_t kWords = sizeof(Progress) / sizeof(std::uint64_t);
constexpr std::size_t kHeadWords = offsetof(Progress, suspects) / sizeof(std::uint64_t);
constexpr int kAttemptsMax = 64;
static_assert(sizeof(Word) == sizeof(std::uint64_t));
static_assert(sizeof(Progress) % sizeof(std::uint64_t) == 0);

using Words = std::array<std::uint64_t, kWords>;

}  // namespace

ProgressWriter::ProgressWriter(Region& step_region)
    : sequence_(std::launder(reinterpret_cast<Word*>(step_region.own_page()))),
      words_(std::launder(reinterpret_cast<Word*>(step_region.own_page() + sizeof(Word)))) {}

template <class Change>
void ProgressWriter::write(Change change) {
  const auto before = std::bit_cast<Words>(content_);
  change(content_);
  const auto after = std::bit_cast<Words>(content_);
  const std::uint64_t sequence = sequence_->load(std::memory_order_relaxed);
  sequence_->store(sequence + 1, std::memory_order_relaxed);  // ordered by the release stores below
  for (std::size_t i = 0; i < kWords; ++i)
    if (before[i] != after[i]) words_[i].store(after[i], std::memory_order_release);
  sequence_->store(sequence + 2, std::memory_order_release);  // pairs with read_progress()
}

void ProgressWriter::begin_forward(std::uint64_t step, std::uint64_t started_ns,
                                   std::uint64_t predicted_ns,
                                   std::span<const SequenceId> suspects) {
  CHECK(suspects.size() <= kBatchSequencesMax);
  write([&](Progress& page) {
    page.step = step;
    page.step_started_ns = started_ns;
    page.step_predicted_ns = predicted_ns;
    page.heartbeat_ns = started_ns;
    page.phase = static_cast<std::uint32_t>(WorkerPhase::forward);
    page.num_suspects = static_cast<std::uint32_t>(suspects.size());
    for (std::size_t i = 0; i < suspects.size(); ++i) page.suspects[i] = suspects[i].value;
  });
}

void ProgressWriter::turn(WorkerPhase phase, std::uint64_t now_ns, const Progress& counts) {
  write([&](Progress& page) {
    page.phase = static_cast<std::uint32_t>(phase);
    page.heartbeat_ns = now_ns;
    page.generated_total = counts.generated_total;
    page.num_running = counts.num_running;
    page.num_waiting = counts.num_waiting;
    page.num_blocks_total = counts.num_blocks_total;
    page.num_blocks_free = counts.num_blocks_free;
    page.num_suspects = 0;
  });
}

std::optional<Progress> read_progress(const Region& step_region) {
  const auto* const sequence = std::launder(reinterpret_cast<const Word*>(step_region.page()));
  const auto* const words =
      std::launder(reinterpret_cast<const Word*>(step_region.page() + sizeof(Word)));
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    const std::uint64_t before = sequence->load(std::memory_order_acquire);
    if (before % 2 != 0) continue;
    Words copy{};
    for (std::size_t i = 0; i < kHeadWords; ++i) copy[i] = words[i].load(std::memory_order_acquire);
    const auto head = std::bit_cast<Progress>(copy);
    const std::size_t num_suspects = std::min(head.num_suspects, kBatchSequencesMax);
    for (std::size_t i = kHeadWords; i < kHeadWords + num_suspects; ++i)
      copy[i] = words[i].load(std::memory_order_acquire);
    if (sequence->load(std::memory_order_relaxed) != before) continue;
    auto progress = std::bit_cast<Progress>(copy);
    progress.num_suspects = static_cast<std::uint32_t>(num_suspects);
    return progress;
  }
  return std::nullopt;
}

}  // namespace sluice::shm
