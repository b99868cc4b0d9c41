// Paged causal attention with online softmax over fixed groups of positions. Up to kRowsTogether
// query rows (heads that share a KV head, then tokens) go through a group before the next one, so
// that its K and V come from the innermost caches; a tile of R of them shares every load. Each row
// keeps its own limit, so neither make-up changes a row's bits. Order of operations:
// kernel_table.h.

struct QueryRow {
  const float* q;     // [head_dim]
  float* out;         // [head_dim]
  std::size_t first;  // positions first .. limit - 1 are seen
  std::size_t limit;
};

constexpr std::size_t kRowsTogether = 32 * kAttentionRows;
constexpr std::size_t kGroupVectors = kAttentionGroup / kLanes;

// What rows carry from group to group.
struct RowStates {
  alignas(64) float o[kRowsTogether * kHeadDimMax];  // running outputs [row][padded head_dim]
  float q[kRowsTogether * kHeadDimMax];              // tile by tile, [head_dim][R]
  float m[kRowsTogether];
  float sum[kRowsTogether];
};

// R rows over one group of kAttentionGroup positions.
template <int R>
struct GroupTile {
  alignas(64) float e[R][kAttentionGroup];  // scores, then exponentials
  float keep[R];
  std::size_t n[R];  // positions of this group up to the last that the row sees; 0: it sees none
  std::size_t n_max;
  const QueryRow* rows;
  const float* q;  // [head_dim][R]
  float* o;        // [R][o_stride]
  std::size_t o_stride;
  float* m;    // [R]
  float* sum;  // [R]
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

// The first n of 16 neighbours; the others are zero and their memory is not touched.
template <KvType type>
SLUICE_INLINE Lanes load_first_kv(const char* p, std::size_t n) {
  if (n == kLanes) return load_kv<type>(p);
  if constexpr (type == KvType::f32) {
    return load_first(reinterpret_cast<const float*>(p), n);
  } else {
    alignas(64) char rest[kLanes * element_bytes<type>()] = {};
    __builtin_memcpy(rest, p, n * element_bytes<type>());
    return load_kv<type>(rest);
  }
}

// K of 16 positions from p, which is a multiple of 16 below `end`, the end of the seen positions.
struct KeyPointers {
  const char* low;
  const char* high;  // positions 8..15; of the same block where blocks hold 16 or more
};

// Rows of `bytes` an element that begin `offset` behind the head's: its keys, or their scales.
SLUICE_INLINE KeyPointers key_pointers(const AttentionPlace& place, std::size_t p, std::size_t end,
                                       std::size_t offset, std::size_t bytes) {
  const PagedKv& kv = place.job.kv;
  const std::size_t layer = place.job.layer;
  const std::uint32_t* const block = place.span.blocks + p / kv.block_tokens;
  const char* low = kv_head_at(kv, *block, layer, KvPart::keys, place.kv_head) + offset +
                    p % kv.block_tokens * bytes;
  if (kv.block_tokens >= kLanes) return {low, low + 8 * bytes};
  if (p + 8 >= end) return {low, low};  // the next block may not exist; its lanes are not used
  return {low, kv_head_at(kv, block[1], layer, KvPart::keys, place.kv_head) + offset};
}

// Scores of V vectors of positions from begin + offset. is_whole: blocks hold 16 positions or more.
template <KvType type, bool is_whole, int R, int V>
SLUICE_INLINE void score_vectors(const AttentionPlace& place, std::size_t begin, std::size_t offset,
                                 std::size_t end, GroupTile<R>& tile) {
  const PagedKv& kv = place.job.kv;
  KeyPointers keys[V];
  for (int v = 0; v < V; ++v) {
    const std::size_t p = begin + offset + static_cast<std::size_t>(v) * kLanes;
    keys[v] = key_pointers(place, p, end, kv_scales_bytes(kv), element_bytes<type>());
  }
  Lanes sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  }
  const std::size_t step = kv.block_tokens * element_bytes<type>();
  const float* q = tile.q;
  const float* const q_end = q + kv.head_dim * R;
  for (std::size_t at = 0; q < q_end; q += R, at += step) {
    Lanes k[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      k[v] = is_whole ? load_kv<type>(keys[v].low + at)
                      : load_kv<type>(keys[v].low + at, keys[v].high + at);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes value = splat(q[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fma(value, k[v], sum[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const std::size_t at = offset + static_cast<std::size_t>(v) * kLanes;
    Lanes scales = zero();
    if constexpr (type == KvType::int8) {
      const KeyPointers scale = key_pointers(place, begin + at, end, 0, 4);
      scales = load_kv<KvType::f32>(scale.low, scale.high);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes whole = type == KvType::int8 ? mul(sum[r][v], scales) : sum[r][v];
      store(tile.e[r] + at, mul(whole, splat(place.job.scale)));
    }
  }
}

template <KvType type, bool is_whole, int R>
SLUICE_INLINE void score_group(const AttentionPlace& place, std::size_t begin, std::size_t end,
                               GroupTile<R>& tile) {
  constexpr std::size_t kWide = kAttentionWidth * kLanes;
  std::size_t i = 0;
  for (; i + kWide < tile.n_max + kLanes; i += kWide)
    score_vectors<type, is_whole, R, kAttentionWidth>(place, begin, i, end, tile);
  for (; i < tile.n_max; i += kLanes)
    score_vectors<type, is_whole, R, 1>(place, begin, i, end, tile);
}

// Scores of row r become exponentials, those of the first `hidden` (before its window) zero; m, sum
// and keep move on.
template <int R>
static void soften(GroupTile<R>& tile, int r, std::size_t hidden) {
  const std::size_t n = tile.n[r];
  for (std::size_t i = 0; i < hidden; ++i) tile.e[r][i] = -__builtin_inff();
  const Lanes lowest = splat(-__builtin_inff());
  Lanes highest = splat(tile.m[r]);
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t left = n - i < kLanes ? n - i : kLanes;
    highest = maximum(keep_first(load(tile.e[r] + i), left, lowest), highest);
  }
  const float m = tree_max(highest);
  Lanes sum = zero();
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t left = n - i < kLanes ? n - i : kLanes;
    const Lanes e = keep_first(exponential(sub(load(tile.e[r] + i), splat(m))), left, zero());
    store(tile.e[r] + i, e);
    sum = add(sum, e);
  }
  alignas(64) float keep[kLanes];
  store(keep, exponential(splat(tile.m[r] - m)));
  tile.keep[r] = keep[0];
  tile.sum[r] = __builtin_fmaf(tile.sum[r], keep[0], tree_sum(sum));
  tile.m[r] = m;
}

// The same for rows that see the whole group, side by side: a row alone would wait for itself.
template <int R>
SLUICE_INLINE void soften_whole(GroupTile<R>& tile) {
  Lanes highest[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) highest[r] = splat(tile.m[r]);
#pragma GCC unroll 4
  for (std::size_t v = 0; v < kGroupVectors; ++v) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) highest[r] = maximum(load(tile.e[r] + v * kLanes), highest[r]);
  }
  alignas(64) float fall[kLanes] = {};
  float m[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    m[r] = tree_max(highest[r]);
    fall[r] = tile.m[r] - m[r];
  }
  Lanes sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sum[r] = zero();
  for (std::size_t v = 0; v < kGroupVectors; ++v) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes e = exponential(sub(load(tile.e[r] + v * kLanes), splat(m[r])));
      store(tile.e[r] + v * kLanes, e);
      sum[r] = add(sum[r], e);
    }
  }
  store(fall, exponential(load(fall)));
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    tile.keep[r] = fall[r];
    tile.sum[r] = __builtin_fmaf(tile.sum[r], fall[r], tree_sum(sum[r]));
    tile.m[r] = m[r];
  }
}

template <int R>
SLUICE_INLINE void soften_rows(std::size_t begin, GroupTile<R>& tile) {
  bool is_whole = true;
  for (int r = 0; r < R; ++r)
    is_whole = is_whole && tile.n[r] == kAttentionGroup && tile.rows[r].first <= begin;
  if (is_whole) return soften_whole<R>(tile);
  for (int r = 0; r < R; ++r) {
    const std::size_t first = tile.rows[r].first;
    if (tile.n[r] > 0) soften<R>(tile, r, first > begin ? first - begin : 0);
  }
}

// Of a position's V; `scale` is read where the type has any.
template <KvType type>
SLUICE_INLINE float value_weight(float e, const char* scale) {
  if constexpr (type != KvType::int8) return e;
  float factor;
  __builtin_memcpy(&factor, scale, 4);
  return e * factor;
}

// o = o * keep, then fma(e[p], v[p], o) for W vectors of dimensions from d; `tail` lanes of the
// last.
template <KvType type, int R, int W>
SLUICE_INLINE void weigh_values(const AttentionPlace& place, std::size_t begin, std::size_t d,
                                std::size_t tail, GroupTile<R>& tile) {
  const PagedKv& kv = place.job.kv;
  constexpr std::size_t kBytes = element_bytes<type>();
  const std::size_t scales = kv_scales_bytes(kv);
  const auto head_at = [&](std::size_t i) {
    return kv_head_at(kv, place.span.blocks[(begin + i) / kv.block_tokens], place.job.layer,
                      KvPart::values, place.kv_head);
  };
  Lanes o[R][W];
  std::size_t common = kAttentionGroup;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    common = tile.n[r] < common ? tile.n[r] : common;
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      const float* from = tile.o + static_cast<std::size_t>(r) * tile.o_stride + d +
                          static_cast<std::size_t>(w) * kLanes;
      o[r][w] = tile.n[r] == 0 ? load(from) : mul(load(from), splat(tile.keep[r]));
    }
  }
  std::size_t i = 0;
  while (i < common) {
    const std::size_t slot = (begin + i) % kv.block_tokens;
    const std::size_t block_end = i + kv.block_tokens - slot;
    const std::size_t end = block_end < common ? block_end : common;
    const char* const head = head_at(i);
    const char* v = head + scales + (slot * kv.head_dim + d) * kBytes;
    const char* scale = head + slot * 4;  // int8 alone
    for (; i < end; ++i, v += kv.head_dim * kBytes, scale += 4) {
      Lanes value[W];
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) {
        const char* from = v + static_cast<std::size_t>(w) * kLanes * kBytes;
        value[w] = w + 1 < W ? load_kv<type>(from) : load_first_kv<type>(from, tail);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Lanes e = splat(value_weight<type>(tile.e[r][i], scale));
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) o[r][w] = fma(e, value[w], o[r][w]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    for (i = common; i < tile.n[r]; ++i) {  // rows that see further than the shortest
      const std::size_t slot = (begin + i) % kv.block_tokens;
      const char* const head = head_at(i);
      const char* v = head + scales + (slot * kv.head_dim + d) * kBytes;
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) {
        const char* from = v + static_cast<std::size_t>(w) * kLanes * kBytes;
        const Lanes value = w + 1 < W ? load_kv<type>(from) : load_first_kv<type>(from, tail);
        o[r][w] = fma(splat(value_weight<type>(tile.e[r][i], head + slot * 4)), value, o[r][w]);
      }
    }
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      store(tile.o + static_cast<std::size_t>(r) * tile.o_stride + d +
                static_cast<std::size_t>(w) * kLanes,
            o[r][w]);
    }
  }
}

// R rows from row `at` of the states over the group from `begin`.
template <KvType type, int R>
static void attend_tile(const AttentionPlace& place, const QueryRow* rows, std::size_t at,
                        std::size_t begin, RowStates& states) {
  const PagedKv& kv = place.job.kv;
  GroupTile<R> tile;
  tile.n_max = 0;
  std::size_t end = 0;
  for (int r = 0; r < R; ++r) {
    const QueryRow& row = rows[at + static_cast<std::size_t>(r)];
    const std::size_t seen = row.limit > begin ? row.limit - begin : 0;
    tile.n[r] = row.first >= begin + kAttentionGroup ? 0
                : seen < kAttentionGroup             ? seen
                                                     : kAttentionGroup;
    tile.n_max = tile.n[r] > tile.n_max ? tile.n[r] : tile.n_max;
    end = row.limit > end ? row.limit : end;
  }
  if (tile.n_max == 0) return;
  tile.rows = rows + at;
  tile.q = states.q + at * kv.head_dim;
  tile.o_stride = (kv.head_dim + kLanes - 1) / kLanes * kLanes;
  tile.o = states.o + at * tile.o_stride;
  tile.m = states.m + at;
  tile.sum = states.sum + at;
  if (kv.block_tokens >= kLanes)
    score_group<type, true, R>(place, begin, end, tile);
  else
    score_group<type, false, R>(place, begin, end, tile);
  soften_rows<R>(begin, tile);
  constexpr std::size_t kWide = kAttentionWidth * kLanes;
  std::size_t d = 0;
  for (; d + kWide <= kv.head_dim; d += kWide)
    weigh_values<type, R, kAttentionWidth>(place, begin, d, kLanes, tile);
  for (; d < kv.head_dim; d += kLanes) {
    const std::size_t tail = kv.head_dim - d < kLanes ? kv.head_dim - d : kLanes;
    weigh_values<type, R, 1>(place, begin, d, tail, tile);
  }
}

// The rows from `at` on, in tiles of R and a smaller one.
template <KvType type, int R>
static void attend_tiles(const AttentionPlace& place, const QueryRow* rows, std::size_t at,
                         std::size_t num_rows, std::size_t begin, RowStates& states) {
  for (; at + R <= num_rows; at += R) attend_tile<type, R>(place, rows, at, begin, states);
  if constexpr (R > 1) {
    if (at < num_rows) attend_tiles<type, R - 1>(place, rows, at, num_rows, begin, states);
  }
}

// q of the rows as attend_tiles() takes them.
static void lay_out_queries(const QueryRow* rows, std::size_t num_rows, std::size_t head_dim,
                            float* to) {
  std::size_t at = 0;
  for (std::size_t size = kAttentionRows; size > 0; --size) {
    for (; at + size <= num_rows; at += size, to += head_dim * size) {
      for (std::size_t r = 0; r < size; ++r) {
        for (std::size_t d = 0; d < head_dim; ++d) to[d * size + r] = rows[at + r].q[d];
      }
    }
  }
}

// At most kRowsTogether rows.
template <KvType type>
static void attend_rows(const AttentionPlace& place, const QueryRow* rows, std::size_t num_rows) {
  if (num_rows == 0) return;
  const std::size_t head_dim = place.job.kv.head_dim;
  const std::size_t o_stride = (head_dim + kLanes - 1) / kLanes * kLanes;
  RowStates states;
  lay_out_queries(rows, num_rows, head_dim, states.q);
  std::size_t first = rows[0].first;
  std::size_t limit = 0;
  for (std::size_t r = 0; r < num_rows; ++r) {
    first = rows[r].first < first ? rows[r].first : first;
    limit = rows[r].limit > limit ? rows[r].limit : limit;
    states.m[r] = -__builtin_inff();
    states.sum[r] = 0;
  }
  for (std::size_t i = 0; i < num_rows * o_stride; i += kLanes) store(states.o + i, zero());
  for (std::size_t begin = first / kAttentionGroup * kAttentionGroup; begin < limit;
       begin += kAttentionGroup) {
    attend_tiles<type, kAttentionRows>(place, rows, 0, num_rows, begin, states);
  }
  for (std::size_t r = 0; r < num_rows; ++r) {
    const float* const o = states.o + r * o_stride;
    for (std::size_t d = 0; d < head_dim; d += kLanes) {
      const std::size_t n = head_dim - d < kLanes ? head_dim - d : kLanes;
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
