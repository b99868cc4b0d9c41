// The engines on the metrics page: one series per worker under the labels model_name and engine
// (the worker's number, below kWorkersMax), vLLM's names where they mean the same, else
// `sluice_engine_`.
//
//   batch fill        of a step: its sequences / those that it may have; its tokens / its budget
//   peak share        operations or bytes of the forward passes / (their time x the peak that the
//                     worker measured when it started); absent where no peak is known
//   KV fragmentation  slots of used blocks that hold no token / slots of used blocks; 0 without any
//
// Rates and shares are of busy time, over its last seconds. Event loop only; allocates.
#pragma once

#include <span>
#include <string>

#include "gateway/core/serving_core.h"

namespace sluice::gw {

// model_labels: `model_name="..."` by model. Workers that never came up have no samples.
void append_engine_metrics(std::string& out, const ServingCore& core,
                           std::span<const std::string> model_labels);

}  // namespace sluice::gw
