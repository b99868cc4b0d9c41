// The ring against a hostile or dying peer: bit flips, truncated writes, impossible positions,
// stale laps; then both ends in two threads with the doorbell.
#include "shared/byte_ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "shared/doorbell.h"
#include "tests/support/region_pair.h"
#include "tests/support/seed.h"

namespace sluice::shm {
namespace {

using test::RegionPair;
using test::uniform;
using namespace std::chrono_literals;

std::vector<std::byte> payload_of(std::size_t size, unsigned fill) {
  return std::vector<std::byte>(size, static_cast<std::byte>(fill));
}

TEST(ByteRing, TheLargestPayloadFitsAnEmptyRingWhereverItStands) {
  RegionPair pair(kRingBytesMin);
  RingReader reader(pair.submit, pair.step_peer, 0);
  RingWriter writer(pair.step, pair.submit_peer);
  const auto large = payload_of(writer.payload_bytes_max(), 7);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(writer.try_write(RecordType::submit, large));
    ASSERT_EQ(reader.read().payload.size(), large.size());
    reader.release();
    ASSERT_TRUE(
        writer.try_write(RecordType::cancel, payload_of(static_cast<std::size_t>(i % 40), 1)));
    ASSERT_EQ(reader.read().status, ReadStatus::record);
    reader.release();
  }
}

TEST(ByteRing, NothingIsVisibleBeforeCommitAndAnAbortedClaimLeavesNothing) {
  RegionPair pair(kRingBytesMin);
  RingReader reader(pair.submit, pair.step_peer, 0);
  RingWriter writer(pair.step, pair.submit_peer);
  ASSERT_EQ(writer.try_claim(RecordType::step, 100).size(), 100u);
  EXPECT_TRUE(reader.is_empty());
  EXPECT_EQ(reader.read().status, ReadStatus::empty);
  writer.abort_claim();
  EXPECT_EQ(reader.read().status, ReadStatus::empty);
  ASSERT_TRUE(writer.try_write(RecordType::drain, {}));
  EXPECT_EQ(reader.read().type, RecordType::drain);
}

TEST(ByteRing, ARingIsFullUntilTheReaderReleases) {
  RegionPair pair(kRingBytesMin);
  RingReader reader(pair.submit, pair.step_peer, 0);
  RingWriter writer(pair.step, pair.submit_peer);
  const auto record = payload_of(1008, 3);  // 1024 with its header
  std::size_t count = 0;
  while (writer.try_write(RecordType::step, record)) ++count;
  EXPECT_EQ(count, kRingBytesMin / 1024);
  EXPECT_EQ(reader.read().status, ReadStatus::record);
  EXPECT_FALSE(writer.try_write(RecordType::step, record)) << "read, but not yet released";
  reader.release();
  EXPECT_TRUE(writer.try_write(RecordType::step, record));
  EXPECT_FALSE(writer.try_write(RecordType::step, record));
}

TEST(ByteRing, OneLookKnowsWhatWasWrittenBeforeIt) {
  RegionPair pair(kRingBytesMin);
  RingReader reader(pair.submit, pair.step_peer, 0);
  RingWriter writer(pair.step, pair.submit_peer);
  EXPECT_FALSE(reader.knows_more());
  ASSERT_TRUE(writer.try_write(RecordType::cancel, payload_of(8, 1)));
  ASSERT_TRUE(writer.try_write(RecordType::cancel, payload_of(8, 2)));
  EXPECT_FALSE(reader.knows_more()) << "it has not looked";
  ASSERT_EQ(reader.read().status, ReadStatus::record);
  EXPECT_TRUE(reader.knows_more());
  ASSERT_TRUE(writer.try_write(RecordType::cancel, payload_of(8, 3)));
  ASSERT_EQ(reader.read().status, ReadStatus::record);
  EXPECT_FALSE(reader.knows_more()) << "the third came after the look";
  EXPECT_FALSE(reader.is_empty());
  ASSERT_EQ(reader.read().payload[0], std::byte{3});
  EXPECT_EQ(reader.read().status, ReadStatus::empty);
}

TEST(ByteRing, ALongRecordIsSetAsideWhileThoseBehindItAreRead) {
  RegionPair pair(kRingBytesMin);
  RingReader reader(pair.submit, pair.step_peer, 0);
  RingWriter writer(pair.step, pair.submit_peer);
  std::vector<std::byte> large(10'000);
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<std::byte>(i * 7);
  for (int lap = 0; lap < 20; ++lap) {  // over the border of the ring, too
    ASSERT_TRUE(writer.try_write(RecordType::cancel, payload_of(8, 1)));
    ASSERT_TRUE(writer.try_write(RecordType::submit, large));
    ASSERT_TRUE(writer.try_write(RecordType::cancel, payload_of(8, 2)));
    ASSERT_TRUE(writer.try_write(RecordType::submit, large));
    ASSERT_EQ(reader.read_or_set_aside(1000).payload[0], std::byte{1});
    reader.release();
    ASSERT_EQ(reader.read_or_set_aside(1000).status, ReadStatus::set_aside);
    const std::uint64_t before = reader.position();
    ASSERT_EQ(reader.read_aside(104).status, ReadStatus::set_aside);
    ASSERT_TRUE(std::equal(large.begin(), large.begin() + 104, reader.unverified_aside().begin()));
    ASSERT_EQ(reader.read_or_set_aside(1000).payload[0], std::byte{2});
    ASSERT_EQ(reader.read_or_set_aside(1000).status, ReadStatus::empty) << "one at a time";
    reader.release();
    ASSERT_EQ(reader.position(), before) << "its space is not given back before it is done with";
    for (std::size_t copied = 104; copied + 3000 < large.size(); copied += 3000)
      ASSERT_EQ(reader.read_aside(3000).status, ReadStatus::set_aside);
    const ReadOutcome whole = reader.read_aside(3000);
    ASSERT_EQ(whole.status, ReadStatus::record);
    ASSERT_TRUE(std::ranges::equal(whole.payload, large));
    reader.drop_aside();
    ASSERT_EQ(reader.read().status, ReadStatus::record);
    reader.release();
    ASSERT_EQ(reader.position(), writer.position());
  }
}

TEST(ByteRing, AFlippedBitInARecordThatWasSetAsideIsFound) {
  for (const std::size_t bad : {0u, 5000u, 9999u}) {
    RegionPair pair(kRingBytesMin);
    RingReader reader(pair.submit, pair.step_peer, 0);
    RingWriter writer(pair.step, pair.submit_peer);
    ASSERT_TRUE(writer.try_write(RecordType::submit, payload_of(10'000, 3)));
    pair.step.own_ring()[sizeof(RecordHeader) + bad] ^= std::byte{4};
    ASSERT_EQ(reader.read_or_set_aside(1000).status, ReadStatus::set_aside);
    EXPECT_EQ(reader.read_aside(6000).status, ReadStatus::set_aside);
    EXPECT_EQ(reader.read_aside(6000).status, ReadStatus::corrupt);
    EXPECT_EQ(reader.read().status, ReadStatus::corrupt) << "once is for ever";
  }
}

// A former gateway's read position, seen by the next gateway before the worker has attached to its
// ring, must not look as if the worker had read ahead.
TEST(ByteRing, AReadPositionInAnotherRingIsNotBelieved) {
  RegionPair pair(kRingBytesMin);
  {
    RingReader worker(pair.step, pair.submit_peer, 0);
    RingWriter gateway(pair.submit, pair.step_peer);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(gateway.try_write(RecordType::submit, payload_of(500, 1)));
      ASSERT_EQ(worker.read().status, ReadStatus::record);
      worker.release();
    }
  }
  pair.submit_id.gateway_epoch = Epoch(2);
  Region submit2 = *Region::create(pair.submit_id, kRingBytesMin);
  const Region submit2_peer = *Region::attach(test::duplicate(submit2.fd()), pair.submit_id);
  RingWriter gateway(submit2, pair.step_peer);
  std::size_t count = 0;
  while (gateway.try_write(RecordType::submit, payload_of(1008, 2))) ++count;
  EXPECT_EQ(count, kRingBytesMin / 1024) << "the ring took more than it holds";
  EXPECT_FALSE(gateway.is_corrupt());
  RingReader worker(pair.step, submit2_peer, 0);
  ASSERT_EQ(worker.read().status, ReadStatus::record);
  worker.release();
  EXPECT_TRUE(gateway.try_write(RecordType::submit, payload_of(1008, 2)));
}

TEST(ByteRing, EveryFlippedBitOfARecordIsFound) {
  RegionPair pair(kRingBytesMin);
  {
    RingWriter writer(pair.step, pair.submit_peer);
    ASSERT_TRUE(writer.try_write(RecordType::step, payload_of(37, 0xa5)));
  }
  const std::size_t record_bytes = sizeof(RecordHeader) + 37;
  for (std::size_t bit = 0; bit < record_bytes * 8; ++bit) {
    pair.step.own_ring()[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    RingReader reader(pair.submit, pair.step_peer, 0);
    ASSERT_EQ(reader.read().status, ReadStatus::corrupt) << "bit " << bit;
    ASSERT_EQ(reader.read().status, ReadStatus::corrupt) << "corrupt once, corrupt for ever";
    pair.step.own_ring()[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
  }
  RingReader reader(pair.submit, pair.step_peer, 0);
  EXPECT_EQ(reader.read().status, ReadStatus::record);
}

TEST(ByteRing, ARecordOfAFormerLapOrAnotherPlaceIsCorrupt) {
  RegionPair pair(kRingBytesMin);
  RingWriter writer(pair.step, pair.submit_peer);
  ASSERT_TRUE(writer.try_write(RecordType::step, payload_of(48, 1)));
  // The same bytes one record further on.
  std::memcpy(pair.step.own_ring().data() + 64, pair.step.own_ring().data(), 64);
  pair.step.own_header().write_position.store(128);
  RingReader reader(pair.submit, pair.step_peer, 0);
  EXPECT_EQ(reader.read().status, ReadStatus::record);
  EXPECT_EQ(reader.read().status, ReadStatus::corrupt);
  // A lap later the old bytes are still there, and not valid.
  RegionPair other(kRingBytesMin);
  RingWriter first(other.step, other.submit_peer);
  ASSERT_TRUE(first.try_write(RecordType::step, payload_of(48, 1)));
  other.step.own_header().write_position.store(kRingBytesMin + 64);
  RingReader late(other.submit, other.step_peer, kRingBytesMin);
  EXPECT_EQ(late.read().status, ReadStatus::corrupt);
}

TEST(ByteRing, ARecordOfAnotherEpochIsCorrupt) {
  RegionPair one(kRingBytesMin, Epoch(1));
  RegionPair two(kRingBytesMin, Epoch(2));
  RingWriter writer(one.step, one.submit_peer);
  ASSERT_TRUE(writer.try_write(RecordType::step, payload_of(48, 1)));
  std::memcpy(two.step.own_ring().data(), one.step.ring().data(), 64);
  two.step.own_header().write_position.store(64);
  RingReader reader(two.submit, two.step_peer, 0);
  EXPECT_EQ(reader.read().status, ReadStatus::corrupt);
}

TEST(ByteRing, ImpossibleWritePositionsAreCorrupt) {
  for (const std::uint64_t position :
       {std::uint64_t{1}, std::uint64_t{8}, std::uint64_t{kRingBytesMin + 16}, ~std::uint64_t{0},
        ~std::uint64_t{15}, std::uint64_t{1} << 63}) {
    RegionPair pair(kRingBytesMin);
    RingReader reader(pair.submit, pair.step_peer, 0);
    pair.step.own_header().write_position.store(position);
    EXPECT_EQ(reader.read().status, ReadStatus::corrupt) << position;
  }
  RegionPair pair(kRingBytesMin);
  RingReader reader(pair.submit, pair.step_peer, 0);
  RingWriter writer(pair.step, pair.submit_peer);
  ASSERT_TRUE(writer.try_write(RecordType::step, payload_of(48, 1)));
  ASSERT_EQ(reader.read().status, ReadStatus::record);
  pair.step.own_header().write_position.store(0);
  EXPECT_EQ(reader.read().status, ReadStatus::corrupt) << "positions only grow";
}

TEST(ByteRing, ImpossibleReadPositionsStopTheWriter) {
  for (const std::uint64_t position : {std::uint64_t{8}, std::uint64_t{kRingBytesMin + 1024},
                                       ~std::uint64_t{15}, std::uint64_t{1} << 62}) {
    RegionPair pair(kRingBytesMin);
    RingReader reader(pair.submit, pair.step_peer, 0);
    RingWriter writer(pair.step, pair.submit_peer);
    pair.submit.own_header().read_position.store(position);
    while (writer.try_write(RecordType::step, payload_of(1008, 1))) {
    }
    EXPECT_TRUE(writer.is_corrupt()) << position;
    EXPECT_EQ(writer.position(), kRingBytesMin) << "nothing unread was overwritten";
  }
}

TEST(ByteRing, AStartThatIsNoPositionIsCorrupt) {
  RegionPair pair(kRingBytesMin);
  RingReader misaligned(pair.submit, pair.step_peer, 7);
  EXPECT_EQ(misaligned.read().status, ReadStatus::corrupt);
  RingReader beyond(pair.submit, pair.step_peer, 1 << 20);
  EXPECT_EQ(beyond.read().status, ReadStatus::corrupt);
}

TEST(ByteRing, RandomBytesNeverReadAsARecordNorHarmTheReader) {
  const std::uint64_t seed = test::test_seed(11);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  RegionPair pair(kRingBytesMin);
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 200; ++i)
      pair.step.own_ring()[uniform(rng, 0, 4000)] = static_cast<std::byte>(rng());
    const std::uint64_t start = uniform(rng, 0, 200) * 16;
    pair.step.own_header().write_position.store(start + uniform(rng, 1, 4000) * 16);
    RingReader reader(pair.submit, pair.step_peer, start);
    EXPECT_EQ(reader.read().status, ReadStatus::corrupt);
  }
}

// Both ends sleep whenever they can; a lost wake-up shows as a wait that runs into its limit.
TEST(ByteRing, TwoThreadsWithDoorbellsLoseNoRecordAndNoWakeUp) {
  constexpr std::uint64_t kRecords = 30'000;
  constexpr Duration kPatience = 20s;
  RegionPair pair(kRingBytesMin);
  const UniqueFd reader_bell = *make_doorbell();
  const UniqueFd writer_bell = *make_doorbell();
  RingReader reader(pair.submit, pair.step_peer, 0);
  int timeouts = 0;
  std::thread consumer([&] {
    DoorbellRinger ringer(writer_bell.get(), pair.submit, pair.step_peer);
    std::uint64_t expected = 0;
    while (expected < kRecords) {
      const ReadOutcome outcome = reader.read();
      if (outcome.status == ReadStatus::record) {
        std::uint64_t value = 0;
        std::memcpy(&value, outcome.payload.data(), sizeof value);
        ASSERT_EQ(value, expected++);
        if (expected % 7 == 0) {
          reader.release();
          ringer.ring_if_sleeping(WakeFor::room);
        }
        continue;
      }
      ASSERT_EQ(outcome.status, ReadStatus::empty);
      reader.release();
      ringer.ring_if_sleeping(WakeFor::room);
      SleepScope sleeping(pair.submit, WakeFor::records);
      if (!reader.is_empty()) continue;
      if (!wait_doorbell(reader_bell.get(), kPatience)) ++timeouts;
      drain_doorbell(reader_bell.get());
    }
    reader.release();
    ringer.ring_if_sleeping(WakeFor::room);
  });
  std::mt19937_64 rng(5);
  int writer_timeouts = 0;
  RingWriter writer(pair.step, pair.submit_peer);
  DoorbellRinger ringer(reader_bell.get(), pair.step, pair.submit_peer);
  std::vector<std::byte> payload(4096);
  for (std::uint64_t i = 0; i < kRecords;) {
    std::memcpy(payload.data(), &i, sizeof i);
    const std::size_t size = uniform(rng, sizeof i, payload.size());
    if (writer.try_write(RecordType::step, std::span(payload).first(size))) {
      ++i;
      if (rng() % 3 == 0 || i == kRecords) ringer.ring_if_sleeping(WakeFor::records);
      continue;
    }
    ringer.ring_if_sleeping(WakeFor::records);
    SleepScope sleeping(pair.step, WakeFor::room);
    if (writer.try_claim(RecordType::step, size).data() != nullptr) {
      writer.abort_claim();
      continue;
    }
    if (!wait_doorbell(writer_bell.get(), kPatience)) ++writer_timeouts;
    drain_doorbell(writer_bell.get());
  }
  consumer.join();
  EXPECT_EQ(timeouts, 0);
  EXPECT_EQ(writer_timeouts, 0);
}

TEST(Doorbell, ABellForNobodyMakesNoSystemCall) {
  RegionPair pair(kRingBytesMin);
  const UniqueFd bell = *make_doorbell();
  DoorbellRinger ringer(bell.get(), pair.step, pair.submit_peer);
  EXPECT_FALSE(ringer.ring_if_sleeping(WakeFor::records));
  EXPECT_FALSE(wait_doorbell(bell.get(), 0ms));
  {
    SleepScope sleeping(pair.submit, WakeFor::records);
    EXPECT_FALSE(ringer.ring_if_sleeping(WakeFor::room)) << "it waits for something else";
    EXPECT_TRUE(ringer.ring_if_sleeping(WakeFor::records));
  }
  EXPECT_TRUE(wait_doorbell(bell.get(), 0ms));
  drain_doorbell(bell.get());
  EXPECT_FALSE(wait_doorbell(bell.get(), 1ms));
  EXPECT_FALSE(ringer.ring_if_sleeping(WakeFor::records)) << "the scope ended";
}

}  // namespace
}  // namespace sluice::shm
