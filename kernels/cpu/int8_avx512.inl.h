// Integer vectors of AVX-512 for quantized_tile.inl.h. With VNNI one instruction adds four
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
// Few tokens: a panel at a time is one stream from memory, and its blocks overlap by themselves;
// measured: those of three tokens of q8_0 and q5_k do not enough.
constexpr int quant_stream_tokens(WeightType type) {
  return type == WeightType::q8_0 || type == WeightType::q5_k ? 2 : 3;
}
constexpr int quant_panels(int tokens, WeightType type) {
  return tokens <= quant_stream_tokens(type) ? 1 : 2;
}

SLUICE_INLINE Ints splat_int(std::int32_t x) {
  return {_mm512_set1_epi32(x)};
}
SLUICE_INLINE Lanes to_floats(Ints a) {
  return {_mm512_cvtepi32_ps(a.v)};
}
// Of sums that started from the bits of `offset` (quantized_block.inl.h).
SLUICE_INLINE Lanes without_offset(Ints a, float offset) {
  return {_mm512_sub_ps(_mm512_castsi512_ps(a.v), _mm512_set1_ps(offset))};
}
SLUICE_INLINE Bytes load_bytes(const char* p) {
  return {_mm512_loadu_si512(p)};
}
SLUICE_INLINE void store_bytes(char* p, Bytes a) {
  _mm512_storeu_si512(p, a.v);
}
SLUICE_INLINE Bytes low_halves(Bytes a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))};
}
SLUICE_INLINE Bytes high_halves(Bytes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
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

SLUICE_INLINE void quantize(const float* x, QuantizedBlock& out) {
  const __m512 a = _mm512_loadu_ps(x);
  const __m512 b = _mm512_loadu_ps(x + kLanes);
  const __m512 abs_a = _mm512_abs_ps(a);
  const __m512 abs_b = _mm512_abs_ps(b);
  const __m512 ceiling = _mm512_set1_ps(kQuantCeiling);
  const unsigned numbers = static_cast<unsigned>(_mm512_cmp_ps_mask(abs_a, ceiling, _CMP_LT_OQ)) &
                           static_cast<unsigned>(_mm512_cmp_ps_mask(abs_b, ceiling, _CMP_LT_OQ));
  const float largest = _mm512_reduce_max_ps(_mm512_max_ps(abs_a, abs_b));
  if (numbers != 0xffffu || largest < kQuantFloor) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(out.values), _mm256_setzero_si256());
    out.scale = numbers != 0xffffu ? __builtin_nanf("") : 0.0f;
    out.half_sums[0] = out.half_sums[1] = 0;
    return;
  }
  const float power = power_of_two_in(largest);
  const __m512 inverse = _mm512_set1_ps(kQuantSteps / power);
  const __m512i most = _mm512_set1_epi32(kQuantMax);
  const __m512i least = _mm512_set1_epi32(-kQuantMax);
  const auto quantized = [&](__m512 part) {
    const __m512i nearest = _mm512_cvtps_epi32(_mm512_mul_ps(part, inverse));
    return _mm512_max_epi32(_mm512_min_epi32(nearest, most), least);
  };
  const __m512i qa = quantized(a);
  const __m512i qb = quantized(b);
  __m128i* const to = reinterpret_cast<__m128i*>(out.values);
  _mm_store_si128(to, _mm512_cvtepi32_epi8(qa));
  _mm_store_si128(to + 1, _mm512_cvtepi32_epi8(qb));
  out.scale = power / kQuantSteps;
  out.half_sums[0] = _mm512_reduce_add_epi32(qa);
  out.half_sums[1] = _mm512_reduce_add_epi32(qb);
}

// Blocks that quantize_together() takes at once, from neighbouring columns.
constexpr std::size_t kQuantizeTogether = 4;

// Of four vectors of 16, one per 128 bits, in all places of its lane: the largest as unsigned.
SLUICE_INLINE __m512i largest_of_each(const __m512i (&a)[4]) {
  const __m512i first = _mm512_max_epu32(_mm512_shuffle_i64x2(a[0], a[1], 0x44),
                                         _mm512_shuffle_i64x2(a[0], a[1], 0xee));
  const __m512i second = _mm512_max_epu32(_mm512_shuffle_i64x2(a[2], a[3], 0x44),
                                          _mm512_shuffle_i64x2(a[2], a[3], 0xee));
  __m512i all = _mm512_max_epu32(_mm512_shuffle_i64x2(first, second, 0x88),
                                 _mm512_shuffle_i64x2(first, second, 0xdd));
  all = _mm512_max_epu32(all, _mm512_shuffle_epi32(all, _MM_PERM_BADC));
  return _mm512_max_epu32(all, _mm512_shuffle_epi32(all, _MM_PERM_CDAB));
}

template <int lane>
SLUICE_INLINE __m512i quantized(__m512 x, __m512 inverses) {
  return _mm512_cvtps_epi32(
      _mm512_mul_ps(x, _mm512_shuffle_f32x4(inverses, inverses, lane * 0x55)));
}

// Two blocks, lane and lane + 1 of `inverses`.
template <int lane>
SLUICE_INLINE void quantize_pair(const __m512 (&x)[4], __m512 inverses, QuantizedBlock* out) {
  // Packing works within lanes: each has four groups of four columns, of both halves of both
  // blocks.
  const __m512i packed = _mm512_packs_epi16(
      _mm512_packs_epi32(quantized<lane>(x[0], inverses), quantized<lane>(x[1], inverses)),
      _mm512_packs_epi32(quantized<lane + 1>(x[2], inverses), quantized<lane + 1>(x[3], inverses)));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  // Packing leaves 127 of 128, and -128 as it is.
  const __m512i values =
      _mm512_max_epi8(_mm512_permutexvar_epi32(order, packed), _mm512_set1_epi8(-kQuantMax));
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), values);
  __m512i sums = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
  for (int i = 0; i < 2; ++i) {
    const __m256i half =
        i == 0 ? _mm512_castsi512_si256(values) : _mm512_extracti64x4_epi64(values, 1);
    const __m256i half_sums =
        i == 0 ? _mm512_castsi512_si256(sums) : _mm512_extracti64x4_epi64(sums, 1);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out[i].values), half);
    out[i].half_sums[0] = _mm256_extract_epi32(half_sums, 0);
    out[i].half_sums[1] = _mm256_extract_epi32(half_sums, 4);
  }
}

// The same as quantize() of each.
SLUICE_INLINE void quantize_together(const float* x, QuantizedBlock (&out)[kQuantizeTogether]) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512 parts[2 * kQuantizeTogether];
  __m512i largest[kQuantizeTogether];
  for (std::size_t i = 0; i < kQuantizeTogether; ++i) {
    parts[2 * i] = _mm512_loadu_ps(x + i * kQuantBlock);
    parts[2 * i + 1] = _mm512_loadu_ps(x + i * kQuantBlock + kLanes);
    largest[i] =
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(parts[2 * i]), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(parts[2 * i + 1]), magnitude));
  }
  // Magnitudes are ordered as their bits are, those of infinities and NaNs above all others.
  const __m512i bits = largest_of_each(largest);
  const __m512i floor = _mm512_castps_si512(_mm512_set1_ps(kQuantFloor));
  const __m512i ceiling = _mm512_castps_si512(_mm512_set1_ps(kQuantCeiling));
  if (_mm512_cmpge_epu32_mask(bits, floor) != 0xffff ||
      _mm512_cmplt_epu32_mask(bits, ceiling) != 0xffff) {
    for (std::size_t i = 0; i < kQuantizeTogether; ++i) quantize(x + i * kQuantBlock, out[i]);
    return;
  }
  const __m512 powers =
      _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(kExponentBits)));
  const __m512 steps = _mm512_set1_ps(kQuantSteps);
  const __m512 inverses = _mm512_div_ps(steps, powers);
  alignas(64) float scales[kLanes];
  _mm512_store_ps(scales, _mm512_div_ps(powers, steps));
  quantize_pair<0>({parts[0], parts[1], parts[2], parts[3]}, inverses, out);
  quantize_pair<2>({parts[4], parts[5], parts[6], parts[7]}, inverses, out + 2);
  for (std::size_t i = 0; i < kQuantizeTogether; ++i) out[i].scale = scales[4 * i];
}
