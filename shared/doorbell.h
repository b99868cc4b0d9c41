// Doorbell: wakes the other end of a ring, and costs nothing when nobody sleeps.
//
// The waiter spins briefly, then sets `sleeping` in its own region, looks at the ring once more and
// waits on an eventfd. The writer publishes, then reads the peer's `sleeping` and writes the
// eventfd only when it is set. A reader that made room rings in the same way for a writer that
// waits for it.
//
// No wake-up is lost because in the single order of seq_cst operations
//     waiter:  sleeping = 1   before   load of the position it waits for (is_empty(), try_claim())
//     ringer:  store of its positions   before   load of sleeping
// so either the waiter sees the position or the ringer sees the flag. commit() and release() are
// plain release stores; ring_if_sleeping() stores the positions once more as seq_cst, once per
// batch (no standalone fences: TSan does not model them).
#pragma once

#include "shared/clock.h"
#include "shared/shm_region.h"
#include "shared/unique_fd.h"

namespace sluice::shm {

// The ringing end. `own` is the ringer's region, whose positions it published; `peer` the region of
// the side that may sleep.
class DoorbellRinger {
 public:
  DoorbellRinger(int event_fd, Region& own, const Region& peer)
      : event_fd_(event_fd), own_(&own), peer_(&peer) {}
  // REQUIRES: records were committed, or reads released, before. True when a system call was made.
  bool ring_if_sleeping();
  void ring();  // unconditionally: shutdown, new epoch

 private:
  int event_fd_;
  Region* own_;
  const Region* peer_;
};

// The sleeping end: a guard sets `sleeping` while it lives. Between construction and the wait the
// caller must look at its ring once more.
class SleepScope {
 public:
  explicit SleepScope(Region& own);
  ~SleepScope();
  SleepScope(const SleepScope&) = delete;
  SleepScope& operator=(const SleepScope&) = delete;

 private:
  Region* own_;
};

Result<UniqueFd> make_doorbell();                    // non-blocking, close-on-exec eventfd
void drain_doorbell(int event_fd);                   // resets the counter
bool wait_doorbell(int event_fd, Duration timeout);  // poll(2); false on timeout

}  // namespace sluice::shm
