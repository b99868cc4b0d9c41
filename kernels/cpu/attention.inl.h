// Paged causal attention with online softmax over fixed groups of positions. Up to kRowsTogether
// query rows (heads that share a KV head, then tokens) go through a group before the next one, some
// at a time: first the scores of all of these, then their exponentials, then the values. So one row
// computes while another waits, and K, then V, stay in the innermost cache for all of them; a tile
// of R rows shares every load. Each row keeps its own limit, so no make-up changes a row's bits.
// Order of operations: kernel_table.h.
//
// Tiles read floats. Blocks of f32 that hold whole vectors are read where they lie; K and V of
// other caches become floats once for all rows of an item.

struct QueryRow {
  const float* q;     // [head_dim]
  float* out;         // [head_dim]
  std::size_t first;  // positions first .. limit - 1 are seen
  std::size_t limit;
};

constexpr std::size_t kRowsTogether = 128;
constexpr std::size_t kRowsAtOnce = 32;  // their scores stay in the innermost cache; a multiple
                                         // of kLanes and of kAttentionRows
constexpr std::size_t kGroupVectors = kAttentionGroup / kLanes;

// What a tile fetches of the next group: of the keys these dimensions, of the values these
// positions. All tiles of a group share the work, since memory takes its time.
struct Share {
  std::size_t keys_begin, keys_end;
  std::size_t values_begin, values_end;
};

// What rows carry from group to group.
struct RowStates {
  alignas(64) float o[kRowsTogether * kHeadDimMax];  // running outputs [row][padded head_dim]
  float q[kRowsTogether * kHeadDimMax];              // tile by tile, [head_dim][R]
  float m[kRowsTogether];
  float sum[kRowsTogether];
  Share shares[kRowsTogether / kAttentionRows];
};

// Rows that go through a group side by side.
struct RowsAtOnce {
  alignas(64) float e[kRowsAtOnce][kAttentionGroup];  // scores, then exponentials
  float keep[kRowsAtOnce];
  std::size_t n[kRowsAtOnce];  // positions of the group up to the last that the row sees; 0: none
};

// K and V of a group as floats; vectors of positions behind the last seen one have no pointers.
struct Group {
  const float* keys[kGroupVectors];    // of 16 positions: [head_dim] rows key_stride apart
  const float* values[kGroupVectors];  // of 16 positions: [16][head_dim]
  std::size_t key_stride;
  const float* key_scales;  // [kAttentionGroup], int8 alone
  const float* value_scales;
};

// A group that had to be made floats.
struct WideGroup {
  alignas(64) float keys[kAttentionGroup * kHeadDimMax];  // [kGroupVectors][head_dim][16]
  float values[kAttentionGroup * kHeadDimMax];            // [kAttentionGroup][head_dim]
  float key_scales[kAttentionGroup];
  float value_scales[kAttentionGroup];
};

// Of one item.
struct AttentionPlace {
  const AttentionJob& job;
  const AttentionSpan& span;
  std::size_t kv_head;
};

template <KvType type>
constexpr std::size_t element_bytes() {
  return type == KvType::f32 ? 4 : type == KvType::f16 ? 2 : 1;
}

// Eight elements from each pointer.
template <KvType type>
SLUICE_INLINE Lanes load_kv(const char* low, const char* high) {
  if constexpr (type == KvType::f32)
    return load_halves(reinterpret_cast<const float*>(low), reinterpret_cast<const float*>(high));
  else if constexpr (type == KvType::f16)
    return load_half_halves(low, high);
  else
    return load_int8_halves(low, high);
}

// 16 neighbours.
template <KvType type>
SLUICE_INLINE Lanes load_kv(const char* p) {
  if constexpr (type == KvType::f32)
    return load(reinterpret_cast<const float*>(p));
  else if constexpr (type == KvType::f16)
    return load_f16_weights(p);
  else
    return to_floats(load_int8s(p));
}

SLUICE_INLINE const char* head_of_block(const AttentionPlace& place, std::size_t block,
                                        KvPart part) {
  return kv_head_at(place.job.kv, place.span.blocks[block], place.job.layer, part, place.kv_head);
}

// K of 16 positions from p, which is a multiple of 16 below `end`, the end of the seen positions.
struct KeyPointers {
  const char* low;
  const char* high;  // positions 8..15; of the same block where blocks hold 16 or more
};

// Rows of `bytes` an element that begin `offset` behind the head's: its keys, or their scales.
SLUICE_INLINE KeyPointers key_pointers(const AttentionPlace& place, std::size_t p, std::size_t end,
                                       std::size_t offset, std::size_t bytes) {
  const std::size_t tokens = place.job.kv.block_tokens;
  const char* low = head_of_block(place, p / tokens, KvPart::keys) + offset + p % tokens * bytes;
  if (tokens >= kLanes) return {low, low + 8 * bytes};
  if (p + 8 >= end) return {low, low};  // the next block may not exist; its lanes are not used
  return {low, head_of_block(place, p / tokens + 1, KvPart::keys) + offset};
}

// Where the next group lies that the same rows see, if any: into a cache near by while this one is
// computed. One position of a decode step reads all K and V once, and no stream of addresses is
// longer than a block's.
SLUICE_INLINE void fetch(const void* p) {
  __builtin_prefetch(p, 0, 3);
}

// f32 in blocks of 16 positions or more: the group from `begin` where it lies.
static void find_group(const AttentionPlace& place, std::size_t begin, std::size_t end,
                       Group& group) {
  const PagedKv& kv = place.job.kv;
  group.key_stride = kv.block_tokens;
  group.key_scales = nullptr;
  group.value_scales = nullptr;
  for (std::size_t v = 0; v < kGroupVectors && begin + v * kLanes < end; ++v) {
    const std::size_t p = begin + v * kLanes;
    const std::size_t block = p / kv.block_tokens;
    const std::size_t slot = p % kv.block_tokens;
    group.keys[v] =
        reinterpret_cast<const float*>(head_of_block(place, block, KvPart::keys)) + slot;
    group.values[v] = reinterpret_cast<const float*>(head_of_block(place, block, KvPart::values)) +
                      slot * kv.head_dim;
  }
}

// is_whole: blocks hold 16 positions or more.
template <KvType type, bool is_whole>
SLUICE_INLINE void widen_keys(const AttentionPlace& place, std::size_t begin, std::size_t end,
                              WideGroup& wide) {
  const PagedKv& kv = place.job.kv;
  constexpr std::size_t kBytes = element_bytes<type>();
  const std::size_t scales = kv_scales_bytes(kv);
  const std::size_t step = kv.block_tokens * kBytes;
  for (std::size_t v = 0; v < kGroupVectors && begin + v * kLanes < end; ++v) {
    const std::size_t p = begin + v * kLanes;
    const KeyPointers keys = key_pointers(place, p, end, scales, kBytes);
    const bool has_next = p + kAttentionGroup < end;
    const KeyPointers next =
        has_next ? key_pointers(place, p + kAttentionGroup, end, scales, kBytes) : keys;
    float* to = wide.keys + v * kLanes * kv.head_dim;
    for (std::size_t d = 0, at = 0; d < kv.head_dim; ++d, at += step, to += kLanes) {
      fetch(next.low + at);
      if (!is_whole) fetch(next.high + at);
      store(to,
            is_whole ? load_kv<type>(keys.low + at) : load_kv<type>(keys.low + at, keys.high + at));
    }
    if constexpr (type == KvType::int8) {
      const KeyPointers scale = key_pointers(place, p, end, 0, 4);
      store(wide.key_scales + v * kLanes, load_kv<KvType::f32>(scale.low, scale.high));
    }
  }
}

// Block by block, each as it lies.
template <KvType type>
SLUICE_INLINE void widen_values(const AttentionPlace& place, std::size_t begin, std::size_t end,
                                WideGroup& wide) {
  const PagedKv& kv = place.job.kv;
  constexpr std::size_t kBytes = element_bytes<type>();
  const std::size_t scales = kv_scales_bytes(kv);
  const std::size_t elements = kv.block_tokens * kv.head_dim;
  for (std::size_t i = 0; i < kAttentionGroup && begin + i < end; i += kv.block_tokens) {
    const std::size_t block = (begin + i) / kv.block_tokens;
    const char* const head = head_of_block(place, block, KvPart::values);
    const bool has_next = begin + i + kAttentionGroup < end;
    const char* const next =
        has_next ? head_of_block(place, block + kAttentionGroup / kv.block_tokens, KvPart::values)
                 : head;
    float* const to = wide.values + i * kv.head_dim;
    std::size_t e = 0;
    for (; e + kLanes <= elements; e += kLanes) {
      fetch(next + scales + e * kBytes);
      store(to + e, load_kv<type>(head + scales + e * kBytes));
    }
    if (e < elements) {  // blocks of 8 positions and an odd head_dim
      const char* const rest = head + scales + e * kBytes;
      store_first(to + e, load_kv<type>(rest, rest), elements - e);
    }
    if constexpr (type == KvType::int8)
      __builtin_memcpy(wide.value_scales + i, head, kv.block_tokens * 4);
  }
}

// The group from `begin` as floats.
template <KvType type>
static void widen_group(const AttentionPlace& place, std::size_t begin, std::size_t end,
                        WideGroup& wide, Group& group) {
  const PagedKv& kv = place.job.kv;
  if (kv.block_tokens >= kLanes)
    widen_keys<type, true>(place, begin, end, wide);
  else
    widen_keys<type, false>(place, begin, end, wide);
  widen_values<type>(place, begin, end, wide);
  group.key_stride = kLanes;
  group.key_scales = type == KvType::int8 ? wide.key_scales : nullptr;
  group.value_scales = type == KvType::int8 ? wide.value_scales : nullptr;
  for (std::size_t v = 0; v < kGroupVectors; ++v) {
    group.keys[v] = wide.keys + v * kLanes * kv.head_dim;
    group.values[v] = wide.values + v * kLanes * kv.head_dim;
  }
}

// The dimensions [begin, end) of score_vectors().
template <int R, int V, bool fetches>
SLUICE_INLINE void score_dimensions(const float* const* keys, const float* const* ahead,
                                    std::size_t stride, const float* q, std::size_t begin,
                                    std::size_t end, Lanes (&sum)[R][V]) {
  const float* const q_end = q + end * R;
  std::size_t at = begin * stride;
  for (q += begin * R; q < q_end; q += R, at += stride) {
    Lanes k[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      k[v] = load(keys[v] + at);
      if (fetches) fetch(ahead[v] + at);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes value = splat(q[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fma(value, k[v], sum[r][v]);
    }
  }
}

// Scores of R rows and V vectors of positions from vector `first` on. q [head_dim][R], e [R]
// [kAttentionGroup].
template <int R, int V>
SLUICE_INLINE void score_vectors(const AttentionJob& job, const Group& group, const Group& next,
                                 const Share& share, std::size_t first, const float* q,
                                 float (*e)[kAttentionGroup]) {
  Lanes sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  }
  const float* const* const keys = group.keys + first;
  const float* const* const ahead = next.keys + first;
  const std::size_t stride = group.key_stride;
  score_dimensions<R, V, false>(keys, ahead, stride, q, 0, share.keys_begin, sum);
  score_dimensions<R, V, true>(keys, ahead, stride, q, share.keys_begin, share.keys_end, sum);
  score_dimensions<R, V, false>(keys, ahead, stride, q, share.keys_end, job.kv.head_dim, sum);
  const Lanes scale = splat(job.scale);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const std::size_t at = (first + static_cast<std::size_t>(v)) * kLanes;
    if (group.key_scales != nullptr) {
      const Lanes scales = load(group.key_scales + at);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][v] = mul(sum[r][v], scales);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) store(e[r] + at, mul(sum[r][v], scale));
  }
}

// Tiles and soften() are functions of their own: within a larger one g++ 12 leaves the operands of
// the inner loops in memory.
template <int R>
[[gnu::noinline]] static void score_tile(const AttentionJob& job, const Group& group,
                                         const Group& next, const Share& share, std::size_t vectors,
                                         const float* q, float (*e)[kAttentionGroup]) {
  constexpr int V = attention_vectors(R);
  std::size_t v = 0;
  for (; v + V <= vectors; v += V) score_vectors<R, V>(job, group, next, share, v, q, e);
  for (; v < vectors; ++v) score_vectors<R, 1>(job, group, next, share, v, q, e);
}

// Positions of the group from `begin` up to the last that the row sees; 0: it sees none.
SLUICE_INLINE std::size_t seen_of_group(const QueryRow& row, std::size_t begin) {
  if (row.first >= begin + kAttentionGroup || row.limit <= begin) return 0;
  const std::size_t seen = row.limit - begin;
  return seen < kAttentionGroup ? seen : kAttentionGroup;
}

// What a row does not see of the group scores -infinity: it weighs 0 and raises no maximum.
static void hide_scores(const QueryRow& row, std::size_t n, std::size_t begin,
                        float (&e)[kAttentionGroup]) {
  for (std::size_t i = 0; i < kAttentionGroup && begin + i < row.first; ++i)
    e[i] = -__builtin_inff();
  for (std::size_t i = n; i < kAttentionGroup; ++i) e[i] = -__builtin_inff();
}

// Scores of kSoftenedRows rows become exponentials, times V's scales where there are any; lanes of
// `sums`, theirs without the scales.
SLUICE_INLINE void soften_rows(const Group& group, const float* m, float (*e)[kAttentionGroup],
                               Lanes* sums) {
  constexpr int kWidth = static_cast<int>(kGroupVectors);
  Lanes x[kSoftenedRows * kWidth];
#pragma GCC unroll 8
  for (int i = 0; i < kSoftenedRows * kWidth; ++i)
    x[i] = sub(load(e[i / kWidth] + i % kWidth * static_cast<int>(kLanes)), splat(m[i / kWidth]));
  exponentials_nonpositive(x);
#pragma GCC unroll 8
  for (int i = 0; i < kSoftenedRows * kWidth; ++i) {
    Lanes& sum = sums[i / kWidth];
    sum = i % kWidth == 0 ? x[i] : add(sum, x[i]);
  }
  if (group.value_scales != nullptr) {
#pragma GCC unroll 8
    for (int i = 0; i < kSoftenedRows * kWidth; ++i)
      x[i] = mul(x[i], load(group.value_scales + i % kWidth * static_cast<int>(kLanes)));
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSoftenedRows * kWidth; ++i)
    store(e[i / kWidth] + i % kWidth * static_cast<int>(kLanes), x[i]);
}

// The scores of all rows become exponentials; m, sum and keep move on. Rows up to the next multiple
// of kLanes are computed, too: they are nobody's.
[[gnu::noinline]] static void soften(const Group& group, std::size_t num_rows, float* m, float* sum,
                                     RowsAtOnce& rows) {
  for (std::size_t from = 0; from < num_rows; from += kLanes) {
    float(*const e)[kAttentionGroup] = rows.e + from;
    Lanes folded[kLanes];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kLanes; ++r) {
      folded[r] = load(e[r]);
#pragma GCC unroll 4
      for (std::size_t v = 1; v < kGroupVectors; ++v)
        folded[r] = maximum(load(e[r] + v * kLanes), folded[r]);
    }
    const Lanes before = load(m + from);
    const Lanes highest = maximum(fold_rows<maximum>(folded), before);
    store(m + from, highest);
    const std::size_t count = num_rows - from < kLanes ? num_rows - from : kLanes;
    for (std::size_t r = 0; r < count; r += kSoftenedRows)
      soften_rows(group, m + from + r, e + r, folded + r);
    Lanes keep[1] = {sub(before, highest)};
    exponentials_nonpositive(keep);
    store(rows.keep + from, keep[0]);
    store(sum + from, fma(load(sum + from), keep[0], fold_rows<add>(folded)));
  }
}

// A tile of rows and what its values are added to.
struct WeighedRows {
  const float (*e)[kAttentionGroup];
  const float* keep;
  const std::size_t* n;
  std::size_t common;  // the smallest n
  float* o;
  std::size_t o_stride;
  std::size_t head_dim;
};

// The positions [begin, end) of weigh_vectors(), neighbours of one vector of them, from v.
template <int R, int W, bool is_whole, bool fetches>
SLUICE_INLINE void weigh_positions(const float* v, const float* ahead, const WeighedRows& rows,
                                   std::size_t begin, std::size_t end, std::size_t tail,
                                   Lanes (&o)[R][W]) {
  const float* const e_end = rows.e[0] + end;
  for (const float* e = rows.e[0] + begin; e < e_end; ++e) {
    Lanes value[W];
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      const std::size_t at = static_cast<std::size_t>(w) * kLanes;
      value[w] = is_whole ? load(v + at) : load_first(v + at, tail);
      if (fetches) fetch(ahead + at);
    }
    v += rows.head_dim;
    ahead += rows.head_dim;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes weight = splat(e[static_cast<std::size_t>(r) * kAttentionGroup]);
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) o[r][w] = fma(weight, value[w], o[r][w]);
    }
  }
}

// o = o * keep, then fma(e[p], v[p], o) for W vectors of dimensions from d; `tail` lanes of the
// last where it is not a whole one.
template <int R, int W, bool is_whole>
SLUICE_INLINE void weigh_vectors(const Group& group, const Group& next, const Share& share,
                                 const WeighedRows& rows, std::size_t d, std::size_t tail) {
  Lanes o[R][W];
  float* const to = rows.o + d;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Lanes keep = splat(rows.keep[r]);
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      o[r][w] = mul(load(to + static_cast<std::size_t>(r) * rows.o_stride +
                         static_cast<std::size_t>(w) * kLanes),
                    keep);
    }
  }
  for (std::size_t i = 0; i < rows.common;) {
    const bool fetches = i >= share.values_begin && i < share.values_end;
    std::size_t end = (i / kLanes + 1) * kLanes;
    const std::size_t border = fetches                  ? share.values_end
                               : i < share.values_begin ? share.values_begin
                                                        : end;
    end = border < end ? border : end;
    end = rows.common < end ? rows.common : end;
    const std::size_t at = i % kLanes * rows.head_dim + d;
    const float* const v = group.values[i / kLanes] + at;
    if (fetches)
      weigh_positions<R, W, is_whole, true>(v, next.values[i / kLanes] + at, rows, i, end, tail, o);
    else
      weigh_positions<R, W, is_whole, false>(v, v, rows, i, end, tail, o);
    i = end;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    for (std::size_t i = rows.common; i < rows.n[r]; ++i) {  // rows that see further
      const float* const v = group.values[i / kLanes] + i % kLanes * rows.head_dim + d;
      const Lanes weight = splat(rows.e[r][i]);
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) {
        const float* const from = v + static_cast<std::size_t>(w) * kLanes;
        o[r][w] = fma(weight, is_whole ? load(from) : load_first(from, tail), o[r][w]);
      }
    }
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      store(to + static_cast<std::size_t>(r) * rows.o_stride + static_cast<std::size_t>(w) * kLanes,
            o[r][w]);
    }
  }
}

template <int R>
[[gnu::noinline]] static void weigh_tile(const Group& group, const Group& next, const Share& share,
                                         const WeighedRows& rows) {
  constexpr int W = attention_vectors(R);
  std::size_t d = 0;
  for (; d + W * kLanes <= rows.head_dim; d += W * kLanes)
    weigh_vectors<R, W, true>(group, next, share, rows, d, kLanes);
  for (; d + kLanes <= rows.head_dim; d += kLanes)
    weigh_vectors<R, 1, true>(group, next, share, rows, d, kLanes);
  if (d < rows.head_dim) weigh_vectors<R, 1, false>(group, next, share, rows, d, rows.head_dim - d);
}

// The tile of `num_rows` rows, at most R.
template <int R>
static void score_rows(const AttentionJob& job, const Group& group, const Group& next,
                       const Share& share, std::size_t vectors, std::size_t num_rows,
                       const float* q, float (*e)[kAttentionGroup]) {
  if (num_rows == R) return score_tile<R>(job, group, next, share, vectors, q, e);
  if constexpr (R > 1) score_rows<R - 1>(job, group, next, share, vectors, num_rows, q, e);
}

template <int R>
static void weigh_rows(const Group& group, const Group& next, const Share& share,
                       std::size_t num_rows, const WeighedRows& rows) {
  if (num_rows == R) return weigh_tile<R>(group, next, share, rows);
  if constexpr (R > 1) weigh_rows<R - 1>(group, next, share, num_rows, rows);
}

// All rows' way through one group; next == group: there is none.
struct GroupStep {
  const AttentionJob& job;
  const Group& group;
  const Group& next;
  std::size_t begin;  // position
};

// At most kRowsAtOnce rows, from row `at` of the states, over a group.
static void attend_at_once(const GroupStep& step, const QueryRow* rows, std::size_t num_rows,
                           std::size_t at, RowStates& states) {
  struct Tile {
    std::size_t rows, most, least;  // the largest and the smallest n
    Share share;
  };
  const Group& group = step.group;
  const std::size_t begin = step.begin;
  const std::size_t head_dim = step.job.kv.head_dim;
  const std::size_t o_stride = (head_dim + kLanes - 1) / kLanes * kLanes;
  Tile tiles[kRowsAtOnce / kAttentionRows];
  RowsAtOnce now;
  bool is_whole = true;
  for (std::size_t r = 0; r < num_rows; r += kAttentionRows) {
    Tile& tile = tiles[r / kAttentionRows];
    tile = {num_rows - r < kAttentionRows ? num_rows - r : kAttentionRows, 0, kAttentionGroup, {}};
    if (&step.next != &group) tile.share = states.shares[(at + r) / kAttentionRows];
    for (std::size_t i = r; i < r + tile.rows; ++i) {
      const std::size_t n = seen_of_group(rows[i], begin);
      now.n[i] = n;
      tile.most = n > tile.most ? n : tile.most;
      tile.least = n < tile.least ? n : tile.least;
      is_whole = is_whole && n == kAttentionGroup && rows[i].first <= begin;
    }
    score_rows<kAttentionRows>(step.job, group, step.next, tile.share,
                               (tile.most + kLanes - 1) / kLanes, tile.rows,
                               states.q + (at + r) * head_dim, now.e + r);
  }
  for (std::size_t r = 0; r < num_rows && !is_whole; ++r)
    hide_scores(rows[r], now.n[r], begin, now.e[r]);
  soften(group, num_rows, states.m + at, states.sum + at, now);
  for (std::size_t r = 0; r < num_rows && !is_whole; ++r) {
    if (rows[r].first < begin + kAttentionGroup) continue;
    states.m[at + r] = -__builtin_inff();  // still before the row's window
    states.sum[at + r] = 0;
    now.keep[r] = 1;
  }
  for (std::size_t r = 0; r < num_rows; r += kAttentionRows) {
    const Tile& tile = tiles[r / kAttentionRows];
    weigh_rows<kAttentionRows>(group, step.next, tile.share, tile.rows,
                               {now.e + r, now.keep + r, now.n + r, tile.least,
                                states.o + (at + r) * o_stride, o_stride, head_dim});
  }
}

// q of the rows, tile by tile.
static void lay_out_queries(const QueryRow* rows, std::size_t num_rows, std::size_t head_dim,
                            float* to) {
  for (std::size_t at = 0; at < num_rows; at += kAttentionRows) {
    const std::size_t size = num_rows - at < kAttentionRows ? num_rows - at : kAttentionRows;
    for (std::size_t d = 0; d < head_dim; ++d, to += size) {
      for (std::size_t r = 0; r < size; ++r) to[r] = rows[at + r].q[d];
    }
  }
}

// Tile i of n fetches the i-th part.
static void share_fetching(std::size_t num_rows, std::size_t head_dim, Share* shares) {
  const std::size_t tiles = (num_rows + kAttentionRows - 1) / kAttentionRows;
  for (std::size_t i = 0; i < tiles; ++i) {
    shares[i] = {head_dim * i / tiles, head_dim * (i + 1) / tiles, kAttentionGroup * i / tiles,
                 kAttentionGroup * (i + 1) / tiles};
  }
}

// At most kRowsTogether rows.
template <KvType type>
static void attend_rows(const AttentionPlace& place, const QueryRow* rows, std::size_t num_rows) {
  if (num_rows == 0) return;
  const PagedKv& kv = place.job.kv;
  const std::size_t o_stride = (kv.head_dim + kLanes - 1) / kLanes * kLanes;
  RowStates states;
  WideGroup wide;
  lay_out_queries(rows, num_rows, kv.head_dim, states.q);
  share_fetching(num_rows, kv.head_dim, states.shares);
  std::size_t first = rows[0].first;
  std::size_t limit = 0;
  for (std::size_t r = 0; r < num_rows; ++r) {
    first = rows[r].first < first ? rows[r].first : first;
    limit = rows[r].limit > limit ? rows[r].limit : limit;
    states.m[r] = -__builtin_inff();
    states.sum[r] = 0;
  }
  for (std::size_t i = 0; i < num_rows * o_stride; i += kLanes) store(states.o + i, zero());
  const bool is_ready = type == KvType::f32 && kv.block_tokens >= kLanes;
  std::size_t begin = first / kAttentionGroup * kAttentionGroup;
  Group groups[2]{};  // this one and the next
  if (is_ready) find_group(place, begin, limit, groups[0]);
  for (std::size_t i = 0; begin < limit; begin += kAttentionGroup, i ^= 1) {
    const bool has_next = is_ready && begin + kAttentionGroup < limit;
    if (!is_ready) widen_group<type>(place, begin, limit, wide, groups[i]);
    if (has_next) find_group(place, begin + kAttentionGroup, limit, groups[i ^ 1]);
    const GroupStep step{place.job, groups[i], groups[has_next ? i ^ 1 : i], begin};
    for (std::size_t at = 0; at < num_rows; at += kRowsAtOnce) {
      const std::size_t left = num_rows - at;
      attend_at_once(step, rows + at, left < kRowsAtOnce ? left : kRowsAtOnce, at, states);
    }
  }
  for (std::size_t r = 0; r < num_rows; ++r) {
    const float* const o = states.o + r * o_stride;
    for (std::size_t d = 0; d < kv.head_dim; d += kLanes) {
      const std::size_t n = kv.head_dim - d < kLanes ? kv.head_dim - d : kLanes;
      store_first(rows[r].out + d, div(load(o + d), splat(states.sum[r])), n);
    }
  }
}

template <KvType type>
static void attend_typed(const AttentionJob& job, const AttentionItem& item) {
  const AttentionSpan& span = job.spans[item.span];
  const std::size_t group = job.num_heads / job.kv.num_kv_heads;
  const AttentionPlace place{job, span, item.kv_head};
  QueryRow rows[kRowsTogether];
  std::size_t n = 0;
  for (std::size_t t = item.token_begin; t < item.token_end; ++t) {
    for (std::size_t g = 0; g < group; ++g) {
      const std::size_t column = (item.kv_head * group + g) * job.kv.head_dim;
      const std::size_t limit = span.start + t + 1;
      rows[n++] = {job.q + (span.row + t) * job.q_stride + column,
                   job.out + (span.row + t) * job.out_stride + column,
                   job.window != 0 && limit > job.window ? limit - job.window : 0, limit};
      if (n == kRowsTogether) {
        attend_rows<type>(place, rows, n);
        n = 0;
      }
    }
  }
  attend_rows<type>(place, rows, n);
}

static void attend(const AttentionJob& job, const AttentionItem& item) {
  switch (job.kv.type) {
    case KvType::f32:
      return attend_typed<KvType::f32>(job, item);
    case KvType::f16:
      return attend_typed<KvType::f16>(job, item);
    case KvType::int8:
      return attend_typed<KvType::int8>(job, item);
  }
}
