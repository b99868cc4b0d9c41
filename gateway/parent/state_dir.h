// StateDir: the directory of the journal, held by one instance at a time through a lock that the
// kernel drops with the process.
#pragma once

#include <string>

#include "shared/result.h"
#include "shared/unique_fd.h"

namespace sluice::gw {

class StateDir {
 public:
  // Makes the directory (0700) with its parents where missing and takes the lock. Errors:
  // already_running (names the pid and the directory), io_error.
  static Result<StateDir> open(const std::string& path);

  const std::string& path() const { return path_; }
  std::string journal_path() const { return path_ + "/journal"; }

 private:
  std::string path_;
  UniqueFd lock_;  // flock is held for as long as this is open
};

}  // namespace sluice::gw
