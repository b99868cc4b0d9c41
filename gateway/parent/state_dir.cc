// Making and locking the state directory.
#include "gateway/parent/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace sluice::gw {
namespace {

Error state_error(const std::string& path, const std::string& why) {
  return make_error(Errc::io_error, "state directory " + path + ": " + why);
}

// The pid that the holder wrote; digits only, because the file is whatever lies there.
std::string holder(const UniqueFd& fd) {
  std::array<char, 16> text{};
  const ssize_t got = ::pread(fd.get(), text.data(), text.size(), 0);
  std::string pid;
  for (ssize_t i = 0;
       i < got && std::isdigit(static_cast<unsigned char>(text[static_cast<std::size_t>(i)])) != 0;
       ++i)
    pid += text[static_cast<std::size_t>(i)];
  return pid.empty() ? "unknown" : pid;
}

}  // namespace

Result<StateDir> StateDir::open(const std::string& path) {
  std::error_code failed;
  const bool existed = std::filesystem::exists(path, failed);
  if (!existed) {
    std::filesystem::create_directories(path, failed);
    if (failed) return state_error(path, failed.message());
    ::chmod(path.c_str(), 0700);
  }
  StateDir dir;
  dir.path_ = path;
  const std::string lock_path = path + "/lock";
  dir.lock_.reset(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!dir.lock_) return state_error(path, std::string("lock: ") + std::strerror(errno));
  if (::flock(dir.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK)
      return state_error(path, std::string("lock: ") + std::strerror(errno));
    return make_error(Errc::already_running, "another sluice (pid " + holder(dir.lock_) +
                                                 ") uses the state directory " + path +
                                                 "; stop it or give --state-dir");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(dir.lock_.get(), 0) != 0 ||
      ::pwrite(dir.lock_.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return state_error(path, std::string("writing the lock: ") + std::strerror(errno) +
                                 (errno == ENOSPC ? " (disk full)" : ""));
  return dir;
}

}  // namespace sluice::gw
