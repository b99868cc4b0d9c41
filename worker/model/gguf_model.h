// What a GGUF file says about its model: the configuration from the keys of its architecture, and
// the table of its tensors. The architectures "llama" (Llama 1 to 3, Mistral, TinyLlama, SmolLM and
// others of that shape), "qwen2" and "qwen3" are read; another one, and a feature that this engine
// does not compute (experts, other RoPE scaling, several files), is refused by name, never ignored.
//
// Q and K rows of "llama" are stored for interleaved RoPE pairs, those of the others for halves.
// Llama-3's RoPE scaling has no keys: the
// tensor rope_freqs.weight holds what each frequency is divided by (ModelWeights puts it into the
// configuration). Pure functions over a parsed header.
#pragma once

#include "shared/gguf.h"
#include "shared/result.h"
#include "worker/model/model_config.h"
#include "worker/model/tensor_info.h"

namespace sluice::eng {

// Errors (bad_file) name the key and what is allowed.
Result<ModelConfig> read_gguf_config(const GgufHeader& header);

TensorTable gguf_tensor_table(const GgufHeader& header);

}  // namespace sluice::eng
