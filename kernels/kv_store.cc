// One loop per type; see kv_store.h.
#include "kernels/kv_store.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/targets.h"
#include "kernels/half_float.h"

namespace sluice::krn {
namespace {

// x [n] become elements `step` apart from `to` on.
void store_f32(const float* x, std::size_t n, char* to, std::size_t step) {
  for (std::size_t i = 0; i < n; ++i) std::memcpy(to + i * step * 4, x + i, 4);
}

void store_f16(const float* x, std::size_t n, char* to, std::size_t step) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint16_t bits = float_to_f16(x[i]);
    std::memcpy(to + i * step * 2, &bits, 2);
  }
}

// Returns the scale.
float store_int8(const float* x, std::size_t n, char* to, std::size_t step) {
  float largest = 0;
  bool is_finite = true;
  for (std::size_t i = 0; i < n; ++i) {
    is_finite = is_finite && std::isfinite(x[i]);
    largest = std::max(largest, std::abs(x[i]));
  }
  const bool is_zero = !is_finite || largest < kQuantFloor;
  const float inverse = is_zero ? 0.0f : 127.0f / largest;
  for (std::size_t i = 0; i < n; ++i) {
    const float level = is_zero ? 0.0f : std::nearbyint(x[i] * inverse);
    to[i * step] = static_cast<char>(static_cast<std::int8_t>(level));
  }
  if (!is_finite) return std::numeric_limits<float>::quiet_NaN();
  return is_zero ? 0.0f : largest / 127.0f;
}

// slot_at: of the first element, in elements.
void store(const PagedKv& kv, char* head, std::size_t slot, const float* x, std::size_t slot_at,
           std::size_t step) {
  char* const to = head + kv_scales_bytes(kv) + slot_at * kv_element_bytes(kv.type);
  switch (kv.type) {
    case KvType::f32:
      return store_f32(x, kv.head_dim, to, step);
    case KvType::f16:
      return store_f16(x, kv.head_dim, to, step);
    case KvType::int8: {
      const float scale = store_int8(x, kv.head_dim, to, step);
      std::memcpy(head + slot * 4, &scale, 4);
      return;
    }
  }
}

}  // namespace

void store_kv(const PagedKv& kv, const KvSlot& at, const float* k, const float* v) {
  for (std::size_t h = 0; h < kv.num_kv_heads; ++h, k += kv.head_dim, v += kv.head_dim) {
    store(kv, kv_head_at(kv, at.block, at.layer, KvPart::keys, h), at.slot, k, at.slot,
          kv.block_tokens);
    store(kv, kv_head_at(kv, at.block, at.layer, KvPart::values, h), at.slot, v,
          at.slot * kv.head_dim, 1);
  }
}

}  // namespace sluice::krn
