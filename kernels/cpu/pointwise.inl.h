// Lane sums, the exponential, RMSNorm, RoPE, SwiGLU, residual add and widening over Lanes. Orders
// of operations: kernel_table.h and exp_constants.h.

// l + (l + 8), then + 4, + 2, + 1.
SLUICE_INLINE float tree_sum(Lanes a) {
  const __m256 eight = _mm256_add_ps(lower_half(a), upper_half(a));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

SLUICE_INLINE Lanes exponential(Lanes x) {
  const Lanes y = maximum(splat(kExpMin), minimum(splat(kExpMax), x));
  const Lanes n = round_even(mul(y, splat(kLog2E)));
  const Lanes r = fma(n, splat(-kLn2Low), fma(n, splat(-kLn2High), y));
  Lanes p = splat(kExpCoefficients[0]);
  for (int i = 1; i < 8; ++i) p = fma(p, r, splat(kExpCoefficients[i]));
  return zero_below(scale_by_power(p, n), x, splat(kExpMin));
}

// The same bits of N vectors x <= 0 or a NaN, in fewer steps: no limits, as what lies below is 0 in
// the end; adding rounds to the nearest integer, which then stands in the low bits; and as the
// result is a normal number, so does adding to the exponent what multiplying would. Side by side,
// since each step waits for the one before.
template <int N>
SLUICE_INLINE void exponentials_nonpositive(Lanes (&x)[N]) {
  const Lanes shift = splat(0x1.8p23f);
  LaneMask is_kept[N];
  Lanes power[N];
  Lanes p[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    is_kept[i] = not_below(x[i], splat(kExpMin));
    power[i] = mul(x[i], splat(kLog2E));
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) power[i] = add(power[i], shift);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) p[i] = sub(power[i], shift);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = fma(p[i], splat(-kLn2High), x[i]);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = fma(p[i], splat(-kLn2Low), x[i]);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
    p[i] = fma(splat(kExpCoefficients[0]), x[i], splat(kExpCoefficients[1]));
#pragma GCC unroll 8
  for (int c = 2; c < 8; ++c) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) p[i] = fma(p[i], x[i], splat(kExpCoefficients[c]));
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = add_exponent(p[i], power[i], is_kept[i]);
}

static void rms_norm(const float* x, const float* weight, float* out, std::size_t n, float eps) {
  Lanes squares = zero();
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Lanes a = load(x + i);
    squares = fma(a, a, squares);
  }
  if (i < n) {
    const Lanes a = load_first(x + i, n - i);
    squares = fma(a, a, squares);
  }
  const float mean = tree_sum(squares) / static_cast<float>(n);
  const Lanes scale = splat(1.0f / __builtin_sqrtf(mean + eps));
  for (i = 0; i + kLanes <= n; i += kLanes) {
    store(out + i, mul(mul(load(x + i), scale), load(weight + i)));
  }
  if (i < n) {
    const Lanes scaled = mul(load_first(x + i, n - i), scale);
    store_first(out + i, mul(scaled, load_first(weight + i, n - i)), n - i);
  }
}

// Elementwise, so the compiler may vectorize these loops: it keeps each element's operations.
static void rope(float* heads, std::size_t num_heads, std::size_t head_dim, const float* cosine,
                 const float* sine, RopePairing pairing) {
  const std::size_t half = head_dim / 2;
  const std::size_t step = pairing == RopePairing::half ? 1 : 2;
  const std::size_t partner = pairing == RopePairing::half ? half : 1;
  for (std::size_t h = 0; h < num_heads; ++h) {
    float* head = heads + h * head_dim;
    for (std::size_t i = 0; i < half; ++i) {
      const float a = head[step * i];
      const float b = head[step * i + partner];
      head[step * i] = __builtin_fmaf(-b, sine[i], a * cosine[i]);
      head[step * i + partner] = __builtin_fmaf(b, cosine[i], a * sine[i]);
    }
  }
}

SLUICE_INLINE Lanes gated(Lanes gate, Lanes up) {
  return mul(div(gate, add(splat(1.0f), exponential(negate(gate)))), up);
}

static void swiglu(const float* gate, const float* up, float* out, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, gated(load(gate + i), load(up + i)));
  if (i < n) {
    const Lanes rest = gated(load_first(gate + i, n - i), load_first(up + i, n - i));
    store_first(out + i, rest, n - i);
  }
}

static void add_rows(float* x, const float* y, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, add(load(x + i), load(y + i)));
  if (i < n) store_first(x + i, add(load_first(x + i, n - i), load_first(y + i, n - i)), n - i);
}

template <WeightType type>
SLUICE_INLINE Lanes load_weights(const char* p) {
  if constexpr (type == WeightType::f32) return load_f32_weights(p);
  if constexpr (type == WeightType::bf16) return load_bf16_weights(p);
  if constexpr (type == WeightType::f16) return load_f16_weights(p);
}

template <WeightType type>
static void widen_row(const void* row, float* out, std::size_t n) {
  const std::size_t bytes = weight_bytes(type);
  const char* p = static_cast<const char*>(row);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load_weights<type>(p + i * bytes));
  if (i == n) return;
  alignas(64) char rest[kLanes * 4] = {};
  __builtin_memcpy(rest, p + i * bytes, (n - i) * bytes);
  store_first(out + i, load_weights<type>(rest), n - i);
}

static void widen(const void* row, WeightType type, float* out, std::size_t n) {
  switch (type) {
    case WeightType::f32:
      return widen_row<WeightType::f32>(row, out, n);
    case WeightType::bf16:
      return widen_row<WeightType::bf16>(row, out, n);
    case WeightType::f16:
      return widen_row<WeightType::f16>(row, out, n);
    case WeightType::q8_0:
    case WeightType::q4_0:
    case WeightType::q4_k:
    case WeightType::q5_k:
    case WeightType::q6_k:
      return;  // excluded by the contract
  }
}
