// IdIntake: takes the ids of one long submission in, a bounded number at a time, so that the steps
// of the running sequences do not wait for it: copied, held against the vocabulary, and counted
// where a penalty needs it. What comes out is what Scheduler::add() would have made of them at
// once. The submission's spans stay valid until is_over(). Pure; one owner.
#pragma once

#include <cstdint>
#include <vector>

#include "shared/ids.h"
#include "shared/messages.h"
#include "worker/core/token_counts.h"

namespace sluice::eng {

// Whether a sequence with these parameters needs counts of its tokens.
bool uses_counts(const SamplingParams& sampling);

class IdIntake {
 public:
  // REQUIRES: the head passed Scheduler::check_head().
  void begin(const SubmitView& submission, std::uint32_t vocab_size);
  // Up to `count` further ids.
  void take(std::size_t count);
  bool is_over() const { return !is_valid_ || ids_.size() == num_ids_; }
  bool is_valid() const { return is_valid_; }  // false: an id lies outside the vocabulary

 private:
  friend class Scheduler;

  SubmitView submission_{};
  std::uint32_t vocab_size_ = 0;
  std::size_t num_ids_ = 0;
  bool is_valid_ = true;
  std::vector<TokenId> ids_;  // prompt, then output, as far as taken
  TokenCounts counts_;
};

}  // namespace sluice::eng
