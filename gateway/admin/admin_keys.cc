// Randomness comes from the system, hashes from OpenSSL.
#include "gateway/admin/admin_keys.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>

#include "shared/check.h"
#include "shared/unique_fd.h"

namespace sluice::gw {
namespace {

void fill_random(std::span<std::uint8_t> bytes) {
  CHECK(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
}

void append_hex(std::string& out, std::span<const std::uint8_t> bytes) {
  constexpr char kHex[] = "0123456789abcdef";
  for (const std::uint8_t byte : bytes) {
    out.push_back(kHex[byte >> 4]);
    out.push_back(kHex[byte & 15]);
  }
}

Error failed(const std::string& path) {
  return make_error(Errc::io_error, path + ": " + std::strerror(errno));
}

}  // namespace

KeyDigest hash_key(std::string_view hash_secret, std::string_view key) {
  KeyDigest digest;
  unsigned size = 0;
  CHECK(HMAC(EVP_sha256(), hash_secret.data(), static_cast<int>(hash_secret.size()),
             reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data(),
             &size) != nullptr &&
        size == digest.size());
  return digest;
}

bool is_equal(const KeyDigest& a, const KeyDigest& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

NewKey make_new_key(std::string_view prefix, std::string_view hash_secret) {
  std::array<std::uint8_t, 40> random;
  fill_random(random);
  NewKey key;
  append_hex(key.public_id, std::span(random).first(8));
  key.text.assign(prefix).append(key.public_id).push_back('-');
  append_hex(key.text, std::span(random).subspan(8));
  key.digest = hash_key(hash_secret, key.text);
  return key;
}

Result<std::string> load_hash_secret(const std::string& path) {
  std::array<std::uint8_t, kHashSecretBytes> bytes;
  if (::access(path.c_str(), F_OK) != 0) {
    // Made whole under another name first: a crash in between leaves no short file behind.
    const std::string fresh = path + ".new";
    const UniqueFd made(
        ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!made) return failed(fresh);
    fill_random(bytes);
    if (::write(made.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
        ::fsync(made.get()) != 0 || (::link(fresh.c_str(), path.c_str()) != 0 && errno != EEXIST) ||
        ::unlink(fresh.c_str()) != 0)
      return failed(path);
  }
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return failed(path);
  std::array<std::uint8_t, kHashSecretBytes + 1> read;
  if (::read(file.get(), read.data(), read.size()) != static_cast<ssize_t>(kHashSecretBytes))
    return make_error(Errc::bad_file, path + " must hold " + std::to_string(kHashSecretBytes) +
                                          " bytes; without them no key of this server is valid");
  return std::string(read.begin(), read.begin() + kHashSecretBytes);
}

}  // namespace sluice::gw
