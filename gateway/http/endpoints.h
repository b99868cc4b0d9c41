// The routes that answer at once: models, quota, probes, metrics.
#pragma once

namespace sluice::gw {

class Session;

// REQUIRES: the session's route is one of these and its request is complete.
void answer_endpoint(Session& session);

}  // namespace sluice::gw
