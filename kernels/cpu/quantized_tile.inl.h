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
// ports; those of x come as offsets (quantized_block.inl.h), which other ports take off.

// One K block of one token tile against the panels from `panel` on. The pointers are the tile's.
struct QuantRange {
  const std::int32_t* words;
  const float* scales;
  const std::int32_t* starts;
  const std::int32_t* second_starts;
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
  const float* scales;
  const std::int32_t* starts;
  const std::int32_t* second_starts;
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

// total += scale * (float(sum) * x's scale)
template <int P, int T>
SLUICE_INLINE void add_sums(const Ints (&sum)[P][T], const Lanes (&scale)[P], const float* x_scales,
                            Lanes (&total)[P][T]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t)
      total[p][t] = fma(mul(to_floats(sum[p][t]), splat(x_scales[t])), scale[p], total[p][t]);
  }
}

// q8_0: all groups. Pointers to the block's weights.
template <int P, int T>
SLUICE_INLINE void add_bytes(const char* const (&at)[P], const std::int32_t* words,
                             Ints (&sum)[P][T]) {
#pragma GCC unroll 8
  for (int g = 0; g < kQuantGroups; ++g) {
    Bytes w[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      w[p] = load_bytes(at[p] + static_cast<std::size_t>(g) * kGroupBytes);
    add_group<true, P, T>(w, words + g * T, sum);
  }
}

// q4_0, q4_k: each load holds two groups.
template <int P, int T>
SLUICE_INLINE void add_nibbles(const char* const (&at)[P], const std::int32_t* words,
                               Ints (&sum)[P][T]) {
#pragma GCC unroll 4
  for (int g = 0; g < kQuantGroups / 2; ++g) {
    Bytes low[P];
    Bytes high[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Bytes both = load_bytes(at[p] + static_cast<std::size_t>(g) * kGroupBytes);
      low[p] = low_halves(both);
      high[p] = high_halves(both);
    }
    add_group<false, P, T>(low, words + g * T, sum);
    add_group<false, P, T>(high, words + (g + kQuantGroups / 2) * T, sum);
  }
}

// q5_k: two groups at a time, one shift of the fifth bits each.
template <int g, int P, int T>
SLUICE_INLINE void add_five_bits(const char* const (&at)[P], const std::int32_t* words,
                                 Ints (&sum)[P][T]) {
  if constexpr (g < kQuantGroups / 2) {
    Bytes low[P];
    Bytes high[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Bytes both = load_bytes(at[p] + static_cast<std::size_t>(g) * kGroupBytes);
      const Bytes fifths = load_bytes(at[p] + 4 * kGroupBytes);
      low[p] = merge(low_halves(both), one_bit<g>(fifths));
      high[p] = merge(high_halves(both), one_bit<g + kQuantGroups / 2>(fifths));
    }
    add_group<false, P, T>(low, words + g * T, sum);
    add_group<false, P, T>(high, words + (g + kQuantGroups / 2) * T, sum);
    add_five_bits<g + 1, P, T>(at, words, sum);
  }
}

// q6_k, one half of the block: four groups, one shift of the upper bits each.
template <int half, int g, int P, int T>
SLUICE_INLINE void add_six_bits(const char* const (&at)[P], const std::int32_t* words,
                                Ints (&sum)[P][T]) {
  if constexpr (g < kQuantGroups / 2) {
    Bytes w[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Bytes both = load_bytes(at[p] + static_cast<std::size_t>(g) * kGroupBytes);
      const Bytes upper = load_bytes(at[p] + (4 + static_cast<std::size_t>(half)) * kGroupBytes);
      w[p] = merge(half == 0 ? low_halves(both) : high_halves(both), two_bits<g>(upper));
    }
    add_group<false, P, T>(w, words + (half * kQuantGroups / 2 + g) * T, sum);
    add_six_bits<half, g + 1, P, T>(at, words, sum);
  }
}

// Block `b` of those that lie together from `base` on.
template <WeightType type, int P, int T>
SLUICE_INLINE void add_block(const char* const (&base)[P], std::size_t b, const TileBlock& x,
                             Lanes (&total)[P][T]) {
  const char* at[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) at[p] = base[p] + weights_at(b, type);
  Ints sum[P][T];
  Lanes scale[P];
  if constexpr (has_offsets(type)) {
    start_sums<P, T>(x.starts, sum);
    if constexpr (type == WeightType::q8_0)
      add_bytes<P, T>(at, x.words, sum);
    else
      add_nibbles<P, T>(at, x.words, sum);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) scale[p] = load_f16_weights(base[p] + b * kLanes * 2);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t)
        total[p][t] = fma(without_offset(sum[p][t], x.scales[t]), scale[p], total[p][t]);
    }
  } else if constexpr (has_minima(type)) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) sum[p][t] = splat_int(0);
    }
    if constexpr (type == WeightType::q4_k)
      add_nibbles<P, T>(at, x.words, sum);
    else
      add_five_bits<0, P, T>(at, x.words, sum);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      scale[p] = mul(load_f16_weights(base[p]), load_uint8s(base[p] + 64 + b * kLanes));
    add_sums<P, T>(sum, scale, x.scales, total);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Lanes min = mul(load_f16_weights(base[p] + 32),
                            load_uint8s(base[p] + 64 + kSuperBlock / 2 + b * kLanes));
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t)
        total[p][t] =
            fma(mul(to_floats(splat_int(x.starts[t])), splat(x.scales[t])), min, total[p][t]);
    }
  } else {
    Ints second[P][T];
    start_sums<P, T>(x.starts, sum);
    add_six_bits<0, 0, P, T>(at, x.words, sum);
    start_sums<P, T>(x.second_starts, second);
    add_six_bits<1, 0, P, T>(at, x.words, second);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Ints first_scale = load_int8s(base[p] + 64 + 2 * b * kLanes);
      const Ints second_scale = load_int8s(base[p] + 64 + (2 * b + 1) * kLanes);
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t)
        sum[p][t] = add(mul(sum[p][t], first_scale), mul(second[p][t], second_scale));
      scale[p] = load_f16_weights(base[p]);
    }
    add_sums<P, T>(sum, scale, x.scales, total);
  }
}

// Whether it pays to run ahead of the hardware: not for one token of the k types, whose
// super-blocks are most of a page.
constexpr bool touches_pages(WeightType type, int panels, int tokens) {
  return panels == 1 && (tokens > 1 || type == WeightType::q8_0 || type == WeightType::q4_0);
}

template <WeightType type, int P, int T>
static void quantized_tile(const MatmulJob& job, const QuantRange& range) {
  const std::size_t panel_size = panel_bytes(job.w.cols, type);
  const char* const first = static_cast<const char*>(job.w.panels) + range.panel * panel_size +
                            scales_at(range.block_begin, type);
  const char* base[P];
  for (int p = 0; p < P; ++p) base[p] = first + static_cast<std::size_t>(p) * panel_size;
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
  }
  TileBlock x{range.words, range.scales, range.starts, range.second_starts};
  for (std::size_t block = range.block_begin; block < range.block_end;
       block += blocks_together(type)) {
    const std::size_t left = range.block_end - block;
    const std::size_t together = left < blocks_together(type) ? left : blocks_together(type);
    for (std::size_t b = 0; b < together; ++b) {
      add_block<type, P, T>(base, b, x, total);
      x.words += kQuantGroups * T;
      x.scales += T;
      x.starts += T;
      x.second_starts += T;
    }
    for (int p = 0; p < P; ++p) base[p] += together_bytes(type);
    if constexpr (touches_pages(type, P, T)) touch_page_ahead(base[0], together_bytes(type));
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

template <WeightType type, int P, int T>
static void quantized_panels(const MatmulJob& job, QuantRange range, std::size_t panels) {
  for (; panels >= P; panels -= P, range.panel += P) {
    quantized_tile<type, P, T>(job, range);
  }
  if constexpr (P > 1) {
    if (panels > 0) quantized_panels<type, P / 2, T>(job, range, panels);
  }
}

template <WeightType type, int T>
static void quantized_tokens(const MatmulJob& job, const QuantRange& range, std::size_t panels,
                             std::size_t tokens) {
  if (tokens == static_cast<std::size_t>(T)) {
    quantized_panels<type, quant_panels(T, type), T>(job, range, panels);
  } else if constexpr (T > 1) {
    quantized_tokens<type, T - 1>(job, range, panels, tokens);
  }
}
