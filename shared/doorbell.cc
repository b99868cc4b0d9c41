// Waking the other side through an eventfd, only when it sleeps.
#include "shared/doorbell.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

namespace sluice::shm {

bool DoorbellRinger::ring_if_sleeping(WakeFor done) {
  RegionHeader& own = own_->own_header();
  // The values stand there already; storing them as seq_cst puts them before the load of `sleeping`
  // in the single order that the waiter's store and loads are part of.
  own.write_position.store(own.write_position.load(std::memory_order_relaxed),
                           std::memory_order_seq_cst);
  own.read_position.store(own.read_position.load(std::memory_order_relaxed),
                          std::memory_order_seq_cst);
  // A peer may write any bits: they cost a system call at most.
  const std::uint32_t awaited = peer_->header().sleeping.load(std::memory_order_seq_cst);
  if ((awaited & static_cast<std::uint32_t>(done)) == 0) return false;
  ring();
  return true;
}

void DoorbellRinger::ring() {
  const std::uint64_t one = 1;
  // EAGAIN means a counter at its top: the bell has been rung and not been heard yet.
  [[maybe_unused]] const auto written = ::write(event_fd_, &one, sizeof one);
}

SleepScope::SleepScope(Region& own, WakeFor awaited) : own_(&own) {
  // Pairs with ring_if_sleeping().
  own_->own_header().sleeping.store(static_cast<std::uint32_t>(awaited), std::memory_order_seq_cst);
}

// Relaxed: a ringer that still sees a bit makes one needless system call.
SleepScope::~SleepScope() {
  own_->own_header().sleeping.store(0, std::memory_order_relaxed);
}

Duration spin_before_sleep() {
  constexpr int kCpusMin = 4;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (::sched_getaffinity(0, sizeof cpus, &cpus) != 0 || CPU_COUNT(&cpus) < kCpusMin) return {};
  return std::chrono::microseconds(20);
}

Result<UniqueFd> make_doorbell() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return make_error(Errc::io_error, std::string("eventfd: ") + std::strerror(errno));
  return fd;
}

void drain_doorbell(int event_fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto bytes = ::read(event_fd, &count, sizeof count);
}

// A signal ends the wait early as a timeout does: callers look at their ring either way.
bool wait_doorbell(int event_fd, Duration timeout) {
  pollfd waited{event_fd, POLLIN, 0};
  if (timeout < Duration::zero()) timeout = Duration::zero();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const timespec limit{static_cast<std::time_t>(whole.count()),
                       static_cast<long>((timeout - whole).count())};
  return ::ppoll(&waited, 1, &limit, nullptr) == 1;
}

}  // namespace sluice::shm
