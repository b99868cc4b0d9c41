// A shared-memory region: one memfd per WRITER and epoch. Its owner creates and maps it read-write,
// then seals it (shrink, grow, future-write, seal); the other side receives the descriptor and maps
// it read-only. Each side keeps its own read position of the other's ring in its own region.
//
//   0      RegionHeader            written once by the owner; `version` last, with release
//   4096   progress page           step regions only (see progress_page.h); else unused
//   8192   ring                    ring_bytes, a power of two (see byte_ring.h)
//
// The layout is a file format: PROTOCOL.md has the offsets. Everything read from the other side's
// region is input: attach() validates the header before the mapping is used.
// Thread rule: a region object belongs to one thread; the mapped atomics are what two processes
// share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "shared/ids.h"
#include "shared/limits.h"
#include "shared/result.h"
#include "shared/unique_fd.h"

namespace sluice::shm {

enum class RegionKind : std::uint32_t { submit = 1, step = 2 };

inline constexpr std::uint64_t kRegionMagic = 0x31454349554c53ull;  // "SLUICE1" little-endian
inline constexpr std::uint32_t kRegionVersion = 4;
inline constexpr std::size_t kPageOffset = 4096;
inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kRingOffset = 8192;

struct RegionIdentity {
  RegionKind kind;
  WorkerId worker;
  Epoch worker_epoch;
  Epoch gateway_epoch;  // submit regions: whose; step regions: 0
};

struct RegionHeader {
  std::uint64_t magic;
  std::uint32_t kind;
  std::uint32_t worker;
  std::uint64_t worker_epoch;
  std::uint64_t gateway_epoch;
  std::uint64_t region_bytes;
  std::uint64_t ring_bytes;
  std::uint8_t reserved[76];           // zero
  std::atomic<std::uint32_t> version;  // stored last (release); pairs with attach()'s acquire load
  // Own pair of cache lines each (CPUs prefetch the neighbour): the positions are written at
  // different times by one side and polled by the other.
  alignas(128) std::atomic<std::uint64_t> write_position;  // of the owner in this region's ring;
                                                           // release after the bytes
  alignas(128) std::atomic<std::uint64_t> read_position;   // of the owner in the PEER's ring;
                                                           // release after the copy
  std::atomic<std::uint64_t>
      read_epoch;  // which peer region read_position speaks of: its ring_epoch(); 0: none yet
  alignas(128) std::atomic<std::uint32_t> sleeping;  // what the owner waits for on its
                                                     // doorbell; seq_cst (see doorbell.h)
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(offsetof(RegionHeader, version) == 124);
static_assert(offsetof(RegionHeader, write_position) == 128);
static_assert(offsetof(RegionHeader, read_position) == 256);
static_assert(offsetof(RegionHeader, read_epoch) == 264);
static_assert(offsetof(RegionHeader, sleeping) == 384);
static_assert(sizeof(RegionHeader) <= kPageOffset);

// The epoch that stamps the records of a region's ring: of the gateway on a submit ring, of the
// worker on a step ring.
std::uint64_t ring_epoch(const RegionHeader& header);

// A mapping of a region; move-only, unmaps on destruction.
class Region {
 public:
  Region() = default;
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  // Creates, maps read-write, fills the header and seals. ring_bytes: a power of two in
  // [kRingBytesMin, kRingBytesMax]. Errors: io_error.
  static Result<Region> create(const RegionIdentity& identity, std::size_t ring_bytes);

  // Maps a received descriptor read-only and checks seals, size and every header field against
  // `expected`. Errors: corrupt_region (the reason in detail), io_error.
  static Result<Region> attach(UniqueFd fd, const RegionIdentity& expected);

  const UniqueFd& fd() const { return fd_; }
  bool is_owner() const { return owner_; }
  std::size_t ring_bytes() const { return ring_bytes_; }  // validated copy, not re-read from memory
  const RegionHeader& header() const;
  RegionHeader& own_header();  // REQUIRES: is_owner()
  std::span<const std::byte> ring() const;
  std::span<std::byte> own_ring();  // REQUIRES: is_owner()
  const std::byte* page() const;    // kPageBytes
  std::byte* own_page();            // REQUIRES: is_owner()

 private:
  UniqueFd fd_;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t ring_bytes_ = 0;
  bool owner_ = false;
};

}  // namespace sluice::shm
