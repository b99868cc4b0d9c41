// KernelTable: the kernels of one CPU path as function pointers, chosen once at start.
//
// Every path computes bit for bit the same floats: the order of operations of each output element
// is part of the contract below, `scalar` (cpu/reference.cc) is its plain statement, and the tests
// hold the others to equality. No order depends on batch size, tile, thread, chunk border or block
// number. `fma` is one rounding. "Lane sum" means: lane l takes the elements l, l + 16, ... of the
// row padded with zeros, in order; then lanes are added in a tree (l and l + 8, + 4, + 2, + 1).
//
// Error bounds against exact arithmetic, u = 2^-24 (held by tests/unit/kernels):
//   matmul    |error| <= K u sum_k |w x| (quantized: of the quantized x)
//                                                    rms_norm  relative <= (n / 16 + 12) u
//   swiglu    relative <= 16 u where |gate| < 87     rope      |error| <= 3 u (|a| + |b|)
//   attend    |error| <= (head_dim max_p sum_d |q k| scale + limit + 40) u max_p |v|
//
// Threads: all kernels are pure functions of their arguments; calls on disjoint outputs may run at
// the same time. No function allocates. Plain pointers only: see shapes.h for why.
#pragma once

#include "kernels/paged_kv.h"
#include "kernels/shapes.h"

namespace sluice::krn {

// y [num_tokens, rows] = x [num_tokens, cols] * w^T. One output: acc = 0; for k ascending
// acc = fma(w[r][k], x[t][k], acc).
//
// Quantized weights: x is quantized first, each block of 32 columns of a row by itself: m = max
// |x|,
//   s = 2^floor(log2 m) / 64, q = nearest-even(x / s), at most 127 and at least -127;
//   m < 2^-100: s = 0, q = 0;
//   an x that is no number, or not below 2^100 in magnitude: s = NaN, q = 0, so that it does not
//   vanish.
// One output: acc = 0; for blocks ascending acc = fma(float(sum of w.q * x.q) * s, w.d, acc), where
// the sum is of integers and exact, and so is its multiple: s is a power of two, because a scale of
// full precision (a bit more for x, at most) costs each block a further multiplication an output,
// a tenth of the time. q4_k, q5_k, further: acc = fma(-float(sum of x.q) * s, w.min, acc), with
// w.d = d * scale and w.min = dmin * minimum, both exact. q6_k: acc takes each half block so, one
// after the other, with a w.d of its own.
struct MatmulJob {
  PackedMatrix w;
  const float* x = nullptr;
  std::size_t x_stride = 0;
  std::size_t num_tokens = 0;
  float* y = nullptr;
  std::size_t y_stride = 0;
  // Quantized weights: all columns of x from quantize() of the same path, or null; then every call
  // quantizes x for itself.
  const void* quantized = nullptr;
  // Whether the first of several tiles that share panels of 4, 5 or 16 bits unpacks them for all.
  // Changes no bit; see unpacking_costs().
  bool unpacks_once = false;
};

// New tokens of one sequence: rows [row, row + num_tokens) of q and out, positions start, start
// + 1...
struct AttentionSpan {
  std::size_t row = 0;
  std::size_t num_tokens = 0;
  std::size_t start = 0;
  const std::uint32_t* blocks = nullptr;  // block table, covers start + num_tokens positions
};

// Causal attention of one layer over the paged cache. For a query at position t the positions 0..t
// are taken in groups of kAttentionGroup:
//   s[p] = scale * (fma chain over d ascending of q[d] k[p][d])
//   m' = max(m, max s);  a = exp(m - m');  e[p] = exp(s[p] - m')
//   l = fma(l, a, lane sum of e);  o[d] = o[d] * a, then fma(e[p], v[p][d], o[d]) for p ascending
// and out[d] = o[d] / l at the end. With a window the positions 0 .. t - window have s = -infinity:
// groups of these alone change nothing and are left out, in the first group that counts their e
// is 0. K and V of type f16 are widened, exactly. Of type int8 the elements count as floats; then
// s[p] = ((chain) * K's scale[p]) * scale, and V is added as fma(e[p] * V's scale[p], v[p][d],
// o[d]).
struct AttentionJob {
  PagedKv kv;
  std::size_t layer = 0;
  std::size_t num_heads = 0;  // a multiple of kv.num_kv_heads
  float scale = 0;
  const float* q = nullptr;  // [rows, num_heads, head_dim]
  std::size_t q_stride = 0;
  float* out = nullptr;  // [rows, num_heads, head_dim]
  std::size_t out_stride = 0;
  const AttentionSpan* spans = nullptr;
  std::size_t window = 0;  // positions that a query sees, its own included; 0: all
};

// A piece of an AttentionJob: some tokens of one span and one KV head with its query heads.
struct AttentionItem {
  std::uint32_t span = 0;
  std::uint32_t kv_head = 0;
  std::uint32_t token_begin = 0;  // within the span
  std::uint32_t token_end = 0;
};

struct KernelTable {
  const char* name;  // scalar, avx2, avx512, avx512vnni
  // Panels [panel_begin, panel_end) of the output rows.
  void (*matmul)(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end);
  // Prepares the columns [column_begin, column_end) of x, whole blocks of 32, for matmul() of a job
  // with quantized weights; `to` [quantized_bytes(num_tokens, cols)], aligned to 4 bytes, has a
  // form of the path's own.
  void (*quantize)(const MatmulJob& job, std::size_t column_begin, std::size_t column_end,
                   void* to);
  // out[i] = (x[i] * r) * weight[i], r = 1 / sqrt(lane sum of squares (fma) / n + eps). out may be
  // x.
  void (*rms_norm)(const float* x, const float* weight, float* out, std::size_t n, float eps);
  // heads [num_heads, head_dim] in place; cosine, sine [head_dim / 2] of this position.
  // a' = fma(-b, sine, a * cosine), b' = fma(b, cosine, a * sine)
  void (*rope)(float* heads, std::size_t num_heads, std::size_t head_dim, const float* cosine,
               const float* sine, RopePairing pairing);
  // out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; out may be gate.
  void (*swiglu)(const float* gate, const float* up, float* out, std::size_t n);
  // x[i] += y[i]
  void (*add)(float* x, const float* y, std::size_t n);
  // out[i] = row[i] as float, exact; row need not be aligned. Not for quantized types.
  void (*widen)(const void* row, WeightType type, float* out, std::size_t n);
  void (*attend)(const AttentionJob& job, const AttentionItem& item);
};

// In order of preference for this CPU, scalar last; ends with nullptr.
const KernelTable* const* usable_kernels();
// Whether unpacking is worth doing once on this CPU: Intel's have it share ports with the products
// (measured on an Emerald Rapids, all paths: up to 1.4 of a tile's rate); on an AMD EPYC tiles of 4
// bits ran no slower than those of 8, and nothing is to be gained.
bool unpacking_costs();
// The path of that name, "auto" for the best; nullptr when unknown or when this CPU can't run it.
const KernelTable* find_kernels(const char* name);

}  // namespace sluice::krn
