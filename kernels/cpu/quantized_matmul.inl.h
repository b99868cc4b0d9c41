// y = x * w^T for weights of 8 or 4 bits: matmul.inl.h with integer sums inside. A tile is P panels
// times T tokens; within a block of 32 columns each lane adds the products of one output exactly,
// then the sum goes into that output's float accumulator, blocks ascending: the bits depend on
// nothing else. The weights are unsigned bytes as VNNI wants them; what they lie above their values
// is taken off before the first product (`starts`), as a multiple of the block's sum of x.
//
//        columns ->              one group of 4 columns: P loads, T broadcasts, P * T dot products
//   panel p: [block][group][16 rows][4] ...
//   tile of x: [block][group][T tokens] words of 4 int8

constexpr std::size_t kQuantWords = 96 * 256;  // laid out at a time, 96 KiB
constexpr std::size_t kQuantTokens = 96;
constexpr std::size_t kQuantColumns = 1024;  // of K, when several tiles share the panels

struct LaidOut {
  alignas(64) std::int32_t words[kQuantWords];
  float scales[kQuantWords / 8];
  std::int32_t starts[kQuantWords / 8];
};

// One K block of one token tile against the panels from `panel` on. The pointers are the tile's.
struct QuantRange {
  const std::int32_t* words;
  const float* scales;
  const std::int32_t* starts;
  std::size_t token;
  std::size_t panel;
  std::size_t block_begin;  // of 32 columns; even
  std::size_t block_end;
};

template <WeightType type, int P, int T>
SLUICE_INLINE void add_block(const char* const* pair, std::size_t at, const std::int32_t* words,
                             Ints (&sum)[P][T]) {
  constexpr std::size_t kGroupBytes = kLanes * 4;
  constexpr int kGroups = static_cast<int>(kQuantBlock / 4);
#pragma GCC unroll 8
  for (int g = 0; g < (type == WeightType::q8_0 ? kGroups : kGroups / 2); ++g) {
    Bytes bytes[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      bytes[p] = load_bytes(pair[p] + at + static_cast<std::size_t>(g) * kGroupBytes);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      const std::int32_t x = words[g * T + t];
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        if constexpr (type == WeightType::q8_0)
          sum[p][t] = dot_q8(sum[p][t], bytes[p], x);
        else
          sum[p][t] = dot_q4(sum[p][t], low_halves(bytes[p]), x);
      }
    }
    if constexpr (type == WeightType::q4_0) {
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) {
        const std::int32_t x = words[(g + kGroups / 2) * T + t];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) sum[p][t] = dot_q4(sum[p][t], high_halves(bytes[p]), x);
      }
    }
  }
}

template <WeightType type, int P, int T>
static void quantized_tile(const MatmulJob& job, const QuantRange& range) {
  const std::size_t panel_size = panel_bytes(job.w.cols, type);
  const char* const first = static_cast<const char*>(job.w.panels) + range.panel * panel_size +
                            block_scales_at(range.block_begin, type);
  const char* pair[P];
  for (int p = 0; p < P; ++p) pair[p] = first + static_cast<std::size_t>(p) * panel_size;
  float* y = job.y + range.token * job.y_stride + range.panel * kLanes;
  const std::size_t rows_left = job.w.rows - (range.panel + P - 1) * kLanes;
  const std::size_t tail = rows_left < kLanes ? rows_left : kLanes;

  Lanes total[P][T];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      const float* from =
          y + static_cast<std::size_t>(t) * job.y_stride + static_cast<std::size_t>(p) * kLanes;
      total[p][t] = range.block_begin == 0 ? zero() : load_first(from, p + 1 < P ? kLanes : tail);
    }
  }
  const std::int32_t* words = range.words;
  const float* x_scales = range.scales;
  const std::int32_t* starts = range.starts;
  for (std::size_t block = range.block_begin; block < range.block_end; block += 2) {
    for (std::size_t half = 0; half < 2 && block + half < range.block_end; ++half) {
      Ints sum[P][T];
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) sum[p][t] = splat_int(starts[t]);
      }
      add_block<type, P, T>(pair, block_weights_at(half, type), words, sum);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        const Lanes scale = load_f16_weights(pair[p] + block_scales_at(half, type));
#pragma GCC unroll 6
        for (int t = 0; t < T; ++t)
          total[p][t] = fma(to_floats(sum[p][t]), mul(scale, splat(x_scales[t])), total[p][t]);
      }
      words += kQuantBlock / 4 * T;
      x_scales += T;
      starts += T;
    }
    for (int p = 0; p < P; ++p) pair[p] += block_pair_bytes(type);
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
      store_first(
          y + static_cast<std::size_t>(t) * job.y_stride + static_cast<std::size_t>(p) * kLanes,
          total[p][t], p + 1 < P ? kLanes : tail);
    }
  }
}

template <WeightType type, int P, int T>
static void quantized_panels(const MatmulJob& job, QuantRange range, std::size_t panels) {
  for (; panels >= P; panels -= P, range.panel += P) quantized_tile<type, P, T>(job, range);
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

// Quantizes the blocks [begin, end) of the tokens [token, token + tokens) as one tile from block
// `at` of the buffers on.
static void lay_out_quantized(const MatmulJob& job, std::size_t token, std::size_t tokens,
                              std::size_t begin, std::size_t end, std::int32_t unit, LaidOut& to,
                              std::size_t at) {
  constexpr std::size_t kWords = kQuantBlock / 4;
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* x = job.x + (token + t) * job.x_stride;
    for (std::size_t b = begin; b < end; ++b) {
      QuantizedBlock block;
      quantize(x + b * kQuantBlock, block);
      const std::size_t place = at + (b - begin) * tokens + t;
      to.scales[place] = block.scale;
      to.starts[place] = unit * block.sum;
      std::int32_t* const words = to.words + (at + (b - begin) * tokens) * kWords + t;
      for (std::size_t g = 0; g < kWords; ++g)
        __builtin_memcpy(words + g * tokens, block.values + g * 4, 4);
    }
  }
}

// At most kQuantTokens tokens from `token`.
template <WeightType type>
static void quantized_block(const MatmulJob& job, std::size_t token, std::size_t tokens,
                            std::size_t panel_begin, std::size_t panel_end) {
  LaidOut laid_out;  // 120 KiB
  constexpr std::int32_t kUnit = type == WeightType::q8_0 ? kQ8Start : -8;
  const std::size_t blocks = job.w.cols / kQuantBlock;
  const std::size_t tiles = (tokens + kQuantTokensMax - 1) / kQuantTokensMax;
  const std::size_t step = (tiles == 1 ? kQuantWords * 4 / tokens : kQuantColumns) / kQuantBlock;
  for (std::size_t begin = 0; begin < blocks; begin += step) {
    const std::size_t end = blocks - begin < step ? blocks : begin + step;
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      const std::size_t first = tokens * tile / tiles;
      lay_out_quantized(job, token + first, tokens * (tile + 1) / tiles - first, begin, end, kUnit,
                        laid_out, first * step);
    }
    for (std::size_t panel = panel_begin; panel < panel_end; panel += kGroupPanels) {
      const std::size_t left = panel_end - panel;
      for (std::size_t tile = 0; tile < tiles; ++tile) {
        const std::size_t first = tokens * tile / tiles;
        const std::size_t at = first * step;
        const QuantRange range{laid_out.words + at * (kQuantBlock / 4),
                               laid_out.scales + at,
                               laid_out.starts + at,
                               token + first,
                               panel,
                               begin,
                               end};
        quantized_tokens<type, kQuantTokensMax>(job, range,
                                                left < kGroupPanels ? left : kGroupPanels,
                                                tokens * (tile + 1) / tiles - first);
      }
    }
  }
}

template <WeightType type>
static void quantized_matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  for (std::size_t token = 0; token < job.num_tokens; token += kQuantTokens) {
    const std::size_t left = job.num_tokens - token;
    quantized_block<type>(job, token, left < kQuantTokens ? left : kQuantTokens, panel_begin,
                          panel_end);
  }
}
