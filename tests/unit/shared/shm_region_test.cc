// Regions: what the owner seals stays sealed, and attach() refuses everything that is not exactly
// the region that was announced.
#include "shared/shm_region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/support/region_pair.h"

namespace sluice::shm {
namespace {

using test::duplicate;

constexpr RegionIdentity kIdentity{RegionKind::step, WorkerId(3), Epoch(5), Epoch(0)};
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

// A memfd made by hand, so that each property can be wrong on its own.
struct Forged {
  RegionHeader header{};
  std::uint64_t file_bytes = kRingOffset + kRingBytesMin;
  int seals = kSeals;

  Forged() {
    header.magic = kRegionMagic;
    header.kind = static_cast<std::uint32_t>(kIdentity.kind);
    header.worker = kIdentity.worker.value;
    header.worker_epoch = kIdentity.worker_epoch.value;
    header.gateway_epoch = kIdentity.gateway_epoch.value;
    header.region_bytes = file_bytes;
    header.ring_bytes = kRingBytesMin;
    header.version.store(kRegionVersion);
  }
  UniqueFd make() const {
    UniqueFd fd(::memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(file_bytes)), 0);
    const std::size_t bytes = std::min<std::size_t>(file_bytes, sizeof header);
    EXPECT_EQ(::pwrite(fd.get(), static_cast<const void*>(&header), bytes, 0),
              static_cast<ssize_t>(bytes));
    EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seals), 0);
    return fd;
  }
};

Errc attach_error(const Forged& forged) {
  const auto region = Region::attach(forged.make(), kIdentity);
  return region ? Errc::internal_error : region.error().code;
}

TEST(Region, AttachSeesWhatTheOwnerWrites) {
  Region owner = *Region::create(kIdentity, kRingBytesMin);
  const Region peer = *Region::attach(duplicate(owner.fd()), kIdentity);
  EXPECT_TRUE(owner.is_owner());
  EXPECT_FALSE(peer.is_owner());
  EXPECT_EQ(peer.ring_bytes(), kRingBytesMin);
  owner.own_ring()[77] = std::byte{42};
  owner.own_page()[9] = std::byte{43};
  EXPECT_EQ(peer.ring()[77], std::byte{42});
  EXPECT_EQ(peer.page()[9], std::byte{43});
}

TEST(Region, MovingLeavesNoMappingBehind) {
  Region a = *Region::create(kIdentity, kRingBytesMin);
  a.own_ring()[0] = std::byte{1};
  Region b = std::move(a);
  EXPECT_EQ(b.ring()[0], std::byte{1});
  b = *Region::create(kIdentity, kRingBytesMin);
  EXPECT_EQ(b.ring()[0], std::byte{0});
}

TEST(Region, ASecondWriterIsImpossible) {
  const Region owner = *Region::create(kIdentity, kRingBytesMin);
  const int fd = owner.fd().get();
  errno = 0;
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  errno = 0;
  EXPECT_EQ(::pwrite(fd, "x", 1, 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::ftruncate(fd, 0), -1);
  EXPECT_EQ(::ftruncate(fd, 1 << 30), -1);
  EXPECT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
  // A read-only mapping cannot be made writable afterwards.
  void* const mapped = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  EXPECT_EQ(::mprotect(mapped, 4096, PROT_READ | PROT_WRITE), -1);
  ::munmap(mapped, 4096);
}

TEST(Region, AForgedButCorrectOneAttaches) {
  EXPECT_TRUE(Region::attach(Forged().make(), kIdentity));
}

TEST(Region, AttachRefusesAMissingSeal) {
  for (const int seal : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL}) {
    Forged forged;
    forged.seals = kSeals & ~seal;
    EXPECT_EQ(attach_error(forged), Errc::corrupt_region) << seal;
  }
}

TEST(Region, AttachRefusesEachWrongField) {
  const auto refused = [](auto change) {
    Forged forged;
    change(forged);
    EXPECT_EQ(attach_error(forged), Errc::corrupt_region);
  };
  refused([](Forged& f) { f.header.magic ^= 1; });
  refused([](Forged& f) { f.header.version.store(kRegionVersion + 1); });
  refused([](Forged& f) { f.header.version.store(0); });
  refused([](Forged& f) { f.header.kind = 1; });
  refused([](Forged& f) { f.header.worker = 4; });
  refused([](Forged& f) { f.header.worker_epoch = 4; });
  refused([](Forged& f) { f.header.gateway_epoch = 1; });
  refused([](Forged& f) { f.header.region_bytes += 4096; });
  refused([](Forged& f) { f.header.ring_bytes = 0; });
  refused([](Forged& f) { f.header.ring_bytes *= 2; });
  refused([](Forged& f) { f.header.ring_bytes = ~0ull; });
  refused([](Forged& f) { f.header.ring_bytes += 16; });
}

TEST(Region, AttachRefusesASizeThatIsNoRegion) {
  for (const std::uint64_t bytes :
       {std::uint64_t{0}, std::uint64_t{100}, std::uint64_t{kRingOffset},
        kRingOffset + kRingBytesMin - 1, kRingOffset + kRingBytesMin + 4096,
        kRingOffset + 3 * kRingBytesMin, kRingOffset + kRingBytesMax + 1}) {
    Forged forged;
    forged.file_bytes = bytes;
    forged.header.region_bytes = bytes;
    forged.header.ring_bytes = bytes >= kRingOffset ? bytes - kRingOffset : 0;
    EXPECT_EQ(attach_error(forged), Errc::corrupt_region) << bytes;
  }
}

TEST(Region, AttachRefusesWhatIsNoMemfd) {
  EXPECT_EQ(Region::attach(UniqueFd(::open("/dev/null", O_RDONLY)), kIdentity).error().code,
            Errc::corrupt_region);
  EXPECT_EQ(Region::attach(UniqueFd(), kIdentity).error().code, Errc::corrupt_region);
}

}  // namespace
}  // namespace sluice::shm
