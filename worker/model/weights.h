// ModelWeights: the tensors of a Llama model, validated against the configuration and packed for
// the kernels. Loading reads every file front to back once: each piece is hashed and packed from
// the same buffer, so memory stays at the packed size plus a few pieces, and the digest is that of
// what was used.
//
// Nothing is allocated before every header is validated: each expected tensor present exactly once
// with its shape, no unexpected one. Constant after loading; readable by any thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/shapes.h"
#include "shared/result.h"
#include "worker/model/model_config.h"
#include "worker/model/model_file.h"
#include "worker/model/weight_plan.h"

namespace sluice::eng {

// Matrices that take the same input, one below the other: their rows in order. Neighbours of one
// type are one packed matrix; a file of mixed types (V of Q6_K below Q and K of Q4_K) has several.
struct FusedMatrix {
  std::vector<krn::PackedMatrix> parts;  // at least one, equal cols

  std::size_t rows() const {
    std::size_t sum = 0;
    for (const krn::PackedMatrix& part : parts) sum += part.rows;
    return sum;
  }
  std::size_t cols() const { return parts.front().cols; }
};

// One matrix as it lies in the files: shapes [out, in].
struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden_size]
  FusedMatrix qkv;                        // [q_width + 2 kv_width, hidden_size]
  const float* qkv_bias = nullptr;        // [q_width + 2 kv_width]; null: none
  const float* q_norm = nullptr;          // [head_dim], of each head of q; null: none
  const float* k_norm = nullptr;          // [head_dim], likewise
  krn::PackedMatrix attention_out;        // [hidden_size, q_width]
  const float* mlp_norm = nullptr;        // [hidden_size]
  FusedMatrix gate_up;                    // [2 intermediate_size, hidden_size]
  krn::PackedMatrix down;                 // [hidden_size, intermediate_size]
};

struct ModelWeights {
  ModelConfig config;
  const void* embedding = nullptr;  // [vocab_size, hidden_size], row-major
  krn::WeightType embedding_type = krn::WeightType::f32;
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden_size]
  krn::PackedMatrix head;             // [vocab_size, hidden_size]

  std::string format;                               // safetensors or GGUF v3, as people read it
  std::map<std::string, std::size_t> stored_types;  // F32, Q4_K, ...: number of tensors
  std::size_t num_dequantized = 0;                  // of them, tensors held as F16 or F32
  std::vector<std::string> files;  // config.json, then the shards by name; or the GGUF file
  std::uint64_t file_bytes = 0;
  std::size_t num_tensors = 0;
  std::uint64_t num_parameters = 0;        // as stored; a tied matrix counts once
  std::size_t matrix_bytes_per_token = 0;  // what one decode step reads of the packed matrices
  // Of a directory the SHA-256 of the lines "SHA256  NAME\n" of `files` (`sha256sum config.json
  // *.safetensors | sha256sum`), of a GGUF file its own.
  Sha256 digest{};
  krn::AlignedBuffer memory;  // owns everything above
};

struct LoadOptions {
  MatrixForm matrices = MatrixForm::stored;
  std::size_t threads = 1;  // that read, hash and pack, the caller's included
  // Called on the caller's thread as reading goes on.
  std::function<void(std::uint64_t bytes_read, std::uint64_t bytes_total)> on_progress;
};

// path: a directory (config.json with model.safetensors or model.safetensors.index.json and its
// shards) or a GGUF file. Matrices stay as they are stored, unless the options quantize those
// stored as floats. A quantized embedding is dequantized while it is read: to F16, off by at most
// 2^-11 of a weight, or to F32 where a weight is too large for that (the file is then read twice).
// Errors name file, tensor and reason.
Result<ModelWeights> load_weights(const std::string& path, const LoadOptions& options = {});

}  // namespace sluice::eng
