// Activations as quantized_tile.inl.h reads them: blocks of 32 columns become bytes, an offset that
// carries the scale, and what integer sums start from, laid out tile by tile. A tile of x:
// [block][group][T tokens] words of 4 int8. Included inside a namespace after int8_*.inl.h.

constexpr std::size_t kQuantTokens = 96;  // that share the panels while they are in a cache
constexpr int kQuantGroups = static_cast<int>(kQuantBlock / 4);
constexpr std::size_t kGroupBytes = kLanes * 4;

// x of some tokens and blocks, tile by tile: one that begins at token t lies t * num_blocks behind
// each beginning, and block b of it T * b further on (of words so many times kQuantGroups).
struct QuantizedTokens {
  std::int32_t* words;
  float* offsets;  // quantized_block.inl.h
  // What the sum starts from, the offset's bits included; q6_k: that of each half.
  std::int32_t* starts[2];
  // q4_k, q5_k: minus the sum of x, times its scale; in the place of starts[1].
  float* minus_sums;
  std::size_t num_blocks;
  std::size_t first_block;
};

// Where they lie in quantized_bytes(tokens, cols).
static QuantizedTokens quantized_tokens_at(void* memory, std::size_t tokens, std::size_t blocks) {
  std::int32_t* const words = static_cast<std::int32_t*>(memory);
  float* const offsets = reinterpret_cast<float*>(words + tokens * blocks * kQuantGroups);
  std::int32_t* const starts = reinterpret_cast<std::int32_t*>(offsets + tokens * blocks);
  std::int32_t* const second_starts = starts + tokens * blocks;
  float* const minus_sums = reinterpret_cast<float*>(second_starts);
  return {words, offsets, {starts, second_starts}, minus_sums, blocks, 0};
}

// What the bytes of weights lie above their values.
constexpr std::int32_t start_factor(WeightType type) {
  if (type == WeightType::q8_0) return kQ8Start;
  return type == WeightType::q4_0 ? -8 : type == WeightType::q6_k ? -32 : 0;
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
  constexpr std::int32_t kFactor = start_factor(type);
  const std::int32_t sum = block.half_sums[0] + block.half_sums[1];
  const std::int32_t counted = type == WeightType::q6_k ? block.half_sums[0] : sum;
  const Offset offset = offset_of(block.scale, kFactor * counted);
  to.offsets[place + t] = offset.offset;
  to.starts[0][place + t] = offset.start;
  if constexpr (type == WeightType::q6_k)
    to.starts[1][place + t] = offset_of(block.scale, kFactor * block.half_sums[1]).start;
  if constexpr (has_minima(type))
    to.minus_sums[place + t] = -(static_cast<float>(sum) * block.scale);
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
