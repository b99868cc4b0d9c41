// A walk over panels that are fetched from memory while others are multiplied: of each the bytes
// of some columns. The tiles' own loads come in bursts, a long time apart, and the hardware's
// prefetchers don't run ahead of them.
struct Fetch {
  const char* at = nullptr;    // the next line to fetch
  std::size_t lines_left = 0;  // of its panel
  std::size_t lines = 0;       // of a panel
  std::size_t skip = 0;        // bytes from the end of them to the next panel's
  std::size_t panels_left = 0;

  void lines_ahead(std::size_t count) {
    for (; count > 0 && panels_left > 0; --count, at += 64) {
      __builtin_prefetch(at, 0, 3);
      if (--lines_left > 0) continue;
      lines_left = lines;
      at += skip;
      --panels_left;
    }
  }
};

// Where the tile that comes next, of the tokens behind these T, has its sums or will store them: y
// is larger than the caches, and a tile can't begin without the sums that wait there.
template <int P, int T>
SLUICE_INLINE void fetch_next_sums(const MatmulJob& job, std::size_t token, const float* y) {
  for (std::size_t t = T; t < 2 * T && token + t < job.num_tokens; ++t) {
    const float* const row = y + t * job.y_stride;
    for (std::size_t p = 0; p < P; ++p) __builtin_prefetch(row + p * kLanes, 1, 3);
  }
}

// For one stream that the tiles' own loads read, `step` bytes at a time: the hardware's prefetchers
// follow it, but begin anew with each page, and where memory is far they don't run far enough
// ahead. One line of a page to come, and they have begun; the next lines are asked for here.
SLUICE_INLINE void fetch_stream(const char* at, std::size_t step) {
  constexpr std::uintptr_t kPageBytes = 4096;
  constexpr std::size_t kPagesAhead = 16u << 10;
  constexpr std::size_t kLinesAhead = 4u << 10;
  if (reinterpret_cast<std::uintptr_t>(at) % kPageBytes < step)
    __builtin_prefetch(at + kPagesAhead, 0, 3);
  for (std::size_t line = 0; line < step; line += 64)
    __builtin_prefetch(at + kLinesAhead + line, 0, 3);
}
