// ChildProcess: one child of the parent as a pidfd and its control channel. A pidfd names this very
// process for as long as it is held: no signal or wait can hit a stranger with a reused pid.
// Thread rule: the parent's one thread.
#pragma once

#include <string>
#include <vector>

#include "gateway/parent/supervision.h"
#include "shared/control.h"
#include "shared/result.h"
#include "shared/unique_fd.h"

namespace sluice::gw {

// What a wait saw.
struct ChildChange {
  enum class Kind : std::uint8_t { none, exited, stopped, continued };
  Kind kind = Kind::none;
  ExitFacts exit;
};

class ChildProcess {
 public:
  ChildProcess() = default;
  ChildProcess(ChildProcess&&) = default;
  ChildProcess& operator=(ChildProcess&&) = default;

  // Starts `command` with its control channel as descriptor 3, nothing on stdin, stdout joined to
  // stderr, in its own process group, without new privileges and core files; it dies with the
  // parent. Errors: io_error.
  static Result<ChildProcess> spawn(const std::vector<std::string>& command);

  explicit operator bool() const { return static_cast<bool>(pidfd_); }
  int pidfd() const { return pidfd_.get(); }
  int pid() const { return pid_; }
  ControlChannel& channel() { return channel_; }
  bool has_channel() const { return channel_.fd() >= 0; }
  void close_channel() { channel_ = ControlChannel(); }

  void kill();  // SIGKILL; reap with poll_change() or reap()
  // Without waiting. After `exited` the process is reaped and this object is empty.
  ChildChange poll_change();
  ExitFacts reap();  // waits for the end

 private:
  int pid_ = 0;  // for log lines
  UniqueFd pidfd_;
  ControlChannel channel_;
};

}  // namespace sluice::gw
