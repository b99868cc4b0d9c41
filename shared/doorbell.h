// Doorbell: wakes the other end of a ring, and costs nothing when nobody sleeps.
//
// The waiter spins briefly, then sets `sleeping` in its own region, looks at the ring once more and
// waits on an eventfd. The writer publishes, then reads the peer's `sleeping` and writes the
// eventfd only when it is set. Store-then-load on both sides needs sequential consistency; it is
// given by seq_cst operations on `sleeping` and on write_position (no standalone fences: TSan
// refuses them).
#pragma once

#include "shared/clock.h"
#include "shared/shm_region.h"
#include "shared/unique_fd.h"

namespace sluice::shm {

// The ringing end. `peer` is the region of the side that may sleep.
class DoorbellRinger {
 public:
  DoorbellRinger(int event_fd, const Region& peer) : event_fd_(event_fd), peer_(&peer) {}
  // REQUIRES: the record was committed before. True when a system call was made.
  bool ring_if_sleeping();
  void ring();  // unconditionally: shutdown, new epoch

 private:
  int event_fd_;
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
