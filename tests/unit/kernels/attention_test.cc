// Paged attention: the oracle against a plain softmax in double over unpaged arrays; every path bit
// for bit equal to the oracle; and equal outputs for every block size, block table and chunking.
// Unwritten slots hold NaN, so that reading one where it counts would show.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/half_float.h"
#include "kernels/kv_store.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace sluice::krn {
namespace {

struct Shape {
  std::size_t heads;
  std::size_t kv_heads;
  std::size_t head_dim;
};

// One sequence: dense q, k, v [positions, heads, head_dim].
struct Sequence {
  Shape shape;
  std::size_t length;
  std::vector<float> q, k, v;
  std::size_t window = 0;
};

Sequence make_sequence(const Shape& shape, std::size_t length, std::uint32_t seed) {
  const std::size_t kv = length * shape.kv_heads * shape.head_dim;
  return {shape, length, random_floats(length * shape.heads * shape.head_dim, seed, 2.0f),
          random_floats(kv, seed + 1, 2.0f), random_floats(kv, seed + 2)};
}

float scale_of(const Shape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

// What a cache of this type has of x [vectors, n]: the contract of paged_kv.h, said once more.
std::vector<float> rounded(std::vector<float> x, std::size_t n, KvType type) {
  for (std::size_t at = 0; at < x.size(); at += n) {
    float largest = 0;
    for (std::size_t i = at; i < at + n; ++i) largest = std::max(largest, std::abs(x[i]));
    for (std::size_t i = at; i < at + n; ++i) {
      if (type == KvType::f16) x[i] = f16_to_float(float_to_f16(x[i]));
      if (type == KvType::int8)
        x[i] = std::nearbyint(x[i] * (127.0f / largest)) * (largest / 127.0f);
    }
  }
  return x;
}

// A cache with the sequence's K and V in layer 1 of 2, behind a shuffled block table.
struct Cache {
  std::vector<float> memory;
  PagedKv kv;
  std::vector<std::uint32_t> table;
};

Cache make_cache(const Sequence& s, std::size_t block_tokens, std::uint32_t seed,
                 KvType type = KvType::f32) {
  Cache cache;
  const std::size_t blocks = (s.length + block_tokens - 1) / block_tokens;
  cache.kv = {nullptr, blocks + 3, 2, s.shape.kv_heads, s.shape.head_dim, block_tokens, type};
  cache.memory.assign((cache.kv.num_blocks * kv_block_bytes(cache.kv) + 3) / 4, std::nanf(""));
  cache.kv.data = cache.memory.data();
  std::vector<std::uint32_t> ids(cache.kv.num_blocks);
  std::iota(ids.begin(), ids.end(), 0u);
  std::mt19937 engine(seed);
  std::shuffle(ids.begin(), ids.end(), engine);
  cache.table.assign(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(blocks));
  const std::size_t width = s.shape.kv_heads * s.shape.head_dim;
  for (std::size_t p = 0; p < s.length; ++p)
    store_kv(cache.kv, {cache.table[p / block_tokens], p % block_tokens, 1}, s.k.data() + p * width,
             s.v.data() + p * width);
  return cache;
}

// Queries at positions [start, end) in items of `item_tokens`.
std::vector<float> attend(const KernelTable& path, const Sequence& s, const Cache& cache,
                          std::size_t start, std::size_t end, std::size_t item_tokens) {
  const std::size_t width = s.shape.heads * s.shape.head_dim;
  std::vector<float> out((end - start) * width);
  const AttentionSpan span{0, end - start, start, cache.table.data()};
  const AttentionJob job{
      cache.kv,   1,     s.shape.heads, scale_of(s.shape), s.q.data() + start * width, width,
      out.data(), width, &span,         s.window};
  for (std::size_t t = 0; t < end - start; t += item_tokens) {
    const std::size_t t_end = std::min(t + item_tokens, end - start);
    for (std::size_t h = 0; h < s.shape.kv_heads; ++h) {
      path.attend(job, {0, static_cast<std::uint32_t>(h), static_cast<std::uint32_t>(t),
                        static_cast<std::uint32_t>(t_end)});
    }
  }
  return out;
}

// Plain softmax in double for one query row; also the bound of kernel_table.h.
void exact_row(const Sequence& s, std::size_t t, std::size_t head, std::vector<double>& out,
               double& bound) {
  const std::size_t kv_head = head / (s.shape.heads / s.shape.kv_heads);
  const std::size_t dim = s.shape.head_dim;
  const std::size_t first = s.window != 0 && t + 1 > s.window ? t + 1 - s.window : 0;
  std::vector<double> e(t + 1, -INFINITY);
  double largest = -INFINITY;
  double products = 0;
  double values = 0;
  for (std::size_t p = first; p <= t; ++p) {
    double dot = 0;
    double magnitude = 0;
    for (std::size_t d = 0; d < dim; ++d) {
      const double product = static_cast<double>(s.q[(t * s.shape.heads + head) * dim + d]) *
                             static_cast<double>(s.k[(p * s.shape.kv_heads + kv_head) * dim + d]);
      dot += product;
      magnitude += std::abs(product);
      values = std::max(
          values, std::abs(static_cast<double>(s.v[(p * s.shape.kv_heads + kv_head) * dim + d])));
    }
    e[p] = dot * static_cast<double>(scale_of(s.shape));
    products = std::max(products, magnitude * static_cast<double>(scale_of(s.shape)));
    largest = std::max(largest, e[p]);
  }
  double sum = 0;
  for (double& x : e) sum += x = std::exp(x - largest);
  out.assign(dim, 0);
  for (std::size_t p = 0; p <= t; ++p) {
    for (std::size_t d = 0; d < dim; ++d) {
      out[d] += e[p] / sum * static_cast<double>(s.v[(p * s.shape.kv_heads + kv_head) * dim + d]);
    }
  }
  bound = (static_cast<double>(dim) * products + static_cast<double>(t + 1) + 40) * kUnit * values;
}

constexpr Shape kShapes[] = {{1, 1, 2},  {3, 1, 8},  {4, 2, 16}, {7, 7, 20},
                             {5, 1, 64}, {6, 2, 80}, {8, 2, 96}, {2, 1, 256}};

TEST(Attention, TheOracleKeepsItsBoundAgainstAPlainSoftmax) {
  for (const Shape& shape : kShapes) {
    for (const std::size_t length : {1u, 2u, 63u, 64u, 65u, 150u}) {
      const Sequence s = make_sequence(shape, length, 11);
      const Cache cache = make_cache(s, 16, 3);
      const std::vector<float> got = attend(oracle(), s, cache, 0, length, 4);
      for (std::size_t t = 0; t < length; t += 1 + length / 7) {
        for (std::size_t h = 0; h < shape.heads; ++h) {
          std::vector<double> want;
          double bound = 0;
          exact_row(s, t, h, want, bound);
          for (std::size_t d = 0; d < shape.head_dim; ++d) {
            const double value =
                static_cast<double>(got[(t * shape.heads + h) * shape.head_dim + d]);
            ASSERT_LE(std::abs(value - want[d]), bound) << length << " " << t;
          }
        }
      }
    }
  }
}

TEST(Attention, EveryPathBlockSizeTableAndChunkGivesTheSameBits) {
  for (const Shape& shape : kShapes) {
    for (const std::size_t length : {1u, 7u, 8u, 9u, 33u, 64u, 65u, 131u}) {
      const Sequence s = make_sequence(shape, length, 23);
      const std::vector<float> want = attend(oracle(), s, make_cache(s, 64, 1), 0, length, length);
      for (const KernelTable* path : all_paths()) {
        for (const std::size_t block_tokens : {8u, 16u, 32u, 64u}) {
          const Cache cache = make_cache(s, block_tokens, static_cast<std::uint32_t>(block_tokens));
          for (const std::size_t chunk : {std::size_t{1}, std::size_t{5}, length}) {
            SCOPED_TRACE(testing::Message()
                         << path->name << " length " << length << " block " << block_tokens
                         << " chunk " << chunk << " head_dim " << shape.head_dim);
            const std::size_t width = shape.heads * shape.head_dim;
            for (std::size_t start = 0; start < length; start += chunk) {
              const std::size_t end = std::min(start + chunk, length);
              const std::vector<float> got = attend(*path, s, cache, start, end, 1 + chunk / 2);
              ASSERT_TRUE(same_bits(got.data(), want.data() + start * width, got.size()));
            }
          }
        }
      }
    }
  }
}

// Windows within a group, over one border, over several, and as long as the sequence.
TEST(Attention, AWindowHidesWhatIsBeforeItOnEveryPath) {
  for (const Shape& shape : {Shape{3, 1, 8}, Shape{4, 2, 16}}) {
    for (const std::size_t window : {1u, 3u, 63u, 64u, 65u, 100u, 149u, 150u, 151u}) {
      Sequence s = make_sequence(shape, 150, 29);
      s.window = window;
      const std::size_t width = shape.heads * shape.head_dim;
      const std::vector<float> want = attend(oracle(), s, make_cache(s, 64, 1), 0, 150, 150);
      for (std::size_t t = 0; t < 150; t += 7) {
        std::vector<double> exact;
        double bound = 0;
        exact_row(s, t, 1, exact, bound);
        for (std::size_t d = 0; d < shape.head_dim; ++d)
          ASSERT_LE(std::abs(static_cast<double>(want[t * width + shape.head_dim + d]) - exact[d]),
                    bound)
              << window << " " << t;
      }
      for (const KernelTable* path : all_paths()) {
        const Cache cache = make_cache(s, 16, 7);
        for (const std::size_t chunk : {std::size_t{1}, std::size_t{150}}) {
          for (std::size_t start = 0; start < 150; start += chunk) {
            const std::vector<float> got = attend(*path, s, cache, start, start + chunk, 11);
            ASSERT_TRUE(same_bits(got.data(), want.data() + start * width, got.size()))
                << path->name << " window " << window << " chunk " << chunk << " at " << start;
          }
        }
      }
    }
  }
}

// The oracle against a plain softmax over what the cache has of K and V; then every path. The one
// rounding more of each product with a scale is within the bound of a float cache.
TEST(Attention, NarrowCachesKeepTheBoundAndTheBits) {
  for (const KvType type : {KvType::f16, KvType::int8}) {
    for (const Shape& shape : kShapes) {
      for (const std::size_t length : {1u, 9u, 64u, 131u}) {
        const Sequence s = make_sequence(shape, length, 41);
        Sequence stored = s;
        stored.k = rounded(s.k, shape.head_dim, type);
        stored.v = rounded(s.v, shape.head_dim, type);
        const std::size_t width = shape.heads * shape.head_dim;
        const Cache wide = make_cache(s, 64, 1, type);
        const std::vector<float> want = attend(oracle(), s, wide, 0, length, length);
        for (std::size_t h = 0; h < shape.heads; ++h) {
          std::vector<double> exact;
          double bound = 0;
          exact_row(stored, length - 1, h, exact, bound);
          for (std::size_t d = 0; d < shape.head_dim; ++d)
            ASSERT_LE(
                std::abs(static_cast<double>(want[(length - 1) * width + h * shape.head_dim + d]) -
                         exact[d]),
                2 * bound)
                << length << " head_dim " << shape.head_dim;
        }
        for (const KernelTable* path : all_paths()) {
          for (const std::size_t block_tokens : {8u, 16u, 64u}) {
            const Cache cache = make_cache(s, block_tokens, 3, type);
            const std::size_t chunk = length < 9 ? 1 : 9;
            for (std::size_t start = 0; start < length; start += chunk) {
              const std::size_t end = std::min(start + chunk, length);
              const std::vector<float> got = attend(*path, s, cache, start, end, 4);
              ASSERT_TRUE(same_bits(got.data(), want.data() + start * width, got.size()))
                  << path->name << " type " << static_cast<int>(type) << " block " << block_tokens
                  << " length " << length << " head_dim " << shape.head_dim;
            }
          }
        }
      }
    }
  }
}

// Items of more rows than go through a group at a time, and fewer at their end; tiles of every
// size; rows that end, or whose windows begin, in different groups.
TEST(Attention, LongItemsGiveTheSameBitsForEveryTypeWindowAndBlockSize) {
  constexpr std::size_t kLength = 301;
  constexpr std::size_t kStart = 231;
  for (const Shape& shape : {Shape{14, 2, 40}, Shape{3, 3, 64}}) {
    for (const KvType type : {KvType::f32, KvType::f16, KvType::int8}) {
      for (const std::size_t window : {0u, 90u}) {
        Sequence s = make_sequence(shape, kLength, 53);
        s.window = window;
        const std::vector<float> want =
            attend(oracle(), s, make_cache(s, 64, 1, type), kStart, kLength, kLength);
        for (const KernelTable* path : all_paths()) {
          if (path == &oracle()) continue;
          for (const std::size_t block_tokens : {8u, 16u, 32u, 64u}) {
            const Cache cache = make_cache(s, block_tokens, 5, type);
            for (const std::size_t item : {1u, 5u, 43u, 70u}) {
              const std::vector<float> got = attend(*path, s, cache, kStart, kLength, item);
              ASSERT_TRUE(same_bits(got.data(), want.data(), got.size()))
                  << path->name << " type " << static_cast<int>(type) << " block " << block_tokens
                  << " item " << item << " window " << window << " heads " << shape.heads;
            }
          }
        }
      }
    }
  }
}

TEST(PagedKv, Int8StoresWhatIsNoNumberVisibly) {
  const PagedKv shape{nullptr, 1, 1, 1, 4, 8, KvType::int8};
  std::vector<float> memory(kv_block_bytes(shape) / 4);
  PagedKv kv = shape;
  kv.data = memory.data();
  const float tiny[] = {1e-38f, 0, 0, 0};
  const float infinite[] = {1, 2, INFINITY, 3};
  store_kv(kv, {0, 2, 0}, tiny, infinite);
  EXPECT_EQ(memory[2], 0.0f);
  const char* values = kv_head_at(kv, 0, 0, KvPart::values, 0);
  float scale = 0;
  std::memcpy(&scale, values + 2 * 4, 4);
  EXPECT_TRUE(std::isnan(scale));
}

TEST(Attention, ExtremeScoresStayFinite) {
  Sequence s = make_sequence({2, 1, 16}, 100, 5);
  for (float& x : s.q) x *= 300.0f;
  for (float& x : s.k) x *= 300.0f;
  const Cache cache = make_cache(s, 8, 2);
  const std::vector<float> want = attend(oracle(), s, cache, 0, 100, 100);
  for (const float x : want) ASSERT_TRUE(std::isfinite(x));
  for (const KernelTable* path : all_paths()) {
    const std::vector<float> got = attend(*path, s, cache, 0, 100, 3);
    EXPECT_TRUE(same_bits(got.data(), want.data(), got.size())) << path->name;
  }
}

TEST(PagedKv, BlocksAreContiguousAndHeadsDoNotOverlap) {
  const PagedKv kv{nullptr, 2, 3, 2, 10, 8};
  std::vector<int> owners(2 * kv_block_floats(kv), 0);
  PagedKv view = kv;
  std::vector<float> memory(owners.size());
  view.data = memory.data();
  for (std::size_t b = 0; b < 2; ++b) {
    for (std::size_t layer = 0; layer < 3; ++layer) {
      for (std::size_t h = 0; h < 2; ++h) {
        for (const float* part : {kv_keys(view, b, layer, h), kv_values(view, b, layer, h)}) {
          const std::size_t first = static_cast<std::size_t>(part - memory.data());
          EXPECT_EQ(first / kv_block_floats(kv), b);
          for (std::size_t i = 0; i < kv_head_floats(kv); ++i) ++owners[first + i];
        }
      }
    }
  }
  EXPECT_TRUE(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
}

}  // namespace
}  // namespace sluice::krn
