// Doorbell: wakes the other end of a ring, and costs nothing when nobody sleeps.
//
// The waiter spins briefly, then says in `sleeping` of its own region what it waits for, looks at
// the ring once more and waits on an eventfd. The writer publishes, then reads the peer's
// `sleeping` and writes the eventfd only when the peer waits for records. A reader that made room
// rings in the same way for a writer that waits for it, and for nobody else: whoever waits for an
// answer sleeps on while its question is read.
//
// No wake-up is lost because in the single order of seq_cst operations
//     waiter:  sleeping = bits   before   load of the position it waits for (is_empty(),
//     try_claim()) ringer:  store of its positions   before   load of sleeping
// so either the waiter sees the position or the ringer sees the flag. commit() and release() are
// plain release stores; ring_if_sleeping() stores the positions once more as seq_cst, once per
// batch (no standalone fences: TSan does not model them).
#pragma once

#include <cstdint>

#include "shared/clock.h"
#include "shared/shm_region.h"
#include "shared/unique_fd.h"

namespace sluice::shm {

// What a sleeper waits for, and what a ringer has done: bits of `sleeping`.
enum class WakeFor : std::uint32_t { nothing = 0, records = 1, room = 2, either = 3 };

constexpr WakeFor operator|(WakeFor a, WakeFor b) {
  return static_cast<WakeFor>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}

// The ringing end. `own` is the ringer's region, whose positions it published; `peer` the region of
// the side that may sleep.
class DoorbellRinger {
 public:
  DoorbellRinger(int event_fd, Region& own, const Region& peer)
      : event_fd_(event_fd), own_(&own), peer_(&peer) {}
  // REQUIRES: what `done` says (records were committed, reads released) was done before. True when
  // a system call was made.
  bool ring_if_sleeping(WakeFor done);
  void ring();  // unconditionally: shutdown, new epoch

 private:
  int event_fd_;
  Region* own_;
  const Region* peer_;
};

// The sleeping end: a guard sets `sleeping` while it lives, at least one bit of it. Between
// construction and the wait the caller must look at its ring once more.
class SleepScope {
 public:
  SleepScope(Region& own, WakeFor awaited);
  ~SleepScope();
  SleepScope(const SleepScope&) = delete;
  SleepScope& operator=(const SleepScope&) = delete;

 private:
  Region* own_;
};

// How long to look at a ring before sleeping. A wake-up through eventfd costs about 50 us, so less
// than that; and nothing where fewer than four CPUs may run this process: there the peer that was
// just woken, or the client that was just answered, often waits for the very CPU that would spin (a
// guest takes halted CPUs for busy ones and stacks what it wakes).
Duration spin_before_sleep();

Result<UniqueFd> make_doorbell();                    // non-blocking, close-on-exec eventfd
void drain_doorbell(int event_fd);                   // resets the counter
bool wait_doorbell(int event_fd, Duration timeout);  // poll(2); false on timeout

}  // namespace sluice::shm
