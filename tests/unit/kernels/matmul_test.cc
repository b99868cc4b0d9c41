// Matmul: the scalar path against double arithmetic within the stated bound; every other path bit
// for bit equal to it, for every small size, tail, token count, panel split and weight type.
#include <cmath>
#include <tuple>

#include "kernels/half_float.h"
#include "kernels/pack.h"
#include "kernels/quantized_blocks.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace sluice::krn {
namespace {

// A row-major matrix in its file format, packed, and as exact doubles.
struct Weights {
  std::vector<std::uint8_t> packed_bytes;
  PackedMatrix packed;
  std::vector<double> exact;  // [rows, cols]
};

std::uint16_t small_f16(std::uint32_t bits) {  // magnitude below 2, subnormals included, finite
  return static_cast<std::uint16_t>((bits & 0x8000u) | (bits % 0x4000u));
}

Weights make_weights(std::size_t rows, std::size_t cols, WeightType type, std::uint32_t seed) {
  std::mt19937 engine(seed);
  const std::vector<float> values = random_floats(rows * cols, seed);
  const std::size_t bytes = weight_bytes(type);
  std::vector<std::uint8_t> file(rows * cols * bytes + 1);
  Weights w;
  w.exact.resize(rows * cols);
  for (std::size_t i = 0; i < rows * cols; ++i) {
    float value = values[i];
    if (type == WeightType::f32) {
      std::memcpy(file.data() + 1 + i * 4, &value, 4);
    } else {
      const std::uint16_t bits = type == WeightType::bf16
                                     ? float_to_bf16(value)
                                     : small_f16(static_cast<std::uint32_t>(engine()));
      value = type == WeightType::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
      std::memcpy(file.data() + 1 + i * 2, &bits, 2);
    }
    w.exact[i] = static_cast<double>(value);
  }
  w.packed_bytes.resize(packed_bytes(rows, cols, type) + 64);
  // 4-byte alignment only: the kernels must not rely on more than an element's.
  w.packed = {w.packed_bytes.data() + 4, type, rows, cols};
  // Packed in two pieces from a source at an odd address.
  const std::size_t first = rows / 3;
  pack_rows(file.data() + 1, type, first, cols, 0, w.packed_bytes.data() + 4, type);
  pack_rows(file.data() + 1 + first * cols * bytes, type, rows - first, cols, first,
            w.packed_bytes.data() + 4, type);
  return w;
}

void run(const KernelTable& path, const Weights& w, const std::vector<float>& x,
         std::size_t x_stride, std::size_t tokens, std::vector<float>& y, std::size_t y_stride,
         bool unpacks_once = false) {
  MatmulJob job{w.packed, x.data() + 1, x_stride, tokens, y.data() + 1, y_stride};
  job.unpacks_once = unpacks_once;
  path.matmul(job, 0, num_panels(w.packed.rows));
}

void check_size(std::size_t rows, std::size_t cols, std::size_t tokens, WeightType type) {
  SCOPED_TRACE(testing::Message() << rows << "x" << cols << " tokens " << tokens << " type "
                                  << static_cast<int>(type));
  const Weights w = make_weights(rows, cols, type, static_cast<std::uint32_t>(rows * 131 + cols));
  std::vector<float> unpacked(rows * cols);
  unpack_rows(w.packed, 0, rows / 2, unpacked.data());
  unpack_rows(w.packed, rows / 2, rows - rows / 2, unpacked.data() + rows / 2 * cols);
  for (std::size_t i = 0; i < unpacked.size(); ++i)
    ASSERT_EQ(static_cast<double>(unpacked[i]), w.exact[i]) << i;
  const std::size_t x_stride = cols + 3;
  const std::size_t y_stride = rows + 5;
  const std::vector<float> x =
      random_floats(tokens * x_stride + 1, static_cast<std::uint32_t>(tokens + 7));
  constexpr float kUntouched = -12345.0f;
  std::vector<float> want(tokens * y_stride + 1, kUntouched);
  run(oracle(), w, x, x_stride, tokens, want, y_stride);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t r = 0; r < rows; ++r) {
      double sum = 0;
      double magnitude = 0;
      for (std::size_t k = 0; k < cols; ++k) {
        const double product = w.exact[r * cols + k] * static_cast<double>(x[1 + t * x_stride + k]);
        sum += product;
        magnitude += std::abs(product);
      }
      const double got = static_cast<double>(want[1 + t * y_stride + r]);
      ASSERT_LE(std::abs(got - sum), static_cast<double>(cols) * kUnit * magnitude + 1e-40);
    }
  }
  for (const KernelTable* path : all_paths()) {
    for (const bool unpacks_once : {false, true}) {
      std::vector<float> got(tokens * y_stride + 1, kUntouched);
      run(*path, w, x, x_stride, tokens, got, y_stride, unpacks_once);
      ASSERT_TRUE(same_bits(got.data(), want.data(), got.size())) << path->name << unpacks_once;
    }
  }
}

constexpr WeightType kTypes[] = {WeightType::f32, WeightType::bf16, WeightType::f16};

TEST(Matmul, AllPathsEqualTheOracleForEverySmallSize) {
  for (const WeightType type : kTypes) {
    for (std::size_t n = 0; n <= 2 * kLanes + 1; ++n) {
      check_size(n, 19, 3, type);
      check_size(17, n, 2, type);
      check_size(33, 21, n, type);
    }
  }
}

TEST(Matmul, AllPathsEqualTheOracleAcrossTilesAndBlocksOfK) {
  for (const WeightType type : kTypes) {
    check_size(16 * 9 + 5, 1100, 1, type);
    check_size(16 * 9 + 5, 1030, 14, type);
    check_size(16 * 17, 513, 37, type);
    check_size(16 * 3, 1, 26, type);  // nothing to fetch
  }
}

TEST(Matmul, ATokensRowDoesNotDependOnItsBatchOrOnThePanelSplit) {
  const std::size_t rows = 16 * 11 + 3;
  const std::size_t cols = 1037;
  const std::size_t tokens = 41;
  for (const WeightType type : kTypes) {
    const Weights w = make_weights(rows, cols, type, 5);
    const std::vector<float> x = random_floats(tokens * cols, 6);
    for (const KernelTable* path : all_paths()) {
      std::vector<float> whole(tokens * rows);
      path->matmul({w.packed, x.data(), cols, tokens, whole.data(), rows}, 0, num_panels(rows));
      for (std::size_t t = 0; t < tokens; ++t) {
        std::vector<float> alone(rows);
        for (std::size_t p = 0; p < num_panels(rows); p += 1 + t % 5) {
          const std::size_t end = std::min(p + 1 + t % 5, num_panels(rows));
          path->matmul({w.packed, x.data() + t * cols, cols, 1, alone.data(), rows}, p, end);
        }
        ASSERT_TRUE(same_bits(alone.data(), whole.data() + t * rows, rows)) << path->name << t;
      }
    }
  }
}

// ---- quantized weights
struct QuantizedWeights {
  std::vector<std::uint8_t> file;  // [rows][row_bytes]
  std::vector<std::uint8_t> packed_bytes;
  PackedMatrix packed;
  std::vector<float> values;  // [rows, cols], by dequantize(), which knows nothing of panels
};

BlockFormat format_of(WeightType type) {
  return type == WeightType::q8_0   ? BlockFormat::q8_0
         : type == WeightType::q4_0 ? BlockFormat::q4_0
         : type == WeightType::q4_k ? BlockFormat::q4_k
         : type == WeightType::q5_k ? BlockFormat::q5_k
                                    : BlockFormat::q6_k;
}

// Every byte value occurs, in weights and in the small scales; F16 scales of either sign and zero.
QuantizedWeights make_quantized(std::size_t rows, std::size_t cols, WeightType type,
                                std::uint32_t seed) {
  std::mt19937 engine(seed);
  const BlockShape shape = block_shape(format_of(type));
  QuantizedWeights w;
  w.file.resize(rows * row_bytes(cols, type) + 1);
  for (std::uint8_t& byte : w.file) byte = static_cast<std::uint8_t>(engine());
  const auto set_scale = [&](std::uint8_t* at) {
    const auto bits = static_cast<std::uint16_t>(
        engine() % 17 == 0 ? 0 : small_f16(static_cast<std::uint32_t>(engine())));
    std::memcpy(at, &bits, 2);
  };
  for (std::size_t at = 1; at + shape.bytes <= w.file.size(); at += shape.bytes) {
    set_scale(w.file.data() + at + (type == WeightType::q6_k ? 208 : 0));
    if (has_minima(type)) set_scale(w.file.data() + at + 2);
  }
  w.values.resize(rows * cols);
  dequantize(format_of(type), w.file.data() + 1, rows * cols / shape.num_elements, w.values.data());
  w.packed_bytes.resize(packed_bytes(rows, cols, type) + 64);
  w.packed = {w.packed_bytes.data() + 4, type, rows, cols};
  const std::size_t first = rows / 3;
  pack_rows(w.file.data() + 1, type, first, cols, 0, w.packed_bytes.data() + 4, type);
  pack_rows(w.file.data() + 1 + first * row_bytes(cols, type), type, rows - first, cols, first,
            w.packed_bytes.data() + 4, type);
  return w;
}

struct QuantizedRow {
  std::vector<int> q;
  std::vector<float> scales;
};

// The contract of kernel_table.h, said once more.
QuantizedRow quantize_row(const float* x, std::size_t cols) {
  QuantizedRow row;
  row.q.resize(cols);
  for (std::size_t b = 0; b < cols; b += kQuantBlock) {
    float largest = 0;
    for (std::size_t i = 0; i < kQuantBlock; ++i) largest = std::max(largest, std::abs(x[b + i]));
    const float scale = std::exp2(std::floor(std::log2(largest))) / 64.0f;
    row.scales.push_back(largest < 0x1p-100f ? 0 : scale);
    for (std::size_t i = 0; i < kQuantBlock && row.scales.back() != 0; ++i)
      row.q[b + i] =
          static_cast<int>(std::clamp(std::nearbyint(x[b + i] / scale), -127.0f, 127.0f));
  }
  return row;
}

void check_quantized(std::size_t rows, std::size_t cols, std::size_t tokens, WeightType type) {
  SCOPED_TRACE(testing::Message() << rows << "x" << cols << " tokens " << tokens << " type "
                                  << static_cast<int>(type));
  const QuantizedWeights w =
      make_quantized(rows, cols, type, static_cast<std::uint32_t>(rows * 131 + cols));
  std::vector<float> unpacked(rows * cols);
  unpack_rows(w.packed, 0, rows / 2, unpacked.data());
  unpack_rows(w.packed, rows / 2, rows - rows / 2, unpacked.data() + rows / 2 * cols);
  for (std::size_t i = 0; i < unpacked.size(); ++i) ASSERT_EQ(unpacked[i], w.values[i]) << i;
  const std::size_t x_stride = cols + 3;
  const std::size_t y_stride = rows + 5;
  std::vector<float> x =
      random_floats(tokens * x_stride + 1, static_cast<std::uint32_t>(tokens + 7), 3.0f);
  for (std::size_t i = 0; i + 40 < x.size(); i += 97) std::fill_n(x.begin() + i, 37, 0.0f);
  for (std::size_t i = 11; i < x.size(); i += 101) x[i] *= 100.0f;  // outliers
  constexpr float kUntouched = -12345.0f;
  std::vector<float> want(tokens * y_stride + 1, kUntouched);
  const auto multiply = [&](const KernelTable& path, std::vector<float>& y) {
    path.matmul({w.packed, x.data() + 1, x_stride, tokens, y.data() + 1, y_stride}, 0,
                num_panels(rows));
  };
  multiply(oracle(), want);
  for (std::size_t t = 0; t < tokens; ++t) {
    const QuantizedRow row = quantize_row(x.data() + 1 + t * x_stride, cols);
    for (std::size_t r = 0; r < rows; ++r) {
      double sum = 0;
      double magnitude = 0;
      for (std::size_t k = 0; k < cols; ++k) {
        const double x_value =
            static_cast<double>(row.scales[k / kQuantBlock]) * static_cast<double>(row.q[k]);
        const double weight = static_cast<double>(w.values[r * cols + k]);
        sum += weight * x_value;
        // q4_k and q5_k add products and minima apart: each below 2 * 63 * 31.
        magnitude += (has_minima(type) ? 2 * 3906 : std::abs(weight)) * std::abs(x_value);
      }
      const double got = static_cast<double>(want[1 + t * y_stride + r]);
      ASSERT_LE(std::abs(got - sum), static_cast<double>(cols) * kUnit * magnitude + 1e-40);
    }
  }
  for (const KernelTable* path : all_paths()) {
    std::vector<float> got(tokens * y_stride + 1, kUntouched);
    multiply(*path, got);
    ASSERT_TRUE(same_bits(got.data(), want.data(), got.size())) << path->name;
    // x quantized beforehand, in two pieces; the panels in two calls.
    std::vector<std::int32_t> prepared(quantized_bytes(tokens, cols) / 4);
    MatmulJob job{w.packed, x.data() + 1, x_stride, tokens, got.data() + 1, y_stride};
    job.quantized = prepared.data();
    const std::size_t middle = cols / kQuantBlock / 2 * kQuantBlock;
    path->quantize(job, middle, cols, prepared.data());
    path->quantize(job, 0, middle, prepared.data());
    for (const bool unpacks_once : {false, true}) {
      std::fill(got.begin(), got.end(), kUntouched);
      job.unpacks_once = unpacks_once;
      path->matmul(job, 0, num_panels(rows) / 2);
      path->matmul(job, num_panels(rows) / 2, num_panels(rows));
      ASSERT_TRUE(same_bits(got.data(), want.data(), got.size()))
          << path->name << " prepared, unpacks once: " << unpacks_once;
    }
  }
}

constexpr WeightType kQuantizedTypes[] = {WeightType::q8_0, WeightType::q4_0, WeightType::q4_k,
                                          WeightType::q5_k, WeightType::q6_k};

// Whole blocks, or whole super-blocks.
std::size_t columns(std::size_t blocks, WeightType type) {
  return blocks * (has_super_blocks(type) ? kSuperBlock : kQuantBlock);
}

TEST(QuantizedMatmul, AllPathsEqualTheOracleForEverySmallSize) {
  for (const WeightType type : kQuantizedTypes) {
    for (std::size_t n = 0; n <= 2 * kLanes + 1; ++n) {
      check_quantized(n, columns(2, type), 3, type);
      check_quantized(33, columns(1, type), n, type);
    }
    for (std::size_t blocks = 0; blocks <= 6; ++blocks)
      check_quantized(17, columns(blocks, type), 2, type);
  }
}

TEST(QuantizedMatmul, AllPathsEqualTheOracleAcrossTilesAndBlocksOfK) {
  for (const WeightType type : kQuantizedTypes) {
    check_quantized(16 * 9 + 5, has_super_blocks(type) ? 2304 : 2080, 1, type);
    check_quantized(16 * 19 + 5, has_super_blocks(type) ? 2304 : 2080, 14, type);
    check_quantized(16 * 3, has_super_blocks(type) ? 1280 : 1056, 203, type);
    check_quantized(16, 256 * 88, 5, type);
  }
}

TEST(QuantizedMatmul, ATokensRowDoesNotDependOnItsBatchOrOnThePanelSplit) {
  const std::size_t rows = 16 * 11 + 3;
  const std::size_t tokens = 103;
  for (const WeightType type : kQuantizedTypes) {
    const std::size_t cols = has_super_blocks(type) ? 2304 : 2080;
    const QuantizedWeights w = make_quantized(rows, cols, type, 5);
    const std::vector<float> x = random_floats(tokens * cols, 6);
    for (const KernelTable* path : all_paths()) {
      std::vector<float> whole(tokens * rows);
      path->matmul({w.packed, x.data(), cols, tokens, whole.data(), rows}, 0, num_panels(rows));
      for (std::size_t t = 0; t < tokens; t += 3) {
        std::vector<float> alone(rows);
        for (std::size_t p = 0; p < num_panels(rows); p += 1 + t % 5) {
          const std::size_t end = std::min(p + 1 + t % 5, num_panels(rows));
          path->matmul({w.packed, x.data() + t * cols, cols, 1, alone.data(), rows}, p, end);
        }
        ASSERT_TRUE(same_bits(alone.data(), whole.data() + t * rows, rows)) << path->name << t;
      }
    }
  }
}

TEST(QuantizedMatmul, WhatIsNoNumberStaysVisibleAndWhatIsTinyCountsAsZero) {
  constexpr std::size_t kColumns = 224;  // some blocks that are quantized together, some alone
  const QuantizedWeights w = make_quantized(16, kColumns, WeightType::q8_0, 3);
  for (const KernelTable* path : all_paths()) {
    for (const float bad : {INFINITY, -INFINITY, NAN, 0x1p100f, -0x1p120f}) {
      for (const std::size_t at : {0u, 7u, 31u, 32u, 63u, 100u, 127u, 128u, 223u}) {
        std::vector<float> x(kColumns, 0.5f);
        x[at] = bad;
        std::vector<float> y(16);
        path->matmul({w.packed, x.data(), kColumns, 1, y.data(), 16}, 0, 1);
        for (const float value : y) EXPECT_TRUE(std::isnan(value)) << path->name;
      }
    }
    const std::vector<float> tiny(kColumns, 0x1p-140f);
    std::vector<float> y(16, 1.0f);
    path->matmul({w.packed, tiny.data(), kColumns, 1, y.data(), 16}, 0, 1);
    for (const float value : y) EXPECT_EQ(value, 0.0f) << path->name;
  }
}

// The largest values that round up to 128 steps, of both signs, and scales from end to end, zero
// among them: in blocks that are quantized together and in one that is not.
TEST(QuantizedMatmul, AllScalesAndTheLargestSumsHaveTheBitsOfTheOracle) {
  constexpr std::size_t kColumns = 5 * kQuantBlock;
  for (const WeightType type : {WeightType::q8_0, WeightType::q4_0}) {
    const QuantizedWeights w = make_quantized(16, kColumns, type, 5);
    for (int exponent = -101; exponent < 100; ++exponent) {
      std::vector<float> x(kColumns);
      for (std::size_t i = 0; i < kColumns; ++i) {
        const float value = std::ldexp(i % 3 == 0 ? 0x1.fffffep0f : 0x1.fdp0f, exponent);
        x[i] = i / kQuantBlock == 1 ? 0.0f : (i / kQuantBlock + i / 7) % 2 == 0 ? value : -value;
      }
      std::vector<float> want(16);
      oracle().matmul({w.packed, x.data(), kColumns, 1, want.data(), 16}, 0, 1);
      for (const float value : want) ASSERT_TRUE(std::isfinite(value));
      for (const KernelTable* path : all_paths()) {
        std::vector<float> got(16);
        path->matmul({w.packed, x.data(), kColumns, 1, got.data(), 16}, 0, 1);
        ASSERT_TRUE(same_bits(got.data(), want.data(), 16)) << path->name << " 2^" << exponent;
      }
    }
  }
}

// Whole panels take another way than rows alone; columns that are no multiple of 8 do not.
TEST(Pack, WholePanelsBecomeWhatTheirRowsBecomeOneByOne) {
  using enum WeightType;
  for (const WeightType type : {f32, bf16, f16, q8_0, q4_0, q4_k, q5_k, q6_k}) {
    for (const std::size_t cols : {std::size_t{256}, std::size_t{1280}, std::size_t{36}}) {
      if (is_quantized(type) && cols % kSuperBlock != 0) continue;
      constexpr std::size_t kRows = 3 * kLanes + 5;
      const std::size_t bytes = row_bytes(cols, type);
      std::vector<std::uint8_t> file(kRows * bytes + 1);
      std::mt19937 engine(static_cast<std::uint32_t>(cols));
      for (std::uint8_t& byte : file) byte = static_cast<std::uint8_t>(engine());
      std::vector<std::uint8_t> want(packed_bytes(kRows, cols, type));
      for (std::size_t r = 0; r < kRows; ++r)
        pack_rows(file.data() + 1 + r * bytes, type, 1, cols, r, want.data(), type);
      for (const std::size_t first : {0u, 4u, 16u}) {
        std::vector<std::uint8_t> got(want.size());
        pack_rows(file.data() + 1, type, first, cols, 0, got.data(), type);
        pack_rows(file.data() + 1 + first * bytes, type, kRows - first, cols, first, got.data(),
                  type);
        EXPECT_EQ(got, want) << static_cast<int>(type) << " " << cols << " from row " << first;
      }
    }
  }
}

TEST(HalfFloat, EveryF16ValueConvertsAsTheHardwareDoes) {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  std::vector<float> want(bits.size());
  for (std::size_t i = 0; i < bits.size(); ++i) want[i] = f16_to_float(bits[i]);
  EXPECT_EQ(want[0x3c00], 1.0f);
  EXPECT_EQ(want[0x0001], 0x1p-24f);
  EXPECT_EQ(want[0xfbff], -65504.0f);
  EXPECT_TRUE(std::isinf(want[0x7c00]) && std::isnan(want[0x7e01]));
  for (const KernelTable* path : all_paths()) {
    std::vector<float> got(bits.size());
    path->widen(bits.data(), WeightType::f16, got.data(), got.size());
    EXPECT_TRUE(same_bits(got.data(), want.data(), got.size())) << path->name;
  }
}

// Every binary16 value, the half way points between them and their neighbours; all lengths.
TEST(HalfFloat, RowsOfFloatsBecomeF16LikeSingleOnes) {
  std::vector<float> x;
  for (std::uint32_t half = 0; half < 65536; ++half) {
    const auto bits = std::bit_cast<std::uint32_t>(f16_to_float(static_cast<std::uint16_t>(half)));
    for (const std::uint32_t more : {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x1fffu})
      x.push_back(std::bit_cast<float>(bits + more));
  }
  std::vector<std::uint16_t> got(x.size());
  floats_to_f16(x.data(), x.size(), got.data());
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i], float_to_f16(x[i])) << i;
  for (std::size_t n = 0; n < 20; ++n) {
    std::vector<std::uint16_t> some(n + 1, 0x1234);
    floats_to_f16(x.data() + 99'999, n, some.data());
    EXPECT_EQ(some[n], 0x1234) << n;
    for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(some[i], float_to_f16(x[99'999 + i])) << n;
  }
}

TEST(HalfFloat, Bf16RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.00390625f), 0x3f80);  // half way, even below
  EXPECT_EQ(float_to_bf16(1.01171875f), 0x3f82);  // half way, even above
  EXPECT_EQ(bf16_to_float(float_to_bf16(-3.140625f)), -3.140625f);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::nanf("")))));
}

}  // namespace
}  // namespace sluice::krn
