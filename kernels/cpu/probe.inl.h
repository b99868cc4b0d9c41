// What measures the machine: fused multiply-adds and products of bytes on independent chains in
// registers, and a sum over memory. Included inside a namespace by target_*.cc, after
// pointwise.inl.h and int8_*.inl.h; kProbeChains of them
// and the factor fit the registers and hide the latency of an fma.

// Each chain does one fma a round.
static float fma_chains(std::size_t rounds) {
  const Lanes factor = splat(0.999f);
  Lanes sums[kProbeChains];
  for (int j = 0; j < kProbeChains; ++j) sums[j] = splat(static_cast<float>(j));
  for (std::size_t i = 0; i < rounds; ++i) {
    for (int j = 0; j < kProbeChains; ++j) sums[j] = fma(sums[j], factor, factor);
  }
  float total = 0;
  for (int j = 0; j < kProbeChains; ++j) total += tree_sum(sums[j]);
  return total;
}

// The first floats / (4 * kLanes) * (4 * kLanes) elements.
static float read_sum(const float* data, std::size_t floats) {
  Lanes sums[4] = {zero(), zero(), zero(), zero()};
  for (std::size_t i = 0; i + 4 * kLanes <= floats; i += 4 * kLanes) {
    for (std::size_t j = 0; j < 4; ++j) sums[j] = add(sums[j], load(data + i + j * kLanes));
  }
  return tree_sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

// Each chain does one dot product of 4 bytes in each of 16 lanes a round.
static std::int32_t int8_chains(std::size_t rounds) {
  alignas(64) char bytes[kLanes * 4];
  for (std::size_t i = 0; i < sizeof bytes; ++i) bytes[i] = static_cast<char>(i);
  const Bytes weights = load_bytes(bytes);
  Ints sums[kProbeChains];
  for (int j = 0; j < kProbeChains; ++j) sums[j] = splat_int(j);
  for (std::size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kProbeChains; ++j) sums[j] = dot_q8(sums[j], weights, 0x01020304);
  }
  Lanes total = zero();
  for (int j = 0; j < kProbeChains; ++j) total = add(total, to_floats(sums[j]));
  return static_cast<std::int32_t>(tree_sum(total) * 0x1p-40f);
}
