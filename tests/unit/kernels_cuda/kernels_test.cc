// The CUDA kernel sources against the scalar oracle, on the CPU through the SIMT shim, each under
// 100 thread orders: all orders give the same bits, and those lie within the stated bound of the
// oracle.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernel_table.h"
#include "shared/random.h"
#include "tests/support/simt_shim.h"

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/rope_store.cuh"

namespace sluice::krn::cuda {
namespace {

constexpr std::uint64_t kOrders = 100;

std::vector<float> random_floats(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i)
    values[i] =
        static_cast<float>(random_unit({seed, 0, static_cast<std::uint32_t>(i)}, 0) * 2 - 1);
  return values;
}

const KernelTable& oracle() {
  return *find_kernels("scalar");
}

TEST(CudaRmsNorm, AgreesWithTheOracleInEveryOrder) {
  for (const std::size_t dim : {1u, 31u, 64u, 257u, 576u}) {
    const std::size_t rows = 2, stride = dim + 3;
    const auto x = random_floats(rows * stride, dim);
    const auto weight = random_floats(dim, dim + 1);
    std::vector<float> expected(rows * stride, 0.0f), first;
    for (std::size_t r = 0; r < rows; ++r)
      oracle().rms_norm(x.data() + r * stride, weight.data(), expected.data() + r * stride, dim,
                        1e-5f);
    for (std::uint64_t order = 0; order < kOrders; ++order) {
      std::vector<float> y(rows * stride, 0.0f);
      const RmsNormArgs args{x.data(), weight.data(), y.data(), dim, stride, 1e-5f};
      const auto outcome = simt::launch({static_cast<unsigned>(rows)}, {kRmsNormThreads}, order,
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
                          {1, 3, 64, 16, 65}, {2, 6, 48, 32, 130}, {1, 2, 256, 8, 20}};
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

    const auto length = static_cast<std::uint32_t>(c.length);
    for (std::uint64_t order = 0; order < kOrders; ++order) {
      std::vector<float> out(stride);
      const AttentionDecodeArgs args{q.data(),           out.data(), cache.table.data(), &length,
                                     cache.kv,           1,          c.num_heads,        stride,
                                     cache.table.size(), scale};
      const auto outcome =
          simt::launch({1, static_cast<unsigned>(c.num_heads)}, {kAttentionThreads}, order,
                       [&] { attention_decode_kernel(args); });
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
      const auto outcome = simt::launch({static_cast<unsigned>(c.length)}, {kRopeThreads}, order,
                                        [&] { rope_store_kernel(args); });
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

}  // namespace
}  // namespace sluice::krn::cuda
