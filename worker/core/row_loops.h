// RowLoops: the three loops over a row of logits, compiled once per instruction set from
// row_loops.inl.h and picked once at start. Every variant adds in the same order and rounds alike
// (no fused multiply-add), so all give bitwise equal results: which CPU samples makes no
// difference.
//
// A row is seen in blocks of kRowBlock logits; what is far below the row's maximum is skipped by
// block. Measured by tests/bench/engine_bench.cc.
#pragma once

#include <cstdint>

namespace sluice::eng {

inline constexpr std::uint32_t kRowBlock = 64;

struct RowLoops {
  const char* name;
  // maxima[(n + 63) / 64]: the largest logit of each block. False when one is NaN or infinite.
  bool (*block_maxima)(const float* row, std::uint32_t n, float* maxima);
  // weights[i] = exp((row[i] - top) * inverse_temperature), 0 below `weight_min`; sums[b] adds them
  // up per block. Blocks whose maximum is below `cut` are skipped: sums[b] = 0, weights not
  // written. Error of a weight: at most 3e-7 of itself; a weight under exp(-87) is 0.
  void (*block_weights)(const float* row, std::uint32_t n, const float* maxima, float cut,
                        float top, float inverse_temperature, float weight_min, float* weights,
                        float* sums);
  // Weights below `least` become 0; sums[b] is made anew. Blocks whose sum is 0 are not touched.
  void (*keep_weights)(float* weights, std::uint32_t n, float least, float* sums);
  // values[i] = exp((values[i] - top) * inverse_temperature), in place, nothing skipped.
  void (*scaled_exp)(float* values, std::uint32_t n, float top, float inverse_temperature);
};

const RowLoops& row_loops_baseline();
const RowLoops& row_loops_avx2();    // REQUIRES: a CPU with AVX2
const RowLoops& row_loops_avx512();  // REQUIRES: a CPU with AVX-512 F, DQ, VL
const RowLoops& row_loops();         // the widest that this CPU has

}  // namespace sluice::eng
