// The parent (`sluice serve`): one thread that owns the state directory, the journal file, the
// doorbells, the descriptors of all regions and the processes. It opens no network socket and sees
// no request. What to do is decided by supervision.h; this is the shell that does it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/config.h"
#include "shared/result.h"

namespace sluice::gw {

struct ParentOptions {
  cfg::Config config;
  // SIGHUP: the configuration anew, flags applied. Not set: SIGHUP changes nothing.
  std::function<Result<cfg::Config>()> reload;
  // Programs with their arguments; the control channel is descriptor 3.
  std::vector<std::string> gateway_command;
  std::vector<std::string> worker_command;
};

// Serves until it is told to stop. The exit code: 0 after a drain; 1 when the start failed, with
// one line on stderr; 128 + signal when a second signal cut the drain short.
int run_parent(ParentOptions options);

}  // namespace sluice::gw
