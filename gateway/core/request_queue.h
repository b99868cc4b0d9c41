// RequestQueue: sequences that wait for a worker, in one bounded queue for all models.
//
// Which one is next for a model, in this order:
//   1. the lowest priority level. A level falls by one for each `aging` waited, never below 0, so
//      nothing waits for ever behind sooner levels;
//   2. the size class (S <= 512 prompt tokens, M <= 2048, L) that is furthest below its share of
//   the
//      work done. A class without waiters gives its share to the others and banks nothing;
//   3. the tenant with the smallest virtual token counter (Sheng et al., "Fairness in Serving Large
//      Language Models", OSDI 2024): served tokens over its weight, lifted to the active minimum
//      when it comes back;
//   4. the earliest arrival, each priority level counting as one `aging` later; then the lower id.
//
// Invariants: 1. requests() and tokens() are the sums over what waits; 2. order depends on nothing
// but the calls. Bounds are the caller's question (has_room) before it pushes.
// Pure; decision thread only. next() is O(tenants that wait).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "shared/clock.h"
#include "shared/ids.h"

namespace sluice::gw {

enum class SizeClass : std::uint8_t { small, medium, large };
inline constexpr std::size_t kSizeClasses = 3;
SizeClass size_class(std::uint64_t prompt_tokens);

struct QueueParams {
  std::uint32_t requests_max = 4096;
  std::uint64_t tokens_max = 4'000'000;  // prompt + reserved output
  // Shares of the work, in tokens, while every class has waiters. Small ones lead: they are most of
  // the requests and least of the work.
  std::array<std::uint32_t, kSizeClasses> shares{5, 3, 2};
  Duration aging{std::chrono::seconds{10}};
};

struct QueueItem {
  SequenceId id;
  std::uint32_t index = 0;  // the caller's name for it
  TenantId tenant;
  std::uint32_t model = 0;
  std::uint32_t prompt_tokens = 0;
  std::uint64_t tokens = 0;    // what it counts against tokens_max
  std::uint32_t requests = 0;  // 1 on the last choice of a request, else 0
  std::uint32_t priority = 0;
  Tick arrival{};
};

class RequestQueue {
 public:
  RequestQueue(const QueueParams& params, std::size_t num_models, std::size_t num_tenants);
  void set_bounds(std::uint32_t requests_max, std::uint64_t tokens_max);
  void set_tenants(std::size_t num_tenants);               // never fewer
  void set_weight(TenantId tenant, std::uint32_t weight);  // > 0; 1 at first

  bool has_room(std::uint64_t requests, std::uint64_t tokens) const;
  void push(const QueueItem& item);
  const QueueItem* next(std::uint32_t model, Tick now) const;  // nullptr: nothing waits
  void remove(const QueueItem& item);  // dispatched or given up. REQUIRES: it waits
  // Work done for a tenant: prompt tokens when dispatched, output tokens as they are generated.
  void charge(TenantId tenant, std::uint32_t model, SizeClass size, std::uint64_t tokens);

  std::uint64_t requests() const { return requests_; }
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t sequences() const { return sequences_; }
  std::uint64_t sequences(std::uint32_t model) const { return models_[model].waiting; }
  void check_invariants() const;  // O(n)

 private:
  struct Before {  // order within one tenant
    bool operator()(const QueueItem& a, const QueueItem& b) const;
    Duration aging;
  };
  using Lane = std::set<QueueItem, Before>;  // one tenant's; never empty while in the map
  struct Class {
    std::map<TenantId, Lane> lanes;
    std::uint64_t work = 0;
  };
  struct Model {
    std::array<Class, kSizeClasses> classes;
    std::uint64_t waiting = 0;
  };
  struct Tenant {
    std::uint64_t served = 0;  // virtual token counter, in kServedUnit per token and weight
    std::uint64_t waiting = 0;
    std::uint32_t weight = 1;
  };
  std::uint64_t level(const QueueItem& item, Tick now) const;
  void lift_tenant(Tenant& tenant);
  void lift_class(Model& model, std::size_t size);
  bool is_behind(const Model& model, std::size_t a, std::size_t b) const;

  QueueParams params_;
  std::vector<Model> models_;
  std::vector<Tenant> tenants_;
  std::uint64_t served_floor_ = 0;  // counter of the tenant served last
  std::uint64_t requests_ = 0;
  std::uint64_t tokens_ = 0;
  std::uint64_t sequences_ = 0;
};

}  // namespace sluice::gw
