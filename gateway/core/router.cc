// Router: one pass over the workers.
#include "gateway/core/router.h"

#include "shared/random.h"

namespace sluice::gw {

namespace {
constexpr std::size_t kPlaces = 4096;
}  // namespace

Router::Router(std::uint32_t slack) : slack_(slack), places_(kPlaces) {}

std::uint64_t Router::prefix_hash(TenantId tenant, std::span<const TokenId> prompt) {
  if (prompt.size() < kPrefixTokens) return 0;
  std::uint64_t hash = mix64(tenant.value);
  for (const TokenId id : prompt.first(kPrefixTokens)) hash = mix64(hash ^ id);
  return hash == 0 ? 1 : hash;
}

std::optional<WorkerId> Router::pick(std::span<const WorkerSnapshot> workers,
                                     std::uint64_t prefix) const {
  const WorkerSnapshot* least = nullptr;
  const WorkerSnapshot* affine = nullptr;
  const Place& place = places_[prefix % kPlaces];
  for (const WorkerSnapshot& worker : workers) {
    if (!worker.can_take) continue;
    if (least == nullptr || worker.load < least->load ||
        (worker.load == least->load && worker.worker < least->worker)) {
      least = &worker;
    }
    if (prefix != 0 && place.prefix == prefix && place.worker == worker.worker &&
        place.epoch == worker.epoch) {
      affine = &worker;
    }
  }
  if (least == nullptr) return std::nullopt;
  if (affine != nullptr && affine->load <= least->load + slack_) return affine->worker;
  return least->worker;
}

void Router::remember(std::uint64_t prefix, WorkerId worker, Epoch epoch) {
  if (prefix == 0) return;
  places_[prefix % kPlaces] = Place{prefix, worker, epoch};
}

}  // namespace sluice::gw
