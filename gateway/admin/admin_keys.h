// Making and hashing keys: "PREFIX<public id>-<secret>", 64 and 256 random bits in hex. What is
// kept of a key is HMAC-SHA256 under a secret of this server, so that the tables alone verify
// nothing.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/result.h"

namespace sluice::gw {

inline constexpr std::string_view kTenantKeyPrefix = "sk-sluice-";
inline constexpr std::string_view kAdminKeyPrefix = "sk-sluice-admin-";
inline constexpr std::size_t kHashSecretBytes = 32;

using KeyDigest = std::array<std::uint8_t, 32>;

struct NewKey {
  std::string text;  // shown once
  std::string public_id;
  KeyDigest digest{};
};

NewKey make_new_key(std::string_view prefix, std::string_view hash_secret);
KeyDigest hash_key(std::string_view hash_secret, std::string_view key);
bool is_equal(const KeyDigest& a, const KeyDigest& b);  // in constant time

// Reads the server's secret from a file, made (0600) where missing. Errors: io_error, bad_file.
Result<std::string> load_hash_secret(const std::string& path);

}  // namespace sluice::gw
