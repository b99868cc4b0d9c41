// The one place that knows which executors there are.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "config/config.h"
#include "shared/result.h"
#include "worker/executor.h"

namespace sluice::eng {

// So many bytes of the weights of `total` are read.
using LoadProgress = std::function<void(std::uint64_t bytes, std::uint64_t total)>;

// Loads what the model needs. Errors: bad_file, bad_config (path and reason).
Result<std::unique_ptr<Executor>> make_executor(const cfg::Model& model,
                                                const LoadProgress& on_progress = {});

}  // namespace sluice::eng
