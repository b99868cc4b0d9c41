// The loops of RowLoops, included by one file per instruction set inside a namespace of its own.
// Fixed order: a block's sum has 16 lanes, lane j adds elements j, j + 16, j + 32, j + 48; then the
// lanes are added in a tree. Written with the compilers' vector extension, which splits 16 lanes
// into as many registers as the instruction set needs; each lane is an IEEE operation of its own.

constexpr std::uint32_t kLanes = 16;
using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));

// Padding of a last, partial block: its weight is 0 and it is never a maximum of a valid row.
constexpr float kPadding = -3.0e38f;

#define ROW_INLINE inline __attribute__((always_inline))

ROW_INLINE void load(const float* from, Floats& to) {
  __builtin_memcpy(&to, from, sizeof to);
}
ROW_INLINE void store(const Floats& from, float* to) {
  __builtin_memcpy(to, &from, sizeof from);
}
ROW_INLINE Floats all(float value) {
  return Floats{} + value;
}

// exp on [-87, 0]: 2^n * exp(r), |r| <= ln 2 / 2, with the polynomial of Cephes' expf (Moshier).
ROW_INLINE void exp_nonpositive(Floats& x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Ints in_range = x > all(-87.0f);
  const Floats clamped = in_range ? x : all(-87.0f);
  const Floats n = (clamped * 1.44269504088896341f + kRound) - kRound;
  const Floats r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Floats y = (p * (r * r) + r) + 1.0f;
  const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;
  __builtin_memcpy(&power, &bits, sizeof power);
  x = in_range ? y * power : Floats{};
}

ROW_INLINE float tree_sum(const Floats& lanes) {
  float sum[kLanes];
  store(lanes, sum);
  for (std::uint32_t width = kLanes / 2; width > 0; width /= 2)
    for (std::uint32_t j = 0; j < width; ++j) sum[j] += sum[j + width];
  return sum[0];
}

// `bad` gets a non-zero lane for each element whose exponent is all ones: NaN or infinite.
ROW_INLINE float block_max(const float* block, Ints& bad) {
  Floats best;
  load(block, best);
  for (std::uint32_t i = 0; i < kRowBlock; i += kLanes) {
    Floats value;
    load(block + i, value);
    best = best > value ? best : value;
    Ints bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    bad |= (bits & 0x7f800000) == 0x7f800000;
  }
  float lanes[kLanes];
  store(best, lanes);
  for (std::uint32_t width = kLanes / 2; width > 0; width /= 2)
    for (std::uint32_t j = 0; j < width; ++j)
      lanes[j] = lanes[j] > lanes[j + width] ? lanes[j] : lanes[j + width];
  return lanes[0];
}

ROW_INLINE void copy_padded(const float* from, std::uint32_t count, float padding, float* block) {
  for (std::uint32_t j = 0; j < kRowBlock; ++j) block[j] = j < count ? from[j] : padding;
}

inline bool block_maxima(const float* row, std::uint32_t n, float* maxima) {
  Ints bad{};
  const std::uint32_t num_whole = n / kRowBlock;
  for (std::uint32_t b = 0; b < num_whole; ++b) maxima[b] = block_max(row + b * kRowBlock, bad);
  if (n % kRowBlock != 0) {
    float block[kRowBlock];
    copy_padded(row + num_whole * kRowBlock, n % kRowBlock, kPadding, block);
    maxima[num_whole] = block_max(block, bad);
  }
  std::int32_t any_bad = 0;
  for (std::uint32_t j = 0; j < kLanes; ++j) any_bad |= bad[j];
  return any_bad == 0;
}

struct Weighing {
  float top;
  float inverse_temperature;
  float weight_min;
};

ROW_INLINE float weigh_block(const float* block, const Weighing& by, float* weights) {
  Floats sum{};
  for (std::uint32_t i = 0; i < kRowBlock; i += kLanes) {
    Floats x;
    load(block + i, x);
    x = (x - by.top) * by.inverse_temperature;
    exp_nonpositive(x);
    x = x >= all(by.weight_min) ? x : Floats{};
    store(x, weights + i);
    sum += x;
  }
  return tree_sum(sum);
}

inline void block_weights(const float* row, std::uint32_t n, const float* maxima, float cut,
                          float top, float inverse_temperature, float weight_min, float* weights,
                          float* sums) {
  const Weighing by{top, inverse_temperature, weight_min};
  const std::uint32_t num_whole = n / kRowBlock;
  for (std::uint32_t b = 0; b < num_whole; ++b)
    sums[b] =
        maxima[b] < cut ? 0.0f : weigh_block(row + b * kRowBlock, by, weights + b * kRowBlock);
  if (n % kRowBlock == 0) return;
  sums[num_whole] = 0.0f;
  if (maxima[num_whole] < cut) return;
  float block[kRowBlock];
  float padded[kRowBlock];
  copy_padded(row + num_whole * kRowBlock, n % kRowBlock, kPadding, block);
  sums[num_whole] = weigh_block(block, by, padded);
  for (std::uint32_t j = 0; j < n % kRowBlock; ++j) weights[num_whole * kRowBlock + j] = padded[j];
}

ROW_INLINE float keep_in_block(float* weights, float least) {
  Floats sum{};
  for (std::uint32_t i = 0; i < kRowBlock; i += kLanes) {
    Floats x;
    load(weights + i, x);
    x = x >= all(least) ? x : Floats{};
    store(x, weights + i);
    sum += x;
  }
  return tree_sum(sum);
}

inline void keep_weights(float* weights, std::uint32_t n, float least, float* sums) {
  const std::uint32_t num_whole = n / kRowBlock;
  for (std::uint32_t b = 0; b < num_whole; ++b)
    if (sums[b] > 0.0f) sums[b] = keep_in_block(weights + b * kRowBlock, least);
  const std::uint32_t rest = n % kRowBlock;
  if (rest == 0 || sums[num_whole] <= 0.0f) return;
  float padded[kRowBlock];
  copy_padded(weights + num_whole * kRowBlock, rest, 0.0f, padded);
  sums[num_whole] = keep_in_block(padded, least);
  for (std::uint32_t j = 0; j < rest; ++j) weights[num_whole * kRowBlock + j] = padded[j];
}

inline void scaled_exp(float* values, std::uint32_t n, float top, float inverse_temperature) {
  for (std::uint32_t first = 0; first < n; first += kLanes) {
    const std::uint32_t count = n - first < kLanes ? n - first : kLanes;
    Floats x = all(kPadding);
    for (std::uint32_t j = 0; j < count; ++j) x[j] = values[first + j];
    x = (x - top) * inverse_temperature;
    exp_nonpositive(x);
    for (std::uint32_t j = 0; j < count; ++j) values[first + j] = x[j];
  }
}

#undef ROW_INLINE
