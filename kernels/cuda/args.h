// Arguments of the CUDA kernels: plain structs of device pointers, shared by host code, kernels and
// tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/paged_kv.h"

namespace sluice::krn::cuda {

struct RmsNormArgs {
  const float* x;       // [rows, stride]
  const float* weight;  // [dim]
  float* y;             // [rows, stride], may be x
  std::size_t dim;
  std::size_t stride;  // floats from row to row, >= dim
  float epsilon;
};

struct RopeStoreArgs {
  float* q;                        // [tokens, q_stride], turned in place
  const float* k;                  // [tokens, kv_stride]
  const float* v;                  // [tokens, kv_stride]
  const float* cos_table;          // [positions, head_dim / 2]
  const float* sin_table;          // [positions, head_dim / 2]
  const std::uint32_t* positions;  // [tokens]
  const std::uint32_t* blocks;     // [tokens]: the KV block of the token's position
  PagedKv kv;
  std::size_t layer;
  std::size_t num_heads;
  std::size_t q_stride;
  std::size_t kv_stride;
  RopePairing pairing;
};

struct AttentionDecodeArgs {
  const float* q;                     // [sequences, q_stride], turned by RoPE
  float* out;                         // [sequences, q_stride]
  const std::uint32_t* block_tables;  // [sequences, table_stride]
  const std::uint32_t* lengths;       // [sequences]: positions to attend to, >= 1
  PagedKv kv;
  std::size_t layer;
  std::size_t num_heads;  // a multiple of kv.num_kv_heads
  std::size_t q_stride;
  std::size_t table_stride;
  float scale;  // 1 / sqrt(head_dim)
};

// y [tokens, rows] = x [tokens, cols] * w [rows, cols]^T, all row-major and dense.
struct MatmulArgs {
  const void* w;
  const void* x;
  float* y;
  std::size_t tokens, rows, cols;
  bool is_bf16;
};

}  // namespace sluice::krn::cuda
