// y = x * w^T for weights of 4, 5, 6 or 8 bits: which panels, columns and tokens meet in which
// cache. Tiles are those of quantized_tile.inl.h.

constexpr std::size_t kQuantColumns = 1024;  // of K, of kQuantTokens tokens: they stay in L2
constexpr std::size_t kQuantBlocks = kQuantTokens * kQuantColumns / kQuantBlock;
// What is shared of a panel at a time stays in L1: 8 KiB of scales, 10 of bytes.
constexpr std::size_t prepared_blocks(WeightForm form) {
  return form == WeightForm::has_scales ? 64 : 16;
}
constexpr std::size_t kPreparedPanel = 16 * prepared_bytes(WeightForm::has_bytes);
static_assert(kPreparedPanel >= 64 * prepared_bytes(WeightForm::has_scales));

// What the later ones of so many tiles have. The bytes of six bits are worth it anywhere, those of
// four and five where unpacking costs; of two tiles neither is.
static WeightForm shared_form(const MatmulJob& job, std::size_t tiles) {
  const WeightType type = job.w.type;
  if (type == WeightType::q8_0 || tiles == 1) return WeightForm::packed;
  if (tiles > 2 && (job.unpacks_once || type == WeightType::q6_k)) return WeightForm::has_bytes;
  return has_minima(type) ? WeightForm::has_scales : WeightForm::packed;
}

// Of the panels [panel, panel + count) the blocks [begin, end).
template <WeightType type>
static Fetch blocks_of(const PackedMatrix& w, std::size_t panel, std::size_t count,
                       std::size_t begin, std::size_t end) {
  const std::size_t panel_size = panel_bytes(w.cols, type);
  const std::size_t from = scales_at(begin, type);
  const std::size_t bytes = scales_at(end + blocks_together(type) - 1, type) - from;
  return Fetch::of(static_cast<const char*>(w.panels) + panel * panel_size + from, bytes,
                   panel_size, count);
}

// One of several tiles that share what is prepared.
template <WeightType type, WeightForm leaves, WeightForm has>
static void shared_tile(const MatmulJob& job, const QuantRange& range, std::size_t panels,
                        std::size_t tokens, std::size_t tile) {
  constexpr int kMost = quant_tokens(type);
  constexpr int kLeast = (kMost + 1) / 2;  // of two tiles or more
  if (tile == 0)
    quantized_tokens<type, leaves, kLeast, kMost>(job, range, panels, tokens);
  else
    quantized_tokens<type, has, kLeast, kMost>(job, range, panels, tokens);
}

// One tile, where the later ones have `form`.
template <WeightType type>
static void multiply_tile(const MatmulJob& job, const QuantRange& range, std::size_t panels,
                          std::size_t tokens, std::size_t tile, WeightForm form) {
  if constexpr (has_minima(type)) {
    if (form == WeightForm::has_scales)
      return shared_tile<type, WeightForm::leaves_scales, WeightForm::has_scales>(
          job, range, panels, tokens, tile);
  }
  if constexpr (type != WeightType::q8_0) {
    if (form == WeightForm::has_bytes)
      return shared_tile<type, WeightForm::leaves_bytes, WeightForm::has_bytes>(job, range, panels,
                                                                                tokens, tile);
  }
  quantized_tokens<type, WeightForm::packed, 1, quant_tokens(type)>(job, range, panels, tokens);
}

// The panels [panel_begin, panel_end) times the blocks [begin, end) of x; x has the tokens
// from `at` on. The tiles share some panels, from the first of these blocks to the last, while the
// next panels are fetched: where these are whole, that is one walk through memory without a gap,
// which the hardware's prefetchers follow. From L2 a tile is as fast as from L1. What is prepared
// is not, so that there are fewer blocks at a time where something is.
template <WeightType type>
static void multiply_blocks(const MatmulJob& job, const QuantizedTokens& x, std::size_t at,
                            std::size_t token, std::size_t tokens, std::size_t panel_begin,
                            std::size_t panel_end, std::size_t begin, std::size_t end) {
  const std::size_t tiles = num_tiles(tokens, type);
  // So few tokens take the panels one after another, each read from end to end: memory is all that
  // they wait for, and the hardware sees one long stream.
  const bool is_stream = tokens <= static_cast<std::size_t>(quant_stream_tokens(type));
  const WeightForm form = shared_form(job, tiles);
  const std::size_t panels = is_stream ? panel_end - panel_begin : kSharedPanels;
  const std::size_t blocks = form == WeightForm::packed ? end - begin : prepared_blocks(form);
  const std::size_t panel_size = panel_bytes(job.w.cols, type);
  alignas(64) char prepared[type == WeightType::q8_0 ? 1 : kSharedPanels * kPreparedPanel];
  const auto at_most = [](std::size_t n, std::size_t left) { return n < left ? n : left; };
  for (std::size_t panel = panel_begin; panel < panel_end; panel += panels) {
    const std::size_t together = at_most(panels, panel_end - panel);
    for (std::size_t block = begin; block < end; block += blocks) {
      const std::size_t block_end = block + at_most(blocks, end - block);
      Fetch fetch;
      if (block_end < end) {
        fetch = blocks_of<type>(job.w, panel, together, block_end,
                                block_end + at_most(blocks, end - block_end));
      } else if (!is_stream) {
        // Also behind panel_end: the same thread goes on there more often than not.
        fetch = blocks_of<type>(job.w, panel + together,
                                at_most(panels, num_panels(job.w.rows) - panel - together), begin,
                                begin + at_most(blocks, end - begin));
      }
      // As many as are multiplied from one step to the next, shared evenly, rounded up.
      const std::size_t lines = (together * together_bytes(type) / 64 + tiles - 1) / tiles;
      const char* const weights =
          static_cast<const char*>(job.w.panels) + panel * panel_size + scales_at(block, type);
      for (std::size_t tile = 0; tile < tiles; ++tile) {
        const std::size_t first = tokens * tile / tiles;
        const std::size_t size = tokens * (tile + 1) / tiles - first;
        const std::size_t offset = (at + first) * x.num_blocks + (block - x.first_block) * size;
        const QuantRange range{x.words + offset * (kQuantBlock / 4),
                               x.offsets + offset,
                               x.starts[0] + offset,
                               x.starts[1] + offset,
                               x.minus_sums + offset,
                               weights,
                               prepared,
                               panel_size,
                               kPreparedPanel,
                               token + first,
                               panel,
                               block,
                               block_end,
                               lines,
                               &fetch};
        multiply_tile<type>(job, range, together, size, tile, form);
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
