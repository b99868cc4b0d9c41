// Reading weights from memory ahead of the tiles. A core waits for a dozen lines at a time, which
// is too few where memory is far; its prefetchers wait for more. They follow a stream, but not far,
// and begin anew with each page: two neighbours asked for well ahead of each four lines make them
// run.

constexpr std::size_t kLine = 64;               // bytes
constexpr std::size_t kFour = 4 * kLine;        // bytes
constexpr std::size_t kLinesAhead = 4u << 10;   // bytes, of a stream
constexpr std::size_t kStreamAhead = 8u << 10;  // bytes, of its fours
constexpr std::size_t kWalkAhead = 4u << 10;    // bytes, of the fours of a walk

SLUICE_INLINE void fetch_four(std::uintptr_t in_it) {
  const char* const four = reinterpret_cast<const char*>(in_it / kFour * kFour);
  __builtin_prefetch(four, 0, 2);
  __builtin_prefetch(four + kLine, 0, 2);
}

// For one stream that the tiles' own loads read, `step` bytes at a time: lines into L1, fours into
// L2.
SLUICE_INLINE void fetch_stream(const char* at, std::size_t step) {
  for (std::size_t line = 0; line < step; line += kLine)
    __builtin_prefetch(at + kLinesAhead + line, 0, 3);
  for (std::size_t four = 0; four < step; four += kFour)
    fetch_four(reinterpret_cast<std::uintptr_t>(at) + kStreamAhead + four);
}

// A walk over panels that are fetched while others are multiplied: of each the bytes of some
// columns. The tiles' own loads come in bursts, a long time apart, and no prefetcher runs ahead of
// them.
struct Fetch {
  // Lines at a time; where fewer do, so much is multiplied meanwhile that nothing waits for memory.
  static constexpr std::size_t kFastWalk = 4;

  const char* at = nullptr;    // the next line to fetch
  std::size_t lines_left = 0;  // of these
  std::size_t lines = 0;       // without a gap
  std::size_t skip = 0;        // bytes from the end of them to the next ones
  std::size_t gaps_left = 0;

  // Panels of `panel_bytes` each, of which `bytes` from `at` on are to come. Whole panels lie
  // without a gap.
  static Fetch of(const char* at, std::size_t bytes, std::size_t panel_bytes, std::size_t count) {
    if (count == 0 || bytes < kLine) return {};
    const bool is_whole = bytes == panel_bytes;
    const std::size_t lines = (is_whole ? count * bytes : bytes) / kLine;
    return {at, lines, lines, panel_bytes - lines * kLine, is_whole ? 0 : count - 1};
  }

  // Into L2: there is no room in L1 for what comes so much later.
  void lines_ahead(std::size_t count) {
    const std::size_t now = count < lines_left ? count : lines_left;
    const char* const end = at + now * kLine;
    for (const char* line = at; line != end; line += kLine) __builtin_prefetch(line, 0, 2);
    if (now >= kFastWalk) {
      const auto begin = reinterpret_cast<std::uintptr_t>(at);
      for (std::uintptr_t four = (begin + kFour - 1) / kFour * kFour;
           four < reinterpret_cast<std::uintptr_t>(end); four += kFour)
        fetch_four(four + kWalkAhead);
    }
    at = end;
    lines_left -= now;
    if (lines_left > 0 || gaps_left == 0) return;
    lines_left = lines;
    at += skip;
    --gaps_left;
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
