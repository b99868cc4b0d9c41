// A fixed amount of work against the monotonic clock.
#include "kernels/cpu/machine_limits.h"

#include <algorithm>
#include <ctime>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/targets.h"

namespace sluice::krn {
namespace {

constexpr std::size_t kRepeats = 4;
constexpr std::size_t kRounds = 1u << 16;  // about half a millisecond
constexpr std::size_t kReadBytes = 64u << 20;
constexpr std::size_t kPieceFloats = 256u << 10;  // of one chunk: 1 MiB

double now_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// A result that is used, so that its computation stays.
void keep(float value) {
  [[maybe_unused]] volatile float kept = value;
}

// work(i): the i-th repeat.
template <class Work>
double best_rate(double amount, const Work& work) {
  double best = 0;
  for (std::size_t i = 0; i < kRepeats; ++i) {
    const double begin = now_seconds();
    work(i);
    best = std::max(best, amount / std::max(now_seconds() - begin, 1e-9));
  }
  return best;
}

}  // namespace

const LimitProbe* usable_probe() {
#if defined(__x86_64__) && !defined(SLUICE_SCALAR_KERNELS)
  const CpuFeatures cpu = detect_cpu();
  if (cpu.avx512vnni) return &kAvx512VnniProbe;
  if (cpu.avx512) return &kAvx512Probe;
  if (cpu.avx2) return &kAvx2Probe;
#endif
  return nullptr;
}

MachineLimits measure_limits(ThreadPool& team, std::span<const float> memory) {
  MachineLimits limits;
  const LimitProbe* probe = usable_probe();
  if (probe == nullptr) return limits;
  const std::size_t members = team.num_threads();
  limits.operations_per_second = best_rate(
      static_cast<double>(members * kRounds * probe->operations_per_round), [&](std::size_t) {
        team.parallel_for(members, 1, [&](std::size_t begin, std::size_t end) {
          for (; begin < end; ++begin) keep(probe->fma_chains(kRounds));
        });
      });
  const std::size_t pieces = kReadBytes / sizeof(float) / kPieceFloats;
  AlignedBuffer buffer;
  if (memory.size_bytes() < kReadBytes) {
    buffer = AlignedBuffer::allocate(kReadBytes);
    if (buffer.empty()) return limits;
    // Pages appear by being written: untouched ones would all be one page of zeros in the cache.
    team.parallel_for(pieces, 1, [&](std::size_t begin, std::size_t end) {
      std::fill(buffer.floats() + begin * kPieceFloats, buffer.floats() + end * kPieceFloats, 1.0f);
    });
    memory = {buffer.floats(), kReadBytes / sizeof(float)};
  }
  const std::size_t parts = memory.size_bytes() / kReadBytes;
  limits.bytes_per_second = best_rate(static_cast<double>(kReadBytes), [&](std::size_t repeat) {
    const float* const part = memory.data() + repeat % parts * (kReadBytes / sizeof(float));
    team.parallel_for(pieces, 1, [&](std::size_t begin, std::size_t end) {
      keep(probe->read_sum(part + begin * kPieceFloats, (end - begin) * kPieceFloats));
    });
  });
  return limits;
}

}  // namespace sluice::krn
