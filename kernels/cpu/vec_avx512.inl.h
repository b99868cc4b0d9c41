// The 16-lane vector of AVX-512: one register. Included inside a namespace by target_avx512.cc,
// after <immintrin.h> and the headers with types; vec_avx2.inl.h has the same names.
#define SLUICE_INLINE [[gnu::always_inline]] static inline

struct Lanes {
  __m512 v;
};

// Tiles that fit 32 registers; see matmul.inl.h and attention.inl.h.
constexpr int kTileTokensMax = 12;
constexpr int tile_panels(int tokens) {
  return tokens <= 2 ? 4 : 2;
}
constexpr int kProbeChains = 12;
constexpr int kAttentionRows = 8;  // query rows that share a load of K or V
constexpr int attention_vectors(int rows) {
  return rows <= 4 ? 4 : 2;  // of positions, or of dimensions, side by side
}
constexpr int kSoftenedRows = 2;  // whose exponentials are computed side by side

SLUICE_INLINE __mmask16 first_lanes(std::size_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);  // n <= 16
}

SLUICE_INLINE Lanes zero() {
  return {_mm512_setzero_ps()};
}
SLUICE_INLINE Lanes splat(float x) {
  return {_mm512_set1_ps(x)};
}
SLUICE_INLINE Lanes load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
// The first n lanes; the others are zero and their memory is not touched.
SLUICE_INLINE Lanes load_first(const float* p, std::size_t n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
SLUICE_INLINE Lanes load_halves(const float* low, const float* high) {
  return {
      _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1)};
}
SLUICE_INLINE void store(float* p, Lanes a) {
  _mm512_storeu_ps(p, a.v);
}
SLUICE_INLINE void store_first(float* p, Lanes a, std::size_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
SLUICE_INLINE Lanes load_f32_weights(const void* p) {
  return load(static_cast<const float*>(p));
}
SLUICE_INLINE Lanes load_bf16_weights(const void* p) {
  const __m256i bits = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
SLUICE_INLINE Lanes load_f16_weights(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
// Eight halves, or eight int8, from each pointer.
SLUICE_INLINE Lanes load_half_halves(const char* low, const char* high) {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
  return {_mm512_cvtph_ps(_mm256_set_m128i(b, a))};
}
SLUICE_INLINE Lanes load_int8_halves(const char* low, const char* high) {
  const __m128i a = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
  const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_unpacklo_epi64(a, b)))};
}

SLUICE_INLINE Lanes add(Lanes a, Lanes b) {
  return {_mm512_add_ps(a.v, b.v)};
}
SLUICE_INLINE Lanes sub(Lanes a, Lanes b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
SLUICE_INLINE Lanes mul(Lanes a, Lanes b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
SLUICE_INLINE Lanes div(Lanes a, Lanes b) {
  return {_mm512_div_ps(a.v, b.v)};
}
SLUICE_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
SLUICE_INLINE Lanes negate(Lanes a) {
  return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))};
}
SLUICE_INLINE Lanes minimum(Lanes a, Lanes b) {
  return {_mm512_min_ps(a.v, b.v)};
}  // a < b ? a : b
SLUICE_INLINE Lanes maximum(Lanes a, Lanes b) {
  return {_mm512_max_ps(a.v, b.v)};
}  // a > b ? a : b
SLUICE_INLINE Lanes round_even(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a * 2^n for integral n in the range of normal numbers.
SLUICE_INLINE Lanes scale_by_power(Lanes a, Lanes n) {
  return {_mm512_scalef_ps(a.v, n.v)};
}
// Which lanes of x are not below the bound (a NaN is not), and a times the power of two whose
// exponent stands in the low bits of `power` in these, 0 elsewhere.
using LaneMask = __mmask16;
SLUICE_INLINE LaneMask not_below(Lanes x, Lanes bound) {
  return _mm512_cmp_ps_mask(x.v, bound.v, _CMP_NLT_UQ);
}
SLUICE_INLINE Lanes add_exponent(Lanes a, Lanes power, LaneMask is_kept) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(power.v), 23);
  return {_mm512_castsi512_ps(_mm512_maskz_add_epi32(is_kept, _mm512_castps_si512(a.v), exponent))};
}
// 0 where x < bound, a elsewhere (also where x is a NaN).
SLUICE_INLINE Lanes zero_below(Lanes a, Lanes x, Lanes bound) {
  const __mmask16 below = _mm512_cmp_ps_mask(x.v, bound.v, _CMP_LT_OQ);
  return {_mm512_mask_mov_ps(a.v, below, _mm512_setzero_ps())};
}
SLUICE_INLINE __m256 upper_half(Lanes a) {
  return _mm512_extractf32x8_ps(a.v, 1);
}
SLUICE_INLINE __m256 lower_half(Lanes a) {
  return _mm512_castps512_ps256(a.v);
}

// Lane i of the result is lane 0 of row i folded by op in a tree: l with l + 8, + 4, + 2, + 1.
template <Lanes (*op)(Lanes, Lanes)>
SLUICE_INLINE Lanes fold_rows(const Lanes (&rows)[kLanes]) {
  const auto eights = [&](__m512 a, __m512 b) {  // [2 rows][8]
    return op({_mm512_shuffle_f32x4(a, b, 0x44)}, {_mm512_shuffle_f32x4(a, b, 0xee)}).v;
  };
  Lanes fours[4];  // [rows i, i + 4, i + 8, i + 12][4]
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 a = eights(rows[i].v, rows[i + 4].v);
    const __m512 b = eights(rows[i + 8].v, rows[i + 12].v);
    fours[i] = op({_mm512_shuffle_f32x4(a, b, 0x88)}, {_mm512_shuffle_f32x4(a, b, 0xdd)});
  }
  const auto twos = [&](__m512 a, __m512 b) {
    return op({_mm512_shuffle_ps(a, b, 0x44)}, {_mm512_shuffle_ps(a, b, 0xee)}).v;
  };
  const __m512 low = twos(fours[0].v, fours[1].v);
  const __m512 high = twos(fours[2].v, fours[3].v);
  return op({_mm512_shuffle_ps(low, high, 0x88)}, {_mm512_shuffle_ps(low, high, 0xdd)});
}
