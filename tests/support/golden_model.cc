// Reads expectation lines and drives an executor through them.
#include "tests/support/golden_model.h"

#include <simdjson.h>

#include <cmath>
#include <fstream>

#include "shared/check.h"
#include "tests/support/executor_driver.h"

namespace sluice::test {
namespace {

std::vector<TokenId> ids_of(simdjson::dom::element line, const char* key) {
  simdjson::dom::array array;
  CHECK(line[key].get(array) == simdjson::SUCCESS);
  std::vector<TokenId> ids;
  for (const simdjson::dom::element item : array) {
    std::uint64_t id = 0;
    CHECK(item.get(id) == simdjson::SUCCESS);
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

double number(simdjson::dom::element value) {
  double result = 0;
  CHECK(value.get(result) == simdjson::SUCCESS);
  return result;
}

}  // namespace

std::vector<Expectation> read_expectations(const std::string& path) {
  std::ifstream in(path);
  CHECK(in.good());
  std::vector<Expectation> expectations;
  simdjson::dom::parser parser;
  for (std::string text; std::getline(in, text);) {
    simdjson::dom::element line;
    CHECK(parser.parse(text).get(line) == simdjson::SUCCESS);
    Expectation e;
    e.prompt_ids = ids_of(line, "prompt_ids");
    e.greedy_ids = ids_of(line, "greedy_ids");
    simdjson::dom::array logits;
    if (line["first_logits"].get(logits) == simdjson::SUCCESS) {
      TokenId id = 0;
      for (const simdjson::dom::element value : logits)
        e.first_logits.emplace_back(id++, number(value));
    } else {
      CHECK(line["first_top5_logits"].get(logits) == simdjson::SUCCESS);
      for (const simdjson::dom::element pair : logits) {
        e.first_logits.emplace_back(static_cast<TokenId>(number(pair.at(0))), number(pair.at(1)));
      }
    }
    simdjson::dom::element margin;
    if (line["smallest_margin"].get(margin) == simdjson::SUCCESS)
      e.smallest_margin = number(margin);
    expectations.push_back(std::move(e));
  }
  return expectations;
}

Comparison compare(eng::Executor& executor, const Expectation& expectation, std::size_t chunk) {
  const std::size_t length = expectation.prompt_ids.size() + expectation.greedy_ids.size();
  DrivenSequence sequence{expectation.prompt_ids,
                          consecutive_blocks(blocks_for(length, executor.facts().block_tokens))};
  Comparison result;
  std::size_t generated = 0;
  while (generated < expectation.greedy_ids.size()) {
    const std::size_t n = std::min(chunk, sequence.left());
    const eng::SequenceSpan span = sequence.span(n, n == sequence.left());
    const std::span<const float> logits = executor.forward({&span, 1});
    sequence.computed += static_cast<std::uint32_t>(n);
    if (logits.empty()) continue;
    for (const float logit : logits) result.finite = result.finite && std::isfinite(logit);
    if (generated == 0) {
      for (const auto& [id, want] : expectation.first_logits) {
        const double error = std::abs(static_cast<double>(logits[id]) - want);
        result.logit_error_max = std::max(result.logit_error_max, error);
      }
    }
    const TokenId id = best_id(logits);
    if (id != expectation.greedy_ids[generated]) break;
    result.greedy_equal = ++generated;
    sequence.ids.push_back(id);
  }
  return result;
}

}  // namespace sluice::test
