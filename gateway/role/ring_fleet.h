// RingFleet: the decision loop's breakers and workers as the admin routes show them. Event loop's
// thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gateway/admin/fleet.h"
#include "gateway/http/service.h"
#include "gateway/link/ring_decision_loop.h"

namespace sluice::gw {

class RingFleet final : public Fleet {
 public:
  RingFleet(RingDecisionLoop& loop, const Service& service) : loop_(loop), service_(service) {}

  std::vector<BreakerStatus> breakers(const std::string& after,
                                      std::size_t count_max) const override;
  std::optional<BreakerStatus> breaker(const std::string& id) const override;
  std::vector<WorkerStatus> workers() const override;
  void act(FleetAction action, const std::string& id) override;

 private:
  BreakerStatus status_of(const std::string& tenant, TenantId number) const;
  BreakerStatus status_of(WorkerId worker) const;
  std::optional<TenantId> find_tenant(const std::string& breaker_id) const;
  std::optional<WorkerId> find_worker(const std::string& number) const;

  RingDecisionLoop& loop_;
  const Service& service_;
};

}  // namespace sluice::gw
