// SettledSlots: a ring of slot numbers beside the writer's ring of entries.
#include "gateway/link/settled_slots.h"

#include <utility>

#include "shared/check.h"

namespace sluice::gw {

void SettledSlots::set_writer(std::unique_ptr<UsageWriter> writer, const Journal& journal) {
  CHECK(!writer_ && writer);
  writer_ = std::move(writer);
  slots_.resize(writer_capacity(journal));
}

void SettledSlots::settle(Journal& journal, std::uint32_t slot) {
  if (!writer_) {
    journal.absorb(slot);
    return;
  }
  free_durable(journal);  // before the next batch is gathered (usage_book.h)
  // There is room: each entry that waits has a slot of its own or is one of kCountedMax.
  CHECK(writer_->try_push(usage_of(journal.read(slot))));
  slots_[pushed_++ % slots_.size()] = slot;
}

void SettledSlots::count_request(const AccountDigest& account, std::int64_t unix_ms) {
  if (!writer_) return;
  UsageEntry entry;
  entry.account = account;
  entry.admitted_unix_ms = unix_ms;
  entry.requests = 1;
  CHECK(can_count() && writer_->try_push(entry));
  slots_[pushed_++ % slots_.size()] = kNoSlot;
  ++num_counted_;
}

void SettledSlots::free_durable(Journal& journal) {
  if (!writer_) return;
  for (const std::uint64_t durable = writer_->num_durable(); freed_ < durable; ++freed_) {
    const std::uint32_t slot = slots_[freed_ % slots_.size()];
    if (slot == kNoSlot)
      --num_counted_;
    else
      journal.absorb(slot);
  }
}

void SettledSlots::stop(Journal& journal) {
  if (!writer_) return;
  writer_->stop();
  free_durable(journal);
}

UsageStoreState SettledSlots::state(const Journal& journal) const {
  if (!writer_) return UsageStoreState::storing;
  if (num_slots() > journal.num_slots() / 2) return UsageStoreState::full;
  return writer_->is_failing() ? UsageStoreState::failing : UsageStoreState::storing;
}

}  // namespace sluice::gw
