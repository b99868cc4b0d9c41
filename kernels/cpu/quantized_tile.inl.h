// A tile of P panels times T tokens of quantized weights and activations: within a block of 32
// columns each lane adds the products of one output exactly, then the sum goes into that output's
// float accumulator, blocks ascending: the bits depend on nothing else. The weights are unsigned
// bytes as VNNI wants them; what they lie above their values is taken off before the first product
// (`starts`), as a multiple of the sum of x.
//
//        columns ->              one group of 4 columns: P loads, T broadcasts, P * T dot products
//   panel p: [block][group][16 rows][4] ...
//
// Of the int8 peak of a CPU that issues two 512-bit dot products a cycle 89 % are within reach: a
// block of a 2 x 6 tile is 96 dot products, and 12 multiplications by weights' scales on the same
// ports; those of x come as offsets (quantized_block.inl.h), which other ports take off. Minima, or
// scales of half blocks, are 12 more: 80 %.

// What a tile reads. Several tiles that share panels can share more: the first of them leaves,
// beside its own work, what the others then have. Of each block
//   scales  float [2][16]: the scales and the minima, or the scales of the halves; q4_0: scales
//   bytes   these, and what dot products take, [8][16 rows][4]: q + 8 of q4_0, q + 32 of q6_k
enum class WeightForm { packed, leaves_scales, has_scales, leaves_bytes, has_bytes };

constexpr bool leaves(WeightForm form) {
  return form == WeightForm::leaves_scales || form == WeightForm::leaves_bytes;
}
constexpr bool has(WeightForm form) {
  return form == WeightForm::has_scales || form == WeightForm::has_bytes;
}

constexpr std::size_t kPreparedScales = 2 * kLanes * 4;
constexpr std::size_t prepared_bytes(WeightForm form) {
  const bool is_bytes = form == WeightForm::leaves_bytes || form == WeightForm::has_bytes;
  return kPreparedScales + (is_bytes ? kQuantBlock * kLanes : 0);
}

// One K block of one token tile against the panels from `panel` on. The pointers are the tile's.
struct QuantRange {
  const std::int32_t* words;
  const float* offsets;
  const std::int32_t* starts;
  const std::int32_t* second_starts;
  const float* minus_sums;
  const char* weights;  // the first block of the first panel, and its prepared one
  char* prepared;
  std::size_t panel_stride;
  std::size_t prepared_stride;
  std::size_t token;
  std::size_t panel;
  std::size_t block_begin;  // of 32 columns; a multiple of blocks_together()
  std::size_t block_end;
  std::size_t lines;  // to fetch from one step to the next
  Fetch* fetch;
};

// One block of one token tile.
struct TileBlock {
  const std::int32_t* words;
  const float* offsets;
  const std::int32_t* starts;
  const std::int32_t* second_starts;
  const float* minus_sums;
};

template <int P, int T>
SLUICE_INLINE void start_sums(const std::int32_t* starts, Ints (&sum)[P][T]) {
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sum[p][t] = splat_int(starts[t]);
  }
}

template <bool is_q8, int P, int T>
SLUICE_INLINE void add_group(const Bytes (&w)[P], const std::int32_t* words, Ints (&sum)[P][T]) {
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      sum[p][t] = is_q8 ? dot_q8(sum[p][t], w[p], words[t]) : dot_q4(sum[p][t], w[p], words[t]);
  }
}

// total += (float(sum) * x's scale) * scale
template <int P, int T>
SLUICE_INLINE void add_sums(const Ints (&sum)[P][T], const Lanes (&scale)[P], const float* offsets,
                            Lanes (&total)[P][T]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t)
      total[p][t] = fma(without_offset(sum[p][t], offsets[t]), scale[p], total[p][t]);
  }
}

// total += min * minus sum of x
template <int P, int T>
SLUICE_INLINE void add_minima(const Lanes (&min)[P], const float* minus_sums,
                              Lanes (&total)[P][T]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) total[p][t] = fma(min[p], splat(minus_sums[t]), total[p][t]);
  }
}

// Groups [begin, begin + count) of a byte each, q + 128 or what is not negative. Pointers to the
// block's weights.
template <bool is_q8, int begin, int count, int P, int T>
SLUICE_INLINE void add_bytes(const char* const (&at)[P], const std::int32_t* words,
                             Ints (&sum)[P][T]) {
#pragma GCC unroll 8
  for (int g = begin; g < begin + count; ++g) {
    Bytes w[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      w[p] = load_bytes(at[p] + static_cast<std::size_t>(g) * kGroupBytes);
    add_group<is_q8, P, T>(w, words + g * T, sum);
  }
}

// Group g of a block, whose low four bits lie in the same bytes as those of group g +- 4.
template <WeightType type, int g>
SLUICE_INLINE Bytes load_group(const char* at) {
  constexpr int kSame = g % (kQuantGroups / 2);
  constexpr int kHalf = g / (kQuantGroups / 2);
  const Bytes both = load_bytes(at + static_cast<std::size_t>(kSame) * kGroupBytes);
  const Bytes low = kHalf == 0 ? low_halves(both) : high_halves(both);
  const char* const upper = at + 4 * kGroupBytes;
  if constexpr (type == WeightType::q5_k) return merge(low, one_bit<g>(load_bytes(upper)));
  if constexpr (type == WeightType::q6_k)
    return merge(low, two_bits<kSame>(load_bytes(upper + kHalf * kGroupBytes)));
  return low;
}

// The groups g of a block, which lie beside each other, for the other tiles.
template <int g, int P>
SLUICE_INLINE void store_group(const Bytes (&w)[P], char* const (&prepared)[P]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p)
    store_bytes(prepared[p] + kPreparedScales + static_cast<std::size_t>(g) * kGroupBytes, w[p]);
}

// Not q8_0: the groups [g, end), all of them in the order in which they share bytes.
template <WeightType type, WeightForm form, int g, int end, int P, int T>
SLUICE_INLINE void add_packed(const char* const (&at)[P], const std::int32_t* words,
                              char* const (&prepared)[P], Ints (&sum)[P][T]) {
  if constexpr (g < end) {
    constexpr bool kAll = end == kQuantGroups && !has_halves(type);
    constexpr int kGroup = kAll ? g / 2 + g % 2 * (kQuantGroups / 2) : g;
    Bytes w[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) w[p] = load_group<type, kGroup>(at[p]);
    if constexpr (form == WeightForm::leaves_bytes) store_group<kGroup>(w, prepared);
    add_group<false, P, T>(w, words + kGroup * T, sum);
    add_packed<type, form, g + 1, end, P, T>(at, words, prepared, sum);
  }
}

// The groups [begin, end) of a block in any form. `at`: its packed weights.
template <WeightType type, WeightForm form, int begin, int end, int P, int T>
SLUICE_INLINE void add_groups(const char* const (&at)[P], const std::int32_t* words,
                              char* const (&prepared)[P], Ints (&sum)[P][T]) {
  if constexpr (form == WeightForm::has_bytes) {
    const char* bytes[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) bytes[p] = prepared[p] + kPreparedScales;
    add_bytes<false, begin, end - begin, P, T>(bytes, words, sum);
  } else if constexpr (type == WeightType::q8_0) {
    add_bytes<true, begin, end - begin, P, T>(at, words, sum);
  } else {
    add_packed<type, form, begin, end, P, T>(at, words, prepared, sum);
  }
}

// The scales of block `b`, and its minima or those of its second halves, where the scales of the
// blocks that lie together are at `base`: exact.
template <WeightType type>
SLUICE_INLINE void load_packed_scales(const char* base, std::size_t b, Lanes& first,
                                      Lanes& second) {
  if constexpr (!has_super_blocks(type)) {
    first = load_f16_weights(base + b * kLanes * 2);
    return;
  }
  const Lanes d = load_f16_weights(base);
  const char* const small = base + 64;
  if constexpr (has_minima(type)) {
    first = mul(d, load_uint8s(small + b * kLanes));
    second = mul(load_f16_weights(base + 32), load_uint8s(small + kSuperBlock / 2 + b * kLanes));
  } else {
    first = mul(d, to_floats(load_int8s(small + 2 * b * kLanes)));
    second = mul(d, to_floats(load_int8s(small + (2 * b + 1) * kLanes)));
  }
}

// The same in any form.
template <WeightType type, WeightForm form, int P>
SLUICE_INLINE void load_scales(const char* const (&base)[P], std::size_t b,
                               char* const (&prepared)[P], Lanes (&first)[P], Lanes (&second)[P]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    float* const scales = reinterpret_cast<float*>(prepared[p]);
    if constexpr (has(form)) {
      first[p] = load(scales);
      if constexpr (has_super_blocks(type)) second[p] = load(scales + kLanes);
      continue;
    }
    load_packed_scales<type>(base[p], b, first[p], second[p]);
    if constexpr (leaves(form)) {
      store(scales, first[p]);
      if constexpr (has_super_blocks(type)) store(scales + kLanes, second[p]);
    }
  }
}

// Block `b` of those that lie together from `base` on.
template <WeightType type, WeightForm form, int P, int T>
SLUICE_INLINE void add_block(const char* const (&base)[P], std::size_t b,
                             char* const (&prepared)[P], const TileBlock& x, Lanes (&total)[P][T]) {
  constexpr int kFirstEnd = has_halves(type) ? kQuantGroups / 2 : kQuantGroups;
  const char* at[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) at[p] = base[p] + weights_at(b, type);
  Ints sum[P][T];
  Ints second_sum[P][T];
  start_sums<P, T>(x.starts, sum);
  add_groups<type, form, 0, kFirstEnd, P, T>(at, x.words, prepared, sum);
  if constexpr (has_halves(type)) {
    start_sums<P, T>(x.second_starts, second_sum);
    add_groups<type, form, kFirstEnd, kQuantGroups, P, T>(at, x.words, prepared, second_sum);
  }
  Lanes first[P];
  Lanes second[P];
  load_scales<type, form, P>(base, b, prepared, first, second);
  add_sums<P, T>(sum, first, x.offsets, total);
  if constexpr (has_halves(type)) add_sums<P, T>(second_sum, second, x.offsets, total);
  if constexpr (has_minima(type)) add_minima<P, T>(second, x.minus_sums, total);
}

template <WeightType type, WeightForm form, int P, int T>
static void quantized_tile(const MatmulJob& job, const QuantRange& range) {
  const char* base[P];
  char* prepared[P];
  for (int p = 0; p < P; ++p) {
    base[p] = range.weights + static_cast<std::size_t>(p) * range.panel_stride;
    prepared[p] = range.prepared + static_cast<std::size_t>(p) * range.prepared_stride;
  }
  float* y = job.y + range.token * job.y_stride + range.panel * kLanes;
  const std::size_t rows_left = job.w.rows - (range.panel + P - 1) * kLanes;
  const std::size_t tail = rows_left < kLanes ? rows_left : kLanes;

  Lanes total[P][T];
  if (range.block_begin == 0) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) total[p][t] = zero();
    }
  } else {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      const float* const row = y + static_cast<std::size_t>(t) * job.y_stride;
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p)
        total[p][t] =
            load_first(row + static_cast<std::size_t>(p) * kLanes, p + 1 < P ? kLanes : tail);
    }
    fetch_next_sums<P, T>(job, range.token, y);
  }
  TileBlock x{range.words, range.offsets, range.starts, range.second_starts, range.minus_sums};
  for (std::size_t block = range.block_begin; block < range.block_end;
       block += blocks_together(type)) {
    const std::size_t left = range.block_end - block;
    const std::size_t together = left < blocks_together(type) ? left : blocks_together(type);
    for (std::size_t b = 0; b < together; ++b) {
      add_block<type, form, P, T>(base, b, prepared, x, total);
      for (int p = 0; p < P; ++p) prepared[p] += prepared_bytes(form);
      x.words += kQuantGroups * T;
      x.offsets += T;
      x.starts += T;
      x.second_starts += T;
      x.minus_sums += T;
    }
    for (int p = 0; p < P; ++p) base[p] += together_bytes(type);
    if constexpr (P == 1) fetch_stream(base[0], together_bytes(type));
    range.fetch->lines_ahead(range.lines);
  }
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
    float* const row = y + static_cast<std::size_t>(t) * job.y_stride;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      store_first(row + static_cast<std::size_t>(p) * kLanes, total[p][t],
                  p + 1 < P ? kLanes : tail);
  }
}

template <WeightType type, WeightForm form, int P, int T>
static void quantized_panels(const MatmulJob& job, QuantRange range, std::size_t panels) {
  for (; panels >= P; panels -= P) {
    quantized_tile<type, form, P, T>(job, range);
    range.panel += P;
    range.weights += P * range.panel_stride;
    range.prepared += P * range.prepared_stride;
  }
  if constexpr (P > 1) {
    if (panels > 0) quantized_panels<type, form, P / 2, T>(job, range, panels);
  }
}

// At least T_min tokens, at most T.
template <WeightType type, WeightForm form, int T_min, int T>
static void quantized_tokens(const MatmulJob& job, const QuantRange& range, std::size_t panels,
                             std::size_t tokens) {
  if (tokens == static_cast<std::size_t>(T)) {
    quantized_panels<type, form, quant_panels(T, type), T>(job, range, panels);
  } else if constexpr (T > T_min) {
    quantized_tokens<type, form, T_min, T - 1>(job, range, panels, tokens);
  }
}
