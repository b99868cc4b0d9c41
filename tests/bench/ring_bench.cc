// Ring throughput and round trip between two pinned threads, over real memfds mapped the way two
// processes map them (read-write by the owner, read-only by the peer).
//
//   ring_bench [seconds per repeat, default 0.5]
//
// Prints median and range of 7 repeats. Throughput: records of 64 bytes with their header, CRC on
// both sides, copied and validated, positions released per batch. Round trip: one record there and
// one back, both sides spinning.
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "shared/byte_ring.h"
#include "shared/check.h"
#include "shared/clock.h"

namespace sluice::shm {
namespace {

// The shipped default (ring_bytes). A ring that fits the caches of both cores is slower: each line
// then has to be taken from the other core before it can be written again.
constexpr std::size_t kRingBytes = 8u << 20;
constexpr std::size_t kPayloadBytes = 48;  // 64 with the header
constexpr int kRepeats = 7;
constexpr int kReleaseEvery = 64;

double seconds_since(Tick start) {
  return std::chrono::duration<double>(SystemClock().now() - start).count();
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) != 0)
    std::fprintf(stderr, "ring_bench: could not pin to CPU %d\n", cpu);
}

// What a reader does before it looks again at an empty ring. Polling without a pause takes the
// position's cache line from the writer at each record and costs both of them.
void pause() {
  for (int i = 0; i < 400; ++i) __builtin_ia32_pause();
}

// Both regions of a pair, each with the peer's read-only mapping.
struct Pair {
  Region submit, step;            // owners
  Region submit_peer, step_peer;  // read-only

  static Region peer_of(const Region& region, const RegionIdentity& identity) {
    return *Region::attach(UniqueFd(::fcntl(region.fd().get(), F_DUPFD_CLOEXEC, 0)), identity);
  }
  Pair() {
    const RegionIdentity submit_id{RegionKind::submit, WorkerId(0), Epoch(1), Epoch(1)};
    const RegionIdentity step_id{RegionKind::step, WorkerId(0), Epoch(1), Epoch(0)};
    submit = *Region::create(submit_id, kRingBytes);
    step = *Region::create(step_id, kRingBytes);
    submit_peer = peer_of(submit, submit_id);
    step_peer = peer_of(step, step_id);
  }
};

double records_per_second(double seconds) {
  Pair pair;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> read_total{0};
  // The reader attaches first: the writer trusts read positions from then on.
  RingReader reader(pair.submit, pair.step_peer, 0);
  std::thread consumer([&] {
    pin(1);
    std::uint64_t num_read = 0;
    std::uint64_t sum = 0;
    for (;;) {
      const ReadOutcome outcome = reader.read();
      if (outcome.status == ReadStatus::record) {
        std::uint64_t first;
        std::memcpy(&first, outcome.payload.data(), sizeof first);
        sum += first;
        if (++num_read % kReleaseEvery == 0) reader.release();
        continue;
      }
      CHECK(outcome.status == ReadStatus::empty);
      reader.release();
      pause();
      if (stop.load(std::memory_order_acquire) && reader.is_empty()) break;
    }
    CHECK(sum == num_read * (num_read - 1) / 2);
    read_total.store(num_read);
  });
  pin(0);
  RingWriter writer(pair.step, pair.submit_peer);
  std::array<std::byte, kPayloadBytes> payload{};
  std::uint64_t written = 0;
  const Tick start = SystemClock().now();
  while (written % 4096 != 0 || seconds_since(start) < seconds) {
    std::memcpy(payload.data(), &written, sizeof written);
    if (writer.try_write(RecordType::step, payload)) ++written;
  }
  stop.store(true, std::memory_order_release);
  consumer.join();
  const double elapsed = seconds_since(start);
  CHECK(read_total.load() == written);
  return static_cast<double>(written) / elapsed;
}

double round_trip_ns(double seconds) {
  Pair pair;
  std::atomic<bool> stop{false};
  RingReader far_reader(pair.step, pair.submit_peer, 0);
  RingReader near_reader(pair.submit, pair.step_peer, 0);
  const std::array<std::byte, kPayloadBytes> payload{};
  std::thread echo([&] {
    pin(1);
    RingWriter writer(pair.step, pair.submit_peer);
    while (!stop.load(std::memory_order_relaxed)) {
      const ReadOutcome outcome = far_reader.read();
      if (outcome.status != ReadStatus::record) continue;
      far_reader.release();
      CHECK(writer.try_write(RecordType::step, outcome.payload));
    }
  });
  pin(0);
  RingWriter writer(pair.submit, pair.step_peer);
  std::uint64_t trips = 0;
  const Tick start = SystemClock().now();
  while (trips % 1024 != 0 || seconds_since(start) < seconds) {
    CHECK(writer.try_write(RecordType::submit, payload));
    while (near_reader.read().status != ReadStatus::record) {
    }
    near_reader.release();
    ++trips;
  }
  const double elapsed = seconds_since(start);
  stop.store(true);
  echo.join();
  return elapsed / static_cast<double>(trips) * 1e9;
}

template <class Measure>
void report(const char* name, const char* unit, double scale, double seconds, Measure measure) {
  std::vector<double> values;
  for (int i = 0; i < kRepeats; ++i) values.push_back(measure(seconds) / scale);
  std::sort(values.begin(), values.end());
  std::printf("%-28s median %8.2f %s   range %.2f to %.2f   (%d repeats)\n", name,
              values[kRepeats / 2], unit, values.front(), values.back(), kRepeats);
}

}  // namespace
}  // namespace sluice::shm

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  using namespace sluice::shm;
  report("64-byte records, 2 threads", "M/s", 1e6, seconds, records_per_second);
  report("round trip, spinning", "ns", 1, seconds, round_trip_ns);
  return 0;
}
