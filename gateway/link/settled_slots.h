// SettledSlots: what lies between a sequence that ended and its place in the usage book. Its
// journal slot stays live until the store thread has made its entry durable; so a kill at any
// moment loses nothing, and a disk that fails fills the journal, never memory.
//
//   num_slots = 2 x sequences_max:   live sequences <= sequences_max, by the core
//                                    settled ones   <= sequences_max, whenever a request is
//                                    admitted
//
// So a slot is free whenever the core opens one. While entries cannot be stored, accounts with a
// limit are refused (P5: fails closed); the others go on for as long as there is room.
// Without a writer a slot is free at once. Decision thread only; allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "gateway/link/decision_loop.h"
#include "gateway/store/usage_writer.h"
#include "shared/journal.h"

namespace sluice::gw {

class SettledSlots {
 public:
  static constexpr std::size_t kCountedMax = 4096;  // counted requests that wait for the disk
  static std::size_t writer_capacity(const Journal& journal) {
    return journal.num_slots() + kCountedMax;
  }
  // REQUIRES: the writer's capacity is writer_capacity().
  void set_writer(std::unique_ptr<UsageWriter> writer, const Journal& journal);
  UsageWriter* writer() const { return writer_.get(); }

  void settle(Journal& journal, std::uint32_t slot);
  bool can_count() const { return !writer_ || num_counted_ < kCountedMax; }
  void count_request(const AccountDigest& account, std::int64_t unix_ms);  // REQUIRES: can_count()
  void free_durable(Journal& journal);
  void stop(Journal& journal);  // the writer, after its last batch

  UsageStoreState state(const Journal& journal) const;
  std::size_t num_waiting() const { return pushed_ - freed_; }  // entries
  std::size_t num_slots() const { return num_waiting() - num_counted_; }

 private:
  static constexpr std::uint32_t kNoSlot = 0xffffffffu;
  std::unique_ptr<UsageWriter> writer_;
  std::vector<std::uint32_t> slots_;  // [pushed mod size]; kNoSlot: a counted request
  std::uint64_t pushed_ = 0, freed_ = 0;
  std::size_t num_counted_ = 0;  // of those that wait
};

}  // namespace sluice::gw
