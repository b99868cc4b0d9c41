// Constants of the exponential that all CPU paths evaluate in the same order:
//   x < kExpMin -> 0;  y = min(kExpMax, x), then max(kExpMin, y) where min(a, b) = a < b ? a : b
//   n = nearest integer (ties to even) of y * log2(e)
//   r = fma(n, -ln2_high, y), r = fma(n, -ln2_low, r);  polynomial of degree 7 in r by Horner, fma
//   result = polynomial * 2^n
// A NaN stays NaN. Relative error <= 3 u on [kExpMin, kExpMax] (kernels_test).
#pragma once

namespace sluice::krn {

inline constexpr float kExpMax = 88.0f;
inline constexpr float kExpMin = -87.0f;  // 2^n stays a normal number
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2High = 0.693359375f;  // 9 bits: n * kLn2High is exact
inline constexpr float kLn2Low = -2.12194440e-4f;
// Taylor coefficients 1/7!, 1/6!, ..., 1/2!, 1, 1: |r| <= ln(2)/2, so the remainder is below 6e-9.
inline constexpr float kExpCoefficients[8] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                              1.0f / 6,    1.0f / 2,   1.0f,       1.0f};

}  // namespace sluice::krn
