// y = x * w^T over packed panels. A tile is P panels (16 P outputs) times T tokens held in
// registers; each accumulator lane is one output and takes k ascending, so tiles of every size, and
// prefill and decode, give the same bits. K is cut into blocks: the sums wait in y between blocks,
// which rounds nothing, and a block of the tokens is first laid out in the order in which tiles
// read it. Where three tiles or more share panels of 16-bit weights, the first of them may leave
// these as floats, which cost the others no conversion.
//
//        k ->                     one step of k: P loads of weights, T broadcasts of x, P * T fma
//   panel p: [k][16 rows] ...     registers: P * T accumulators + P weights + 1
//   tile of x: [k][T tokens]      one pointer for all T broadcasts

constexpr std::size_t kBlockTokens = 96;
constexpr std::size_t kLaidOut = 256 * kBlockTokens;  // floats: 96 KiB beside the weights in L2
constexpr std::size_t kSharedPanels = 2;              // that several tiles share
constexpr std::size_t kWideTilesMin = 3;              // to leave panels as floats
constexpr std::size_t kWideColumns = 512;             // of K, of these panels
constexpr int kLeastOfMany = kTileTokensMax * 2 / 3;  // tokens of one of three tiles or more
constexpr std::size_t kStreamTokensMax = 2;           // that read panels from end to end
constexpr std::size_t kFetchSteps = 8;                // of K, while there is something to fetch

// One K block of one token tile against the panels from `panel` on.
struct TileRange {
  const float* x;       // [k_end - k_begin, T]
  const char* weights;  // of k_begin in the first panel
  std::size_t panel_stride;
  float* wide;        // to leave them, [kSharedPanels][kWideColumns][16]
  std::size_t token;  // first token
  std::size_t panel;  // first panel
  std::size_t k_begin;
  std::size_t k_end;
  std::size_t steps;  // of K, from one fetch to the next
  std::size_t lines;  // of a fetch
  Fetch* fetch;
};

template <WeightType type, bool leaves_wide, int P, int T>
static void matmul_tile(const MatmulJob& job, const TileRange& range) {
  const std::size_t step = kLanes * weight_bytes(type);
  float* y = job.y + range.token * job.y_stride + range.panel * kLanes;
  // Rows of the last panel; the others are full.
  const std::size_t rows_left = job.w.rows - (range.panel + P - 1) * kLanes;
  const std::size_t tail = rows_left < kLanes ? rows_left : kLanes;

  Lanes sum[P][T];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
      const float* from =
          y + static_cast<std::size_t>(t) * job.y_stride + static_cast<std::size_t>(p) * kLanes;
      sum[p][t] = range.k_begin == 0 ? zero() : load_first(from, p + 1 < P ? kLanes : tail);
    }
  }
  fetch_next_sums<P, T>(job, range.token, y);
  const char* block = range.weights;
  const float* x = range.x;
  float* wide = range.wide;
  for (std::size_t k = range.k_begin; k < range.k_end;) {
    const std::size_t left = range.k_end - k;
    const std::size_t stop = k + (left < range.steps ? left : range.steps);
    for (; k < stop; ++k, block += step, x += T) {
      Lanes weights[P];
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        weights[p] = load_weights<type>(block + static_cast<std::size_t>(p) * range.panel_stride);
        if constexpr (leaves_wide)
          store(wide + static_cast<std::size_t>(p) * kWideColumns * kLanes, weights[p]);
      }
      if constexpr (leaves_wide) wide += kLanes;
      if constexpr (T <= static_cast<int>(kStreamTokensMax)) {
        if (k % (kFour / step) == 0) {
#pragma GCC unroll 8
          for (int p = 0; p < P; ++p)
            fetch_stream(block + static_cast<std::size_t>(p) * range.panel_stride, kFour);
        }
      }
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t) {
        const Lanes value = splat(x[t]);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) sum[p][t] = fma(weights[p], value, sum[p][t]);
      }
    }
    range.fetch->lines_ahead(range.lines);
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
      store_first(
          y + static_cast<std::size_t>(t) * job.y_stride + static_cast<std::size_t>(p) * kLanes,
          sum[p][t], p + 1 < P ? kLanes : tail);
    }
  }
}

template <WeightType type, bool leaves_wide, int P, int T>
static void matmul_panels(const MatmulJob& job, TileRange range, std::size_t panels) {
  for (; panels >= P; panels -= P) {
    matmul_tile<type, leaves_wide, P, T>(job, range);
    range.panel += P;
    range.weights += P * range.panel_stride;
    if constexpr (leaves_wide) range.wide += P * kWideColumns * kLanes;
  }
  if constexpr (P > 1) {
    if (panels > 0) matmul_panels<type, leaves_wide, P / 2, T>(job, range, panels);
  }
}

// At least T_min tokens, at most T.
template <WeightType type, bool leaves_wide, int T_min, int T>
static void matmul_tokens(const MatmulJob& job, const TileRange& range, std::size_t panels,
                          std::size_t tokens) {
  if (tokens == static_cast<std::size_t>(T)) {
    matmul_panels<type, leaves_wide, tile_panels(T), T>(job, range, panels);
  } else if constexpr (T > T_min) {
    matmul_tokens<type, leaves_wide, T_min, T - 1>(job, range, panels, tokens);
  }
}

// One of several tiles that share panels of 16-bit weights: the first leaves these as floats.
template <WeightType type>
static void widened_tile(const MatmulJob& job, TileRange range, std::size_t panels,
                         std::size_t tokens, std::size_t tile) {
  if constexpr (type != WeightType::f32) {
    if (tile == 0)
      return matmul_tokens<type, true, kLeastOfMany, kTileTokensMax>(job, range, panels, tokens);
    range.weights = reinterpret_cast<const char*>(range.wide);
    range.panel_stride = sizeof(float) * kWideColumns * kLanes;
    matmul_tokens<WeightType::f32, false, kLeastOfMany, kTileTokensMax>(job, range, panels, tokens);
  }
}

// Lays out x of the tokens [token, token + tokens) and the columns [k, k_end) as [k][tokens].
static void lay_out(const MatmulJob& job, std::size_t token, std::size_t tokens, std::size_t k,
                    std::size_t k_end, float* to) {
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* from = job.x + (token + t) * job.x_stride;
    for (std::size_t i = k; i < k_end; ++i) to[(i - k) * tokens + t] = from[i];
  }
}

// Of the panels [panel, panel + count) the columns [begin, end).
template <WeightType type>
static Fetch columns_of(const PackedMatrix& w, std::size_t panel, std::size_t count,
                        std::size_t begin, std::size_t end) {
  const std::size_t step = kLanes * weight_bytes(type);
  return Fetch::of(static_cast<const char*>(w.panels) + (panel * w.cols + begin) * step,
                   (end - begin) * step, w.cols * step, count);
}

// At most kBlockTokens tokens from `token`.
template <WeightType type>
static void matmul_block(const MatmulJob& job, std::size_t token, std::size_t tokens,
                         std::size_t panel_begin, std::size_t panel_end) {
  alignas(64) float laid_out[kLaidOut];
  // Tiles of nearly equal size: 16 tokens are 8 + 8, not 12 + 4.
  const std::size_t tiles = (tokens + kTileTokensMax - 1) / kTileTokensMax;
  // Few tokens take more panels at a time, read from end to end: memory is all that they wait for.
  // One row is laid out already. The fewer tokens, the more of K at a time: the hardware's
  // prefetchers follow long streams.
  const bool is_stream = tokens <= kStreamTokensMax;
  const bool widens = type != WeightType::f32 && job.unpacks_once && tiles >= kWideTilesMin;
  alignas(64) float wide[type == WeightType::f32 ? 1 : kSharedPanels * kWideColumns * kLanes];
  std::size_t block = tokens == 1 ? job.w.cols : kLaidOut / tokens / kFetchSteps * kFetchSteps;
  if (widens && block > kWideColumns) block = kWideColumns;
  const std::size_t step = kLanes * weight_bytes(type);
  for (std::size_t k = 0; k < job.w.cols; k += block) {
    const std::size_t k_end = job.w.cols - k < block ? job.w.cols : k + block;
    for (std::size_t tile = 0; tile < tiles && tokens > 1; ++tile) {
      const std::size_t first = tokens * tile / tiles;
      lay_out(job, token + first, tokens * (tile + 1) / tiles - first, k, k_end,
              laid_out + first * (k_end - k));
    }
    const std::size_t panels = is_stream ? panel_end - panel_begin : kSharedPanels;
    for (std::size_t panel = panel_begin; panel < panel_end; panel += panels) {
      const std::size_t left = panel_end - panel;
      const std::size_t together = left < panels ? left : panels;
      Fetch fetch;
      if (!is_stream) {
        // Also behind panel_end: the same thread goes on there more often than not.
        const std::size_t others = num_panels(job.w.rows) - panel - together;
        fetch =
            columns_of<type>(job.w, panel + together, others < panels ? others : panels, k, k_end);
      }
      const std::size_t lines = (together * kFetchSteps * step / 64 + tiles - 1) / tiles;
      const char* const weights =
          static_cast<const char*>(job.w.panels) + (panel * job.w.cols + k) * step;
      for (std::size_t tile = 0; tile < tiles; ++tile) {
        const std::size_t first = tokens * tile / tiles;
        const std::size_t size = tokens * (tile + 1) / tiles - first;
        const float* x =
            tokens == 1 ? job.x + token * job.x_stride + k : laid_out + first * (k_end - k);
        const std::size_t steps = is_stream ? k_end - k : kFetchSteps;
        const TileRange range{
            x,     weights, job.w.cols * step, wide, token + first, panel, k, k_end, steps,
            lines, &fetch};
        if (widens)
          widened_tile<type>(job, range, together, size, tile);
        else
          matmul_tokens<type, false, 1, kTileTokensMax>(job, range, together, size);
      }
    }
  }
}

template <WeightType type>
static void matmul_typed(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  for (std::size_t token = 0; token < job.num_tokens; token += kBlockTokens) {
    const std::size_t left = job.num_tokens - token;
    matmul_block<type>(job, token, left < kBlockTokens ? left : kBlockTokens, panel_begin,
                       panel_end);
  }
}

template <WeightType type>  // quantized_matmul.inl.h
static void quantized_matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end);

static void store_empty_sums(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  for (std::size_t t = 0; t < job.num_tokens; ++t) {
    for (std::size_t r = panel_begin * kLanes; r < job.w.rows && r < panel_end * kLanes; ++r) {
      job.y[t * job.y_stride + r] = 0;
    }
  }
}

static void matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  if (job.w.cols == 0) return store_empty_sums(job, panel_begin, panel_end);
  switch (job.w.type) {
    case WeightType::f32:
      return matmul_typed<WeightType::f32>(job, panel_begin, panel_end);
    case WeightType::bf16:
      return matmul_typed<WeightType::bf16>(job, panel_begin, panel_end);
    case WeightType::f16:
      return matmul_typed<WeightType::f16>(job, panel_begin, panel_end);
    case WeightType::q8_0:
      return quantized_matmul<WeightType::q8_0>(job, panel_begin, panel_end);
    case WeightType::q4_0:
      return quantized_matmul<WeightType::q4_0>(job, panel_begin, panel_end);
    case WeightType::q4_k:
      return quantized_matmul<WeightType::q4_k>(job, panel_begin, panel_end);
    case WeightType::q5_k:
      return quantized_matmul<WeightType::q5_k>(job, panel_begin, panel_end);
    case WeightType::q6_k:
      return quantized_matmul<WeightType::q6_k>(job, panel_begin, panel_end);
  }
}
