// What a GGUF file says about its model: the configuration from the keys of its architecture, and
// the table of its tensors. The architecture "llama" is read (Llama 1 to 3, TinyLlama, SmolLM and
// others of that shape); another one, and a feature that this engine does not compute (experts,
// sliding windows, other RoPE scaling, several files), is refused by name, never ignored.
//
// Its Q and K rows are stored for interleaved RoPE pairs. Llama-3's RoPE scaling has no keys: the
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
