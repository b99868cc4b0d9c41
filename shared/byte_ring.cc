// The two ends of a ring. A peer's position is loaded once, validated, and cached until it is used
// up: at full speed the two sides touch each other's cache lines once per batch.
#include "shared/byte_ring.h"

#include <algorithm>
#include <cstring>

#include "shared/check.h"
#include "shared/crc32c.h"

namespace sluice::shm {
namespace {

// How far ahead each end asks for the ring's cache lines, so that transfers between the CPUs
// overlap: without it two CPUs that share no cache pass a fifth to a half fewer records
// (ring_bench).
constexpr std::size_t kPrefetchBytes = 2048;

// The compiler knows PREFETCHW only where it is told that all target CPUs have it; all of x86-64
// take it, at worst as a no-op. A line that was asked for as shared would be asked for once more
// when it is written.
void prefetch_for_write(const std::byte* address) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*address));
#else
  __builtin_prefetch(address, 1);
#endif
}

constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + kRecordAlignment - 1) & ~(kRecordAlignment - 1);
}

std::uint32_t record_crc(std::uint64_t position, const RecordHeader& header,
                         std::span<const std::byte> payload) {
  const std::uint64_t shape = std::uint64_t{header.bytes} | (std::uint64_t{header.type} << 32) |
                              (std::uint64_t{header.zero} << 48);
  return crc32c_record(position, shape, header.epoch, payload);
}

}  // namespace

// The first claim looks at the peer's position: the cache starts at the lowest possible one.
RingWriter::RingWriter(Region& own, const Region& peer)
    : own_(&own),
      peer_(&peer),
      mask_(own.ring_bytes() - 1),
      ring_(own.own_ring().data()),
      epoch_(ring_epoch(own.header())),
      position_(own.header().write_position.load(std::memory_order_relaxed)),
      peer_position_(position_ > own.ring_bytes() ? position_ - own.ring_bytes() : 0) {}

std::size_t RingWriter::payload_bytes_max() const {
  return (mask_ + 1) / 2 - sizeof(RecordHeader);
}

bool RingWriter::has_room(std::size_t bytes) {
  return bytes <= (mask_ + 1) - (position_ - peer_position_);
}

// Until the peer says that its position is in this very ring, nothing of it has been read: after a
// change of gateways the region of the worker still holds its position in the former ring.
void RingWriter::refresh_peer_position() {
  // Both loads are seq_cst: inside a SleepScope they must come after the store of `sleeping`
  // (doorbell.h). The second acquires the peer's copies: the space may be overwritten.
  const RegionHeader& header = peer_->header();
  if (header.read_epoch.load(std::memory_order_seq_cst) != epoch_) return;
  const std::uint64_t position = header.read_position.load(std::memory_order_seq_cst);
  if (position < peer_position_ || position > position_ || position % kRecordAlignment != 0) {
    corrupt_ = true;
    return;
  }
  peer_position_ = position;
}

//   |......position_|<------ tail ------>|          a record that does not fit the tail is preceded
//   |               | padding record     |          by padding over all of it
std::span<std::byte> RingWriter::try_claim(RecordType type, std::size_t payload_bytes) {
  CHECK(type != RecordType::padding && claimed_type_ == RecordType::padding);
  CHECK(payload_bytes <= payload_bytes_max());
  if (corrupt_) return {};
  const std::size_t bytes = padded(sizeof(RecordHeader) + payload_bytes);
  const std::size_t tail = (mask_ + 1) - (position_ & mask_);
  const std::size_t skipped = bytes > tail ? tail : 0;
  if (!has_room(skipped + bytes)) {
    refresh_peer_position();
    if (corrupt_ || !has_room(skipped + bytes)) return {};
  }
  if (skipped > 0) {
    RecordHeader padding{static_cast<std::uint32_t>(skipped), 0, 0,
                         static_cast<std::uint32_t>(epoch_), 0};
    padding.crc = record_crc(position_, padding, {});
    std::memcpy(ring_ + (position_ & mask_), &padding, sizeof padding);
  }
  prefetch_for_write(ring_ + ((position_ + kPrefetchBytes) & mask_));
  claimed_at_ = position_ + skipped;
  claimed_bytes_ = payload_bytes;
  claimed_type_ = type;
  return {ring_ + (claimed_at_ & mask_) + sizeof(RecordHeader), payload_bytes};
}

void RingWriter::commit(std::size_t payload_bytes) {
  CHECK(claimed_type_ != RecordType::padding && payload_bytes <= claimed_bytes_);
  std::byte* const record = ring_ + (claimed_at_ & mask_);
  const std::size_t bytes = sizeof(RecordHeader) + payload_bytes;
  RecordHeader header{static_cast<std::uint32_t>(bytes), static_cast<std::uint16_t>(claimed_type_),
                      0, static_cast<std::uint32_t>(epoch_), 0};
  header.crc = record_crc(claimed_at_, header, {record + sizeof header, payload_bytes});
  std::memcpy(record, &header, sizeof header);
  claimed_type_ = RecordType::padding;
  position_ = claimed_at_ + padded(bytes);
  // Publishes the record (and the padding before it); pairs with the reader's load.
  own_->own_header().write_position.store(position_, std::memory_order_release);
}

void RingWriter::abort_claim() {
  claimed_type_ = RecordType::padding;
}

bool RingWriter::try_write(RecordType type, std::span<const std::byte> payload) {
  const std::span<std::byte> space = try_claim(type, payload.size());
  if (space.data() == nullptr) return false;
  if (!payload.empty()) std::memcpy(space.data(), payload.data(), payload.size());
  commit(payload.size());
  return true;
}

// read_epoch last (release): a writer that sees it sees the position that belongs to it.
RingReader::RingReader(Region& own, const Region& peer, std::uint64_t start)
    : own_(&own),
      peer_(&peer),
      mask_(peer.ring_bytes() - 1),
      ring_(peer.ring().data()),
      epoch_(ring_epoch(peer.header())),
      position_(start),
      peer_position_(start),
      corrupt_(start % kRecordAlignment != 0) {
  RegionHeader& header = own.own_header();
  header.read_epoch.store(0, std::memory_order_release);
  header.read_position.store(start, std::memory_order_release);
  header.read_epoch.store(epoch_, std::memory_order_seq_cst);  // pairs with refresh_peer_position()
}

bool RingReader::is_empty() const {
  // seq_cst: inside a SleepScope this load must come after the store of `sleeping` (doorbell.h).
  return !corrupt_ && position_ == peer_->header().write_position.load(std::memory_order_seq_cst);
}

// False when there is nothing to read or the position is impossible.
bool RingReader::refresh_peer_position() {
  // The next record's line is asked for beside the position's, not after it.
  __builtin_prefetch(ring_ + (position_ & mask_));
  // Pairs with commit(): the bytes of all records below the position are visible.
  const std::uint64_t position = peer_->header().write_position.load(std::memory_order_acquire);
  if (position < peer_position_ || position - position_ > mask_ + 1 ||
      position % kRecordAlignment != 0)
    corrupt_ = true;
  else
    peer_position_ = position;
  return !corrupt_ && position_ != peer_position_;
}

// Every field of the header that the checksum does not vouch for before it is used.
bool RingReader::is_possible(const RecordHeader& header) const {
  const std::size_t tail = (mask_ + 1) - (position_ & mask_);
  return header.bytes >= sizeof header && padded(header.bytes) <= tail &&
         padded(header.bytes) <= peer_position_ - position_ && header.zero == 0 &&
         header.epoch == static_cast<std::uint32_t>(epoch_);
}

ReadOutcome RingReader::corrupt() {
  corrupt_ = true;
  return {ReadStatus::corrupt, RecordType::padding, {}};
}

ReadOutcome RingReader::read() {
  return read_or_set_aside(mask_ + 1);
}

ReadOutcome RingReader::read_or_set_aside(std::size_t bytes_max) {
  constexpr ReadOutcome kEmpty{ReadStatus::empty, RecordType::padding, {}};
  // At most one padding record stands before a record.
  for (int skipped = 0; skipped < 2; ++skipped) {
    if (corrupt_) return corrupt();
    if (position_ == peer_position_ && !refresh_peer_position())
      return corrupt_ ? corrupt() : kEmpty;
    const std::byte* const record = ring_ + (position_ & mask_);
    // Only what is written: a line that the writer has yet to fill would have to go back to it.
    if (peer_position_ - position_ > kPrefetchBytes)
      __builtin_prefetch(ring_ + ((position_ + kPrefetchBytes) & mask_));
    RecordHeader header;
    std::memcpy(&header, record, sizeof header);
    if (!is_possible(header)) return corrupt();
    if (header.type == static_cast<std::uint16_t>(RecordType::padding)) {
      const std::size_t tail = (mask_ + 1) - (position_ & mask_);
      corrupt_ = header.bytes != tail || record_crc(position_, header, {}) != header.crc;
      position_ += tail;
      continue;
    }
    if (header.bytes > (mask_ + 1) / 2) return corrupt();
    const std::size_t payload_bytes = header.bytes - sizeof header;
    if (payload_bytes > bytes_max) {
      if (has_aside_) return kEmpty;
      has_aside_ = true;
      aside_position_ = position_;
      aside_header_ = header;
      aside_copied_ = 0;
      aside_crc_ = record_crc(position_, header, {});
      if (aside_.size() < payload_bytes) aside_.resize(payload_bytes);
      position_ += padded(header.bytes);
      return {ReadStatus::set_aside, static_cast<RecordType>(header.type), {}};
    }
    if (copy_.size() < payload_bytes) copy_.resize(payload_bytes);
    if (payload_bytes > 0) std::memcpy(copy_.data(), record + sizeof header, payload_bytes);
    const std::span<const std::byte> payload(copy_.data(), payload_bytes);
    if (record_crc(position_, header, payload) != header.crc) return corrupt();
    position_ += padded(header.bytes);
    return {ReadStatus::record, static_cast<RecordType>(header.type), payload};
  }
  return corrupt();
}

ReadOutcome RingReader::read_aside(std::size_t bytes) {
  CHECK(has_aside_);
  if (corrupt_) return corrupt();
  const std::size_t payload_bytes = aside_header_.bytes - sizeof(RecordHeader);
  const std::size_t piece = std::min(bytes, payload_bytes - aside_copied_);
  const auto copied = std::span(aside_).subspan(aside_copied_, piece);
  const std::byte* const from =
      ring_ + (aside_position_ & mask_) + sizeof(RecordHeader) + aside_copied_;
  std::memcpy(copied.data(), from, piece);
  aside_crc_ = crc32c(aside_crc_, copied);
  aside_copied_ += piece;
  const auto type = static_cast<RecordType>(aside_header_.type);
  if (aside_copied_ < payload_bytes) return {ReadStatus::set_aside, type, {}};
  if (aside_crc_ != aside_header_.crc) return corrupt();
  return {ReadStatus::record, type, unverified_aside()};
}

void RingReader::release() {
  // Publishes that the copies are made; pairs with the writer's load before it reuses the space.
  own_->own_header().read_position.store(position(), std::memory_order_release);
}

}  // namespace sluice::shm
