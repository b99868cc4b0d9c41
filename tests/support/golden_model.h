// Expectations of a model (scripts/make_tiny_model.py) against an executor: logits after each
// prompt and greedy continuations. Used by the golden test and by the check_model tool.
#pragma once

#include <string>
#include <vector>

#include "worker/executor.h"

namespace sluice::test {

// One line of an expectation file. Logits are given in full or as the best few.
struct Expectation {
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> greedy_ids;
  std::vector<std::pair<TokenId, double>> first_logits;  // (id, logit)
  double smallest_margin = 0;                            // of the two best logits; 0 when not given
};

// Stops the process when the file is not what the script writes: it is ours.
std::vector<Expectation> read_expectations(const std::string& path);

struct Comparison {
  double logit_error_max = 0;    // largest |got - expected| of first_logits
  std::size_t greedy_equal = 0;  // leading greedy ids that agree
  bool finite = true;
};

// Runs the prompt in chunks of `chunk` tokens, then greedily, in blocks 0, 1, ...
Comparison compare(eng::Executor& executor, const Expectation& expectation, std::size_t chunk);

}  // namespace sluice::test
