// The CUDA kernel sources against the scalar oracle, on the CPU through the SIMT shim, each under
// 100 thread orders, or 10 where blocks are large: all orders give the same bits, and those lie
// within the stated bound of the oracle.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernel_table.h"
#include "shared/random.h"
#include "tests/support/simt_shim.h"

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/launch_checks.h"
#include "kernels/cuda/matvec.cuh"
#include "kernels/cuda/pointwise.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/rope_store.cuh"

namespace sluice::krn::cuda {
namespace {

constexpr std::uint64_t kOrders = 100, kOrdersOfLarge = 10;
// Of a norm: the last has more columns than a block's registers keep.
constexpr std::size_t kDims[] = {1, 31, 64, 257, 576, 8 * kRowThreadsMax + 77};
std::uint64_t orders_of(std::size_t dim) {
  return dim > 1000 ? kOrdersOfLarge : kOrders;
}

std::vector<float> random_floats(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i)
    values[i] =
        static_cast<float>(random_unit({seed, 0, static_cast<std::uint32_t>(i)}, 0) * 2 - 1);
  return values;
}

simt::Dim3 grid_of_pieces(std::size_t rows, std::size_t cols) {
  return {static_cast<unsigned>(rows), static_cast<unsigned>(num_pieces(cols))};
}

const KernelTable& oracle() {
  return *find_kernels("scalar");
}

TEST(CudaRmsNorm, AgreesWithTheOracleInEveryOrder) {
  for (const std::size_t dim : kDims) {
    const std::size_t rows = 2, stride = dim + 3;
    const auto x = random_floats(rows * stride, dim);
    const auto weight = random_floats(dim, dim + 1);
    std::vector<float> expected(rows * stride, 0.0f), first;
    for (std::size_t r = 0; r < rows; ++r)
      oracle().rms_norm(x.data() + r * stride, weight.data(), expected.data() + r * stride, dim,
                        1e-5f);
    for (std::uint64_t order = 0; order < orders_of(dim); ++order) {
      std::vector<float> y(rows * stride, 0.0f);
      const RmsNormArgs args{x.data(), weight.data(), y.data(), dim, stride, 1e-5f};
      const auto outcome = simt::launch({static_cast<unsigned>(rows)}, {row_threads(dim)}, order,
                                        [&] { rms_norm_kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      if (order == 0) {
        first = y;
        for (std::size_t i = 0; i < y.size(); ++i)
          ASSERT_NEAR(y[i], expected[i], 4e-6f * std::fabs(expected[i]) + 1e-7f) << "dim " << dim;
      }
      ASSERT_EQ(y, first) << "dim " << dim << " order " << order;
    }
  }
}

TEST(CudaAddRmsNorm, HasTheBitsOfTheSumAndOfTheNorm) {
  const std::size_t rows = 2;
  for (const std::size_t dim : kDims) {
    const auto delta = random_floats(rows * dim, dim + 2), weight = random_floats(dim, dim + 1);
    auto sum = random_floats(rows * dim, dim);
    const auto begin = sum;
    std::vector<float> normed(rows * dim);
    const auto run = [&](std::uint64_t order, const auto& body) {
      const auto outcome =
          simt::launch({static_cast<unsigned>(rows)}, {row_threads(dim)}, order, body);
      ASSERT_TRUE(outcome.ok) << outcome.error;
    };
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];  // as CudaAdd holds
    run(0, [&] { rms_norm_kernel({sum.data(), weight.data(), normed.data(), dim, dim, 1e-5f}); });
    for (std::uint64_t order = 0; order < orders_of(dim); ++order) {
      auto x = begin;
      std::vector<float> y(rows * dim);
      run(order, [&] {
        add_rms_norm_kernel({x.data(), delta.data(), weight.data(), y.data(), dim, 1e-5f});
      });
      ASSERT_EQ(x, sum) << "dim " << dim << " order " << order;
      ASSERT_EQ(y, normed) << "dim " << dim << " order " << order;
    }
  }
}

// One layout for both families: what the CUDA kernel stores is what the CPU path reads.
struct KvCase {
  std::size_t num_kv_heads, num_heads, head_dim, block_tokens, length;
};

struct Cache {
  explicit Cache(const KvCase& c) {
    kv.num_blocks = (c.length + c.block_tokens - 1) / c.block_tokens + 3;
    kv.num_layers = 2;
    kv.num_kv_heads = c.num_kv_heads;
    kv.head_dim = c.head_dim;
    kv.block_tokens = c.block_tokens;
    memory.resize(kv.num_blocks * kv_block_floats(kv) + 16);
    // The CPU paths want 64-byte alignment.
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    kv.data = memory.data() + (64 - address % 64) % 64 / sizeof(float);
    for (std::size_t i = 0; i < kv.num_blocks; ++i)  // a table in descending order
      table.push_back(static_cast<std::uint32_t>(kv.num_blocks - 1 - i));
  }
  std::vector<float> memory;
  std::vector<std::uint32_t> table;
  PagedKv kv;
};

void fill(Cache& cache, std::uint64_t seed) {
  for (std::size_t i = 0; i < cache.kv.num_blocks * kv_block_floats(cache.kv); ++i)
    cache.kv.data[i] =
        static_cast<float>(random_unit({seed, 1, static_cast<std::uint32_t>(i)}, 0) * 2 - 1);
}

TEST(CudaAttentionDecode, AgreesWithTheOracleInEveryOrder) {
  const KvCase cases[] = {{1, 1, 8, 8, 1},    {2, 4, 16, 16, 63},  {2, 2, 32, 16, 64},
                          {1, 3, 64, 16, 65}, {2, 6, 48, 32, 130}, {1, 2, 256, 8, 20},
                          {1, 1, 80, 32, 33}, {1, 1, 128, 8, 45},  // each kernel of the launch
                          {1, 1, 32, 64, 400}};                    // warps with several groups
  for (const KvCase& c : cases) {
    Cache cache(c);
    fill(cache, c.length);
    const std::size_t stride = c.num_heads * c.head_dim;
    const auto q = random_floats(stride, c.length + 7);
    std::vector<float> expected(stride), first;
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    const AttentionSpan span{0, 1, c.length - 1, cache.table.data()};
    const AttentionJob job{cache.kv,        1,      c.num_heads, scale, q.data(), stride,
                           expected.data(), stride, &span};
    for (std::uint32_t head = 0; head < c.num_kv_heads; ++head)
      oracle().attend(job, {0, head, 0, 1});

    // The row's table is the second of two: the first would lead to other blocks.
    const auto length = static_cast<std::uint32_t>(c.length), table_begin = 5u;
    std::vector<std::uint32_t> tables(table_begin, 0);
    tables.insert(tables.end(), cache.table.begin(), cache.table.end());
    for (std::uint64_t order = 0; order < kOrdersOfLarge; ++order) {
      std::vector<float> out(stride);
      const AttentionDecodeArgs args{q.data(), out.data(), tables.data(), &table_begin, &length,
                                     cache.kv, 1,          c.num_heads,   stride,       stride,
                                     scale};
      const auto kernel = attention_decode_kernel_of(c.head_dim);
      const auto outcome = simt::launch({1, static_cast<unsigned>(c.num_heads)},
                                        {kAttentionThreads}, order, [&] { kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      if (order == 0) {
        first = out;
        for (std::size_t i = 0; i < stride; ++i)
          ASSERT_NEAR(out[i], expected[i], 2e-6f) << "length " << c.length;
      }
      ASSERT_EQ(out, first) << "length " << c.length << " order " << order;
    }
  }
}

// Positions in chunks that other blocks attend to, with a window and without; a row whose window
// lies in one chunk, rows of one and of three.
TEST(CudaAttentionDecode, ChunksAreJoinedInEveryOrder) {
  const KvCase c{1, 2, 32, 64, 3 * kAttentionChunk - 70};
  Cache cache(c);
  fill(cache, 3);
  const std::size_t stride = c.num_heads * c.head_dim, num_chunks = 3;
  const std::vector<std::uint32_t> lengths{static_cast<std::uint32_t>(c.length), 7,
                                           kAttentionChunk + 1};
  const std::vector<std::uint32_t> table_begins(lengths.size(), 0);
  const auto q = random_floats(lengths.size() * stride, 4);
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  for (const std::size_t window : {std::size_t{0}, std::size_t{kAttentionChunk - 70}}) {
    std::vector<float> expected(q.size()), first;
    for (std::size_t row = 0; row < lengths.size(); ++row) {
      const AttentionSpan span{row, 1, lengths[row] - 1, cache.table.data()};
      AttentionJob job{cache.kv,        1,      c.num_heads, scale, q.data(), stride,
                       expected.data(), stride, &span};
      job.window = window;
      oracle().attend(job, {0, 0, 0, 1});
    }
    std::vector<float> partials(lengths.size() * c.num_heads * num_chunks * (c.head_dim + 2));
    for (std::uint64_t order = 0; order < kOrdersOfLarge; ++order) {
      std::vector<float> out(q.size(), -1);
      const AttentionDecodeArgs args{q.data(),
                                     out.data(),
                                     cache.table.data(),
                                     table_begins.data(),
                                     lengths.data(),
                                     cache.kv,
                                     1,
                                     c.num_heads,
                                     stride,
                                     stride,
                                     scale,
                                     window,
                                     kAttentionChunk,
                                     num_chunks,
                                     partials.data()};
      ASSERT_EQ(wrong(args, lengths.size()), nullptr);
      const auto rows = static_cast<unsigned>(lengths.size());
      const auto heads = static_cast<unsigned>(c.num_heads);
      auto outcome = simt::launch({rows, heads, num_chunks}, {kAttentionThreads}, order,
                                  [&] { attention_decode_kernel_of(c.head_dim)(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      outcome = simt::launch({rows, heads}, {whole_warps(c.head_dim, kHeadDimMax)}, order,
                             [&] { attention_join_kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      if (order == 0) {
        first = out;
        for (std::size_t i = 0; i < out.size(); ++i)
          ASSERT_NEAR(out[i], expected[i], 2e-6f) << "window " << window << " at " << i;
      }
      ASSERT_EQ(out, first) << "window " << window << " order " << order;
    }
  }
}

TEST(CudaMatvec, EachTokenHasTheBitsThatItHasAlone) {
  // Columns: whole turns of a block's threads, then a part of one.
  const std::size_t rows = 2 * kMatvecRows - 1;
  const std::size_t cols = 4 * (kMatvecVectors<1> + 1) * kMatvecThreads + 52;
  const auto w = random_floats(rows * cols, 1), x = random_floats(kMatvecTokens * cols, 2);
  const auto run = [&](std::size_t first_token, std::size_t tokens, std::uint64_t order) {
    std::vector<float> y(tokens * rows, -1.0f);
    const MatmulArgs args{w.data(), x.data() + first_token * cols, y.data(), tokens, rows, cols};
    EXPECT_TRUE(is_matvec(args));
    const auto outcome = simt::launch({2}, {kMatvecThreads}, order, [&] {
      if (tokens == 1)
        matvec_kernel<1>(args);
      else
        matvec_kernel<kMatvecTokens>(args);
    });
    EXPECT_TRUE(outcome.ok) << outcome.error;
    return y;
  };
  const auto together = run(0, kMatvecTokens - 1, 0);
  for (std::size_t t = 0; t + 1 < kMatvecTokens; ++t) {
    const auto alone = run(t, 1, 10 + t);
    for (std::size_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::size_t c = 0; c < cols; ++c)
        sum += double{w[r * cols + c]} * double{x[t * cols + c]};
      ASSERT_NEAR(alone[r], sum, 2e-5) << "token " << t << " row " << r;
      ASSERT_EQ(alone[r], together[t * rows + r]) << "token " << t << " row " << r;
    }
  }
  EXPECT_FALSE(is_matvec({w.data(), x.data(), nullptr, kMatvecTokens + 1, rows, cols}));
  EXPECT_FALSE(is_matvec({w.data(), x.data(), nullptr, 1, rows, cols - 1}));
}

TEST(CudaRopeStore, TurnsAndStoresWhereTheOracleReads) {
  for (const RopePairing pairing : {RopePairing::half, RopePairing::interleaved}) {
    const KvCase c{2, 4, 16, 8, 20};
    Cache cache(c);
    const std::size_t half = c.head_dim / 2, q_stride = c.num_heads * c.head_dim;
    const std::size_t kv_stride = c.num_kv_heads * c.head_dim;
    std::vector<float> cosines, sines;
    std::vector<std::uint32_t> positions, blocks;
    for (std::uint32_t p = 0; p < c.length; ++p) {
      positions.push_back(p);
      blocks.push_back(cache.table[p / c.block_tokens]);
      for (std::size_t i = 0; i < half; ++i) {
        const double angle =
            p * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    const auto q = random_floats(c.length * q_stride, 1),
               k = random_floats(c.length * kv_stride, 2);
    const auto v = random_floats(c.length * kv_stride, 3);
    auto q_expected = q, k_expected = k;
    for (std::size_t p = 0; p < c.length; ++p) {
      const float* cosine = cosines.data() + p * half;
      const float* sine = sines.data() + p * half;
      oracle().rope(q_expected.data() + p * q_stride, c.num_heads, c.head_dim, cosine, sine,
                    pairing);
      oracle().rope(k_expected.data() + p * kv_stride, c.num_kv_heads, c.head_dim, cosine, sine,
                    pairing);
    }
    for (std::uint64_t order = 0; order < kOrders; ++order) {
      std::fill(cache.memory.begin(), cache.memory.end(), 0.0f);
      auto turned = q;
      const RopeStoreArgs args{
          turned.data(), k.data(), v.data(), cosines.data(), sines.data(), positions.data(),
          blocks.data(), cache.kv, 1,        c.num_heads,    q_stride,     kv_stride,
          pairing};
      const simt::Dim3 grid{static_cast<unsigned>(c.length),
                            static_cast<unsigned>(num_rope_pieces(args))};
      const auto outcome =
          simt::launch(grid, {kRopeThreads}, order, [&] { rope_store_kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      for (std::size_t i = 0; i < turned.size(); ++i) ASSERT_NEAR(turned[i], q_expected[i], 5e-7f);
      for (std::size_t p = 0; p < c.length; ++p)
        for (std::size_t h = 0; h < c.num_kv_heads; ++h)
          for (std::size_t d = 0; d < c.head_dim; ++d) {
            const std::size_t slot = p % c.block_tokens, from = p * kv_stride + h * c.head_dim + d;
            ASSERT_NEAR(kv_keys(cache.kv, blocks[p], 1, h)[d * c.block_tokens + slot],
                        k_expected[from], 5e-7f);
            ASSERT_EQ(kv_values(cache.kv, blocks[p], 1, h)[slot * c.head_dim + d], v[from]);
          }
    }
  }
}

TEST(CudaGather, CopiesTheNamedRowsInEveryOrder) {
  for (const std::size_t cols : {1u, 300u}) {
    const auto table = random_floats(7 * cols, cols);
    const std::vector<std::uint32_t> source{6, 3, 3};
    std::vector<float> expected;
    for (const std::uint32_t row : source)
      expected.insert(expected.end(), &table[row * cols], &table[row * cols] + cols);
    for (std::uint64_t order = 0; order < kOrders; ++order) {
      std::vector<float> out(expected.size());
      const GatherArgs args{table.data(), source.data(), out.data(), cols};
      const auto outcome = simt::launch(grid_of_pieces(3, cols), {piece_threads(cols)}, order,
                                        [&] { gather_kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      ASSERT_EQ(out, expected) << "cols " << cols << " order " << order;
    }
  }
}

// The bound of pointwise.cuh holds for the kernel and for the oracle, each against exact
// arithmetic: between the two lies at most twice as much.
TEST(CudaSwiglu, AgreesWithTheOracleInEveryOrder) {
  for (const std::size_t inner : {33u, 300u}) {
    const std::size_t rows = 2;
    auto gate_up = random_floats(rows * 2 * inner, inner);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < inner; ++i) gate_up[r * 2 * inner + i] *= 80.0f;  // both tails
    std::vector<float> expected(rows * inner);
    for (std::size_t r = 0; r < rows; ++r) {
      const float* gate = gate_up.data() + r * 2 * inner;
      oracle().swiglu(gate, gate + inner, expected.data() + r * inner, inner);
    }
    for (std::uint64_t order = 0; order < kOrders; ++order) {
      std::vector<float> out(rows * inner);
      const SwigluArgs args{gate_up.data(), out.data(), inner};
      const auto outcome = simt::launch(grid_of_pieces(rows, inner), {piece_threads(inner)}, order,
                                        [&] { swiglu_kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      for (std::size_t i = 0; i < out.size(); ++i)
        ASSERT_NEAR(out[i], expected[i], 32 * 0x1p-24f * std::fabs(expected[i])) << i;
    }
  }
}

TEST(CudaAdd, IsTheOracleInEveryOrder) {
  for (const std::size_t cols : {31u, 300u}) {
    const std::size_t rows = 2;
    const auto x = random_floats(rows * cols, cols), delta = random_floats(rows * cols, cols + 1);
    auto expected = x;
    oracle().add(expected.data(), delta.data(), rows * cols);
    for (std::uint64_t order = 0; order < kOrders; ++order) {
      auto sum = x;
      const AddArgs args{sum.data(), delta.data(), cols};
      const auto outcome = simt::launch(grid_of_pieces(rows, cols), {piece_threads(cols)}, order,
                                        [&] { add_kernel(args); });
      ASSERT_TRUE(outcome.ok) << outcome.error;
      ASSERT_EQ(sum, expected) << "cols " << cols << " order " << order;
    }
  }
}

TEST(CudaLaunchChecks, ABlockHasWholeWarpsAndNoMoreThanTheRow) {
  EXPECT_EQ(row_threads(1), 32u);
  EXPECT_EQ(row_threads(32 * kThreadColumns), 32u);
  EXPECT_EQ(row_threads(32 * kThreadColumns + 1), 64u);
  EXPECT_EQ(row_threads(2048), 512u);
  EXPECT_EQ(row_threads(1 << 20), kRowThreadsMax);
  EXPECT_EQ(piece_threads(1), 32u);
  EXPECT_EQ(piece_threads(1 << 20), kPieceThreadsMax);
}

TEST(CudaLaunchChecks, PiecesCoverTheRow) {
  for (const std::size_t cols : {1u, 128u, 129u, 512u, 513u, 5632u}) {
    const std::size_t piece = piece_threads(cols) * kThreadColumns;
    EXPECT_GE(num_pieces(cols) * piece, cols);
    EXPECT_LT((num_pieces(cols) - 1) * piece, cols);
  }
  EXPECT_EQ(num_pieces(kPieceColumnsMax), kGridHeadsMax);
}

TEST(CudaLaunchChecks, RefuseWhatAKernelCannotDo) {
  alignas(16) float value = 0;
  std::uint32_t index = 0;
  const PagedKv good{&value, 4, 2, 2, 16, 8};
  const auto attention = [&](auto change) {
    AttentionDecodeArgs args{&value, &value, &index, &index, &index, good, 0, 4, 64, 64, 0.25f};
    change(args);
    return wrong(args, 1);
  };
  using A = AttentionDecodeArgs;
  EXPECT_EQ(attention([](A&) {}), nullptr);
  EXPECT_NE(attention([](A& a) { a.kv.head_dim = kHeadDimMax + 2; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.kv.head_dim = 15; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.kv.block_tokens = 24; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.kv.data = nullptr; }), nullptr);
  EXPECT_NE(attention([](A& a) { ++a.kv.data; }), nullptr);  // not aligned
  EXPECT_NE(attention([](A& a) { a.layer = 2; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.num_heads = 3; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.num_heads = 65536; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.q_stride = 63; }), nullptr);
  EXPECT_NE(attention([](A& a) { a.out_stride = 63; }), nullptr);
  const auto chunks = [&](std::size_t tokens, std::size_t count, float* partials) {
    return attention([&](A& a) {
      a.chunk_tokens = tokens;
      a.num_chunks = count;
      a.partials = partials;
    });
  };
  EXPECT_EQ(chunks(kAttentionChunk, 2, &value), nullptr);
  EXPECT_NE(chunks(kAttentionChunk, 2, nullptr), nullptr);
  EXPECT_NE(chunks(kAttentionChunk + 64, 2, &value), nullptr);
  EXPECT_NE(chunks(0, 2, &value), nullptr);
  EXPECT_NE(chunks(kAttentionChunk, 0, &value), nullptr);
  EXPECT_NE(chunks(kAttentionChunk, 65536, &value), nullptr);
  const RopeStoreArgs rope{&value, &value, &value, &value, &value, &index,           &index,
                           good,   0,      4,      64,     31,     RopePairing::half};
  EXPECT_NE(wrong(rope, 1), nullptr);  // kv_stride is below its heads
  EXPECT_NE(wrong(RmsNormArgs{&value, &value, &value, 8, 7, 0}, 1), nullptr);
  EXPECT_NE(wrong(AddRmsNormArgs{&value, &value, &value, &value, 0, 0}, 1), nullptr);
  EXPECT_EQ(wrong(AddArgs{&value, &value, 1}, kGridRowsMax), nullptr);
  EXPECT_NE(wrong(AddArgs{&value, &value, 1}, kGridRowsMax + 1), nullptr);
  EXPECT_NE(wrong(AddArgs{&value, &value, 1}, 0), nullptr);
  EXPECT_NE(wrong(SwigluArgs{&value, &value, 0}, 1), nullptr);
  EXPECT_NE(wrong(GatherArgs{&value, &index, &value, 0}, 1), nullptr);
  EXPECT_EQ(wrong(SwigluArgs{&value, &value, kPieceColumnsMax}, 1), nullptr);
  EXPECT_NE(wrong(SwigluArgs{&value, &value, kPieceColumnsMax + 1}, 1), nullptr);
  RopeStoreArgs wide = rope;  // its pieces are more than a grid has
  wide.kv_stride = wide.q_stride = std::size_t{1} << 40;
  wide.num_heads = 65528;
  wide.kv.head_dim = 256;
  EXPECT_EQ(wrong(wide, 1), nullptr);
  wide.kv.head_dim = 254;
  wide.kv.num_kv_heads = wide.num_heads;
  EXPECT_NE(wrong(wide, 1), nullptr);
  EXPECT_EQ(wrong(MatmulArgs{&value, &value, &value, 1, 1, 1}), nullptr);
  EXPECT_NE(wrong(MatmulArgs{&value, &value, &value, 1, std::size_t{1} << 31, 1}), nullptr);
}

}  // namespace
}  // namespace sluice::krn::cuda
