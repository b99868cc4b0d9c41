// SPSC ring of variable-length records in a Region. The writer claims, fills and commits; the
// reader copies a record out, validates the copy and only then uses it.
//
//   position (64-bit, only grows)      offset = position & (ring_bytes - 1)
//   | header 16 | payload | pad to 16 |            records never wrap: a padding record
//                                                  (type 0) fills the tail instead
//
// header: u32 bytes (header + payload, unpadded), u16 type, u16 zero, u32 epoch (low bits of
//         ring_epoch()), u32 crc32c over (position, bytes, type, zero, epoch, payload)
//
// A record is visible when write_position (release) passes it; a peer that dies between claim and
// commit leaves nothing behind. The peer's positions are input: one that runs backwards, passes the
// other's or is misaligned makes the ring corrupt, which costs that worker its epoch.
// The CRC finds stray writes, not malice. Thread rule: one thread per end.
//
// Measured by tests/bench/ring_bench.cc; goal: 30 M records/s of 64 B between two pinned threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "shared/messages.h"
#include "shared/shm_region.h"

namespace sluice::shm {

struct RecordHeader {
  std::uint32_t bytes;
  std::uint16_t type;  // RecordType; 0 is padding
  std::uint16_t zero;
  std::uint32_t epoch;
  std::uint32_t crc;
};
static_assert(sizeof(RecordHeader) == 16);
inline constexpr std::size_t kRecordAlignment = 16;

class RingWriter {
 public:
  // `own` holds the ring, `peer` the reader's position; both outlive the writer. Goes on where
  // own.write_position stands, so a writer is made anew over the same ring when its peer changes.
  RingWriter(Region& own, const Region& peer);

  // Space for a payload, or a span without data() when the ring has no room now (try again after
  // the peer has read). The span is private until commit(). REQUIRES: payload_bytes <=
  // payload_bytes_max(), no claim open. A bell rung for room (doorbell.h) cannot be missed between
  // this and the wait.
  std::span<std::byte> try_claim(RecordType type, std::size_t payload_bytes);
  // Publishes the claimed record, cut to `payload_bytes` (<= claimed).
  void commit(std::size_t payload_bytes);
  void abort_claim();

  // One call for small records: false when there is no room.
  bool try_write(RecordType type, std::span<const std::byte> payload);

  // Half of the ring less a header: a record then always fits an empty ring, wherever it stands.
  std::size_t payload_bytes_max() const;
  std::uint64_t position() const { return position_; }  // after the last committed record
  // True once the peer published an impossible read position; no claim succeeds any more.
  bool is_corrupt() const { return corrupt_; }

 private:
  bool has_room(std::size_t bytes);
  void refresh_peer_position();

  // Constant after construction.
  Region* own_;
  const Region* peer_;
  std::size_t mask_;
  std::byte* ring_;
  std::uint64_t epoch_;
  std::uint64_t position_;
  std::uint64_t peer_position_;  // cached; refreshed only when the ring looks full
  std::uint64_t claimed_at_ = 0;
  std::size_t claimed_bytes_ = 0;                  // of the payload
  RecordType claimed_type_ = RecordType::padding;  // padding: no claim is open
  bool corrupt_ = false;
};

enum class ReadStatus : std::uint8_t { empty, record, corrupt, set_aside };

struct ReadOutcome {
  ReadStatus status;
  RecordType type;                     // valid for `record`
  std::span<const std::byte> payload;  // the reader's own copy; valid until the next read()
};

class RingReader {
 public:
  // Reads from `peer`'s ring and publishes its position in `own`. `start` is where to begin: 0 for
  // a fresh ring, the former reader's position when a new gateway takes over. Construct it before
  // the own region is handed to the peer: from then on the peer believes own.read_position.
  RingReader(Region& own, const Region& peer, std::uint64_t start);

  ReadOutcome read();  // copies and validates the next record; does not publish

  // For a reader that must not be held up by one long record. As read(), but a payload of more than
  // `bytes_max` is set aside (status set_aside, no payload) and those behind it can be read; while
  // one is aside, the next long one reads as empty.
  //
  //   | read | released ......| aside: copied so far >......| read | read | not yet read |
  //                           ^ position() stays here until drop_aside()
  ReadOutcome read_or_set_aside(std::size_t bytes_max);
  // Copies up to `bytes` more of it: set_aside until all of it is there and its checksum holds,
  // then record. The payload is valid until drop_aside(). REQUIRES: has_aside(), not complete.
  ReadOutcome read_aside(std::size_t bytes);
  bool has_aside() const { return has_aside_; }
  // What was copied so far: its checksum is not known yet.
  std::span<const std::byte> unverified_aside() const {
    return std::span(aside_).first(aside_copied_);
  }
  void drop_aside() { has_aside_ = false; }  // done with it

  void release();  // publishes the position: everything before it is done with
  std::uint64_t position() const { return has_aside_ ? aside_position_ : position_; }
  bool is_empty() const;  // one load, no validation: for spinning, and inside a SleepScope
  // Whether the last look at the writer's position showed more than was read since. A loop that
  // ends here, not at an empty read, looks once per turn: each look takes the position's cache line
  // from the writer, which then waits for it (hundreds of ns between CPUs that share no cache).
  bool knows_more() const { return position_ != peer_position_; }

 private:
  ReadOutcome corrupt();
  bool refresh_peer_position();
  bool is_possible(const RecordHeader& header) const;

  Region* own_;
  const Region* peer_;
  std::size_t mask_;
  const std::byte* ring_;
  std::uint64_t epoch_;
  std::uint64_t position_;
  std::uint64_t peer_position_;  // cached write position
  bool corrupt_ = false;
  bool has_aside_ = false;
  std::uint64_t aside_position_ = 0;
  RecordHeader aside_header_{};
  std::size_t aside_copied_ = 0;
  std::uint32_t aside_crc_ = 0;   // of the header's words and what was copied
  std::vector<std::byte> aside_;  // as copy_, for the record that is aside
  std::vector<std::byte> copy_;   // grows to the largest record seen, at most ring_bytes / 2
};

}  // namespace sluice::shm
