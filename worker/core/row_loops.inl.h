// The loops of RowLoops, included by one file per instruction set inside a namespace of its own.
// Fixed order: a block's sum has 16 lanes, lane j adds elements j, j + 16, j + 32, j + 48; then the
// lanes are added in a tree. Plain loops of constant length: the compiler turns them into vectors.

constexpr std::uint32_t kLanes = 16;
// Padding of a last, partial block: its weight is 0 and it is never a maximum of a valid row.
constexpr float kPadding = -3.0e38f;

// exp on [-87, 0]: 2^n * exp(r), |r| <= ln 2 / 2, with the polynomial of Cephes' expf (Moshier).
inline float exp_nonpositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x > -87.0f ? x : -87.0f;
  const float n = (clamped * 1.44269504088896341f + kRound) - kRound;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = (p * (r * r) + r) + 1.0f;
  const auto bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23;
  const float power = __builtin_bit_cast(float, bits);
  return x > -87.0f ? y * power : 0.0f;
}

inline float block_max(const float* block, std::uint32_t* not_finite) {
  float lanes[kLanes];
  std::uint32_t bad[kLanes];
  for (std::uint32_t j = 0; j < kLanes; ++j) {
    lanes[j] = block[j];
    bad[j] = 0;
  }
  for (std::uint32_t i = 0; i < kRowBlock; i += kLanes) {
    for (std::uint32_t j = 0; j < kLanes; ++j) {
      const float value = block[i + j];
      lanes[j] = lanes[j] > value ? lanes[j] : value;
      const std::uint32_t exponent = __builtin_bit_cast(std::uint32_t, value) & 0x7f800000u;
      bad[j] |= exponent == 0x7f800000u ? 1u : 0u;
    }
  }
  for (std::uint32_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::uint32_t j = 0; j < width; ++j) {
      lanes[j] = lanes[j] > lanes[j + width] ? lanes[j] : lanes[j + width];
      bad[j] |= bad[j + width];
    }
  }
  *not_finite |= bad[0];
  return lanes[0];
}

inline void copy_padded(const float* from, std::uint32_t count, float* block) {
  for (std::uint32_t j = 0; j < kRowBlock; ++j) block[j] = j < count ? from[j] : kPadding;
}

inline bool block_maxima(const float* row, std::uint32_t n, float* maxima) {
  std::uint32_t not_finite = 0;
  const std::uint32_t num_whole = n / kRowBlock;
  for (std::uint32_t b = 0; b < num_whole; ++b)
    maxima[b] = block_max(row + b * kRowBlock, &not_finite);
  if (n % kRowBlock != 0) {
    float block[kRowBlock];
    copy_padded(row + num_whole * kRowBlock, n % kRowBlock, block);
    maxima[num_whole] = block_max(block, &not_finite);
  }
  return not_finite == 0;
}

inline float weigh_block(const float* block, float top, float inverse_temperature, float weight_min,
                         float* weights) {
  float lanes[kLanes] = {};
  for (std::uint32_t i = 0; i < kRowBlock; i += kLanes) {
    for (std::uint32_t j = 0; j < kLanes; ++j) {
      const float e = exp_nonpositive((block[i + j] - top) * inverse_temperature);
      const float weight = e >= weight_min ? e : 0.0f;
      weights[i + j] = weight;
      lanes[j] += weight;
    }
  }
  for (std::uint32_t width = kLanes / 2; width > 0; width /= 2)
    for (std::uint32_t j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  return lanes[0];
}

inline void block_weights(const float* row, std::uint32_t n, const float* maxima, float cut,
                          float top, float inverse_temperature, float weight_min, float* weights,
                          float* sums) {
  const std::uint32_t num_whole = n / kRowBlock;
  for (std::uint32_t b = 0; b < num_whole; ++b) {
    sums[b] = maxima[b] < cut ? 0.0f
                              : weigh_block(row + b * kRowBlock, top, inverse_temperature,
                                            weight_min, weights + b * kRowBlock);
  }
  if (n % kRowBlock == 0) return;
  if (maxima[num_whole] < cut) {
    sums[num_whole] = 0.0f;
    return;
  }
  float block[kRowBlock];
  float padded[kRowBlock];
  copy_padded(row + num_whole * kRowBlock, n % kRowBlock, block);
  sums[num_whole] = weigh_block(block, top, inverse_temperature, weight_min, padded);
  for (std::uint32_t j = 0; j < n % kRowBlock; ++j) weights[num_whole * kRowBlock + j] = padded[j];
}

inline void scaled_exp(float* values, std::uint32_t n, float top, float inverse_temperature) {
  for (std::uint32_t i = 0; i < n; ++i)
    values[i] = exp_nonpositive((values[i] - top) * inverse_temperature);
}
