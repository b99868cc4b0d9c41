// The one place that knows which executors there are.
#pragma once

#include <memory>

#include "config/config.h"
#include "shared/result.h"
#include "worker/executor.h"

namespace sluice::eng {

// Loads what the model needs. Errors: bad_file, bad_config (path and reason).
Result<std::unique_ptr<Executor>> make_executor(const cfg::Model& model);

}  // namespace sluice::eng
