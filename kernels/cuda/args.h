// Arguments of the CUDA kernels: plain structs of device pointers, shared by host code, kernels and
// tests. Each launch works on `rows` rows: a block of threads takes one (norms), a piece of one
// (element by element), or a head of one (attention, there also a chunk of positions).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/paged_kv.h"

namespace sluice::krn::cuda {

// How a launch is cut into threads: here, because kernels and those who launch them agree on it
// (launch_checks.h).
inline constexpr unsigned kThreadColumns = 4;      // of a thread, loaded before any is used
inline constexpr unsigned kRowThreadsMax = 1024;   // of a block that has a row
inline constexpr unsigned kPieceThreadsMax = 128;  // of a block that has a piece of a row
inline constexpr unsigned kRopeThreads = 128;

// Rows of a table by index: the embedding by token id, or the rows that a step wants logits of.
struct GatherArgs {
  const float* table;           // [table rows, cols]
  const std::uint32_t* source;  // [rows]: row of the table
  float* out;                   // [rows, cols], not the table
  std::size_t cols;
};

// Several pieces of a row, such as its heads, can be normalized apart: the launch has rows * pieces
// rows then.
struct RmsNormArgs {
  const float* x;       // [rows, stride], of which the first [pieces, dim] count
  const float* weight;  // [dim]
  float* y;             // [rows, stride], may be x
  std::size_t dim;
  std::size_t stride;  // floats from row to row, >= pieces * dim
  float epsilon;
  std::size_t pieces = 1;
};

// x += delta, y = norm(x): where one sub-layer ends and the next begins. The bits are those of
// AddArgs, then RmsNormArgs.
struct AddRmsNormArgs {
  float* x;             // [rows, dim]
  const float* delta;   // [rows, dim]
  const float* weight;  // [dim]
  float* y;             // [rows, dim], not x
  std::size_t dim;
  float epsilon;
};

struct RopeStoreArgs {
  float* q;                        // [rows, q_stride], turned in place
  const float* k;                  // [rows, kv_stride]
  const float* v;                  // [rows, kv_stride]
  const float* cos_table;          // [positions, head_dim / 2]
  const float* sin_table;          // [positions, head_dim / 2]
  const std::uint32_t* positions;  // [rows]
  const std::uint32_t* blocks;     // [rows]: the KV block of the row's position
  PagedKv kv;
  std::size_t layer;
  std::size_t num_heads;
  std::size_t q_stride;
  std::size_t kv_stride;
  RopePairing pairing;
};

// Rows of one sequence share its block table: a decode step has one row, a chunk of prefill one per
// token with its own causal length.
struct AttentionDecodeArgs {
  const float* q;                     // [rows, q_stride], turned by RoPE
  float* out;                         // [rows, out_stride]
  const std::uint32_t* block_tables;  // one after another
  const std::uint32_t* table_begins;  // [rows]: where the row's table begins in block_tables
  const std::uint32_t* lengths;       // [rows]: positions to attend to, >= 1
  PagedKv kv;
  std::size_t layer;
  std::size_t num_heads;  // a multiple of kv.num_kv_heads
  std::size_t q_stride;
  std::size_t out_stride;
  float scale;             // 1 / sqrt(head_dim)
  std::size_t window = 0;  // positions that a row sees, its own included; 0: all
  // The positions of a row lie in chunks that are attended to side by side and joined afterwards;
  // num_chunks cover the longest row of the launch. The order of a row's sums depends on
  // chunk_tokens: one model, one value. 1 chunk: chunk_tokens does not count, no partials.
  std::size_t chunk_tokens = 0;  // a multiple of kAttentionChunk
  std::size_t num_chunks = 1;
  float* partials = nullptr;  // [rows, num_heads, num_chunks, head_dim + 2]
};

// Chunks are whole turns of a block's warps, each with a group of positions.
inline constexpr std::size_t kAttentionWarps = 8;
inline constexpr std::size_t kWarpPositions = 32;
inline constexpr std::size_t kAttentionChunk = kAttentionWarps * kWarpPositions;

struct SwigluArgs {
  const float* gate_up;  // [rows, 2 inner]: gate, then up
  float* out;            // [rows, inner], not gate_up
  std::size_t inner;
};

struct AddArgs {
  float* x;            // [rows, cols]
  const float* delta;  // [rows, cols], or [cols]: the same for every row
  std::size_t cols;
  bool is_bias = false;  // of the two shapes of delta the second
};

// y [tokens, rows] = x [tokens, cols] * w [rows, cols]^T, all row-major and dense.
struct MatmulArgs {
  const float* w;
  const float* x;
  float* y;
  std::size_t tokens, rows, cols;
};

}  // namespace sluice::krn::cuda
