// Pieces of prompt and output.
#include "worker/core/id_intake.h"

#include <algorithm>

namespace sluice::eng {

bool uses_counts(const SamplingParams& sampling) {
  return sampling.presence_penalty != 0.0f || sampling.frequency_penalty != 0.0f ||
         sampling.repetition_penalty != 1.0f;
}

void IdIntake::begin(const SubmitView& submission, std::uint32_t vocab_size) {
  submission_ = submission;
  vocab_size_ = vocab_size;
  num_ids_ = submission.prompt.size() + submission.output.size();
  is_valid_ = true;
  const std::size_t room =
      std::size_t{submission.head.num_prompt_ids} + submission.head.output_ids_max;
  ids_.clear();
  ids_.reserve(room);
  counts_.clear();
  if (uses_counts(submission.head.sampling))
    counts_.reserve(std::min<std::size_t>(room, vocab_size));
}

void IdIntake::take(std::size_t count) {
  while (count > 0 && !is_over()) {
    const std::size_t at = ids_.size();
    const std::size_t num_prompt = submission_.prompt.size();
    const bool is_prompt = at < num_prompt;
    std::span<const TokenId> rest =
        is_prompt ? submission_.prompt.subspan(at) : submission_.output.subspan(at - num_prompt);
    rest = rest.first(std::min(count, rest.size()));
    // The greatest of a piece rather than the first bad one: this loop has no early exit.
    TokenId greatest = 0;
    for (const TokenId id : rest) greatest = std::max(greatest, id);
    if (greatest >= vocab_size_) {
      is_valid_ = false;
      return;
    }
    ids_.insert(ids_.end(), rest.begin(), rest.end());
    count -= rest.size();
    if (!uses_counts(submission_.head.sampling)) continue;
    for (const TokenId id : rest) is_prompt ? counts_.add_prompt(id) : counts_.add_output(id);
  }
}

}  // namespace sluice::eng
