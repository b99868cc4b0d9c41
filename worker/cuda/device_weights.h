// DeviceWeights: a model's weights in device memory as the GEMM reads them: row-major FP32,
// whatever type the files have (exact; twice the bytes of 16-bit files), so that both kernel
// families compute with the same numbers. Loaded and digested by load_weights, then unpacked and
// copied in pieces of bounded size.
#pragma once

#include <cstddef>
#include <vector>

#include "worker/cuda/device.h"
#include "worker/model/weights.h"

namespace sluice::eng {

struct DeviceMatrix {
  const float* data = nullptr;  // [rows, cols], row-major
  std::size_t rows = 0;
  std::size_t cols = 0;
};

struct DeviceLayer {
  const float* attention_norm = nullptr;  // [hidden_size]
  DeviceMatrix qkv;                       // [q_width + 2 kv_width, hidden_size]
  const float* qkv_bias = nullptr;        // [q_width + 2 kv_width]; null: none
  const float* q_norm = nullptr;          // [head_dim]; null: none
  const float* k_norm = nullptr;          // [head_dim]; null: none
  DeviceMatrix attention_out;             // [hidden_size, q_width]
  const float* mlp_norm = nullptr;        // [hidden_size]
  DeviceMatrix gate_up;                   // [2 intermediate_size, hidden_size]
  DeviceMatrix down;                      // [hidden_size, intermediate_size]
};

struct DeviceWeights {
  DeviceMatrix embedding;  // [vocab_size, hidden_size]
  std::vector<DeviceLayer> layers;
  const float* final_norm = nullptr;  // [hidden_size]
  DeviceMatrix head;                  // [vocab_size, hidden_size]; the embedding itself where tied
  std::vector<DeviceBuffer> buffers;  // own everything above
};

// The device outlives the result. Errors: over_capacity, io_error.
Result<DeviceWeights> upload_weights(const ModelWeights& weights, Device& device);

}  // namespace sluice::eng
