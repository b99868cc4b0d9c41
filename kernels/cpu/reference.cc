// The scalar kernels: slow, obvious, and the statement of every order of operations that
// kernel_table.h promises. They are the oracle of the other paths and a path of their own.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/exp_constants.h"
#include "kernels/cpu/targets.h"
#include "kernels/half_float.h"
#include "kernels/panel_block.h"

namespace sluice::krn {
namespace {

float load_weight(const void* data, WeightType type, std::size_t i) {
  if (type == WeightType::f32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(data) + i * 4, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(data) + i * 2, 2);
  return type == WeightType::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
}

float exponential(float x) {
  float y = kExpMax < x ? kExpMax : x;
  y = kExpMin > y ? kExpMin : y;
  const float n = std::nearbyint(y * kLog2E);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, y));
  float p = kExpCoefficients[0];
  for (int i = 1; i < 8; ++i) p = std::fma(p, r, kExpCoefficients[i]);
  if (std::isnan(x)) return x;
  const float power = std::ldexp(1.0f, static_cast<int>(n));
  return x < kExpMin ? 0.0f : p * power;
}

// Adds 16 lanes in the fixed tree.
float tree_sum(float* lanes) {
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

// The block of 32 that begins at x. Returns the scale.
float quantize(const float* x, int* q) {
  float largest = 0;
  bool is_number = true;
  for (std::size_t i = 0; i < kQuantBlock; ++i) {
    is_number = is_number && std::abs(x[i]) < kQuantCeiling;
    largest = std::max(largest, std::abs(x[i]));
    q[i] = 0;
  }
  if (!is_number) return std::numeric_limits<float>::quiet_NaN();
  if (largest < kQuantFloor) return 0;
  const float power = std::ldexp(1.0f, std::ilogb(largest));
  for (std::size_t i = 0; i < kQuantBlock; ++i) {
    const int nearest = static_cast<int>(std::nearbyint(x[i] * (kQuantSteps / power)));
    q[i] = std::clamp(nearest, -kQuantMax, kQuantMax);
  }
  return power / kQuantSteps;
}

void quantized_matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  const std::size_t row_end = std::min(panel_end * kLanes, job.w.rows);
  for (std::size_t t = 0; t < job.num_tokens; ++t) {
    for (std::size_t row = panel_begin * kLanes; row < row_end; ++row) {
      const char* panel = static_cast<const char*>(job.w.panels) +
                          row / kLanes * panel_bytes(job.w.cols, job.w.type);
      float total = 0;
      for (std::size_t b = 0; b < job.w.cols / kQuantBlock; ++b) {
        int x[kQuantBlock];
        const float x_scale = quantize(job.x + t * job.x_stride + b * kQuantBlock, x);
        const PanelBlock w = read_panel_block(panel, job.w.type, row % kLanes, b);
        int products[2] = {};
        int x_sum = 0;
        for (std::size_t c = 0; c < kQuantBlock; ++c) {
          products[c / 16] += w.q[c] * x[c];
          x_sum += x[c];
        }
        if (job.w.type == WeightType::q6_k) {
          for (int half = 0; half < 2; ++half) {
            const float scale = w.scale * static_cast<float>(w.half_scales[half]);
            total = std::fma(static_cast<float>(products[half]) * x_scale, scale, total);
          }
          continue;
        }
        total = std::fma(static_cast<float>(products[0] + products[1]) * x_scale, w.scale, total);
        if (has_minima(job.w.type))
          total = std::fma(static_cast<float>(-x_sum) * x_scale, w.min, total);
      }
      job.y[t * job.y_stride + row] = total;
    }
  }
}

// matmul() quantizes block by block, where it needs one.
void quantize_columns(const MatmulJob& /*job*/, std::size_t /*column_begin*/,
                      std::size_t /*column_end*/, void* /*to*/) {}

void matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  if (is_quantized(job.w.type)) return quantized_matmul(job, panel_begin, panel_end);
  const std::size_t row_end = std::min(panel_end * kLanes, job.w.rows);
  for (std::size_t t = 0; t < job.num_tokens; ++t) {
    const float* x = job.x + t * job.x_stride;
    for (std::size_t row = panel_begin * kLanes; row < row_end; ++row) {
      const std::size_t first = row / kLanes * kLanes * job.w.cols + row % kLanes;
      float sum = 0;
      for (std::size_t k = 0; k < job.w.cols; ++k) {
        sum = std::fma(load_weight(job.w.panels, job.w.type, first + k * kLanes), x[k], sum);
      }
      job.y[t * job.y_stride + row] = sum;
    }
  }
}

void rms_norm(const float* x, const float* weight, float* out, std::size_t n, float eps) {
  float lanes[kLanes] = {};
  for (std::size_t i = 0; i < n; ++i) lanes[i % kLanes] = std::fma(x[i], x[i], lanes[i % kLanes]);
  const float mean = tree_sum(lanes) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (std::size_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void rope(float* heads, std::size_t num_heads, std::size_t head_dim, const float* cosine,
          const float* sine, RopePairing pairing) {
  const std::size_t half = head_dim / 2;
  for (std::size_t h = 0; h < num_heads; ++h) {
    float* head = heads + h * head_dim;
    for (std::size_t i = 0; i < half; ++i) {
      float& a = pairing == RopePairing::half ? head[i] : head[2 * i];
      float& b = pairing == RopePairing::half ? head[i + half] : head[2 * i + 1];
      const float turned_a = std::fma(-b, sine[i], a * cosine[i]);
      const float turned_b = std::fma(b, cosine[i], a * sine[i]);
      a = turned_a;
      b = turned_b;
    }
  }
}

void swiglu(const float* gate, const float* up, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
  }
}

void add(float* x, const float* y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] += y[i];
}

void widen(const void* row, WeightType type, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = load_weight(row, type, i);
}

// Element i of a head's K or V, and the scale of one of its positions.
float load_kv(const PagedKv& kv, const char* head, std::size_t i) {
  const char* at = head + kv_scales_bytes(kv) + i * kv_element_bytes(kv.type);
  if (kv.type == KvType::int8) return static_cast<float>(static_cast<signed char>(*at));
  return load_weight(at, kv.type == KvType::f16 ? WeightType::f16 : WeightType::f32, 0);
}
float kv_scale(const char* head, std::size_t slot) {
  return load_weight(head, WeightType::f32, slot);
}

// One query row: q [head_dim] at position limit - 1.
void attend_row(const AttentionJob& job, const AttentionSpan& span, std::size_t kv_head,
                const float* q, float* out, std::size_t limit) {
  const std::size_t first = job.window != 0 && limit > job.window ? limit - job.window : 0;
  const PagedKv& kv = job.kv;
  float o[kHeadDimMax] = {};
  float m = -INFINITY;
  float sum = 0;
  for (std::size_t begin = first / kAttentionGroup * kAttentionGroup; begin < limit;
       begin += kAttentionGroup) {
    const std::size_t n = std::min(kAttentionGroup, limit - begin);
    float e[kAttentionGroup];
    float m_new = m;
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t p = begin + i;
      const std::size_t slot = p % kv.block_tokens;
      const char* k =
          kv_head_at(kv, span.blocks[p / kv.block_tokens], job.layer, KvPart::keys, kv_head);
      float s = 0;
      for (std::size_t d = 0; d < kv.head_dim; ++d)
        s = std::fma(q[d], load_kv(kv, k, d * kv.block_tokens + slot), s);
      if (kv.type == KvType::int8) s *= kv_scale(k, slot);
      e[i] = p < first ? -INFINITY : s * job.scale;
      m_new = e[i] > m_new ? e[i] : m_new;
    }
    const float keep = exponential(m - m_new);
    float lanes[kLanes] = {};
    for (std::size_t i = 0; i < n; ++i) {
      e[i] = exponential(e[i] - m_new);
      lanes[i % kLanes] += e[i];
    }
    sum = std::fma(sum, keep, tree_sum(lanes));
    m = m_new;
    for (std::size_t d = 0; d < kv.head_dim; ++d) o[d] *= keep;
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t p = begin + i;
      const std::size_t slot = p % kv.block_tokens;
      const char* v =
          kv_head_at(kv, span.blocks[p / kv.block_tokens], job.layer, KvPart::values, kv_head);
      const float weight = kv.type == KvType::int8 ? e[i] * kv_scale(v, slot) : e[i];
      for (std::size_t d = 0; d < kv.head_dim; ++d)
        o[d] = std::fma(weight, load_kv(kv, v, slot * kv.head_dim + d), o[d]);
    }
  }
  for (std::size_t d = 0; d < kv.head_dim; ++d) out[d] = o[d] / sum;
}

void attend(const AttentionJob& job, const AttentionItem& item) {
  const AttentionSpan& span = job.spans[item.span];
  const std::size_t group = job.num_heads / job.kv.num_kv_heads;
  for (std::size_t t = item.token_begin; t < item.token_end; ++t) {
    for (std::size_t g = 0; g < group; ++g) {
      const std::size_t column = (item.kv_head * group + g) * job.kv.head_dim;
      attend_row(job, span, item.kv_head, job.q + (span.row + t) * job.q_stride + column,
                 job.out + (span.row + t) * job.out_stride + column, span.start + t + 1);
    }
  }
}

}  // namespace

const KernelTable kScalarKernels = {"scalar", matmul, quantize_columns, rms_norm, rope, swiglu, add,
                                    widen,    attend};

}  // namespace sluice::krn
