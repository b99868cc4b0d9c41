// Block formats against the definition of each single element, read from random bytes by its index
// alone and computed exactly; binary16 against its neighbours.
#include "kernels/quantized_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/half_float.h"
#include "shared/random.h"

namespace sluice::krn {
namespace {

using Block = std::vector<std::uint8_t>;

double half_of(const Block& block, std::size_t at) {
  return static_cast<double>(
      f16_to_float(static_cast<std::uint16_t>(block[at] | block[at + 1] << 8)));
}
// `count` bits from bit `bit` of a byte.
int bits_of(const Block& block, std::size_t at, std::size_t bit, int count) {
  return block[at] >> bit & ((1 << count) - 1);
}
int signed_of(const Block& block, std::size_t at) {
  return static_cast<std::int8_t>(block[at]);
}

// Six-bit scale and minimum of sub-block j out of the twelve bytes at 4.
int scale_of(const Block& block, std::size_t j) {
  return j < 4 ? bits_of(block, 4 + j, 0, 6)
               : bits_of(block, 4 + j + 4, 0, 4) + 16 * bits_of(block, 4 + j - 4, 6, 2);
}
int min_of(const Block& block, std::size_t j) {
  return j < 4 ? bits_of(block, 4 + j + 4, 0, 6)
               : bits_of(block, 4 + j + 4, 4, 4) + 16 * bits_of(block, 4 + j, 6, 2);
}

double element_of(BlockFormat format, const Block& b, std::size_t i) {
  const std::size_t nibble_at = i / 64 * 32 + i % 32;  // of q4_k, q5_k
  const std::size_t nibble_bit = i / 32 % 2 * 4;
  switch (format) {
    case BlockFormat::q8_0:
      return half_of(b, 0) * signed_of(b, 2 + i);
    case BlockFormat::q4_0:
      return half_of(b, 0) * (bits_of(b, 2 + i % 16, i / 16 * 4, 4) - 8);
    case BlockFormat::q4_k:
      return half_of(b, 0) * scale_of(b, i / 32) * bits_of(b, 16 + nibble_at, nibble_bit, 4) -
             half_of(b, 2) * min_of(b, i / 32);
    case BlockFormat::q5_k: {
      const int q =
          bits_of(b, 48 + nibble_at, nibble_bit, 4) + 16 * bits_of(b, 16 + i % 32, i / 32, 1);
      return half_of(b, 0) * scale_of(b, i / 32) * q - half_of(b, 2) * min_of(b, i / 32);
    }
    case BlockFormat::q6_k: {
      const std::size_t half = i / 128, within = i % 128;
      const int q = bits_of(b, half * 64 + within % 64, within / 64 * 4, 4) +
                    16 * bits_of(b, 128 + half * 32 + within % 32, within / 32 * 2, 2);
      return half_of(b, 208) * signed_of(b, 192 + i / 16) * (q - 32);
    }
  }
  return 0;
}

std::vector<std::size_t> scale_offsets(BlockFormat format) {
  if (format == BlockFormat::q6_k) return {208};
  if (format == BlockFormat::q4_k || format == BlockFormat::q5_k) return {0, 2};
  return {0};
}

// Random bytes whose scales are finite.
Block random_block(BlockFormat format, std::uint32_t run) {
  Block block(block_shape(format).bytes);
  const RandomKey key{static_cast<std::uint64_t>(format), 0, run};
  for (std::uint32_t i = 0; i < block.size(); ++i)
    block[i] = static_cast<std::uint8_t>(random_bits(key, i));
  for (const std::size_t at : scale_offsets(format))
    if ((block[at + 1] & 0x7c) == 0x7c) block[at + 1] ^= 0x40;
  return block;
}

constexpr BlockFormat kFormats[] = {BlockFormat::q8_0, BlockFormat::q4_0, BlockFormat::q4_k,
                                    BlockFormat::q5_k, BlockFormat::q6_k};

TEST(QuantizedBlocks, EveryElementIsItsDefinitionRoundedOnce) {
  for (const BlockFormat format : kFormats) {
    const BlockShape shape = block_shape(format);
    for (std::uint32_t run = 0; run < 2000; ++run) {
      // Several blocks from an odd address.
      std::vector<std::uint8_t> bytes(1);
      std::vector<Block> blocks;
      for (std::uint32_t n = 0; n <= run % 3; ++n) {
        blocks.push_back(random_block(format, run * 3 + n));
        bytes.insert(bytes.end(), blocks.back().begin(), blocks.back().end());
      }
      std::vector<float> out(blocks.size() * shape.num_elements + 1, 7.0f);
      dequantize(format, bytes.data() + 1, blocks.size(), out.data());
      for (std::size_t i = 0; i + 1 < out.size(); ++i) {
        const double exact =
            element_of(format, blocks[i / shape.num_elements], i % shape.num_elements);
        ASSERT_EQ(out[i], static_cast<float>(exact))
            << "format " << static_cast<int>(format) << " run " << run << " element " << i;
        const float half = f16_to_float(float_to_f16(out[i]));
        ASSERT_TRUE(!std::isfinite(half) || std::abs(half - out[i]) <= 0x1p-11f * std::abs(out[i]));
      }
      ASSERT_EQ(out.back(), 7.0f);
    }
  }
}

// Half a step off, a whole one at the far end of q4_0's levels, and what rounding the scale costs.
TEST(QuantizedBlocks, QuantizedFloatsComeBackWithinAStep) {
  for (const BlockFormat format : {BlockFormat::q8_0, BlockFormat::q4_0}) {
    const bool is_q8 = format == BlockFormat::q8_0;
    for (std::uint32_t run = 0; run < 3000; ++run) {
      std::vector<float> x(64), back(64);
      for (std::uint32_t i = 0; i < 64; ++i) {
        const double unit = random_unit({run, 5, i}, 0);
        x[i] = static_cast<float>(std::ldexp(2 * unit - 1, static_cast<int>(run % 40) - 20));
        if (run % 7 == 0 && i < 32) x[i] = 0;
      }
      std::vector<std::uint8_t> blocks(2 * block_shape(format).bytes);
      quantize(format, x.data(), 2, blocks.data());
      dequantize(format, blocks.data(), 2, back.data());
      for (std::size_t i = 0; i < 64; ++i) {
        float largest = 0;
        for (std::size_t k = i / 32 * 32; k < i / 32 * 32 + 32; ++k)
          largest = std::max(largest, std::abs(x[k]));
        // Scales below 2^-14 count in steps of 2^-24.
        const float bound = (is_q8 ? 0.00445f : 0.1256f) * largest + (is_q8 ? 127 : 8) * 0x1p-24f;
        ASSERT_LE(std::abs(back[i] - x[i]), bound) << "run " << run << " element " << i;
        ASSERT_TRUE(largest != 0 || back[i] == 0.0f);
      }
    }
    std::vector<float> extreme(32, 1e-20f);
    std::vector<std::uint8_t> block(block_shape(format).bytes);
    std::vector<float> back(32);
    quantize(format, extreme.data(), 1, block.data());
    dequantize(format, block.data(), 1, back.data());
    for (const float value : back) EXPECT_EQ(value, 0.0f);
    extreme[3] = 1e30f;
    quantize(format, extreme.data(), 1, block.data());
    EXPECT_EQ(block[1] & 0x7c, 0x7c) << "a scale that binary16 does not hold shows";
  }
}

TEST(QuantizedBlocks, AScaleThatIsNotFiniteShows) {
  for (const BlockFormat format : kFormats) {
    for (const std::size_t at : scale_offsets(format)) {
      for (const int high : {0x7c, 0x7e, 0xfc}) {
        Block block = random_block(format, 1);
        block[at] = 0;
        block[at + 1] = static_cast<std::uint8_t>(high);
        std::vector<float> out(block_shape(format).num_elements);
        dequantize(format, block.data(), 1, out.data());
        EXPECT_FALSE(std::isfinite(out[0]));
      }
    }
  }
}

TEST(HalfFloat, EveryHalfComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = f16_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(f16_to_float(float_to_f16(value)))) << bits;
    else
      ASSERT_EQ(float_to_f16(value), bits);
  }
}

TEST(HalfFloat, RoundsToTheNearestAndTiesToEven) {
  for (std::uint32_t low = 0; low < 0x7bff; ++low) {  // of each pair of neighbours
    const double a = f16_to_float(static_cast<std::uint16_t>(low));
    const double b = f16_to_float(static_cast<std::uint16_t>(low + 1));
    const auto middle = static_cast<float>((a + b) / 2);  // exact: one bit more
    const std::uint16_t even = static_cast<std::uint16_t>(low + (low & 1));
    ASSERT_EQ(float_to_f16(middle), even);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 1e9f)), low + 1);
    ASSERT_EQ(float_to_f16(-middle), even | 0x8000);
  }
  EXPECT_EQ(float_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(-3e38f), 0xfc00);
  EXPECT_EQ(float_to_f16(1e-30f), 0);
}

}  // namespace
}  // namespace sluice::krn
