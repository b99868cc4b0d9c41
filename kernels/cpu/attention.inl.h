// Paged causal attention with online softmax over fixed groups of positions. A tile is R query rows
// (heads that share a KV head, then tokens) that share every load of K and V; each row keeps its
// own limit, so a tile's make-up changes no row's bits. Order of operations: kernel_table.h.

struct QueryRow {
  const float* q;     // [head_dim]
  float* out;         // [head_dim]
  std::size_t first;  // positions first .. limit - 1 are seen
  std::size_t limit;
};

// State of R rows over one group of kAttentionGroup positions from `begin`.
template <int R>
struct GroupState {
  float e[R][kAttentionGroup];  // scores, then exponentials
  float o[R][kHeadDimMax];      // running output; only the first head_dim are used
  float m[R];
  float sum[R];
  float keep[R];
  std::size_t n[R];  // positions of this group up to the last that the row sees; 0: it sees none
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

// The first n of 16 neighbours; the others are zero and their memory is not touched.
template <KvType type>
SLUICE_INLINE Lanes load_first_kv(const char* p, std::size_t n) {
  if constexpr (type == KvType::f32) {
    const float* const from = reinterpret_cast<const float*>(p);
    return n == kLanes ? load(from) : load_first(from, n);
  } else {
    constexpr std::size_t kHalf = 8 * element_bytes<type>();
    if (n == kLanes) return load_kv<type>(p, p + kHalf);
    alignas(64) char rest[2 * kHalf] = {};
    __builtin_memcpy(rest, p, n * element_bytes<type>());
    return load_kv<type>(rest, rest + kHalf);
  }
}

// K of 16 positions from p, which is a multiple of 16 below `end`, the end of the seen positions.
struct KeyPointers {
  const char* low;
  const char* high;  // positions 8..15; of the same block where blocks hold 16 or more
};

// Rows of `bytes` an element that begin `offset` behind the head's: its keys, or their scales.
SLUICE_INLINE KeyPointers key_pointers(const AttentionJob& job, const AttentionSpan& span,
                                       std::size_t kv_head, std::size_t p, std::size_t end,
                                       std::size_t offset, std::size_t bytes) {
  const PagedKv& kv = job.kv;
  const char* low =
      kv_head_at(kv, span.blocks[p / kv.block_tokens], job.layer, KvPart::keys, kv_head) + offset +
      p % kv.block_tokens * bytes;
  if (kv.block_tokens >= kLanes) return {low, low + 8 * bytes};
  if (p + 8 >= end) return {low, low};  // the next block may not exist; its lanes are not used
  return {low,
          kv_head_at(kv, span.blocks[p / kv.block_tokens + 1], job.layer, KvPart::keys, kv_head) +
              offset};
}

// Scores of V vectors of positions from p (relative to the group: p - begin).
template <KvType type, int R, int V>
static void score_vectors(const AttentionJob& job, const AttentionSpan& span, std::size_t kv_head,
                          const QueryRow* rows, std::size_t begin, std::size_t offset,
                          std::size_t end, GroupState<R>& state) {
  KeyPointers keys[V];
  for (int v = 0; v < V; ++v) {
    const std::size_t p = begin + offset + static_cast<std::size_t>(v) * kLanes;
    keys[v] =
        key_pointers(job, span, kv_head, p, end, kv_scales_bytes(job.kv), element_bytes<type>());
  }
  Lanes sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  }
  const std::size_t step = job.kv.block_tokens * element_bytes<type>();
  for (std::size_t d = 0; d < job.kv.head_dim; ++d) {
    Lanes k[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      k[v] = load_kv<type>(keys[v].low + d * step, keys[v].high + d * step);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Lanes q = splat(rows[r].q[d]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fma(q, k[v], sum[r][v]);
    }
  }
  if constexpr (type == KvType::int8) {
    for (int v = 0; v < V; ++v) {
      const std::size_t p = begin + offset + static_cast<std::size_t>(v) * kLanes;
      const KeyPointers scales = key_pointers(job, span, kv_head, p, end, 0, 4);
      for (int r = 0; r < R; ++r)
        sum[r][v] = mul(sum[r][v], load_kv<KvType::f32>(scales.low, scales.high));
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      store(state.e[r] + offset + static_cast<std::size_t>(v) * kLanes,
            mul(sum[r][v], splat(job.scale)));
    }
  }
}

// The first `count` scores of row r: before its window.
template <int R>
static void hide_scores(GroupState<R>& state, int r, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) state.e[r][i] = -__builtin_inff();
}

// Scores of row r become exponentials; m, sum and keep move on.
template <int R>
static void soften(GroupState<R>& state, int r) {
  const std::size_t n = state.n[r];
  const Lanes lowest = splat(-__builtin_inff());
  Lanes highest = splat(state.m[r]);
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t left = n - i < kLanes ? n - i : kLanes;
    highest = maximum(keep_first(load(state.e[r] + i), left, lowest), highest);
  }
  const float m = tree_max(highest);
  Lanes sum = zero();
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t left = n - i < kLanes ? n - i : kLanes;
    const Lanes e = keep_first(exponential(sub(load(state.e[r] + i), splat(m))), left, zero());
    store(state.e[r] + i, e);
    sum = add(sum, e);
  }
  alignas(64) float keep[kLanes];
  store(keep, exponential(splat(state.m[r] - m)));
  state.keep[r] = keep[0];
  state.sum[r] = __builtin_fmaf(state.sum[r], keep[0], tree_sum(sum));
  state.m[r] = m;
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
static void weigh_values(const AttentionJob& job, const AttentionSpan& span, std::size_t kv_head,
                         std::size_t begin, std::size_t d, std::size_t tail, GroupState<R>& state) {
  const PagedKv& kv = job.kv;
  constexpr std::size_t kBytes = element_bytes<type>();
  const std::size_t scales = type == KvType::int8 ? kv.block_tokens * 4 : 0;
  Lanes o[R][W];
  std::size_t common = kAttentionGroup;
  for (int r = 0; r < R; ++r) {
    common = state.n[r] < common ? state.n[r] : common;
    for (int w = 0; w < W; ++w) {
      const float* from = state.o[r] + d + static_cast<std::size_t>(w) * kLanes;
      o[r][w] = state.n[r] == 0 ? load(from) : mul(load(from), splat(state.keep[r]));
    }
  }
  std::size_t i = 0;
  while (i < common) {
    const std::size_t slot = (begin + i) % kv.block_tokens;
    const std::size_t block_end = i + kv.block_tokens - slot;
    const std::size_t end = block_end < common ? block_end : common;
    const char* const head = kv_head_at(kv, span.blocks[(begin + i) / kv.block_tokens], job.layer,
                                        KvPart::values, kv_head);
    const char* v = head + scales + (slot * kv.head_dim + d) * kBytes;
    const char* scale = head + slot * 4;  // int8 alone
    for (; i < end; ++i, v += kv.head_dim * kBytes, scale += 4) {
      Lanes value[W];
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) {
        const char* from = v + static_cast<std::size_t>(w) * kLanes * kBytes;
        value[w] = load_first_kv<type>(from, w + 1 < W ? kLanes : tail);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Lanes e = splat(value_weight<type>(state.e[r][i], scale));
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) o[r][w] = fma(e, value[w], o[r][w]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (i = common; i < state.n[r]; ++i) {  // rows that see further than the shortest
      const std::size_t slot = (begin + i) % kv.block_tokens;
      const char* const head = kv_head_at(kv, span.blocks[(begin + i) / kv.block_tokens], job.layer,
                                          KvPart::values, kv_head);
      const char* v = head + scales + (slot * kv.head_dim + d) * kBytes;
      for (int w = 0; w < W; ++w) {
        const Lanes value = load_first_kv<type>(v + static_cast<std::size_t>(w) * kLanes * kBytes,
                                                w + 1 < W ? kLanes : tail);
        o[r][w] = fma(splat(value_weight<type>(state.e[r][i], head + slot * 4)), value, o[r][w]);
      }
    }
    for (int w = 0; w < W; ++w) {
      store(state.o[r] + d + static_cast<std::size_t>(w) * kLanes, o[r][w]);
    }
  }
}

template <KvType type, int R>
static void attend_tile(const AttentionJob& job, const AttentionSpan& span, std::size_t kv_head,
                        const QueryRow* rows) {
  const std::size_t head_dim = job.kv.head_dim;
  GroupState<R> state;
  std::size_t first = rows[0].first;
  std::size_t limit = 0;
  for (int r = 0; r < R; ++r) {
    first = rows[r].first < first ? rows[r].first : first;
    limit = rows[r].limit > limit ? rows[r].limit : limit;
    state.m[r] = -__builtin_inff();
    state.sum[r] = 0;
    for (std::size_t d = 0; d < head_dim; d += kLanes) store(state.o[r] + d, zero());
  }
  for (std::size_t begin = first / kAttentionGroup * kAttentionGroup; begin < limit;
       begin += kAttentionGroup) {
    const std::size_t count = limit - begin < kAttentionGroup ? limit - begin : kAttentionGroup;
    constexpr std::size_t kWide = kAttentionWidth * kLanes;
    std::size_t i = 0;
    for (; i + kWide < count + kLanes; i += kWide) {
      score_vectors<type, R, kAttentionWidth>(job, span, kv_head, rows, begin, i, limit, state);
    }
    for (; i < count; i += kLanes) {
      score_vectors<type, R, 1>(job, span, kv_head, rows, begin, i, limit, state);
    }
    for (int r = 0; r < R; ++r) {
      const std::size_t seen = rows[r].limit > begin ? rows[r].limit - begin : 0;
      const std::size_t hidden = rows[r].first > begin ? rows[r].first - begin : 0;
      state.n[r] = hidden >= kAttentionGroup ? 0 : seen < kAttentionGroup ? seen : kAttentionGroup;
      if (state.n[r] > 0) hide_scores<R>(state, r, hidden);
      if (state.n[r] > 0) soften<R>(state, r);
    }
    std::size_t d = 0;
    for (; d + kWide <= head_dim; d += kWide) {
      weigh_values<type, R, kAttentionWidth>(job, span, kv_head, begin, d, kLanes, state);
    }
    for (; d < head_dim; d += kLanes) {
      const std::size_t tail = head_dim - d < kLanes ? head_dim - d : kLanes;
      weigh_values<type, R, 1>(job, span, kv_head, begin, d, tail, state);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (std::size_t d = 0; d < head_dim; d += kLanes) {
      const std::size_t n = head_dim - d < kLanes ? head_dim - d : kLanes;
      store_first(rows[r].out + d, div(load(state.o[r] + d), splat(state.sum[r])), n);
    }
  }
}

template <KvType type, int R>
static void attend_rows(const AttentionJob& job, const AttentionSpan& span, std::size_t kv_head,
                        const QueryRow* rows, std::size_t num_rows) {
  for (; num_rows >= R; num_rows -= R, rows += R) attend_tile<type, R>(job, span, kv_head, rows);
  if constexpr (R > 1) {
    if (num_rows > 0) attend_rows<type, R - 1>(job, span, kv_head, rows, num_rows);
  }
}

template <KvType type>
static void attend_typed(const AttentionJob& job, const AttentionItem& item) {
  const AttentionSpan& span = job.spans[item.span];
  const std::size_t group = job.num_heads / job.kv.num_kv_heads;
  constexpr std::size_t kRowsMax = 64;  // handed on at a time
  QueryRow rows[kRowsMax];
  std::size_t n = 0;
  for (std::size_t t = item.token_begin; t < item.token_end; ++t) {
    for (std::size_t g = 0; g < group; ++g) {
      const std::size_t column = (item.kv_head * group + g) * job.kv.head_dim;
      const std::size_t limit = span.start + t + 1;
      rows[n++] = {job.q + (span.row + t) * job.q_stride + column,
                   job.out + (span.row + t) * job.out_stride + column,
                   job.window != 0 && limit > job.window ? limit - job.window : 0, limit};
      if (n == kRowsMax) {
        attend_rows<type, kAttentionRows>(job, span, item.kv_head, rows, n);
        n = 0;
      }
    }
  }
  attend_rows<type, kAttentionRows>(job, span, item.kv_head, rows, n);
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
