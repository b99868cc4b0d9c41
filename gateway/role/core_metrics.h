// The metrics page's second half: what the decision loop, the journal and the workers count, under
// vLLM's names where they mean the same and `sluice_` for our own.
// Event loop only; allocates (a page a few times a minute).
#pragma once

#include <string>

#include "gateway/http/service.h"
#include "gateway/link/ring_decision_loop.h"

namespace sluice::gw {

void append_core_metrics(std::string& out, const RingDecisionLoop& loop, const Service& service);

}  // namespace sluice::gw
