// What executors of model files have in common about themselves: the ranges of the sizes they are
// asked for, and the facts that tell which of them continue each other's streams.
#pragma once

#include <string_view>

#include "kernels/paged_kv.h"
#include "shared/result.h"
#include "shared/worker_facts.h"
#include "worker/model/weights.h"

namespace sluice::eng {

// Ranges of context_tokens, block_tokens, num_blocks, sequences_max and step_tokens_max. Errors:
// bad_config with the field's name.
Result<void> check_sizes(const WorkerFacts& wanted);

// The sizes, with context_tokens cut to the model's own, vocabulary, digest, and the hash of
// `kernel_path`: what stands in the path changes bits.
WorkerFacts model_facts(WorkerFacts sizes, const ModelWeights& weights,
                        std::string_view kernel_path);

// Of the kernel path: empty for matrices as they are stored.
const char* matrix_form_suffix(MatrixForm form);

const char* kv_type_name(krn::KvType type);

}  // namespace sluice::eng
