// What a launch may be asked for, checked on the host before anything reaches a device, and how
// many threads it gets: shared by every implementation of the device table. wrong() returns
// nullptr, or what is wrong.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/args.h"

namespace sluice::krn::cuda {

inline constexpr std::size_t kGridRowsMax = INT_MAX;  // gridDim.x
inline constexpr std::size_t kGridHeadsMax = 65535;   // gridDim.y, heads or pieces of a row
inline constexpr std::size_t kGridChunksMax = 65535;  // gridDim.z
inline constexpr std::size_t kPieceColumnsMax = kGridHeadsMax * kPieceThreadsMax * kThreadColumns;

// One thread per element, rounded up to whole warps, at most `most`.
inline unsigned whole_warps(std::size_t elements, std::size_t most) {
  constexpr std::size_t kWarp = 32;
  const std::size_t wanted = (elements + kWarp - 1) / kWarp * kWarp;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

// Threads of a block that works on a whole row, kThreadColumns columns each as long as they
// suffice. A function of the row's size alone, because the order of a sum depends on it.
inline unsigned row_threads(std::size_t cols) {
  return whole_warps((cols + kThreadColumns - 1) / kThreadColumns, kRowThreadsMax);
}

// A row whose columns have nothing to do with each other is cut into pieces, each for a block of so
// many threads with kThreadColumns columns each: one row keeps many multiprocessors busy.
inline unsigned piece_threads(std::size_t cols) {
  return whole_warps((cols + kThreadColumns - 1) / kThreadColumns, kPieceThreadsMax);
}
inline std::size_t num_pieces(std::size_t cols) {
  const std::size_t piece = piece_threads(cols) * kThreadColumns;
  return (cols + piece - 1) / piece;
}

// Threads of rope_store: one per pair of a query or key, one per element of a value.
inline std::size_t num_rope_pieces(const RopeStoreArgs& args) {
  const std::size_t items = (args.num_heads + 3 * args.kv.num_kv_heads) * (args.kv.head_dim / 2);
  return (items + kRopeThreads - 1) / kRopeThreads;
}

inline const char* wrong_rows(std::size_t rows, std::size_t cols) {
  if (rows == 0 || cols == 0) return "an empty launch";
  return rows > kGridRowsMax ? "more rows than a grid has" : nullptr;
}

inline const char* wrong_pieces(std::size_t rows, std::size_t cols) {
  if (const char* why = wrong_rows(rows, cols)) return why;
  return cols > kPieceColumnsMax ? "more columns than a grid has" : nullptr;
}

inline const char* wrong_heads(const PagedKv& kv, std::size_t layer, std::size_t num_heads) {
  if (kv.data == nullptr || kv.num_blocks == 0) return "no KV cache";
  if (reinterpret_cast<std::uintptr_t>(kv.data) % 16 != 0) return "a KV cache that is not aligned";
  if (kv.head_dim == 0 || kv.head_dim % 2 != 0 || kv.head_dim > kHeadDimMax)
    return "head_dim is odd or over the kernel's bound";
  if (!is_block_tokens(kv.block_tokens)) return "block_tokens is none of 8, 16, 32, 64";
  if (layer >= kv.num_layers) return "no such layer in the KV cache";
  if (kv.num_kv_heads == 0 || num_heads == 0 || num_heads % kv.num_kv_heads != 0)
    return "num_heads is no multiple of num_kv_heads";
  return num_heads > kGridHeadsMax ? "more heads than a grid has" : nullptr;
}

inline const char* wrong(const GatherArgs& args, std::size_t rows) {
  return wrong_pieces(rows, args.cols);
}

inline const char* wrong(const RmsNormArgs& args, std::size_t rows) {
  if (args.pieces == 0 || args.stride / args.pieces < args.dim) return "stride is below dim";
  return wrong_rows(rows, args.dim);
}

inline const char* wrong(const AddRmsNormArgs& args, std::size_t rows) {
  return wrong_rows(rows, args.dim);
}

inline const char* wrong(const RopeStoreArgs& args, std::size_t rows) {
  if (const char* why = wrong_heads(args.kv, args.layer, args.num_heads)) return why;
  if (args.q_stride < args.num_heads * args.kv.head_dim ||
      args.kv_stride < args.kv.num_kv_heads * args.kv.head_dim)
    return "a stride is below its heads";
  if (num_rope_pieces(args) > kGridHeadsMax) return "more heads than a grid has";
  return wrong_rows(rows, args.q_stride);
}

inline const char* wrong(const AttentionDecodeArgs& args, std::size_t rows) {
  if (const char* why = wrong_heads(args.kv, args.layer, args.num_heads)) return why;
  const std::size_t width = args.num_heads * args.kv.head_dim;
  if (args.q_stride < width || args.out_stride < width) return "a stride is below its heads";
  if (args.num_chunks == 0 || args.num_chunks > kGridChunksMax)
    return "more chunks than a grid has";
  if (args.num_chunks > 1 && (args.partials == nullptr || args.chunk_tokens == 0 ||
                              args.chunk_tokens % kAttentionChunk != 0))
    return "chunks without a place for their results, or of a size that they can't have";
  return wrong_rows(rows, args.q_stride);
}

inline const char* wrong(const SwigluArgs& args, std::size_t rows) {
  return wrong_pieces(rows, args.inner);
}

inline const char* wrong(const AddArgs& args, std::size_t rows) {
  return wrong_pieces(rows, args.cols);
}

// cuBLAS takes its sizes as int.
inline const char* wrong(const MatmulArgs& args) {
  if (args.tokens == 0 || args.rows == 0 || args.cols == 0) return "an empty launch";
  if (args.tokens > INT_MAX || args.rows > INT_MAX || args.cols > INT_MAX)
    return "a size is over what cuBLAS takes";
  return nullptr;
}

}  // namespace sluice::krn::cuda
