// y = x * w^T for weights of 4, 5, 6 or 8 bits: matmul.inl.h with integer sums inside. A tile is P
// panels times T tokens; within a block of 32 columns each lane adds the products of one output
// exactly, then the sum goes into that output's float accumulator, blocks ascending: the bits
// depend on nothing else. The weights are unsigned bytes as VNNI wants them; what they lie above
// their values is taken off before the first product (`starts`), as a multiple of the sum of x.
//
//        columns ->              one group of 4 columns: P loads, T broadcasts, P * T dot products
//   panel p: [block][group][16 rows][4] ...
//   tile of x: [block][group][T tokens] words of 4 int8

constexpr std::size_t kQuantTokens = 96;     // that share the panels while they are in a cache
constexpr std::size_t kQuantColumns = 1024;  // of K, of so many tokens: they stay in L2
constexpr std::size_t kQuantBlocks = kQuantTokens * kQuantColumns / kQuantBlock;
// Several tiles share so many columns of kSharedPanels panels: 34 KiB of q8_0 stay in L1.
constexpr std::size_t kSharedBlocks = 1024 / kQuantBlock;
constexpr int kQuantGroups = static_cast<int>(kQuantBlock / 4);
constexpr std::size_t kGroupBytes = kLanes * 4;

// x of some tokens and blocks, tile by tile: one that begins at token t lies t * num_blocks behind
// each beginning, and block b of it T * b further on (of words so many times kQuantGroups).
struct QuantizedTokens {
  std::int32_t* words;
  float* scales;
  // q8_0, q4_0: what the sum starts from. q6_k: that of each half. q4_k, q5_k: minus the sum
  // of x.
  std::int32_t* starts[2];
  std::size_t num_blocks;
  std::size_t first_block;
};

// Where they lie in quantized_bytes(tokens, cols).
static QuantizedTokens quantized_tokens_at(void* memory, std::size_t tokens, std::size_t blocks) {
  std::int32_t* const words = static_cast<std::int32_t*>(memory);
  float* const scales = reinterpret_cast<float*>(words + tokens * blocks * kQuantGroups);
  std::int32_t* const starts = reinterpret_cast<std::int32_t*>(scales + tokens * blocks);
  return {words, scales, {starts, starts + tokens * blocks}, blocks, 0};
}

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

// total += float(sum) * (scale * x's scale)
template <int P, int T>
SLUICE_INLINE void add_sums(const Ints (&sum)[P][T], const Lanes (&scale)[P], const float* x_scales,
                            Lanes (&total)[P][T]) {
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t)
      total[p][t] = fma(to_floats(sum[p][t]), mul(scale[p], splat(x_scales[t])), total[p][t]);
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
  if constexpr (type == WeightType::q8_0 || type == WeightType::q4_0) {
    start_sums<P, T>(x.starts, sum);
    if constexpr (type == WeightType::q8_0)
      add_bytes<P, T>(at, x.words, sum);
    else
      add_nibbles<P, T>(at, x.words, sum);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) scale[p] = load_f16_weights(base[p] + b * kLanes * 2);
    add_sums<P, T>(sum, scale, x.scales, total);
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
            fma(to_floats(splat_int(x.starts[t])), mul(min, splat(x.scales[t])), total[p][t]);
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
    quantized_panels<type, quant_panels(T), T>(job, range, panels);
  } else if constexpr (T > 1) {
    quantized_tokens<type, T - 1>(job, range, panels, tokens);
  }
}

// Tiles of nearly equal size.
constexpr std::size_t num_tiles(std::size_t tokens, WeightType type) {
  const std::size_t most = quant_tokens(type);
  return (tokens + most - 1) / most;
}

// Stores block `t` of the `tokens` of a tile that begin at `place`.
template <WeightType type>
SLUICE_INLINE void store_block(const QuantizedBlock& block, const QuantizedTokens& to,
                               std::size_t place, std::size_t t, std::size_t tokens) {
  constexpr std::size_t kWords = kQuantBlock / 4;
  to.scales[place + t] = block.scale;
  const std::int32_t sum = block.half_sums[0] + block.half_sums[1];
  std::int32_t* const start = to.starts[0] + place + t;
  if constexpr (type == WeightType::q8_0) *start = kQ8Start * sum;
  if constexpr (type == WeightType::q4_0) *start = -8 * sum;
  if constexpr (has_minima(type)) *start = -sum;
  if constexpr (type == WeightType::q6_k) {
    *start = -32 * block.half_sums[0];
    to.starts[1][place + t] = -32 * block.half_sums[1];
  }
  std::int32_t* const words = to.words + place * kWords + t;
#pragma GCC unroll 8
  for (std::size_t g = 0; g < kWords; ++g)
    __builtin_memcpy(words + g * tokens, block.values + g * 4, 4);
}

// Quantizes the blocks [begin, end) of the tokens [token, token + tokens) as one tile, token `at`
// of the buffers.
template <WeightType type>
static void quantize_tile(const MatmulJob& job, std::size_t token, std::size_t tokens,
                          std::size_t begin, std::size_t end, const QuantizedTokens& to,
                          std::size_t at) {
  const std::size_t first = at * to.num_blocks + (begin - to.first_block) * tokens;
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* x = job.x + (token + t) * job.x_stride + begin * kQuantBlock;
    std::size_t place = first;
    std::size_t left = end - begin;
    QuantizedBlock blocks[kQuantizeTogether];
    for (; left >= kQuantizeTogether; left -= kQuantizeTogether) {
      quantize_together(x, blocks);
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kQuantizeTogether; ++i, place += tokens)
        store_block<type>(blocks[i], to, place, t, tokens);
      x += kQuantizeTogether * kQuantBlock;
    }
    for (; left > 0; --left, x += kQuantBlock, place += tokens) {
      quantize(x, blocks[0]);
      store_block<type>(blocks[0], to, place, t, tokens);
    }
  }
}

// At most kQuantTokens tokens from `token`; the buffers' first token is `at`.
template <WeightType type>
static void quantize_tiles(const MatmulJob& job, std::size_t token, std::size_t tokens,
                           std::size_t begin, std::size_t end, const QuantizedTokens& to,
                           std::size_t at) {
  const std::size_t tiles = num_tiles(tokens, type);
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    const std::size_t first = tokens * tile / tiles;
    quantize_tile<type>(job, token + first, tokens * (tile + 1) / tiles - first, begin, end, to,
                        at + first);
  }
}

template <WeightType type>
static void quantize_typed(const MatmulJob& job, std::size_t begin, std::size_t end, void* to) {
  const QuantizedTokens x = quantized_tokens_at(to, job.num_tokens, job.w.cols / kQuantBlock);
  for (std::size_t token = 0; token < job.num_tokens; token += kQuantTokens) {
    const std::size_t left = job.num_tokens - token;
    quantize_tiles<type>(job, token, left < kQuantTokens ? left : kQuantTokens, begin, end, x,
                         token);
  }
}

static void quantize_columns(const MatmulJob& job, std::size_t column_begin, std::size_t column_end,
                             void* to) {
  const std::size_t begin = column_begin / kQuantBlock;
  const std::size_t end = column_end / kQuantBlock;
  switch (job.w.type) {
    case WeightType::q8_0:
      return quantize_typed<WeightType::q8_0>(job, begin, end, to);
    case WeightType::q4_0:
      return quantize_typed<WeightType::q4_0>(job, begin, end, to);
    case WeightType::q4_k:
      return quantize_typed<WeightType::q4_k>(job, begin, end, to);
    case WeightType::q5_k:
      return quantize_typed<WeightType::q5_k>(job, begin, end, to);
    case WeightType::q6_k:
      return quantize_typed<WeightType::q6_k>(job, begin, end, to);
    case WeightType::f32:
    case WeightType::bf16:
    case WeightType::f16:
      return;
  }
}

// Of the panels [panel, panel + count) the blocks [begin, end).
template <WeightType type>
static Fetch blocks_of(const PackedMatrix& w, std::size_t panel, std::size_t count,
                       std::size_t begin, std::size_t end) {
  const std::size_t panel_size = panel_bytes(w.cols, type);
  const std::size_t from = scales_at(begin, type);
  const std::size_t bytes = scales_at(end + blocks_together(type) - 1, type) - from;
  return {static_cast<const char*>(w.panels) + panel * panel_size + from, bytes / 64, bytes / 64,
          panel_size - bytes, count};
}

// One tile: the panels one after another, each read once from end to end.
// Several tiles: they share some panels and blocks in L1, while what comes next is fetched.
// The panels [panel_begin, panel_end) times the blocks [begin, end) of x; x has the tokens
// from `at` on.
template <WeightType type>
static void multiply_blocks(const MatmulJob& job, const QuantizedTokens& x, std::size_t at,
                            std::size_t token, std::size_t tokens, std::size_t panel_begin,
                            std::size_t panel_end, std::size_t begin, std::size_t end) {
  const std::size_t tiles = num_tiles(tokens, type);
  const std::size_t panels = tiles == 1 ? panel_end - panel_begin : kSharedPanels;
  const std::size_t blocks = tiles == 1 ? end - begin : kSharedBlocks;
  const auto at_most = [](std::size_t n, std::size_t left) { return n < left ? n : left; };
  for (std::size_t panel = panel_begin; panel < panel_end; panel += panels) {
    const std::size_t together = at_most(panels, panel_end - panel);
    for (std::size_t block = begin; block < end; block += blocks) {
      const std::size_t block_end = block + at_most(blocks, end - block);
      Fetch fetch;
      if (tiles > 1 && block_end < end) {
        fetch = blocks_of<type>(job.w, panel, together, block_end,
                                block_end + at_most(blocks, end - block_end));
      } else if (tiles > 1 && panel + together < panel_end) {
        fetch =
            blocks_of<type>(job.w, panel + together, at_most(panels, panel_end - panel - together),
                            begin, begin + at_most(blocks, end - begin));
      }
      // As many as are multiplied from one step to the next, shared evenly, rounded up.
      const std::size_t lines = (together * together_bytes(type) / 64 + tiles - 1) / tiles;
      for (std::size_t tile = 0; tile < tiles; ++tile) {
        const std::size_t first = tokens * tile / tiles;
        const std::size_t size = tokens * (tile + 1) / tiles - first;
        const std::size_t offset = (at + first) * x.num_blocks + (block - x.first_block) * size;
        const QuantRange range{x.words + offset * (kQuantBlock / 4),
                               x.scales + offset,
                               x.starts[0] + offset,
                               x.starts[1] + offset,
                               token + first,
                               panel,
                               block,
                               block_end,
                               lines,
                               &fetch};
        quantized_tokens<type, quant_tokens(type)>(job, range, together, size);
      }
    }
  }
}

// Of x that are multiplied before the next ones: whole super-blocks.
constexpr std::size_t blocks_at_once(std::size_t tokens) {
  return kQuantBlocks / tokens / (kSuperBlock / kQuantBlock) * (kSuperBlock / kQuantBlock);
}

// At most kQuantTokens tokens from `token`.
template <WeightType type>
static void quantized_block(const MatmulJob& job, std::size_t token, std::size_t tokens,
                            std::size_t panel_begin, std::size_t panel_end) {
  const std::size_t blocks = job.w.cols / kQuantBlock;
  const std::size_t step = blocks_at_once(tokens);
  alignas(64) char memory[quantized_bytes(kQuantTokens, kQuantColumns)];  // 132 KiB
  for (std::size_t begin = 0; begin < blocks; begin += step) {
    const std::size_t end = blocks - begin < step ? blocks : begin + step;
    QuantizedTokens x = quantized_tokens_at(memory, tokens, end - begin);
    x.first_block = begin;
    quantize_tiles<type>(job, token, tokens, begin, end, x, 0);
    multiply_blocks<type>(job, x, 0, token, tokens, panel_begin, panel_end, begin, end);
  }
}

// The same where x is quantized already.
template <WeightType type>
static void prepared_block(const MatmulJob& job, std::size_t token, std::size_t tokens,
                           std::size_t panel_begin, std::size_t panel_end) {
  const std::size_t blocks = job.w.cols / kQuantBlock;
  const QuantizedTokens x =
      quantized_tokens_at(const_cast<void*>(job.quantized), job.num_tokens, blocks);
  const std::size_t step = blocks_at_once(tokens);
  for (std::size_t begin = 0; begin < blocks; begin += step) {
    const std::size_t end = blocks - begin < step ? blocks : begin + step;
    multiply_blocks<type>(job, x, token, token, tokens, panel_begin, panel_end, begin, end);
  }
}

template <WeightType type>
static void quantized_matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  for (std::size_t token = 0; token < job.num_tokens; token += kQuantTokens) {
    const std::size_t left = job.num_tokens - token;
    const std::size_t tokens = left < kQuantTokens ? left : kQuantTokens;
    if (job.quantized != nullptr)
      prepared_block<type>(job, token, tokens, panel_begin, panel_end);
    else
      quantized_block<type>(job, token, tokens, panel_begin, panel_end);
  }
}
