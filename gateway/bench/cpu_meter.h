// CPU time of other processes to the nanosecond, through their process clocks
// (clock_getcpuclockid): all threads of a process, those that ended included. /proc/PID/stat would
// give hundredths of a second.
#pragma once

#include <sys/types.h>

#include <vector>

#include "shared/clock.h"
#include "shared/result.h"

namespace sluice::bench {

// Errors: io_error when there is no such process.
Result<Duration> process_cpu_time(pid_t pid);
// `root` and its descendants as /proc shows them now, root first.
std::vector<pid_t> process_tree(pid_t root);

// CPU time of a fixed set of processes between start() and stop(). One that ends in between counts
// nothing and is named by num_lost().
class CpuMeter {
 public:
  explicit CpuMeter(std::vector<pid_t> pids);
  void start();
  void stop();

  struct Reading {
    pid_t pid;
    Duration used;
  };
  const std::vector<Reading>& readings() const { return readings_; }
  Duration total() const;
  unsigned num_lost() const { return num_lost_; }

 private:
  std::vector<pid_t> pids_;
  std::vector<Duration> at_start_;  // same order; negative: was not there
  std::vector<Reading> readings_;
  unsigned num_lost_ = 0;
};

}  // namespace sluice::bench
