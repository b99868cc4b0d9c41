// The two regions of one worker as both sides hold them, in one process: owners and read-only
// peers.
#pragma once

#include <fcntl.h>

#include "shared/shm_region.h"

namespace sluice::test {

inline UniqueFd duplicate(const UniqueFd& fd) {
  return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

struct RegionPair {
  shm::RegionIdentity submit_id{shm::RegionKind::submit, WorkerId(0), Epoch(1), Epoch(1)};
  shm::RegionIdentity step_id{shm::RegionKind::step, WorkerId(0), Epoch(1), Epoch(0)};
  shm::Region submit, step;            // the owners' mappings
  shm::Region submit_peer, step_peer;  // the other side's

  explicit RegionPair(std::size_t ring_bytes, Epoch worker_epoch = Epoch(1),
                      Epoch gateway_epoch = Epoch(1)) {
    submit_id.worker_epoch = step_id.worker_epoch = worker_epoch;
    submit_id.gateway_epoch = gateway_epoch;
    submit = *shm::Region::create(submit_id, ring_bytes);
    step = *shm::Region::create(step_id, ring_bytes);
    submit_peer = *shm::Region::attach(duplicate(submit.fd()), submit_id);
    step_peer = *shm::Region::attach(duplicate(step.fd()), step_id);
  }
};

}  // namespace sluice::test
