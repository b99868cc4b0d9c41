// Strong ids: two ids of different kinds never compare, add or convert by accident.
// Plain values; ordered and hashable.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace sluice {

template <class Tag, class Rep>
struct StrongId {
  using rep = Rep;
  Rep value{};
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep v) : value(v) {}
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
};

using RequestId =
    StrongId<struct RequestIdTag, std::uint64_t>;  // unique within one state directory
using SequenceId =
    StrongId<struct SequenceIdTag, std::uint64_t>;             // likewise; never reused, never 0
using TenantId = StrongId<struct TenantIdTag, std::uint32_t>;  // index into the tenant table
using AccountId =
    StrongId<struct AccountIdTag, std::uint32_t>;  // of the ledger: a tenant or one of its keys
using WorkerId = StrongId<struct WorkerIdTag, std::uint32_t>;  // 0-based, stable over restarts
using BlockId = StrongId<struct BlockIdTag, std::uint32_t>;    // KV block of one worker
using Epoch = StrongId<struct EpochTag, std::uint64_t>;  // incarnation of a process; starts at 1

// A vocabulary index. Not wrapped: arrays of ids go to SentencePiece, the rings and the kernels.
using TokenId = std::uint32_t;

}  // namespace sluice

template <class Tag, class Rep>
struct std::hash<sluice::StrongId<Tag, Rep>> {
  std::size_t operator()(sluice::StrongId<Tag, Rep> id) const noexcept {
    return std::hash<Rep>{}(id.value);
  }
};
