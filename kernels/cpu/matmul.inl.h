// y = x * w^T over packed panels. A tile is P panels (16 P outputs) times T tokens held in registers;
// each accumulator lane is one output and takes k ascending, so tiles of every size, and prefill and
// decode, give the same bits. Long K is cut into blocks that keep a panel group in the L2 cache; the
// sums wait in y between blocks, which rounds nothing.
//
//        k ->                     one step of k: P loads of weights, T broadcasts of x, P * T fma
//   panel p: [k][16 rows] ...     registers: P * T accumulators + P weights + 1

constexpr std::size_t kBlockColumns = 512;  // of K, for more tokens than one tile

struct TileRange {
  std::size_t panel;    // first panel
  std::size_t token;    // first token
  std::size_t k_begin;  // K block
  std::size_t k_end;
};

template <WeightType type, int P, int T>
static void matmul_tile(const MatmulJob& job, const TileRange& range) {
  const std::size_t step = kLanes * weight_bytes(type);
  const std::size_t panel_bytes = job.w.cols * step;
  const char* w = static_cast<const char*>(job.w.panels) + range.panel * panel_bytes;
  const float* x = job.x + range.token * job.x_stride;
  float* y = job.y + range.token * job.y_stride + range.panel * kLanes;
  // Rows of the last panel; the others are full.
  const std::size_t rows_left = job.w.rows - (range.panel + P - 1) * kLanes;
  const std::size_t tail = rows_left < kLanes ? rows_left : kLanes;

  Lanes sum[P][T];
  for (int p = 0; p < P; ++p) {
    const std::size_t n = p + 1 < P ? kLanes : tail;
    for (int t = 0; t < T; ++t) {
      const float* from = y + static_cast<std::size_t>(t) * job.y_stride +
                          static_cast<std::size_t>(p) * kLanes;
      sum[p][t] = range.k_begin == 0 ? zero() : load_first(from, n);
    }
  }
  const char* block = w + range.k_begin * step;
  for (std::size_t k = range.k_begin; k < range.k_end; ++k, block += step) {
    Lanes weights[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      weights[p] = load_weights<type>(block + static_cast<std::size_t>(p) * panel_bytes);
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
      const Lanes value = splat(x[static_cast<std::size_t>(t) * job.x_stride + k]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[p][t] = fma(weights[p], value, sum[p][t]);
    }
  }
  for (int p = 0; p < P; ++p) {
    const std::size_t n = p + 1 < P ? kLanes : tail;
    for (int t = 0; t < T; ++t) {
      store_first(y + static_cast<std::size_t>(t) * job.y_stride + static_cast<std::size_t>(p) * kLanes,
                  sum[p][t], n);
    }
  }
}

// One token tile of T tokens for `panels` panels, in groups of the widest tile that fits.
template <WeightType type, int P, int T>
static void matmul_panels(const MatmulJob& job, TileRange range, std::size_t panels) {
  for (; panels >= P; panels -= P, range.panel += P) matmul_tile<type, P, T>(job, range);
  if constexpr (P > 1) {
    if (panels > 0) matmul_panels<type, P / 2, T>(job, range, panels);
  }
}

template <WeightType type, int T>
static void matmul_tokens(const MatmulJob& job, const TileRange& range, std::size_t panels,
                          std::size_t tokens) {
  if (tokens == static_cast<std::size_t>(T)) {
    matmul_panels<type, tile_panels(T), T>(job, range, panels);
  } else if constexpr (T > 1) {
    matmul_tokens<type, T - 1>(job, range, panels, tokens);
  }
}

template <WeightType type>
static void matmul_typed(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  const std::size_t tokens = job.num_tokens;
  if (tokens == 0 || panel_begin >= panel_end) return;
  if (job.w.cols == 0) {
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t r = panel_begin * kLanes; r < job.w.rows && r < panel_end * kLanes; ++r) {
        job.y[t * job.y_stride + r] = 0;
      }
    }
    return;
  }
  // Tiles of nearly equal size: 16 tokens are 8 + 8, not 12 + 4.
  const std::size_t tiles = (tokens + kTileTokensMax - 1) / kTileTokensMax;
  const std::size_t block = tiles == 1 ? job.w.cols : kBlockColumns;
  const std::size_t group = tiles == 1 ? panel_end - panel_begin : 8;
  for (std::size_t panel = panel_begin; panel < panel_end; panel += group) {
    const std::size_t panels = panel_end - panel < group ? panel_end - panel : group;
    for (std::size_t k = 0; k < job.w.cols; k += block) {
      const std::size_t k_end = job.w.cols - k < block ? job.w.cols : k + block;
      for (std::size_t tile = 0; tile < tiles; ++tile) {
        const std::size_t first = tokens * tile / tiles;
        const std::size_t last = tokens * (tile + 1) / tiles;
        matmul_tokens<type, kTileTokensMax>(job, {panel, first, k, k_end}, panels, last - first);
      }
    }
  }
}

static void matmul(const MatmulJob& job, std::size_t panel_begin, std::size_t panel_end) {
  switch (job.w.type) {
    case WeightType::f32: return matmul_typed<WeightType::f32>(job, panel_begin, panel_end);
    case WeightType::bf16: return matmul_typed<WeightType::bf16>(job, panel_begin, panel_end);
    case WeightType::f16: return matmul_typed<WeightType::f16>(job, panel_begin, panel_end);
  }
}
