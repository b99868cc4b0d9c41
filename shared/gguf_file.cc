// Reading a growing prefix with POSIX calls; see gguf_file.h.
#include "shared/gguf_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "shared/unique_fd.h"

namespace sluice {
namespace {

// Non-blocking, so that a FIFO can't hold the caller; no effect on files.
UniqueFd open_file(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

// Appends up to `size` bytes in all. False with errno, or with errno 0 where the file ends before.
bool read_until(int fd, std::uint64_t size, std::string& bytes) {
  std::size_t at = bytes.size();
  bytes.resize(size);
  while (at < size) {
    const ssize_t got = ::read(fd, bytes.data() + at, size - at);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = 0;
    if (got <= 0) return false;
    at += static_cast<std::size_t>(got);
  }
  return true;
}

}  // namespace

bool is_gguf_file(const std::string& path) {
  const UniqueFd fd = open_file(path);
  struct stat facts {};
  if (!fd || ::fstat(fd.get(), &facts) != 0 || !S_ISREG(facts.st_mode)) return false;
  std::string magic;
  return read_until(fd.get(), kGgufMagic.size(), magic) && magic == kGgufMagic;
}

Result<GgufFile> GgufFile::read(const std::string& path) {
  const auto failed = [&](Errc code, const std::string& why) {
    return make_error(code, path + ": " + why);
  };
  const UniqueFd fd = open_file(path);
  struct stat facts {};
  if (!fd || ::fstat(fd.get(), &facts) != 0) return failed(Errc::io_error, std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) return failed(Errc::bad_file, "is not a regular file");
  const auto file_bytes = static_cast<std::uint64_t>(facts.st_size);
  auto bytes = std::make_unique<std::string>();
  for (std::uint64_t size = kGgufPrefixBytes;; size *= 2) {
    if (!read_until(fd.get(), std::min(size, file_bytes), *bytes))
      return errno == 0 ? failed(Errc::bad_file, "was cut off while it was read")
                        : failed(Errc::io_error, std::strerror(errno));
    Result<std::optional<GgufHeader>> header = parse_gguf_header(*bytes, file_bytes);
    if (!header) return failed(header.error().code, header.error().detail);
    if (*header) return GgufFile(std::move(bytes), std::move(**header));
  }
}

}  // namespace sluice
