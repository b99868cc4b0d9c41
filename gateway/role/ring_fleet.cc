// Views of the core as plain values with wall-clock times.
#include "gateway/role/ring_fleet.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "config/settings.h"

namespace sluice::gw {
namespace {

constexpr std::string_view kTenantPrefix = "tenant:";
constexpr std::string_view kWorkerPrefix = "worker:";

std::string hex(std::uint64_t value) {
  char digits[17];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value, 16);
  std::string text(digits, end);
  return text.insert(0, 16 - text.size(), '0');
}

std::string_view mode_name(WorkerMode mode) {
  switch (mode) {
    case WorkerMode::draining:
      return "draining";
    case WorkerMode::recycling:
      return "recycling";
    default:
      return "serving";
  }
}

// What both kinds of breakers have.
template <class View, class Name>
void fill(BreakerStatus& status, const View& view, Name reason_name, const Service& service) {
  const auto unix_ms = [&](Tick tick) {
    if (tick == Tick{}) return std::int64_t{0};
    const auto ago = std::chrono::duration_cast<std::chrono::milliseconds>(service.started - tick);
    return service.started_unix_s * 1000 - ago.count();
  };
  status.state = breaker_state_name(view.state);
  status.reason = reason_name(view.reason);
  status.is_forced = view.is_forced;
  status.since = unix_ms(view.since);
  if (view.state == BreakerState::open && !view.is_forced) status.retry_at = unix_ms(view.retry_at);
  status.openings = view.openings;
  for (const auto& event : view.history)
    status.history.push_back({breaker_state_name(event.from), breaker_state_name(event.to),
                              reason_name(event.reason), unix_ms(event.at)});
}

}  // namespace

BreakerStatus RingFleet::status_of(const std::string& tenant, TenantId number) const {
  const TenantBreakerView view = loop_.breaker(number);
  BreakerStatus status;
  status.kind = "tenant";
  status.subject = tenant;
  status.id = std::string(kTenantPrefix) + tenant;
  status.refused = view.refused;
  fill(status, view, breaker_reason_name, service_);
  return status;
}

BreakerStatus RingFleet::status_of(WorkerId worker) const {
  BreakerStatus status;
  status.kind = "worker";
  status.subject = std::to_string(worker.value);
  status.id = std::string(kWorkerPrefix) + status.subject;
  fill(status, loop_.core().worker_breaker().view(worker), worker_breaker_reason_name, service_);
  return status;
}

// "tenant:..." comes before "worker:...", and either by its name.
std::vector<BreakerStatus> RingFleet::breakers(const std::string& after,
                                               std::size_t count_max) const {
  std::vector<BreakerStatus> found;
  const std::map<std::string, TenantId>& numbers = service_.tenant_numbers();
  // Without configured tenants there is the default one.
  const std::map<std::string, TenantId> defaults{{service_.tenant(TenantId{0}).name, TenantId{0}}};
  const std::map<std::string, TenantId>& tenants = numbers.empty() ? defaults : numbers;
  auto at = tenants.begin();
  if (after.starts_with(kTenantPrefix))
    at = tenants.upper_bound(after.substr(kTenantPrefix.size()));
  else if (after > kTenantPrefix)
    at = tenants.end();
  for (; at != tenants.end() && found.size() < count_max; ++at)
    found.push_back(status_of(at->first, at->second));
  std::vector<std::pair<std::string, WorkerId>> workers;
  for (std::uint32_t i = 0; i < loop_.num_workers(); ++i) {
    const std::string id = std::string(kWorkerPrefix) + std::to_string(i);
    if (id > after) workers.emplace_back(id, WorkerId{i});
  }
  std::sort(workers.begin(), workers.end());
  for (std::size_t i = 0; i < workers.size() && found.size() < count_max; ++i)
    found.push_back(status_of(workers[i].second));
  return found;
}

std::optional<BreakerStatus> RingFleet::breaker(const std::string& id) const {
  if (const auto tenant = find_tenant(id)) return status_of(service_.tenant(*tenant).name, *tenant);
  if (!id.starts_with(kWorkerPrefix)) return std::nullopt;
  const auto worker = find_worker(id.substr(kWorkerPrefix.size()));
  return worker ? std::optional(status_of(*worker)) : std::nullopt;
}

std::vector<WorkerStatus> RingFleet::workers() const {
  std::vector<WorkerStatus> found;
  std::uint32_t number = 0;
  for (const cfg::Model& model : service_.config.models) {
    for (std::uint32_t i = 0; i < model.workers && number < loop_.num_workers(); ++i, ++number) {
      const WorkerId id{number};
      const WorkerAccount& account = loop_.core().worker(id);
      WorkerStatus& status = found.emplace_back();
      status.id = std::to_string(number);
      status.model = model.name;
      status.device = cfg::kDeviceKinds[static_cast<std::size_t>(model.device)];
      status.state = account.is_up() ? mode_name(loop_.core().worker_mode(id)) : "down";
      status.breaker = breaker_state_name(loop_.core().worker_breaker().view(id).state);
      status.epoch = account.epoch().value;
      status.steps = loop_.core().meter(id).counters().steps;
      if (!account.is_up()) continue;
      const WorkerFacts& facts = account.facts();
      const StepRecord& last = account.last();
      status.weights_digest = hex(facts.weights_digest);
      status.kernel_path = hex(facts.kernel_path);
      status.step_ms = static_cast<double>(last.duration_ns) / 1e6;
      status.sequences_held = loop_.core().num_held(id);
      status.sequences_running = last.num_running;
      status.sequences_waiting = last.num_waiting;
      status.kv_blocks = facts.num_blocks;
      status.kv_blocks_free = last.step == 0 ? facts.num_blocks : last.num_blocks_free;
      status.kv_blocks_cached = last.num_blocks_cached;
      status.tenants = loop_.tenants_on(id);
    }
  }
  return found;
}

std::optional<TenantId> RingFleet::find_tenant(const std::string& id) const {
  if (!id.starts_with(kTenantPrefix)) return std::nullopt;
  const std::string name = id.substr(kTenantPrefix.size());
  const std::map<std::string, TenantId>& numbers = service_.tenant_numbers();
  if (numbers.empty() && name == service_.tenant(TenantId{0}).name) return TenantId{0};
  const auto at = numbers.find(name);
  return at == numbers.end() ? std::nullopt : std::optional(at->second);
}

std::optional<WorkerId> RingFleet::find_worker(const std::string& number) const {
  for (std::uint32_t i = 0; i < loop_.num_workers(); ++i)
    if (std::to_string(i) == number) return WorkerId{i};
  return std::nullopt;
}

void RingFleet::act(FleetAction action, const std::string& id) {
  const bool is_breaker =
      action == FleetAction::open_breaker || action == FleetAction::reset_breaker;
  if (const auto tenant = find_tenant(id); tenant && is_breaker) {
    if (action == FleetAction::open_breaker)
      loop_.force_open(*tenant);
    else
      loop_.reset_breaker(*tenant);
    return;
  }
  const bool has_prefix = id.starts_with(kWorkerPrefix);
  if (has_prefix != is_breaker) return;
  const auto worker = find_worker(has_prefix ? id.substr(kWorkerPrefix.size()) : id);
  if (!worker) return;
  switch (action) {
    case FleetAction::open_breaker:
      return loop_.force_open(*worker);
    case FleetAction::reset_breaker:
      return loop_.reset_breaker(*worker);
    case FleetAction::drain_worker:
      return loop_.set_worker_mode(*worker, WorkerMode::draining);
    case FleetAction::resume_worker:
      return loop_.set_worker_mode(*worker, WorkerMode::serving);
    case FleetAction::recycle_worker:
      return loop_.set_worker_mode(*worker, WorkerMode::recycling);
  }
}

}  // namespace sluice::gw
