// Creating, sealing and checking the memfds that carry the rings.
#include "shared/shm_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "shared/check.h"

namespace sluice::shm {
namespace {

// Page tables at once: the first lap of a ring would pay a fault on either side for every page.
constexpr int kMapNow = MAP_POPULATE;

// Shrink and grow: the peer's mapping can never fault. Future-write: no second writable mapping and
// no write(2), while the owner's mapping, made before, stays. Seal: none of this can be undone.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

Error corrupt(std::string why) {
  return make_error(Errc::corrupt_region, std::move(why));
}

bool ring_bytes_valid(std::uint64_t bytes) {
  return bytes >= kRingBytesMin && bytes <= kRingBytesMax && std::has_single_bit(bytes);
}

// The header is input: each field is loaded once and compared with what the parent announced.
Result<void> check_header(const RegionHeader& header, const RegionIdentity& expected,
                          std::uint64_t file_bytes, std::uint64_t ring_bytes) {
  if (header.version.load(std::memory_order_acquire) != kRegionVersion)
    return corrupt("version is not " + std::to_string(kRegionVersion));
  if (header.magic != kRegionMagic) return corrupt("magic does not match");
  if (header.kind != static_cast<std::uint32_t>(expected.kind)) return corrupt("kind is another");
  if (header.worker != expected.worker.value) return corrupt("worker is another");
  if (header.worker_epoch != expected.worker_epoch.value) return corrupt("worker epoch is another");
  if (header.gateway_epoch != expected.gateway_epoch.value)
    return corrupt("gateway epoch is another");
  if (header.region_bytes != file_bytes) return corrupt("region_bytes is not the file's size");
  if (!ring_bytes_valid(ring_bytes) || ring_bytes + kRingOffset != file_bytes)
    return corrupt("ring_bytes is out of range or does not fit the file");
  return {};
}

}  // namespace

std::uint64_t ring_epoch(const RegionHeader& header) {
  return header.kind == static_cast<std::uint32_t>(RegionKind::submit) ? header.gateway_epoch
                                                                       : header.worker_epoch;
}

Region::Region(Region&& other) noexcept
    : fd_(std::move(other.fd_)),
      base_(std::exchange(other.base_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      ring_bytes_(std::exchange(other.ring_bytes_, 0)),
      owner_(std::exchange(other.owner_, false)) {}

Region& Region::operator=(Region&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) ::munmap(base_, bytes_);
  fd_ = std::move(other.fd_);
  base_ = std::exchange(other.base_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  ring_bytes_ = std::exchange(other.ring_bytes_, 0);
  owner_ = std::exchange(other.owner_, false);
  return *this;
}

Region::~Region() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

Result<Region> Region::create(const RegionIdentity& identity, std::size_t ring_bytes) {
  CHECK(ring_bytes_valid(ring_bytes));
  const char* const name =
      identity.kind == RegionKind::submit ? "sluice-submit-ring" : "sluice-step-ring";
  Region region;
  region.fd_.reset(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!region.fd_) return system_error("memfd_create");
  const std::size_t bytes = kRingOffset + ring_bytes;
  if (::ftruncate(region.fd_.get(), static_cast<off_t>(bytes)) != 0)
    return system_error("ftruncate");
  // All pages now: a machine without memory refuses here instead of faulting in mid-stream.
  if (::fallocate(region.fd_.get(), 0, 0, static_cast<off_t>(bytes)) != 0)
    return system_error("fallocate of a ring");
  void* const base =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | kMapNow, region.fd_.get(), 0);
  if (base == MAP_FAILED) return system_error("mmap of a ring");
  region.base_ = static_cast<std::byte*>(base);
  region.bytes_ = bytes;
  region.ring_bytes_ = ring_bytes;
  region.owner_ = true;

  auto* const header = new (region.base_) RegionHeader{};
  header->magic = kRegionMagic;
  header->kind = static_cast<std::uint32_t>(identity.kind);
  header->worker = identity.worker.value;
  header->worker_epoch = identity.worker_epoch.value;
  header->gateway_epoch = identity.gateway_epoch.value;
  header->region_bytes = bytes;
  header->ring_bytes = ring_bytes;
  header->version.store(kRegionVersion, std::memory_order_release);
  if (::fcntl(region.fd_.get(), F_ADD_SEALS, kSeals) != 0) return system_error("sealing a ring");
  return region;
}

Result<Region> Region::attach(UniqueFd fd, const RegionIdentity& expected) {
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0) return corrupt("the descriptor is not a memfd");
  if ((seals & kSeals) != kSeals) return corrupt("a seal is missing");
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return system_error("fstat of a ring");
  const auto bytes = static_cast<std::uint64_t>(facts.st_size);
  if (bytes < kRingOffset + kRingBytesMin || bytes > kRingOffset + kRingBytesMax)
    return corrupt("the file's size is out of range");
  void* const base = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED | kMapNow, fd.get(), 0);
  if (base == MAP_FAILED) return system_error("mmap of a ring");
  Region region;
  region.fd_ = std::move(fd);
  region.base_ = static_cast<std::byte*>(base);
  region.bytes_ = bytes;
  region.ring_bytes_ = region.header().ring_bytes;
  if (const auto checked = check_header(region.header(), expected, bytes, region.ring_bytes_);
      !checked)
    return checked.error();
  return region;
}

const RegionHeader& Region::header() const {
  return *std::launder(reinterpret_cast<const RegionHeader*>(base_));
}

RegionHeader& Region::own_header() {
  CHECK(owner_);
  return *std::launder(reinterpret_cast<RegionHeader*>(base_));
}

std::span<const std::byte> Region::ring() const {
  return {base_ + kRingOffset, ring_bytes_};
}

std::span<std::byte> Region::own_ring() {
  CHECK(owner_);
  return {base_ + kRingOffset, ring_bytes_};
}

const std::byte* Region::page() const {
  return base_ + kPageOffset;
}

std::byte* Region::own_page() {
  CHECK(owner_);
  return base_ + kPageOffset;
}

}  // namespace sluice::shm
