// Storing the keys and values of a new position into the paged cache: paged_kv.h says how elements
// of each type are made. One plain implementation for every CPU path, so that all hold the same
// bits.
#pragma once

#include "kernels/paged_kv.h"

namespace sluice::krn {

struct KvSlot {
  std::size_t block = 0;
  std::size_t slot = 0;  // below block_tokens
  std::size_t layer = 0;
};

// k, v: [num_kv_heads, head_dim]. Calls on different slots may run at the same time.
void store_kv(const PagedKv& kv, const KvSlot& at, const float* k, const float* v);

}  // namespace sluice::krn
