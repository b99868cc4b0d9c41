// Reading and making the gateway's name; a new one is complete before it has its file name.
#include "gateway/store/gateway_id.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "shared/check.h"
#include "shared/unique_fd.h"

namespace sluice::gw {
namespace {

constexpr std::size_t kDigits = 32;

std::string random_digits() {
  std::array<std::uint8_t, kDigits / 2> bytes{};
  CHECK(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  constexpr char kHex[] = "0123456789abcdef";
  std::string digits;
  for (const std::uint8_t byte : bytes) {
    digits += kHex[byte >> 4];
    digits += kHex[byte & 15];
  }
  return digits;
}

Result<std::string> make(const std::string& path) {
  std::string id = random_digits();
  const std::string fresh = path + ".new";
  const UniqueFd file(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return system_error(fresh + ": open");
  if (::write(file.get(), id.data(), id.size()) != static_cast<ssize_t>(id.size()))
    return system_error(fresh + ": write");
  if (::fsync(file.get()) != 0) return system_error(fresh + ": fsync");
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return system_error(path + ": rename");
  return id;
}

}  // namespace

Result<std::string> load_gateway_id(const std::string& state_dir) {
  const std::string path = state_dir + "/gateway_id";
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file && errno == ENOENT) return make(path);
  if (!file) return system_error(path + ": open");
  std::array<char, kDigits + 1> text{};
  const ssize_t got = ::read(file.get(), text.data(), text.size());
  if (got < 0) return system_error(path + ": read");
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (got != static_cast<ssize_t>(kDigits) ||
      !std::all_of(text.begin(), text.begin() + kDigits, is_digit))
    return make_error(Errc::bad_file, path + ": not 32 hex digits; without it a new one is made");
  return std::string(text.data(), kDigits);
}

}  // namespace sluice::gw
