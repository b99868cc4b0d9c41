// The key table. A search by digest may leak digest bytes through timing, which say nothing about a
// key; the decisive comparison takes the same time for all.
#include "gateway/http/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace sluice::gw {
namespace {

constexpr std::size_t kKeyBytesMax = 512;

// The token of "Bearer TOKEN"; empty when it is something else.
std::string_view bearer_token(std::string_view header) {
  constexpr std::string_view kScheme = "bearer ";
  if (header.size() <= kScheme.size()) return {};
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    const char c = header[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) != kScheme[i]) return {};
  }
  header.remove_prefix(kScheme.size());
  while (header.starts_with(' ')) header.remove_prefix(1);
  return header.size() <= kKeyBytesMax ? header : std::string_view();
}

}  // namespace

Auth::Auth(const cfg::Config& config) {
  for (std::size_t i = 0; i < config.tenants.size(); ++i)
    for (std::size_t k = 0; k < config.tenants[i].keys.size(); ++k)
      keys_.push_back({config.tenants[i].keys[k].sha256,
                       {TenantId(static_cast<std::uint32_t>(i)), static_cast<std::uint32_t>(k)}});
  std::sort(keys_.begin(), keys_.end(),
            [](const Key& a, const Key& b) { return a.digest < b.digest; });
}

Result<Caller> Auth::caller_of(std::string_view authorization) const {
  if (keys_.empty()) return Caller{};
  const std::string_view token = bearer_token(authorization);
  if (token.empty())
    return make_error(Errc::invalid_api_key,
                      "an API key is needed, as the header 'Authorization: Bearer KEY'");
  std::array<std::uint8_t, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  const auto at = std::lower_bound(
      keys_.begin(), keys_.end(), digest,
      [](const Key& key, const std::array<std::uint8_t, 32>& d) { return key.digest < d; });
  if (at == keys_.end() || CRYPTO_memcmp(at->digest.data(), digest.data(), digest.size()) != 0)
    return make_error(Errc::invalid_api_key, "the API key is not known to this server");
  return at->caller;
}

}  // namespace sluice::gw
