// The Asio side of RingDecisionLoop: what wakes io.run_one() - the control channel, one doorbell
// per worker, one coarse timer. Private to the loop's sources.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "gateway/link/ring_decision_loop.h"
#include "shared/doorbell.h"

namespace sluice::gw {

struct RingDecisionLoop::Waits {
  using Descriptor = boost::asio::posix::stream_descriptor;

  // Descriptors are duplicated: Asio closes what it watches.
  Waits(boost::asio::io_context& context, int control_fd, std::size_t num_workers);

  // `on_readable` answers whether to watch on.
  void watch_control(std::function<bool()> on_readable);
  void watch_bell(WorkerId worker, int bell_fd);
  // Before the worker's link goes: also inside a wait, when the news of its end came by the control
  // channel.
  void forget(WorkerId worker) {
    sleeping[worker.value].reset();
    bells[worker.value].reset();
  }
  // One timer, never later than `due`; an earlier one that is set already stays.
  void arm(Tick due, Tick now);

  boost::asio::io_context& io;
  Descriptor control;
  std::function<bool()> on_control;
  std::vector<std::unique_ptr<Descriptor>> bells;
  std::vector<std::optional<shm::SleepScope>> sleeping;  // by worker; set during a wait only
  boost::asio::steady_timer timer;
  std::optional<Tick> armed;
  const bool can_look;  // at the rings before sleeping: more than one CPU may run this process

 private:
  void wait_control();
  void wait_bell(Descriptor& bell);
};

}  // namespace sluice::gw
