// A journal file in memory, so that a test can copy it at any moment and open the copy as the next
// gateway would after a kill.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "shared/journal.h"

namespace sluice::test {

using Image = std::vector<char>;

inline UniqueFd file_of(const Image& image) {
  UniqueFd fd(::memfd_create("journal-image", MFD_CLOEXEC));
  EXPECT_EQ(::pwrite(fd.get(), image.data(), image.size(), 0), static_cast<ssize_t>(image.size()));
  return fd;
}

inline Image image_of(const UniqueFd& fd) {
  Image image(static_cast<std::size_t>(::lseek(fd.get(), 0, SEEK_END)));
  EXPECT_EQ(::pread(fd.get(), image.data(), image.size(), 0), static_cast<ssize_t>(image.size()));
  return image;
}

// Journal files live beside the test's other temporary files.
inline UniqueFd fresh_journal(std::uint32_t num_slots) {
  std::string path = testing::TempDir() + "sluice-journal-XXXXXX";
  const UniqueFd reserved(::mkstemp(path.data()));
  auto fd = Journal::create_file(path.c_str(), num_slots);
  ::unlink(path.c_str());
  EXPECT_TRUE(fd) << (fd ? "" : fd.error().detail);
  return std::move(*fd);
}

inline JournalTotals sum(const JournalTotals& a, const JournalTotals& b) {
  return {a.requests + b.requests, a.prompt + b.prompt, a.accepted + b.accepted};
}

inline bool equal(const JournalTotals& a, const JournalTotals& b) {
  return a.requests == b.requests && a.prompt == b.prompt && a.accepted == b.accepted;
}

}  // namespace sluice::test
