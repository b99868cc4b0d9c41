// Router: which worker gets the next sequence. Decides from snapshots: who can take it, how loaded
// each is, and where the beginning of its prompt ran last (prefix affinity).
//
// An affine worker wins while it is at most `slack` sequences more loaded than the least loaded
// one: a found prefix saves its prefill, but never at the price of a queue. Otherwise the least
// loaded one wins, the lower id on ties. An entry of an older epoch names nobody: that cache is
// gone. Pure; decision thread only; fixed memory.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "shared/ids.h"

namespace sluice::gw {

struct WorkerSnapshot {
  WorkerId worker;
  Epoch epoch;
  bool can_take = false;   // up, credits left, equal weights and kernel path where that is needed
  std::uint32_t load = 0;  // sequences that it holds, running, waiting and under way
};

class Router {
 public:
  static constexpr std::size_t kPrefixTokens = 64;  // the beginning that must be equal

  explicit Router(std::uint32_t slack = 8);

  // Of tenant and first tokens; 0 for prompts too short to be worth it. Tenants never share a
  // cache.
  static std::uint64_t prefix_hash(TenantId tenant, std::span<const TokenId> prompt);

  std::optional<WorkerId> pick(std::span<const WorkerSnapshot> workers, std::uint64_t prefix) const;
  void remember(std::uint64_t prefix, WorkerId worker, Epoch epoch);

 private:
  struct Place {
    std::uint64_t prefix = 0;
    WorkerId worker;
    Epoch epoch;
  };
  std::uint32_t slack_;
  std::vector<Place> places_;  // direct-mapped by the hash: a newer prefix displaces an older one
};

}  // namespace sluice::gw
