// The 16-lane vector of AVX2: two registers, so that lane sums have the order of AVX-512. Included
// inside a namespace by target_avx2.cc; same names as vec_avx512.inl.h.
#define SLUICE_INLINE [[gnu::always_inline]] static inline

struct Lanes {
  __m256 low, high;
};

// Tiles that fit 16 registers; see matmul.inl.h and attention.inl.h.
constexpr int kTileTokensMax = 6;
constexpr int tile_panels(int tokens) {
  return tokens <= 1 ? 4 : tokens <= 2 ? 2 : 1;
}
constexpr int kProbeChains = 5;
constexpr int kAttentionRows = 2;
constexpr int attention_vectors(int /*rows*/) {
  return 2;
}
constexpr int kSoftenedRows = 1;

// All ones in the first n of 8 lanes, n <= 8.
SLUICE_INLINE __m256i first_eight(std::size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SLUICE_INLINE std::size_t in_low(std::size_t n) {
  return n < 8 ? n : 8;
}
SLUICE_INLINE std::size_t in_high(std::size_t n) {
  return n < 8 ? 0 : n - 8;
}

SLUICE_INLINE Lanes zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
SLUICE_INLINE Lanes splat(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
SLUICE_INLINE Lanes load_halves(const float* low, const float* high) {
  return {_mm256_loadu_ps(low), _mm256_loadu_ps(high)};
}
SLUICE_INLINE Lanes load(const float* p) {
  return load_halves(p, p + 8);
}
// The first n lanes; the others are zero and their memory is not touched.
SLUICE_INLINE Lanes load_first(const float* p, std::size_t n) {
  return {_mm256_maskload_ps(p, first_eight(in_low(n))),
          _mm256_maskload_ps(p + 8, first_eight(in_high(n)))};
}
SLUICE_INLINE void store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
SLUICE_INLINE void store_first(float* p, Lanes a, std::size_t n) {
  _mm256_maskstore_ps(p, first_eight(in_low(n)), a.low);
  _mm256_maskstore_ps(p + 8, first_eight(in_high(n)), a.high);
}
SLUICE_INLINE Lanes load_f32_weights(const void* p) {
  return load(static_cast<const float*>(p));
}
SLUICE_INLINE __m256 bf16_to_floats(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
SLUICE_INLINE Lanes load_bf16_weights(const void* p) {
  const __m128i* bits = static_cast<const __m128i*>(p);
  return {bf16_to_floats(_mm_loadu_si128(bits)), bf16_to_floats(_mm_loadu_si128(bits + 1))};
}
SLUICE_INLINE Lanes load_f16_weights(const void* p) {
  const __m128i* bits = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(bits)), _mm256_cvtph_ps(_mm_loadu_si128(bits + 1))};
}
// Eight halves, or eight int8, from each pointer.
SLUICE_INLINE Lanes load_half_halves(const char* low, const char* high) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high)))};
}
SLUICE_INLINE __m256 int8_to_floats(const char* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
SLUICE_INLINE Lanes load_int8_halves(const char* low, const char* high) {
  return {int8_to_floats(low), int8_to_floats(high)};
}

SLUICE_INLINE Lanes add(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
SLUICE_INLINE Lanes sub(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
SLUICE_INLINE Lanes mul(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
SLUICE_INLINE Lanes div(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
SLUICE_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
SLUICE_INLINE Lanes negate(Lanes a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
}
SLUICE_INLINE Lanes minimum(Lanes a, Lanes b) {  // a < b ? a : b
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
SLUICE_INLINE Lanes maximum(Lanes a, Lanes b) {  // a > b ? a : b
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
SLUICE_INLINE Lanes round_even(Lanes a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, kMode), _mm256_round_ps(a.high, kMode)};
}
SLUICE_INLINE __m256 power_of_two(__m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
// a * 2^n for integral n in the range of normal numbers.
SLUICE_INLINE Lanes scale_by_power(Lanes a, Lanes n) {
  return mul(a, {power_of_two(n.low), power_of_two(n.high)});
}
// 0 where x < bound, a elsewhere (also where x is a NaN).
SLUICE_INLINE Lanes zero_below(Lanes a, Lanes x, Lanes bound) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.low, bound.low, _CMP_LT_OQ), a.low),
          _mm256_andnot_ps(_mm256_cmp_ps(x.high, bound.high, _CMP_LT_OQ), a.high)};
}
// Which lanes of x are not below the bound (a NaN is not), and a times the power of two whose
// exponent stands in the low bits of `power` in these, 0 elsewhere.
using LaneMask = Lanes;  // all bits of a lane or none
SLUICE_INLINE LaneMask not_below(Lanes x, Lanes bound) {
  return {_mm256_cmp_ps(x.low, bound.low, _CMP_NLT_UQ),
          _mm256_cmp_ps(x.high, bound.high, _CMP_NLT_UQ)};
}
SLUICE_INLINE __m256 add_exponent(__m256 a, __m256 power, __m256 is_kept) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(power), 23);
  return _mm256_and_ps(is_kept,
                       _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent)));
}
SLUICE_INLINE Lanes add_exponent(Lanes a, Lanes power, LaneMask is_kept) {
  return {add_exponent(a.low, power.low, is_kept.low),
          add_exponent(a.high, power.high, is_kept.high)};
}
SLUICE_INLINE __m256 upper_half(Lanes a) {
  return a.high;
}
SLUICE_INLINE __m256 lower_half(Lanes a) {
  return a.low;
}

// Lane i of the result is lane 0 of row i folded by op in a tree: l with l + 8, + 4, + 2, + 1.
template <Lanes (*op)(Lanes, Lanes)>
SLUICE_INLINE Lanes fold_rows(const Lanes (&rows)[kLanes]) {
  const auto fold = [&](__m256 a, __m256 b) { return op({a, a}, {b, b}).low; };
  const auto eight_rows = [&](const Lanes* from) {
    __m256 fours[4];  // [rows i, i + 4][4]
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256 a = fold(from[i].low, from[i].high);
      const __m256 b = fold(from[i + 4].low, from[i + 4].high);
      fours[i] = fold(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    const auto twos = [&](__m256 a, __m256 b) {
      return fold(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    };
    const __m256 low = twos(fours[0], fours[1]);
    const __m256 high = twos(fours[2], fours[3]);
    return fold(_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd));
  };
  return {eight_rows(rows), eight_rows(rows + kLanes / 2)};
}
