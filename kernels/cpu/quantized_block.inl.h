// One block of quantized activations, and how its scale gets into sums of integers for nothing: as
// the exponent of a float. A sum that starts from the bits of 1.5 * 2^23 * s is, read as a float,
// s * (1.5 * 2^23 + sum), exact as long as |sum| < 2^22; taking the offset off leaves s * sum.
// (Adding to the bits of a float in this way is an old trick for conversions; here it saves the
// multiplication by s, too, which is why s is a power of two.) Included inside a namespace before
// int8_*.inl.h.

struct QuantizedBlock {
  alignas(32) signed char values[kQuantBlock];
  float scale;                // a power of two, 0 or NaN
  std::int32_t half_sums[2];  // of values
};

constexpr int kExponentBits = 0x7f800000;
constexpr float kOffset = 0x1.8p23f;

// The largest power of two that is not larger; of a normal positive number.
SLUICE_INLINE float power_of_two_in(float value) {
  std::int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  bits &= kExponentBits;
  __builtin_memcpy(&value, &bits, sizeof bits);
  return value;
}

// Of a block whose sum of products starts from `start`.
struct Offset {
  float offset;
  std::int32_t start;
};

// A block without values has no scale of its own, and any will do.
SLUICE_INLINE Offset offset_of(float scale, std::int32_t start) {
  Offset result = {scale == 0 ? kOffset : scale * kOffset, 0};
  __builtin_memcpy(&result.start, &result.offset, sizeof result.start);
  result.start += start;
  return result;
}
