// Counters to Prometheus text. One family at a time, one sample per model: the format wants all
// samples of a name together.
#include "gateway/role/core_metrics.h"

#include <array>

#include "gateway/role/engine_metrics.h"
#include "gateway/role/metric_lines.h"

namespace sluice::gw {
namespace {

constexpr std::array<std::string_view, kEndReasons> kEndNames{"stop", "length", "abort", "error"};

struct CorePage {
  std::string& out;
  const RingDecisionLoop& loop;
  const Service& service;
  std::vector<std::string> labels;  // by model
};

// One whole-number sample per model.
template <class Get>
void per_model(CorePage& page, std::string_view name, std::string_view type, std::string_view help,
               Get get) {
  append_metric_head(page.out, name, type, help);
  for (std::uint32_t model = 0; model < page.labels.size(); ++model)
    append_sample(page.out, name, page.labels[model], get(model));
}

// `unit`: what one of the histogram's integers is worth in the exported unit.
template <class Get>
void histograms(CorePage& page, std::string_view name, std::string_view help, double unit,
                Get get) {
  append_metric_head(page.out, name, "histogram", help);
  for (std::uint32_t model = 0; model < page.labels.size(); ++model) {
    append_histogram(page.out, name, page.labels[model], get(page.loop.core().counters(model)),
                     unit);
  }
}

void append_vllm_gauges(CorePage& page) {
  per_model(page, "vllm:num_requests_running", "gauge", "Sequences in the workers' batches.",
            [&](std::uint32_t model) { return page.loop.gauges(model).running; });
  per_model(page, "vllm:num_requests_waiting", "gauge", "Sequences that wait for a batch.",
            [&](std::uint32_t model) { return page.loop.gauges(model).waiting; });
}

void append_vllm_counters(CorePage& page) {
  const auto counters = [&](std::uint32_t model) -> const ModelCounters& {
    return page.loop.core().counters(model);
  };
  const auto count = [&](std::string_view name, std::string_view help,
                         std::uint64_t ModelCounters::*member) {
    per_model(page, name, "counter", help,
              [&](std::uint32_t model) { return counters(model).*member; });
  };
  count("vllm:prompt_tokens_total", "Prompt tokens of requests that reached a worker.",
        &ModelCounters::prompt_tokens);
  count("vllm:generation_tokens_total", "Output tokens that were accepted: billed, in usage.",
        &ModelCounters::accepted);
  append_metric_head(page.out, "vllm:request_success_total", "counter",
                     "Choices that ended, by reason.");
  for (std::uint32_t model = 0; model < page.labels.size(); ++model)
    for (std::size_t reason = 0; reason < kEndReasons; ++reason)
      append_sample(
          page.out, "vllm:request_success_total",
          page.labels[model] + ",finished_reason=\"" + std::string(kEndNames[reason]) + "\"",
          counters(model).ended[reason]);
}

void append_vllm_histograms(CorePage& page) {
  constexpr double kSeconds = 1e-9;
  const auto add = [&](std::string_view name, std::string_view help, double unit,
                       Histogram ModelCounters::*member) {
    histograms(page, name, help, unit,
               [member](const ModelCounters& c) -> const Histogram& { return c.*member; });
  };
  add("vllm:time_to_first_token_seconds", "Arrival to first token.", kSeconds,
      &ModelCounters::ttft);
  add("vllm:inter_token_latency_seconds", "Between tokens of a choice.", kSeconds,
      &ModelCounters::itl);
  add("vllm:e2e_request_latency_seconds", "Arrival to the end.", kSeconds, &ModelCounters::e2e);
  add("vllm:request_queue_time_seconds", "Admission to dispatch.", kSeconds,
      &ModelCounters::queue_time);
  add("vllm:request_prefill_time_seconds", "Dispatch to first token.", kSeconds,
      &ModelCounters::prefill_time);
  add("vllm:request_decode_time_seconds", "First to last token.", kSeconds,
      &ModelCounters::decode_time);
}

void append_books(CorePage& page) {
  const auto counters = [&](std::uint32_t model) -> const ModelCounters& {
    return page.loop.core().counters(model);
  };
  per_model(page, "sluice_tokens_generated_total", "counter",
            "Output tokens that engines produced: accepted + discarded + pending.",
            [&](std::uint32_t model) { return counters(model).generated; });
  per_model(page, "sluice_tokens_accepted_total", "counter", "Output tokens in the journal.",
            [&](std::uint32_t model) { return counters(model).accepted; });
  append_metric_head(page.out, "sluice_tokens_discarded_total", "counter",
                     "Output tokens that nobody was billed for, by cause.");
  for (std::uint32_t model = 0; model < page.labels.size(); ++model)
    for (std::size_t cause = 0; cause < kDiscardCauses; ++cause)
      append_sample(page.out, "sluice_tokens_discarded_total",
                    page.labels[model] + ",cause=\"" +
                        std::string(discard_cause_name(static_cast<DiscardCause>(cause))) + "\"",
                    counters(model).discarded[cause]);
  per_model(page, "sluice_tokens_pending", "gauge", "Output tokens that wait for a slow client.",
            [&](std::uint32_t model) { return counters(model).pending; });
  per_model(page, "sluice_requests_admitted_total", "counter", "Requests that were admitted.",
            [&](std::uint32_t model) { return counters(model).requests; });
  per_model(page, "sluice_failovers_total", "counter",
            "Sequences resubmitted after a worker's end.",
            [&](std::uint32_t model) { return counters(model).failovers; });
  per_model(page, "sluice_requests_condemned_total", "counter",
            "Requests that crashed their worker.",
            [&](std::uint32_t model) { return counters(model).condemned; });
  per_model(page, "sluice_workers_up", "gauge", "Workers that serve the model.",
            [&](std::uint32_t model) { return page.loop.gauges(model).workers_up; });
}

void append_process(CorePage& page) {
  const auto one = [&](std::string_view name, std::string_view type, std::string_view help,
                       std::uint64_t value) {
    append_metric_head(page.out, name, type, help);
    append_sample(page.out, name, "", value);
  };
  const Journal& journal = page.loop.journal();
  const JournalTotals totals = journal.totals_with_live();
  const std::size_t settled = page.loop.settled().num_slots();
  one("sluice_journal_live_slots", "gauge", "Sequences with an open journal slot.",
      journal.num_live() - settled);
  one("sluice_journal_settled_slots", "gauge", "Slots that wait for the usage store.", settled);
  one("sluice_journal_slots", "gauge", "Journal slots in all.", journal.num_slots());
  one("sluice_journal_requests_total", "counter", "Requests billed in this state directory.",
      totals.requests);
  one("sluice_journal_prompt_tokens_total", "counter", "Prompt tokens billed, likewise.",
      totals.prompt);
  one("sluice_journal_accepted_tokens_total", "counter", "Output tokens billed, likewise.",
      totals.accepted);
  const LinkCounters& link = page.loop.counters();
  one("sluice_worker_epochs_total", "counter", "Workers that came up.", link.worker_epochs);
  one("sluice_worker_epochs_corrupt_total", "counter", "Epochs ended for corrupt records.",
      link.corrupt_epochs);
  one("sluice_ring_records_total", "counter", "Records read from step rings.", link.records);
  one("sluice_ring_submissions_total", "counter", "Submissions written.", link.submissions);
  one("sluice_ring_submissions_unsent_total", "counter", "Submissions that found a full ring.",
      link.submissions_unsent);
  one("sluice_ring_doorbells_total", "counter", "Workers woken by a system call.", link.doorbells);
  one("sluice_gateway_sleeps_total", "counter", "Times the gateway went to sleep.", link.sleeps);
  one("sluice_queue_requests", "gauge", "Requests in the queue.",
      page.loop.core().queue().requests());
  one("sluice_queue_tokens", "gauge", "Their tokens, reserved output included.",
      page.loop.core().queue().tokens());
}

void append_usage_store(CorePage& page) {
  const auto one = [&](std::string_view name, std::string_view type, std::string_view help,
                       std::uint64_t value) {
    append_metric_head(page.out, name, type, help);
    append_sample(page.out, name, "", value);
  };
  const UsageWriter* const writer = page.loop.settled().writer();
  if (writer == nullptr) return;
  one("sluice_store_usage_entries_total", "counter", "Entries of usage that are on the disk.",
      writer->num_durable());
  one("sluice_store_usage_waiting", "gauge", "Entries that wait for the disk.",
      page.loop.settled().num_waiting());
  one("sluice_store_failing", "gauge", "1: usage cannot be stored, accounts with limits wait.",
      page.loop.usage_store_state() == UsageStoreState::storing ? 0 : 1);
  one("sluice_store_failures_total", "counter", "Transactions that failed.",
      writer->num_failures());
  one("sluice_store_refused_total", "counter", "Requests refused because of it.",
      page.loop.counters().store_refusals);
}

void append_quota_store(CorePage& page) {
  const auto one = [&](std::string_view name, std::string_view type, std::string_view help,
                       std::uint64_t value) {
    append_metric_head(page.out, name, type, help);
    append_sample(page.out, name, "", value);
  };
  const RedisQuotaStore* const store = page.loop.quota_store();
  if (store == nullptr) return;
  const LeaseBook& leases = *page.loop.core().leases();
  const QuotaStoreCounters& counters = store->counters();
  one("sluice_quota_store_connected", "gauge", "1: the store of shared limits answers.",
      leases.is_connected() ? 1 : 0);
  one("sluice_quota_store_connects_total", "counter", "Connections made.", counters.connects);
  one("sluice_quota_store_failures_total", "counter", "Connections and exchanges that failed.",
      counters.failures);
  one("sluice_quota_store_exchanges_total", "counter", "Round trips that carried asks.",
      counters.exchanges);
  append_metric_head(page.out, "sluice_quota_store_exchange_seconds_total", "counter",
                     "Time of all exchanges.");
  append_real(page.out, "sluice_quota_store_exchange_seconds_total", "",
              static_cast<double>(counters.exchange_us) * 1e-6);
  one("sluice_quota_store_asks_total", "counter", "Limits reported or asked for.",
      leases.num_asks());
  one("sluice_quota_store_refused_total", "counter", "Asks that the limit could not meet.",
      leases.num_refused());
  one("sluice_quota_store_waiting", "gauge", "Requests that wait for the store.",
      page.loop.num_quota_waiters());
  one("sluice_quota_store_waits_total", "counter", "Requests that waited for the store.",
      page.loop.counters().quota_waits);
  one("sluice_quota_store_timeouts_total", "counter", "Of them, until their time was over.",
      page.loop.counters().quota_timeouts);
}

// Spent / granted is how much of what admission reserves gets used.
void append_ledger(CorePage& page) {
  const auto per_mode = [&](std::string_view name, std::string_view help, auto value) {
    append_metric_head(page.out, name, "counter", help);
    for (std::size_t i = 0; i < kReservationModes; ++i) {
      const auto mode = static_cast<ReservationMode>(i);
      append_sample(page.out, name, "mode=\"" + std::string(reservation_mode_name(mode)) + "\"",
                    value(page.loop.core().ledger().mode_counters(mode)));
    }
  };
  per_mode("sluice_quota_reservations_total", "Requests that hold or held tokens of a tenant.",
           [](const ModeCounters& mode) { return mode.opened; });
  per_mode("sluice_quota_output_tokens_granted_total", "Output tokens reserved.",
           [](const ModeCounters& mode) { return mode.granted; });
  per_mode("sluice_quota_output_tokens_spent_total", "Reserved output tokens that were used.",
           [](const ModeCounters& mode) { return mode.spent; });
  per_mode("sluice_quota_output_tokens_overshoot_total",
           "Output tokens granted beyond a limit, because a prediction was too short.",
           [](const ModeCounters& mode) { return mode.overshoot; });
}

void append_breakers(CorePage& page) {
  const TenantBreaker& breaker = page.loop.core().tenant_breaker();
  const auto per_state = [&](std::string_view name, std::string_view type, std::string_view help,
                             auto value) {
    append_metric_head(page.out, name, type, help);
    for (std::size_t i = 0; i < kBreakerStates; ++i) {
      const auto state = static_cast<BreakerState>(i);
      append_sample(page.out, name, "state=\"" + std::string(breaker_state_name(state)) + "\"",
                    value(state));
    }
  };
  per_state("sluice_breaker_tenants", "gauge", "Tenants by the state of their circuit breaker.",
            [&](BreakerState state) { return breaker.num_in(state); });
  // Pairs that have not occurred are left out: most never can.
  const auto per_transition = [&](std::string_view name, std::string_view help, auto reason_name,
                                  std::size_t num_reasons, auto value) {
    append_metric_head(page.out, name, "counter", help);
    for (std::size_t i = 0; i < kBreakerStates; ++i)
      for (std::size_t reason = 0; reason < num_reasons; ++reason) {
        const auto state = static_cast<BreakerState>(i);
        const std::uint64_t count = value(state, reason);
        if (count == 0) continue;
        append_sample(page.out, name,
                      "state=\"" + std::string(breaker_state_name(state)) + "\",reason=\"" +
                          std::string(reason_name(reason)) + "\"",
                      count);
      }
  };
  per_transition(
      "sluice_breaker_transitions_total", "Transitions, by the state entered and the reason.",
      [](std::size_t reason) { return breaker_reason_name(static_cast<BreakerReason>(reason)); },
      kBreakerReasons,
      [&](BreakerState state, std::size_t reason) {
        return breaker.transitions(state, static_cast<BreakerReason>(reason));
      });
  per_state("sluice_breaker_refused_total", "counter", "Requests refused, by the state.",
            [&](BreakerState state) { return breaker.refused_in(state); });
  const WorkerBreaker& workers = page.loop.core().worker_breaker();
  per_state("sluice_breaker_workers", "gauge", "Workers by the state of their circuit breaker.",
            [&](BreakerState state) { return workers.num_in(state); });
  per_transition(
      "sluice_breaker_worker_transitions_total",
      "Transitions of workers, by the state entered and the reason.",
      [](std::size_t reason) {
        return worker_breaker_reason_name(static_cast<WorkerBreakerReason>(reason));
      },
      kWorkerBreakerReasons,
      [&](BreakerState state, std::size_t reason) {
        return workers.transitions(state, static_cast<WorkerBreakerReason>(reason));
      });
  append_metric_head(page.out, "sluice_breaker_retries_total", "counter",
                     "Sequences sent again after the end of their worker.");
  append_sample(page.out, "sluice_breaker_retries_total", "", workers.retries());
}

}  // namespace

void append_core_metrics(std::string& out, const RingDecisionLoop& loop, const Service& service) {
  CorePage page{out, loop, service, {}};
  for (const ServedModel& model : service.models)
    page.labels.push_back("model_name=\"" + escape_label(model.config.name) + "\"");
  append_vllm_gauges(page);
  append_vllm_counters(page);
  append_vllm_histograms(page);
  append_engine_metrics(out, loop.core(), page.labels);
  append_books(page);
  append_process(page);
  append_usage_store(page);
  append_quota_store(page);
  append_ledger(page);
  append_breakers(page);
}

}  // namespace sluice::gw
