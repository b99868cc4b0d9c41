// One loop per format, in the order in which the bytes lie; see quantized_blocks.h.
#include "kernels/quantized_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/half_float.h"

namespace sluice::krn {
namespace {

constexpr std::size_t kSmallBlock = 32;
constexpr std::size_t kSuperBlock = 256;
constexpr std::size_t kScaleBytes = 12;  // eight scales and eight minima of six bits each

float half_at(const std::uint8_t* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return f16_to_float(bits);
}

float low(std::uint8_t byte) {
  return static_cast<float>(byte & 15);
}
float high(std::uint8_t byte) {
  return static_cast<float>(byte >> 4);
}

void q8_0_block(const std::uint8_t* p, float* out) {
  const float d = half_at(p);
  const auto* q = reinterpret_cast<const std::int8_t*>(p + 2);
  for (std::size_t i = 0; i < kSmallBlock; ++i) out[i] = d * static_cast<float>(q[i]);
}

void q4_0_block(const std::uint8_t* p, float* out) {
  const float d = half_at(p);
  const std::uint8_t* q = p + 2;
  for (std::size_t i = 0; i < kSmallBlock / 2; ++i) {
    out[i] = d * (low(q[i]) - 8);
    out[i + kSmallBlock / 2] = d * (high(q[i]) - 8);
  }
}

struct ScaleAndMin {
  float scale;
  float min;
};
ScaleAndMin floats(SixBits six) {
  return {static_cast<float>(six.scale), static_cast<float>(six.min)};
}

void q4_k_block(const std::uint8_t* p, float* out) {
  const float d = half_at(p), m = half_at(p + 2);
  const std::uint8_t* q = p + 4 + kScaleBytes;
  for (std::size_t j = 0; j < 8; j += 2, q += 32, out += 64) {
    const auto [scale0, min0] = floats(scale_and_min(p + 4, j));
    const auto [scale1, min1] = floats(scale_and_min(p + 4, j + 1));
    for (std::size_t i = 0; i < 32; ++i) {
      out[i] = d * scale0 * low(q[i]) - m * min0;
      out[i + 32] = d * scale1 * high(q[i]) - m * min1;
    }
  }
}

void q5_k_block(const std::uint8_t* p, float* out) {
  const float d = half_at(p), m = half_at(p + 2);
  const std::uint8_t* h = p + 4 + kScaleBytes;
  const std::uint8_t* q = h + 32;
  for (std::size_t j = 0; j < 8; j += 2, q += 32, out += 64) {
    const auto [scale0, min0] = floats(scale_and_min(p + 4, j));
    const auto [scale1, min1] = floats(scale_and_min(p + 4, j + 1));
    for (std::size_t i = 0; i < 32; ++i) {
      const float fifth0 = (h[i] >> j & 1) != 0 ? 16.0f : 0.0f;
      const float fifth1 = (h[i] >> (j + 1) & 1) != 0 ? 16.0f : 0.0f;
      out[i] = d * scale0 * (low(q[i]) + fifth0) - m * min0;
      out[i + 32] = d * scale1 * (high(q[i]) + fifth1) - m * min1;
    }
  }
}

void q6_k_block(const std::uint8_t* p, float* out) {
  const float d = half_at(p + 208);
  const std::uint8_t* l = p;
  const std::uint8_t* h = p + 128;
  const auto* s = reinterpret_cast<const std::int8_t*>(p + 192);
  for (std::size_t half = 0; half < 2; ++half, l += 64, h += 32, s += 8, out += 128) {
    for (std::size_t i = 0; i < 32; ++i) {
      const std::size_t of = i / 16;
      const auto element = [&](std::size_t quarter, unsigned nibble) {
        const int bits = static_cast<int>(nibble | (h[i] >> (2 * quarter) & 3u) << 4) - 32;
        return d * static_cast<float>(s[of + 2 * quarter]) * static_cast<float>(bits);
      };
      out[i] = element(0, l[i] & 15u);
      out[i + 32] = element(1, l[i + 32] & 15u);
      out[i + 64] = element(2, l[i] >> 4);
      out[i + 96] = element(3, l[i + 32] >> 4);
    }
  }
}

template <void (*block)(const std::uint8_t*, float*)>
void all_blocks(BlockShape shape, const void* blocks, std::size_t num_blocks, float* out) {
  const auto* p = static_cast<const std::uint8_t*>(blocks);
  for (std::size_t i = 0; i < num_blocks; ++i, p += shape.bytes, out += shape.num_elements)
    block(p, out);
}

void put_half(float value, std::uint8_t* p) {
  const std::uint16_t bits = float_to_f16(value);
  std::memcpy(p, &bits, sizeof bits);
}

// A scale that binary16 rounds to zero makes its block zero.
float inverse_of(float scale) {
  return std::abs(scale) <= 0x1p-25f ? 0.0f : 1.0f / scale;
}

void quantize_q8_0(const float* x, std::uint8_t* block) {
  float largest = 0;
  for (std::size_t i = 0; i < kSmallBlock; ++i) largest = std::max(largest, std::abs(x[i]));
  const float d = largest / 127.0f;
  const float inverse = inverse_of(d);
  put_half(d, block);
  for (std::size_t i = 0; i < kSmallBlock; ++i) {
    const float level = std::clamp(std::round(x[i] * inverse), -127.0f, 127.0f);
    block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(level));
  }
}

void quantize_q4_0(const float* x, std::uint8_t* block) {
  float extreme = 0;
  for (std::size_t i = 0; i < kSmallBlock; ++i)
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  const float d = extreme / -8.0f;
  const float inverse = inverse_of(d);
  put_half(d, block);
  const auto level = [&](float value) {
    return static_cast<unsigned>(std::clamp(value * inverse + 8.5f, 0.0f, 15.0f));
  };
  for (std::size_t i = 0; i < kSmallBlock / 2; ++i)
    block[2 + i] = static_cast<std::uint8_t>(level(x[i]) | level(x[i + kSmallBlock / 2]) << 4);
}

}  // namespace

SixBits scale_and_min(const std::uint8_t* s, std::size_t j) {
  const auto byte = [](int bits) { return static_cast<std::uint8_t>(bits); };
  if (j < 4) return {byte(s[j] & 63), byte(s[j + 4] & 63)};
  return {byte((s[j + 4] & 15) | (s[j - 4] >> 6) << 4), byte((s[j + 4] >> 4) | (s[j] >> 6) << 4)};
}

BlockShape block_shape(BlockFormat format) {
  switch (format) {
    case BlockFormat::q8_0:
      return {kSmallBlock, 2 + 32};
    case BlockFormat::q4_0:
      return {kSmallBlock, 2 + 16};
    case BlockFormat::q4_k:
      return {kSuperBlock, 4 + kScaleBytes + 128};
    case BlockFormat::q5_k:
      return {kSuperBlock, 4 + kScaleBytes + 32 + 128};
    case BlockFormat::q6_k:
      return {kSuperBlock, 128 + 64 + 16 + 2};
  }
  return {1, 1};
}

void dequantize(BlockFormat format, const void* blocks, std::size_t num_blocks, float* out) {
  const BlockShape shape = block_shape(format);
  switch (format) {
    case BlockFormat::q8_0:
      return all_blocks<q8_0_block>(shape, blocks, num_blocks, out);
    case BlockFormat::q4_0:
      return all_blocks<q4_0_block>(shape, blocks, num_blocks, out);
    case BlockFormat::q4_k:
      return all_blocks<q4_k_block>(shape, blocks, num_blocks, out);
    case BlockFormat::q5_k:
      return all_blocks<q5_k_block>(shape, blocks, num_blocks, out);
    case BlockFormat::q6_k:
      return all_blocks<q6_k_block>(shape, blocks, num_blocks, out);
  }
}

void quantize(BlockFormat format, const float* x, std::size_t num_blocks, std::uint8_t* blocks) {
  for (std::size_t b = 0; b < num_blocks; ++b, x += kSmallBlock) {
    if (format == BlockFormat::q8_0)
      quantize_q8_0(x, blocks);
    else
      quantize_q4_0(x, blocks);
    blocks += block_shape(format).bytes;
  }
}

}  // namespace sluice::krn
