// RMSNorm, RoPE, SwiGLU, add, widen: the oracle against double arithmetic within the bounds of
// kernel_table.h, the other paths bit for bit equal to it, at every small size and odd alignment.
#include <cmath>
#include <limits>

#include "kernels/half_float.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace sluice::krn {
namespace {

constexpr std::size_t kSizesMax = 2 * kLanes + 1;

TEST(RmsNorm, AllPathsEqualTheOracleWhichKeepsItsBound) {
  for (std::size_t n = 1; n <= 2048; n = n < kSizesMax ? n + 1 : n * 2 - 3) {
    const std::vector<float> x = random_floats(n + 1, static_cast<std::uint32_t>(n), 3.0f);
    const std::vector<float> weight = random_floats(n + 1, 77, 2.0f);
    std::vector<float> want(n + 1);
    oracle().rms_norm(x.data() + 1, weight.data() + 1, want.data() + 1, n, 1e-5f);
    double squares = 0;
    for (std::size_t i = 1; i <= n; ++i) squares += std::pow(static_cast<double>(x[i]), 2);
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(1e-5f));
    const double bound = (static_cast<double>(n) / 16 + 12) * kUnit;
    for (std::size_t i = 1; i <= n; ++i) {
      const double exact = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
      ASSERT_LE(std::abs(static_cast<double>(want[i]) - exact), bound * std::abs(exact) + 1e-40);
    }
    for (const KernelTable* path : all_paths()) {
      std::vector<float> got = x;  // in place
      path->rms_norm(got.data() + 1, weight.data() + 1, got.data() + 1, n, 1e-5f);
      ASSERT_TRUE(same_bits(got.data() + 1, want.data() + 1, n)) << path->name << " " << n;
      ASSERT_EQ(got[0], x[0]);
    }
  }
}

TEST(Rope, AllPathsEqualTheOracleInBothPairings) {
  for (const RopePairing pairing : {RopePairing::half, RopePairing::interleaved}) {
    for (std::size_t head_dim = 2; head_dim <= 134; head_dim += 2) {
      const std::size_t heads = 1 + head_dim % 5;
      const std::vector<float> x = random_floats(heads * head_dim + 1, 3);
      const std::vector<float> angle = random_floats(head_dim / 2, 4, 3.0f);
      std::vector<float> cosine(head_dim / 2);
      std::vector<float> sine(head_dim / 2);
      for (std::size_t i = 0; i < head_dim / 2; ++i) {
        cosine[i] = std::cos(angle[i]);
        sine[i] = std::sin(angle[i]);
      }
      std::vector<float> want = x;
      oracle().rope(want.data() + 1, heads, head_dim, cosine.data(), sine.data(), pairing);
      for (std::size_t i = 0; i < head_dim / 2; ++i) {
        const std::size_t ia = 1 + (pairing == RopePairing::half ? i : 2 * i);
        const std::size_t ib = pairing == RopePairing::half ? ia + head_dim / 2 : ia + 1;
        const double a = static_cast<double>(x[ia]);
        const double b = static_cast<double>(x[ib]);
        const double c = static_cast<double>(cosine[i]);
        const double s = static_cast<double>(sine[i]);
        const double bound = 3 * kUnit * (std::abs(a) + std::abs(b));
        ASSERT_LE(std::abs(static_cast<double>(want[ia]) - (a * c - b * s)), bound);
        ASSERT_LE(std::abs(static_cast<double>(want[ib]) - (a * s + b * c)), bound);
      }
      for (const KernelTable* path : all_paths()) {
        std::vector<float> got = x;
        path->rope(got.data() + 1, heads, head_dim, cosine.data(), sine.data(), pairing);
        ASSERT_TRUE(same_bits(got.data(), want.data(), got.size())) << path->name << head_dim;
      }
    }
  }
}

double exact_swiglu(double gate, double up) {
  return gate / (1 + std::exp(-gate)) * up;
}

TEST(Swiglu, KeepsItsBoundOverTheWholeRange) {
  std::vector<float> gate;
  for (float g = -87.0f; g < 87.0f; g += 0.00731f) gate.push_back(g);
  const std::vector<float> up = random_floats(gate.size(), 9, 2.0f);
  std::vector<float> want(gate.size());
  oracle().swiglu(gate.data(), up.data(), want.data(), gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double exact = exact_swiglu(static_cast<double>(gate[i]), static_cast<double>(up[i]));
    ASSERT_LE(std::abs(static_cast<double>(want[i]) - exact), 16 * kUnit * std::abs(exact) + 1e-44)
        << gate[i];
  }
  for (const KernelTable* path : all_paths()) {
    std::vector<float> got(gate.size());
    path->swiglu(gate.data(), up.data(), got.data(), gate.size());
    EXPECT_TRUE(same_bits(got.data(), want.data(), got.size())) << path->name;
  }
}

TEST(Swiglu, StaysFiniteAtTheEndsAndHandsNaNOn) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> gate = {-1e30f, -200.0f, -88.5f, 88.5f,         200.0f,
                                   1e30f,  0.0f,    -0.0f,  std::nanf(""), inf};
  const std::vector<float> up(gate.size(), 1.0f);
  for (const KernelTable* path : all_paths()) {
    std::vector<float> got(gate.size());
    path->swiglu(gate.data(), up.data(), got.data(), gate.size());
    for (std::size_t i = 0; i < 8; ++i) EXPECT_TRUE(std::isfinite(got[i])) << path->name << i;
    EXPECT_EQ(got[5], 1e30f);
    EXPECT_TRUE(std::isnan(got[8])) << path->name;
    EXPECT_EQ(got[9], inf);
  }
}

TEST(Pointwise, EverySmallSizeEqualsTheOracleAndWritesNothingElse) {
  for (std::size_t n = 0; n <= kSizesMax; ++n) {
    const std::vector<float> a = random_floats(n + 2, 1, 20.0f);
    const std::vector<float> b = random_floats(n + 2, 2, 20.0f);
    std::vector<std::uint16_t> narrow(n + 2);
    for (std::size_t i = 0; i < n + 2; ++i) narrow[i] = float_to_bf16(a[i]);
    std::vector<float> want_gate = a;
    std::vector<float> want_sum = a;
    std::vector<float> want_wide = a;
    oracle().swiglu(a.data() + 1, b.data() + 1, want_gate.data() + 1, n);
    oracle().add(want_sum.data() + 1, b.data() + 1, n);
    oracle().widen(narrow.data() + 1, WeightType::bf16, want_wide.data() + 1, n);
    for (std::size_t i = 1; i <= n; ++i) {
      ASSERT_EQ(want_sum[i], a[i] + b[i]);
      ASSERT_EQ(want_wide[i], bf16_to_float(narrow[i]));
    }
    for (const KernelTable* path : all_paths()) {
      SCOPED_TRACE(testing::Message() << path->name << " " << n);
      std::vector<float> gate = a;
      std::vector<float> sum = a;
      std::vector<float> wide = a;
      std::vector<float> copy = a;
      path->swiglu(gate.data() + 1, b.data() + 1, gate.data() + 1, n);
      path->add(sum.data() + 1, b.data() + 1, n);
      path->widen(narrow.data() + 1, WeightType::bf16, wide.data() + 1, n);
      path->widen(b.data() + 1, WeightType::f32, copy.data() + 1, n);
      EXPECT_TRUE(same_bits(gate.data(), want_gate.data(), n + 2));
      EXPECT_TRUE(same_bits(sum.data(), want_sum.data(), n + 2));
      EXPECT_TRUE(same_bits(wide.data(), want_wide.data(), n + 2));
      EXPECT_TRUE(same_bits(copy.data() + 1, b.data() + 1, n));
    }
  }
}

TEST(KernelTable, FindsPathsByNameAndEndsWithTheOracle) {
  const std::vector<const KernelTable*> paths = all_paths();
  EXPECT_STREQ(paths.back()->name, "scalar");
  EXPECT_EQ(find_kernels("auto"), paths.front());
  EXPECT_EQ(find_kernels("sse"), nullptr);
  EXPECT_EQ(find_kernels(""), nullptr);
  for (const KernelTable* path : paths) EXPECT_EQ(find_kernels(path->name), path);
}

}  // namespace
}  // namespace sluice::krn
