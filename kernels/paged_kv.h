// PagedKv: THE layout of the KV cache, for host and device.
//
//   data [num_blocks, num_layers, 2, num_kv_heads, head]
//          block 0                            block 1
//          +------- layer 0 -------+ layer 1  +---
//          | K h0 | K h1 | V h0 | V h1 | ...  |
//
//   K of one head: [head_dim, block_tokens]   a vector holds one dimension of 16 positions
//   V of one head: [block_tokens, head_dim]   a vector holds 16 dimensions of one position
//
// Elements are float32, binary16 (nearest even), or int8; before the int8 elements of a head lie
// the scales of its positions, float32 [block_tokens]. A vector x of one position and head becomes,
// m = max |x|: s = m / 127, q = nearest-even(x * (127 / m)); m < 2^-100: s = 0, q = 0; an x that is
// no finite number: s = NaN, q = 0. Stored once, so every later read has the same bits (P2).
//
// A block is one contiguous piece: clearing or moving it is one memset or memcpy. Position p of a
// sequence lives in block table[p / block_tokens], slot p % block_tokens. block_tokens: 8, 16, 32
// or 64, so that it divides kAttentionGroup. Functions are static: see shapes.h.
#pragma once

#include "kernels/shapes.h"

#ifdef __CUDACC__
#define SLUICE_HOST_DEVICE __host__ __device__
#else
#define SLUICE_HOST_DEVICE
#endif

namespace sluice::krn {

enum class KvType : std::uint8_t { f32, f16, int8 };

struct PagedKv {
  float* data = nullptr;  // aligned to 64 bytes; of other types than f32 its first bytes
  std::size_t num_blocks = 0;
  std::size_t num_layers = 0;
  std::size_t num_kv_heads = 0;
  std::size_t head_dim = 0;
  std::size_t block_tokens = 0;
  KvType type = KvType::f32;
};

SLUICE_HOST_DEVICE static inline std::size_t kv_element_bytes(KvType type) {
  return type == KvType::f32 ? 4 : type == KvType::f16 ? 2 : 1;
}

SLUICE_HOST_DEVICE static inline std::size_t kv_scales_bytes(const PagedKv& kv) {
  return kv.type == KvType::int8 ? kv.block_tokens * 4 : 0;
}

SLUICE_HOST_DEVICE static inline std::size_t kv_head_bytes(const PagedKv& kv) {
  return kv_scales_bytes(kv) + kv.head_dim * kv.block_tokens * kv_element_bytes(kv.type);
}

SLUICE_HOST_DEVICE static inline std::size_t kv_block_bytes(const PagedKv& kv) {
  return kv.num_layers * 2 * kv.num_kv_heads * kv_head_bytes(kv);
}

// The scales of K or V of one head, or where there are none its elements.
enum class KvPart : std::uint8_t { keys, values };
SLUICE_HOST_DEVICE static inline char* kv_head_at(const PagedKv& kv, std::size_t block,
                                                  std::size_t layer, KvPart part,
                                                  std::size_t head) {
  const std::size_t row = part == KvPart::keys ? layer * 2 : layer * 2 + 1;
  return reinterpret_cast<char*>(kv.data) + block * kv_block_bytes(kv) +
         (row * kv.num_kv_heads + head) * kv_head_bytes(kv);
}

// What follows is of f32 alone.

SLUICE_HOST_DEVICE static inline std::size_t kv_head_floats(const PagedKv& kv) {
  return kv.head_dim * kv.block_tokens;
}

SLUICE_HOST_DEVICE static inline std::size_t kv_block_floats(const PagedKv& kv) {
  return kv.num_layers * 2 * kv.num_kv_heads * kv_head_floats(kv);
}

// [head_dim, block_tokens] of one head
SLUICE_HOST_DEVICE static inline float* kv_keys(const PagedKv& kv, std::size_t block,
                                                std::size_t layer, std::size_t head) {
  return kv.data + block * kv_block_floats(kv) +
         (layer * 2 * kv.num_kv_heads + head) * kv_head_floats(kv);
}

// [block_tokens, head_dim] of one head
SLUICE_HOST_DEVICE static inline float* kv_values(const PagedKv& kv, std::size_t block,
                                                  std::size_t layer, std::size_t head) {
  return kv.data + block * kv_block_floats(kv) +
         ((layer * 2 + 1) * kv.num_kv_heads + head) * kv_head_floats(kv);
}

SLUICE_HOST_DEVICE static inline bool is_block_tokens(std::size_t n) {
  return n == 8 || n == 16 || n == 32 || n == 64;
}

}  // namespace sluice::krn
