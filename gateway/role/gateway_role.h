// The gateway role: the process behind the hidden command `sluice gateway-role`, started by the
// parent with its control channel as descriptor 3. Wires configuration, tokenizers, journal,
// decision loop and HTTP server, and runs the one thread that serves.
#pragma once

#include "shared/unique_fd.h"

namespace sluice::gw {

// Serves until the channel says drain or closes. Returns the exit status: 0 then, 1 when the start
// failed (the reason is on the log).
int run_gateway_role(UniqueFd control);

}  // namespace sluice::gw
