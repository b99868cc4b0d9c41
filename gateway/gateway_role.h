// The gateway role of `sluice`: HTTP, admission, queues and rings in one process, started by the
// parent with its control channel.
#pragma once

#include "shared/unique_fd.h"

namespace sluice::gw {

// Serves until the channel says drain or closes. Sends `failed` with a reason before it returns
// with an exit code other than 0.
int run_gateway_role(UniqueFd control);

}  // namespace sluice::gw
