// Ring throughput and round trip between two pinned threads, over real memfds mapped the way two
// processes map them (read-write by the owner, read-only by the peer).
//
//   ring_bench [seconds per repeat, default 0.5]
//
// Prints median and range of 7 repeats. Throughput: records of 64 bytes with their header, CRC on
// both sides, copied and validated, positions released per batch. Round trip: one record there and
// one back, both sides spinning. Beside each stands what the machine itself gives between these two
// CPUs in the same run, in turn: blocks of 4 KiB copied through a buffer of the same size, without
// headers or checksums, and a bare pair of atomics. Where a host puts the CPUs far apart, both
// fall.
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
constexpr int kRecordsPerTurn = 64;  // as the gateway reads them

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

// What one thread writes must not lie beside what the other uses: two processes share no such
// lines.
template <class T>
struct alignas(128) OwnLines {
  T value{};
};

// What a reader does before it looks again at a ring that it has read to the end, in place of the
// rest of a turn. Polling without a pause takes the position's cache line from the writer at each
// record and costs both of them.
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
    touch(submit, submit_peer);
    touch(step, step_peer);
  }
  // Pages are there, but under some hypervisors the first access through a mapping still costs
  // microseconds: a ring lives through many laps, and the first one is not what is measured.
  static void touch(Region& owner, const Region& peer) {
    std::memset(owner.own_ring().data(), 0, owner.ring_bytes());
    std::size_t sum = 0;
    for (std::size_t at = 0; at < peer.ring_bytes(); at += 4096)
      sum += std::to_integer<std::size_t>(peer.ring()[at]);
    CHECK(sum == 0);
  }
};

double records_per_second(double seconds) {
  Pair pair;
  OwnLines<std::atomic<bool>> stop_flag;
  std::atomic<bool>& stop = stop_flag.value;
  std::atomic<std::uint64_t> read_total{0};
  // The reader attaches first: the writer trusts read positions from then on.
  OwnLines<RingReader> reader_end{RingReader(pair.submit, pair.step_peer, 0)};
  RingReader& reader = reader_end.value;
  std::thread consumer([&] {
    pin(1);
    std::uint64_t num_read = 0;
    std::uint64_t sum = 0;
    for (;;) {
      int count = 0;
      for (; count < kRecordsPerTurn && (count == 0 || reader.knows_more()); ++count) {
        const ReadOutcome outcome = reader.read();
        if (outcome.status == ReadStatus::empty) break;
        CHECK(outcome.status == ReadStatus::record);
        std::uint64_t first;
        std::memcpy(&first, outcome.payload.data(), sizeof first);
        sum += first;
      }
      num_read += static_cast<std::uint64_t>(count);
      reader.release();
      if (count == kRecordsPerTurn) continue;
      pause();
      if (stop.load(std::memory_order_acquire) && reader.is_empty()) break;
    }
    CHECK(sum == num_read * (num_read - 1) / 2);
    read_total.store(num_read);
  });
  pin(0);
  OwnLines<RingWriter> writer_end{RingWriter(pair.step, pair.submit_peer)};
  RingWriter& writer = writer_end.value;
  std::uint64_t written = 0;
  const Tick start = SystemClock().now();
  while (written % 4096 != 0 || seconds_since(start) < seconds) {
    // In place, as the engine loop and the gateway write theirs.
    const std::span<std::byte> payload = writer.try_claim(RecordType::step, kPayloadBytes);
    if (payload.data() == nullptr) continue;
    for (std::size_t i = 0; i < kPayloadBytes / sizeof written; ++i) {
      const std::uint64_t word = written + i;
      std::memcpy(payload.data() + i * sizeof word, &word, sizeof word);
    }
    writer.commit(kPayloadBytes);
    ++written;
  }
  stop.store(true, std::memory_order_release);
  consumer.join();
  const double elapsed = seconds_since(start);
  CHECK(read_total.load() == written);
  return static_cast<double>(written) / elapsed;
}

double round_trip_ns(double seconds) {
  Pair pair;
  OwnLines<std::atomic<bool>> stop_flag;
  std::atomic<bool>& stop = stop_flag.value;
  OwnLines<RingReader> far_end{RingReader(pair.step, pair.submit_peer, 0)};
  OwnLines<RingReader> near_end{RingReader(pair.submit, pair.step_peer, 0)};
  RingReader& far_reader = far_end.value;
  RingReader& near_reader = near_end.value;
  const std::array<std::byte, kPayloadBytes> payload{};
  std::thread echo([&] {
    pin(1);
    RingWriter writer(pair.step, pair.submit_peer);
    while (!stop.load(std::memory_order_relaxed)) {
      const ReadOutcome outcome = far_reader.read();
      if (outcome.status != ReadStatus::record) {
        __builtin_ia32_pause();
        continue;
      }
      far_reader.release();
      CHECK(writer.try_write(RecordType::step, outcome.payload));
    }
  });
  pin(0);
  OwnLines<RingWriter> writer_end{RingWriter(pair.submit, pair.step_peer)};
  RingWriter& writer = writer_end.value;
  std::uint64_t trips = 0;
  const Tick start = SystemClock().now();
  while (trips % 1024 != 0 || seconds_since(start) < seconds) {
    CHECK(writer.try_write(RecordType::submit, payload));
    while (near_reader.read().status != ReadStatus::record) __builtin_ia32_pause();
    near_reader.release();
    ++trips;
  }
  const double elapsed = seconds_since(start);
  stop.store(true);
  echo.join();
  return elapsed / static_cast<double>(trips) * 1e9;
}

// Plain copies: what two CPUs can hand over at all, in blocks of 64 bytes per second.
double copied_blocks_per_second(double seconds) {
  constexpr std::size_t kChunk = 4096;
  constexpr std::uint64_t kChunks = kRingBytes / kChunk;
  std::vector<std::byte> buffer(kRingBytes);
  alignas(128) std::atomic<std::uint64_t> written{0};
  alignas(128) std::atomic<std::uint64_t> read{0};
  std::atomic<bool> stop{false};
  std::thread consumer([&] {
    pin(1);
    std::array<std::byte, kChunk> into;
    std::uint64_t at = 0;
    for (;;) {
      if (at == written.load(std::memory_order_acquire)) {
        if (stop.load(std::memory_order_acquire) && at == written.load()) break;
        __builtin_ia32_pause();
        continue;
      }
      std::memcpy(into.data(), buffer.data() + at % kChunks * kChunk, kChunk);
      std::uint64_t first;
      std::memcpy(&first, into.data(), sizeof first);
      CHECK(first == at);
      read.store(++at, std::memory_order_release);
    }
  });
  pin(0);
  std::array<std::byte, kChunk> from{};
  std::uint64_t at = 0;
  const Tick start = SystemClock().now();
  while (at % 64 != 0 || seconds_since(start) < seconds) {
    if (at - read.load(std::memory_order_acquire) == kChunks) continue;
    std::memcpy(from.data(), &at, sizeof at);
    std::memcpy(buffer.data() + at % kChunks * kChunk, from.data(), kChunk);
    written.store(++at, std::memory_order_release);
  }
  stop.store(true, std::memory_order_release);
  consumer.join();
  return static_cast<double>(at) * (kChunk / 64) / seconds_since(start);
}

double bare_round_trip_ns(double seconds) {
  alignas(128) std::atomic<std::uint64_t> there{0};
  alignas(128) std::atomic<std::uint64_t> back{0};
  std::atomic<bool> stop{false};
  std::thread echo([&] {
    pin(1);
    while (!stop.load(std::memory_order_relaxed))
      back.store(there.load(std::memory_order_acquire), std::memory_order_release);
  });
  pin(0);
  std::uint64_t trips = 0;
  const Tick start = SystemClock().now();
  while (trips % 1024 != 0 || seconds_since(start) < seconds) {
    there.store(++trips, std::memory_order_release);
    while (back.load(std::memory_order_acquire) != trips) {
    }
  }
  const double elapsed = seconds_since(start);
  stop.store(true);
  echo.join();
  return elapsed / static_cast<double>(trips) * 1e9;
}

void print(const char* name, const char* unit, int digits, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf("%-32s median %8.*f %s   range %.*f to %.*f   (%d repeats)\n", name, digits,
              values[kRepeats / 2], unit, digits, values.front(), digits, values.back(), kRepeats);
}

// Ours and the machine's in turn, and the quotient of each pair of neighbours.
template <class Ours, class Bare>
void report(const char* name, const char* bare_name, const char* unit, double scale, double seconds,
            Ours ours, Bare bare) {
  std::vector<double> values, bare_values, quotients;
  for (int i = 0; i < kRepeats; ++i) {
    values.push_back(ours(seconds) / scale);
    bare_values.push_back(bare(seconds) / scale);
    quotients.push_back(values.back() / bare_values.back());
  }
  print(name, unit, 2, values);
  print(bare_name, unit, 2, bare_values);
  print("  quotient", "", 3, quotients);
}

}  // namespace
}  // namespace sluice::shm

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  using namespace sluice::shm;
  report("64-byte records, 2 threads", "64-byte blocks, plain copies", "M/s", 1e6, seconds,
         records_per_second, copied_blocks_per_second);
  report("round trip, spinning", "round trip, two bare atomics", "ns", 1, seconds, round_trip_ns,
         bare_round_trip_ns);
  return 0;
}
