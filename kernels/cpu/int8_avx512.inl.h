// Integer vectors of AVX-512 for quantized_matmul.inl.h. With VNNI one instruction adds four
// products; without it 16-bit pairs are summed first, of magnitudes and signs apart, because the
// sum of two products of unsigned bytes could exceed 16 bits. Included inside a namespace after
// vec_avx512.inl.h; int8_avx2.inl.h has the same names.

struct Ints {  // 16 int32, one per row
  __m512i v;
};
struct Bytes {  // [16 rows][4]
  __m512i v;
};

constexpr int quant_tokens(WeightType type) {
  return type == WeightType::q6_k ? 4 : 6;
}
// One token: a panel at a time is one stream from memory, and its blocks overlap by themselves.
constexpr int quant_panels(int tokens) {
  return tokens <= 1 ? 1 : tokens <= 3 ? 4 : 2;
}

SLUICE_INLINE Ints splat_int(std::int32_t x) {
  return {_mm512_set1_epi32(x)};
}
SLUICE_INLINE Lanes to_floats(Ints a) {
  return {_mm512_cvtepi32_ps(a.v)};
}
SLUICE_INLINE Bytes load_bytes(const char* p) {
  return {_mm512_loadu_si512(p)};
}
SLUICE_INLINE Bytes low_halves(Bytes a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))};
}
SLUICE_INLINE Bytes high_halves(Bytes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}

SLUICE_INLINE Ints add(Ints a, Ints b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
SLUICE_INLINE Ints mul(Ints a, Ints b) {
  return {_mm512_mullo_epi32(a.v, b.v)};
}
SLUICE_INLINE Ints load_int8s(const char* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
SLUICE_INLINE Lanes load_uint8s(const char* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
}
// Bits 2 s and 2 s + 1 of each byte, at bit 4.
template <int s>
SLUICE_INLINE Bytes two_bits(Bytes a) {
  const __m512i moved =
      s < 2 ? _mm512_slli_epi16(a.v, 4 - 2 * s) : _mm512_srli_epi16(a.v, 2 * s - 4);
  return {_mm512_and_si512(moved, _mm512_set1_epi8(0x30))};
}
// Bit g of each byte, at bit 4.
template <int g>
SLUICE_INLINE Bytes one_bit(Bytes a) {
  const __m512i moved =
      g < 4 ? _mm512_slli_epi16(a.v, 4 - g) : _mm512_srli_epi16(a.v, static_cast<unsigned>(g) - 4);
  return {_mm512_and_si512(moved, _mm512_set1_epi8(0x10))};
}
SLUICE_INLINE Bytes merge(Bytes a, Bytes b) {
  return {_mm512_or_si512(a.v, b.v)};
}

// What a sum of q8_0 products starts from, as a multiple of the sum of x: undoes the + 128 of the
// weights where dot_q8 takes them as they lie.
#ifdef __AVX512VNNI__
constexpr std::int32_t kQ8Start = -128;
SLUICE_INLINE Ints dot_q8(Ints sum, Bytes w, std::int32_t x) {
  return {_mm512_dpbusd_epi32(sum.v, w.v, _mm512_set1_epi32(x))};
}
SLUICE_INLINE Ints dot_q4(Ints sum, Bytes w, std::int32_t x) {
  return dot_q8(sum, w, x);
}
#else
constexpr std::int32_t kQ8Start = 0;
SLUICE_INLINE Ints add_pairs(Ints sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  const __m512i pairs = _mm512_maddubs_epi16(unsigned_bytes, signed_bytes);
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
SLUICE_INLINE Ints dot_q8(Ints sum, Bytes w, std::int32_t x) {
  const __m512i weights = _mm512_xor_si512(w.v, _mm512_set1_epi8(-128));
  const __m512i values = _mm512_set1_epi32(x);
  const __m512i turned =
      _mm512_mask_sub_epi8(values, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), values);
  return add_pairs(sum, _mm512_abs_epi8(weights), turned);
}
SLUICE_INLINE Ints dot_q4(Ints sum, Bytes w, std::int32_t x) {
  return add_pairs(sum, w.v, _mm512_set1_epi32(x));
}
#endif

struct QuantizedBlock {
  alignas(32) signed char values[kQuantBlock];
  float scale;
  std::int32_t half_sums[2];  // of values
};

SLUICE_INLINE void quantize(const float* x, QuantizedBlock& out) {
  const __m512 a = _mm512_loadu_ps(x);
  const __m512 b = _mm512_loadu_ps(x + kLanes);
  const __m512 abs_a = _mm512_abs_ps(a);
  const __m512 abs_b = _mm512_abs_ps(b);
  const __m512 infinity = _mm512_set1_ps(__builtin_inff());
  const unsigned finite = static_cast<unsigned>(_mm512_cmp_ps_mask(abs_a, infinity, _CMP_LT_OQ)) &
                          static_cast<unsigned>(_mm512_cmp_ps_mask(abs_b, infinity, _CMP_LT_OQ));
  const float largest = _mm512_reduce_max_ps(_mm512_max_ps(abs_a, abs_b));
  if (finite != 0xffffu || largest < kQuantFloor) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(out.values), _mm256_setzero_si256());
    out.scale = finite != 0xffffu ? __builtin_nanf("") : 0.0f;
    out.half_sums[0] = out.half_sums[1] = 0;
    return;
  }
  const __m512 inverse = _mm512_set1_ps(127.0f / largest);
  const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
  const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
  __m128i* const to = reinterpret_cast<__m128i*>(out.values);
  _mm_store_si128(to, _mm512_cvtepi32_epi8(qa));
  _mm_store_si128(to + 1, _mm512_cvtepi32_epi8(qb));
  out.scale = largest / 127.0f;
  out.half_sums[0] = _mm512_reduce_add_epi32(qa);
  out.half_sums[1] = _mm512_reduce_add_epi32(qb);
}
