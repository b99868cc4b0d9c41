// RequestQueue: lanes per model, size class and tenant.
#include "gateway/core/request_queue.h"

#include <algorithm>
#include <limits>

#include "shared/check.h"

namespace sluice::gw {

namespace {

// Divided by weights up to 1,000: an error below 1 in 1,000 of a token's share. 2^64 of it are
// 10^13 tokens.
constexpr std::uint64_t kServedUnit = 1'000'000;
constexpr std::uint64_t kSmallMax = 512;
constexpr std::uint64_t kMediumMax = 2048;
constexpr std::uint32_t kPriorityMax = 1000;  // keeps priority * aging far from overflow

Tick sort_tick(const QueueItem& item, Duration aging) {
  return item.arrival + aging * std::min(item.priority, kPriorityMax);
}

}  // namespace

SizeClass size_class(std::uint64_t prompt_tokens) {
  if (prompt_tokens <= kSmallMax) return SizeClass::small;
  return prompt_tokens <= kMediumMax ? SizeClass::medium : SizeClass::large;
}

bool RequestQueue::Before::operator()(const QueueItem& a, const QueueItem& b) const {
  const Tick tick_a = sort_tick(a, aging);
  const Tick tick_b = sort_tick(b, aging);
  return tick_a != tick_b ? tick_a < tick_b : a.id < b.id;
}

RequestQueue::RequestQueue(const QueueParams& params, std::size_t num_models,
                           std::size_t num_tenants)
    : params_(params), models_(num_models), tenants_(num_tenants) {
  CHECK(params.aging > Duration{0});
  for (const std::uint32_t share : params.shares) CHECK(share > 0);
}

void RequestQueue::set_bounds(std::uint32_t requests_max, std::uint64_t tokens_max) {
  params_.requests_max = requests_max;
  params_.tokens_max = tokens_max;
}

void RequestQueue::set_tenants(std::size_t num_tenants) {
  CHECK(num_tenants >= tenants_.size());
  tenants_.resize(num_tenants);
}

void RequestQueue::set_weight(TenantId tenant, std::uint32_t weight) {
  CHECK(tenant.value < tenants_.size() && weight > 0);
  tenants_[tenant.value].weight = weight;
}

bool RequestQueue::has_room(std::uint64_t requests, std::uint64_t tokens) const {
  return requests_ + requests <= params_.requests_max && tokens_ + tokens <= params_.tokens_max;
}

std::uint64_t RequestQueue::level(const QueueItem& item, Tick now) const {
  const std::uint64_t priority = std::min(item.priority, kPriorityMax);
  if (now <= item.arrival) return priority;
  const auto aged = static_cast<std::uint64_t>((now - item.arrival) / params_.aging);
  return priority > aged ? priority - aged : 0;
}

void RequestQueue::lift_tenant(Tenant& tenant) {
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  for (const Tenant& other : tenants_) {
    if (other.waiting > 0) least = std::min(least, other.served);
  }
  if (least == std::numeric_limits<std::uint64_t>::max()) least = served_floor_;
  tenant.served = std::max(tenant.served, least);
}

// True when class `a` has had less of its share than `b`.
bool RequestQueue::is_behind(const Model& model, std::size_t a, std::size_t b) const {
  return model.classes[a].work * params_.shares[b] < model.classes[b].work * params_.shares[a];
}

void RequestQueue::lift_class(Model& model, std::size_t size) {
  std::optional<std::size_t> least;
  for (std::size_t other = 0; other < kSizeClasses; ++other) {
    if (other == size || model.classes[other].lanes.empty()) continue;
    if (!least || is_behind(model, other, *least)) least = other;
  }
  if (!least || !is_behind(model, size, *least)) return;
  model.classes[size].work =
      model.classes[*least].work * params_.shares[size] / params_.shares[*least];
}

void RequestQueue::push(const QueueItem& item) {
  CHECK(item.model < models_.size() && item.tenant.value < tenants_.size());
  Model& model = models_[item.model];
  Tenant& tenant = tenants_[item.tenant.value];
  const auto size = static_cast<std::size_t>(size_class(item.prompt_tokens));
  if (tenant.waiting == 0) lift_tenant(tenant);
  if (model.classes[size].lanes.empty()) lift_class(model, size);
  Lane& lane =
      model.classes[size].lanes.try_emplace(item.tenant, Before{params_.aging}).first->second;
  CHECK(lane.insert(item).second);
  ++tenant.waiting;
  ++model.waiting;
  ++sequences_;
  requests_ += item.requests;
  tokens_ += item.tokens;
}

const QueueItem* RequestQueue::next(std::uint32_t model_index, Tick now) const {
  CHECK(model_index < models_.size());
  const Model& model = models_[model_index];
  const QueueItem* best = nullptr;
  std::uint64_t best_level = 0;
  std::size_t best_size = 0;
  for (std::size_t size = 0; size < kSizeClasses; ++size) {
    for (const auto& [tenant, lane] : model.classes[size].lanes) {
      const QueueItem& item = *lane.begin();
      const std::uint64_t item_level = level(item, now);
      if (best != nullptr) {
        if (item_level > best_level) continue;
        if (item_level == best_level) {
          if (size != best_size && !is_behind(model, size, best_size)) continue;
          if (size == best_size) {
            const std::uint64_t served = tenants_[tenant.value].served;
            const std::uint64_t best_served = tenants_[best->tenant.value].served;
            if (served > best_served) continue;
            if (served == best_served && !Before{params_.aging}(item, *best)) continue;
          }
        }
      }
      best = &item;
      best_level = item_level;
      best_size = size;
    }
  }
  return best;
}

void RequestQueue::remove(const QueueItem& item) {
  const QueueItem removed = item;  // `item` may lie inside the lane
  Model& model = models_[removed.model];
  Tenant& tenant = tenants_[removed.tenant.value];
  auto& lanes = model.classes[static_cast<std::size_t>(size_class(removed.prompt_tokens))].lanes;
  const auto lane = lanes.find(removed.tenant);
  CHECK(lane != lanes.end() && lane->second.erase(removed) == 1);
  if (lane->second.empty()) lanes.erase(lane);
  CHECK(tenant.waiting > 0 && requests_ >= removed.requests && tokens_ >= removed.tokens);
  --tenant.waiting;
  --model.waiting;
  --sequences_;
  requests_ -= removed.requests;
  tokens_ -= removed.tokens;
}

void RequestQueue::charge(TenantId tenant, std::uint32_t model, SizeClass size,
                          std::uint64_t tokens) {
  Tenant& served = tenants_[tenant.value];
  served.served += tokens * kServedUnit / served.weight;
  served_floor_ = served.served;
  models_[model].classes[static_cast<std::size_t>(size)].work += tokens;
}

void RequestQueue::check_invariants() const {
  std::uint64_t requests = 0;
  std::uint64_t tokens = 0;
  std::uint64_t sequences = 0;
  std::vector<std::uint64_t> by_tenant(tenants_.size(), 0);
  for (const Model& model : models_) {
    std::uint64_t waiting = 0;
    for (const Class& size : model.classes) {
      for (const auto& [tenant, lane] : size.lanes) {
        CHECK(!lane.empty());
        for (const QueueItem& item : lane) {
          CHECK(item.tenant == tenant);
          requests += item.requests;
          tokens += item.tokens;
          ++waiting;
          ++by_tenant[tenant.value];
        }
      }
    }
    CHECK(waiting == model.waiting);
    sequences += waiting;
  }
  CHECK(requests == requests_ && tokens == tokens_ && sequences == sequences_);
  for (std::size_t i = 0; i < tenants_.size(); ++i) CHECK(by_tenant[i] == tenants_[i].waiting);
}

}  // namespace sluice::gw
