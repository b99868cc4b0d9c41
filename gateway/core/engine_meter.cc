// Sums of step records, and quotients of them.
#include "gateway/core/engine_meter.h"

#include <algorithm>

namespace sluice::gw {
namespace {

double seconds(std::uint64_t ns) {
  return static_cast<double>(std::min(ns, kStepNsMax)) * 1e-9;
}

double quotient(double amount, double of) {
  return of > 0 ? amount / of : 0;
}

}  // namespace

void EngineMeter::Window::halve() {
  for (double* sum : {&steps, &busy_seconds, &forward_seconds, &prefill_tokens, &decode_tokens,
                      &sequences, &operations, &bytes_moved})
    *sum /= 2;
}

void EngineMeter::open(std::uint32_t model, const WorkerFacts& facts) {
  was_up_ = true;
  model_ = model;
  facts_ = facts;
}

void EngineMeter::take(const StepRecord& head) {
  ++counters_.steps;
  counters_.preemptions += head.num_preemptions;
  counters_.prefix_queries += head.num_prefix_queries;
  counters_.prefix_hits += head.num_prefix_hits;
  const std::uint64_t computed = std::uint64_t{head.num_prefill_tokens} + head.num_decode_tokens;
  if (computed == 0) return;
  const double busy = seconds(head.duration_ns);
  const double forward = seconds(head.forward_ns);
  const auto operations = static_cast<double>(head.operations);
  const auto bytes_moved = static_cast<double>(head.bytes_moved);
  counters_.prefill_tokens += head.num_prefill_tokens;
  counters_.decode_tokens += head.num_decode_tokens;
  counters_.busy_seconds += busy;
  counters_.forward_seconds += forward;
  counters_.operations += operations;
  counters_.bytes_moved += bytes_moved;
  counters_.step_tokens.observe(static_cast<std::int64_t>(computed));
  counters_.step_time.observe(static_cast<std::int64_t>(std::min(head.duration_ns, kStepNsMax)));
  window_.steps += 1;
  window_.busy_seconds += busy;
  window_.forward_seconds += forward;
  window_.prefill_tokens += head.num_prefill_tokens;
  window_.decode_tokens += head.num_decode_tokens;
  window_.sequences += head.num_sequences;
  window_.operations += operations;
  window_.bytes_moved += bytes_moved;
  while (window_.busy_seconds > kEngineWindowSeconds) window_.halve();
}

EngineRates EngineMeter::rates() const {
  const Window& w = window_;
  EngineRates rates;
  rates.prefill_tokens_per_second = quotient(w.prefill_tokens, w.busy_seconds);
  rates.decode_tokens_per_second = quotient(w.decode_tokens, w.busy_seconds);
  rates.sequences_fill = quotient(w.sequences, w.steps * facts_.sequences_max);
  rates.tokens_fill =
      quotient(w.prefill_tokens + w.decode_tokens, w.steps * facts_.step_tokens_max);
  const auto peak_operations = static_cast<double>(facts_.peak_operations_per_second);
  const auto peak_bytes = static_cast<double>(facts_.peak_bytes_per_second);
  rates.operations_share = quotient(w.operations, w.forward_seconds * peak_operations);
  rates.bandwidth_share = quotient(w.bytes_moved, w.forward_seconds * peak_bytes);
  return rates;
}

}  // namespace sluice::gw
