// Integer vectors of AVX2 for quantized_tile.inl.h: two registers each. Products of bytes are
// summed in 16-bit pairs, of magnitudes and signs apart, because the sum of two products of
// unsigned bytes could exceed 16 bits. Included inside a namespace after vec_avx2.inl.h.

struct Ints {  // 16 int32, one per row
  __m256i low, high;
};
struct Bytes {  // [16 rows][4]
  __m256i low, high;
};

constexpr int quant_tokens(WeightType) {
  return 2;
}
constexpr int quant_stream_tokens(WeightType) {
  return 2;
}
constexpr int quant_panels(int tokens, WeightType) {
  return tokens <= 1 ? 2 : 1;
}

SLUICE_INLINE Ints splat_int(std::int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
SLUICE_INLINE Lanes to_floats(Ints a) {
  return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}
// Of sums that started from the bits of `offset` (quantized_block.inl.h).
SLUICE_INLINE Lanes without_offset(Ints a, float offset) {
  const __m256 taken = _mm256_set1_ps(offset);
  return {_mm256_sub_ps(_mm256_castsi256_ps(a.low), taken),
          _mm256_sub_ps(_mm256_castsi256_ps(a.high), taken)};
}
SLUICE_INLINE Bytes load_bytes(const char* p) {
  const __m256i* bytes = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(bytes), _mm256_loadu_si256(bytes + 1)};
}
SLUICE_INLINE void store_bytes(char* p, Bytes a) {
  __m256i* bytes = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(bytes, a.low);
  _mm256_storeu_si256(bytes + 1, a.high);
}
SLUICE_INLINE Bytes low_halves(Bytes a) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
}
SLUICE_INLINE Bytes high_halves(Bytes a) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(_mm256_srli_epi16(a.low, 4), mask),
          _mm256_and_si256(_mm256_srli_epi16(a.high, 4), mask)};
}

SLUICE_INLINE __m128i load_eight(const char* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
SLUICE_INLINE Ints load_int8s(const char* p) {
  return {_mm256_cvtepi8_epi32(load_eight(p)), _mm256_cvtepi8_epi32(load_eight(p + 8))};
}
SLUICE_INLINE Lanes load_uint8s(const char* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_eight(p))),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_eight(p + 8)))};
}
// Bits 2 s and 2 s + 1 of each byte, at bit 4.
template <int s>
SLUICE_INLINE __m256i two_bits(__m256i a) {
  const __m256i moved = s < 2 ? _mm256_slli_epi16(a, 4 - 2 * s) : _mm256_srli_epi16(a, 2 * s - 4);
  return _mm256_and_si256(moved, _mm256_set1_epi8(0x30));
}
template <int s>
SLUICE_INLINE Bytes two_bits(Bytes a) {
  return {two_bits<s>(a.low), two_bits<s>(a.high)};
}
// Bit g of each byte, at bit 4.
template <int g>
SLUICE_INLINE __m256i one_bit(__m256i a) {
  const __m256i moved = g < 4 ? _mm256_slli_epi16(a, 4 - g) : _mm256_srli_epi16(a, g - 4);
  return _mm256_and_si256(moved, _mm256_set1_epi8(0x10));
}
template <int g>
SLUICE_INLINE Bytes one_bit(Bytes a) {
  return {one_bit<g>(a.low), one_bit<g>(a.high)};
}
SLUICE_INLINE Bytes merge(Bytes a, Bytes b) {
  return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
}

// The sums of q8_0 products start from 0: dot_q8 takes the weights with their signs.
constexpr std::int32_t kQ8Start = 0;
SLUICE_INLINE __m256i add_pairs(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
SLUICE_INLINE __m256i dot_signed(__m256i sum, __m256i w, __m256i x) {
  const __m256i weights = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
  return add_pairs(sum, _mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
}
SLUICE_INLINE Ints dot_q8(Ints sum, Bytes w, std::int32_t x) {
  const __m256i values = _mm256_set1_epi32(x);
  return {dot_signed(sum.low, w.low, values), dot_signed(sum.high, w.high, values)};
}
SLUICE_INLINE Ints dot_q4(Ints sum, Bytes w, std::int32_t x) {
  const __m256i values = _mm256_set1_epi32(x);
  return {add_pairs(sum.low, w.low, values), add_pairs(sum.high, w.high, values)};
}

SLUICE_INLINE __m256 absolute(__m256 a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
SLUICE_INLINE float largest_of(__m256 a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
SLUICE_INLINE std::int32_t sum_of(__m256i a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

SLUICE_INLINE void quantize(const float* x, QuantizedBlock& out) {
  const __m256 ceiling = _mm256_set1_ps(kQuantCeiling);
  __m256 largest_lanes = _mm256_setzero_ps();
  int numbers = 0xff;
  for (std::size_t i = 0; i < kQuantBlock; i += 8) {
    const __m256 magnitude = absolute(_mm256_loadu_ps(x + i));
    numbers &= _mm256_movemask_ps(_mm256_cmp_ps(magnitude, ceiling, _CMP_LT_OQ));
    largest_lanes = _mm256_max_ps(largest_lanes, magnitude);
  }
  const float largest = largest_of(largest_lanes);
  __m256i* const to = reinterpret_cast<__m256i*>(out.values);
  if (numbers != 0xff || largest < kQuantFloor) {
    _mm256_store_si256(to, _mm256_setzero_si256());
    out.scale = numbers != 0xff ? __builtin_nanf("") : 0.0f;
    out.half_sums[0] = out.half_sums[1] = 0;
    return;
  }
  const float power = power_of_two_in(largest);
  const __m256 inverse = _mm256_set1_ps(kQuantSteps / power);
  const __m256i most = _mm256_set1_epi32(kQuantMax);
  const __m256i least = _mm256_set1_epi32(-kQuantMax);
  __m256i q[4];
  for (std::size_t i = 0; i < 4; ++i) {
    const __m256i nearest = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i * 8), inverse));
    q[i] = _mm256_max_epi32(_mm256_min_epi32(nearest, most), least);
  }
  // Packing works within halves of 128 bits: the groups of four come out as 0 2 4 6 1 3 5 7.
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_store_si256(to, _mm256_permutevar8x32_epi32(packed, order));
  out.scale = power / kQuantSteps;
  out.half_sums[0] = sum_of(_mm256_add_epi32(q[0], q[1]));
  out.half_sums[1] = sum_of(_mm256_add_epi32(q[2], q[3]));
}

// Blocks that quantize_together() takes at once.
constexpr std::size_t kQuantizeTogether = 1;
SLUICE_INLINE void quantize_together(const float* x, QuantizedBlock (&out)[kQuantizeTogether]) {
  quantize(x, out[0]);
}
