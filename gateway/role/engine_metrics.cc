// One family at a time, one sample per engine: the format wants all samples of a name together.
#include "gateway/role/engine_metrics.h"

#include <string_view>
#include <vector>

#include "gateway/http/http_metrics.h"
#include "gateway/role/metric_lines.h"

namespace sluice::gw {
namespace {

struct Engine {
  const WorkerAccount& account;
  const EngineMeter& meter;
  EngineRates rates;
  std::string labels;
};

std::vector<Engine> engines_of(const ServingCore& core, std::span<const std::string> model_labels) {
  std::vector<Engine> engines;
  for (std::uint32_t id = 0; id < core.num_workers(); ++id) {
    const EngineMeter& meter = core.meter(WorkerId{id});
    if (!meter.was_up() || meter.model() >= model_labels.size()) continue;
    engines.push_back({core.worker(WorkerId{id}), meter, meter.rates(),
                       model_labels[meter.model()] + ",engine=\"" + std::to_string(id) + "\""});
  }
  return engines;
}

struct EnginePage {
  std::string& out;
  const std::vector<Engine>& engines;

  template <class Get>
  void count(std::string_view name, std::string_view help, Get get) {
    append_metric_head(out, name, "counter", help);
    for (const Engine& engine : engines) append_sample(out, name, engine.labels, get(engine));
  }
  template <class Get>
  void real(std::string_view name, std::string_view type, std::string_view help, Get get) {
    append_metric_head(out, name, type, help);
    for (const Engine& engine : engines) append_real(out, name, engine.labels, get(engine));
  }
  // Two samples each, told apart by one more label.
  template <class First, class Second>
  void pair(std::string_view name, std::string_view type, std::string_view help,
            std::string_view first_label, First first, std::string_view second_label,
            Second second) {
    append_metric_head(out, name, type, help);
    for (const Engine& engine : engines) {
      append_real(out, name, engine.labels + "," + std::string(first_label), first(engine));
      append_real(out, name, engine.labels + "," + std::string(second_label), second(engine));
    }
  }
};

std::uint64_t blocks_used(const WorkerAccount& account) {
  const StepRecord& last = account.last();
  if (!account.is_up() || last.step == 0) return 0;  // no record yet: everything is free
  return account.facts().num_blocks - last.num_blocks_free - last.num_blocks_cached;
}

double kv_usage(const Engine& engine) {
  return static_cast<double>(blocks_used(engine.account)) /
         static_cast<double>(engine.meter.facts().num_blocks);
}

double kv_fragmentation(const Engine& engine) {
  const std::uint64_t num_slots = blocks_used(engine.account) * engine.account.facts().block_tokens;
  if (num_slots == 0) return 0;
  return static_cast<double>(engine.account.last().num_slots_unfilled) /
         static_cast<double>(num_slots);
}

void append_vllm_names(EnginePage& page) {
  page.real("vllm:kv_cache_usage_perc", "gauge", "Share of KV blocks in use; 1 means all.",
            kv_usage);
  page.count("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
             [](const Engine& e) { return e.meter.counters().prefix_queries; });
  page.count("vllm:prefix_cache_hits_total", "Prompt tokens found there.",
             [](const Engine& e) { return e.meter.counters().prefix_hits; });
  page.count("vllm:num_preemptions_total", "Sequences that gave their KV blocks back for others.",
             [](const Engine& e) { return e.meter.counters().preemptions; });
  append_metric_head(page.out, "vllm:iteration_tokens_total", "histogram",
                     "Tokens computed per engine step.");
  for (const Engine& engine : page.engines)
    append_histogram(page.out, "vllm:iteration_tokens_total", engine.labels,
                     engine.meter.counters().step_tokens, 1.0);
}

void append_counters(EnginePage& page) {
  page.count("sluice_engine_steps_total", "Engine steps.",
             [](const Engine& e) { return e.meter.counters().steps; });
  append_metric_head(page.out, "sluice_engine_step_seconds", "histogram",
                     "Plan to outcome of steps that computed tokens.");
  for (const Engine& engine : page.engines)
    append_histogram(page.out, "sluice_engine_step_seconds", engine.labels,
                     engine.meter.counters().step_time, 1e-9);
  page.real("sluice_engine_busy_seconds_total", "counter", "Time in such steps.",
            [](const Engine& e) { return e.meter.counters().busy_seconds; });
  page.real("sluice_engine_forward_seconds_total", "counter", "Of it, inside the executor.",
            [](const Engine& e) { return e.meter.counters().forward_seconds; });
  page.pair(
      "sluice_engine_tokens_total", "counter", "Tokens computed, by phase.", "phase=\"prefill\"",
      [](const Engine& e) { return static_cast<double>(e.meter.counters().prefill_tokens); },
      "phase=\"decode\"",
      [](const Engine& e) { return static_cast<double>(e.meter.counters().decode_tokens); });
  page.real("sluice_engine_operations_total", "counter",
            "Multiplications and additions of the forward passes.",
            [](const Engine& e) { return e.meter.counters().operations; });
  page.real("sluice_engine_bytes_moved_total", "counter",
            "Weights and KV that the forward passes had to read, KV written.",
            [](const Engine& e) { return e.meter.counters().bytes_moved; });
}

void append_rates(EnginePage& page) {
  page.pair(
      "sluice_engine_tokens_per_second", "gauge", "Tokens computed per busy second.",
      "phase=\"prefill\"", [](const Engine& e) { return e.rates.prefill_tokens_per_second; },
      "phase=\"decode\"", [](const Engine& e) { return e.rates.decode_tokens_per_second; });
  page.pair(
      "sluice_engine_batch_fill_ratio", "gauge",
      "How full steps are: of the places for sequences, of the token budget.", "of=\"sequences\"",
      [](const Engine& e) { return e.rates.sequences_fill; }, "of=\"tokens\"",
      [](const Engine& e) { return e.rates.tokens_fill; });
  page.real("sluice_engine_kv_fragmentation_ratio", "gauge",
            "Slots of used KV blocks that hold no token; 1 means all.", kv_fragmentation);
  page.real("sluice_engine_peak_operations_per_second", "gauge",
            "Float operations that the device can do at most, measured at start; 0: unknown.",
            [](const Engine& e) {
              return static_cast<double>(e.meter.facts().peak_operations_per_second);
            });
  page.real(
      "sluice_engine_peak_bytes_per_second", "gauge", "Bytes that it can read at most, likewise.",
      [](const Engine& e) { return static_cast<double>(e.meter.facts().peak_bytes_per_second); });
  append_metric_head(page.out, "sluice_engine_peak_ratio", "gauge",
                     "Share of these peaks that the forward passes reach.");
  for (const Engine& e : page.engines) {
    const std::string_view name = "sluice_engine_peak_ratio";
    if (e.meter.facts().peak_operations_per_second > 0)
      append_real(page.out, name, e.labels + ",of=\"operations\"", e.rates.operations_share);
    if (e.meter.facts().peak_bytes_per_second > 0)
      append_real(page.out, name, e.labels + ",of=\"bandwidth\"", e.rates.bandwidth_share);
  }
}

}  // namespace

void append_engine_metrics(std::string& out, const ServingCore& core,
                           std::span<const std::string> model_labels) {
  const std::vector<Engine> engines = engines_of(core, model_labels);
  EnginePage page{out, engines};
  append_vllm_names(page);
  append_counters(page);
  append_rates(page);
}

}  // namespace sluice::gw
