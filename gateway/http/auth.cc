// The key table. A search by digest may leak digest bytes through timing, which say nothing about a
// key; the decisive comparison takes the same time for all.
#include "gateway/http/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <map>
#include <utility>

#include "config/settings.h"
#include "gateway/admin/admin_keys.h"

namespace sluice::gw {
namespace {

constexpr std::size_t kKeyBytesMax = 512;

std::uint32_t scope_bits(const std::vector<std::string>& names) {
  if (names.empty()) return ~0u;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < cfg::kScopeNames.size(); ++i)
    if (std::find(names.begin(), names.end(), cfg::kScopeNames[i]) != names.end()) bits |= 1u << i;
  return bits;
}

bool is_blocked_anywhere(const cfg::Tenant& tenant,
                         const std::map<std::string_view, const cfg::Tenant*>& by_name) {
  const cfg::Tenant* at = &tenant;
  for (std::size_t depth = 0; depth < cfg::kTenantDepthMax; ++depth) {
    if (at->blocked) return true;
    const auto up = by_name.find(at->parent);
    if (up == by_name.end()) return false;
    at = up->second;
  }
  return false;
}

}  // namespace

std::string_view Auth::bearer_token(std::string_view header) {
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

Auth::Auth(const cfg::Config& config, std::string hash_secret)
    : hash_secret_(std::move(hash_secret)) {
  std::map<std::string_view, const cfg::Tenant*> by_name;
  for (const cfg::Tenant& tenant : config.tenants) by_name.emplace(tenant.name, &tenant);
  for (std::size_t i = 0; i < config.tenants.size(); ++i) {
    set_tenant(TenantId(static_cast<std::uint32_t>(i)), config.tenants[i].keys,
               is_blocked_anywhere(config.tenants[i], by_name));
  }
  // Tenants that were made over REST are no invitation, also while none of them has a key.
  is_open_ = keys_.empty() && (hash_secret_.empty() || config.tenants.empty());
}

void Auth::set_tenant(TenantId number, const std::vector<cfg::ApiKey>& keys, bool is_blocked) {
  if (number.value >= of_tenant_.size()) of_tenant_.resize(number.value + 1);
  std::vector<Digest>& digests = of_tenant_[number.value];
  for (const Digest& digest : digests) {
    const auto at = keys_.find(digest);
    if (at != keys_.end() && at->second.caller.tenant == number) keys_.erase(at);
  }
  digests.clear();
  for (std::uint32_t k = 0; k < keys.size(); ++k) {
    const Digest& digest = keys[k].sha256;
    keys_.insert_or_assign(digest,
                           Key{digest, {number, k}, scope_bits(keys[k].scopes), is_blocked});
    digests.push_back(digest);
  }
  is_open_ = keys_.empty() && hash_secret_.empty();
}

const Auth::Key* Auth::find(const Digest& digest) const {
  const auto at = keys_.find(digest);
  if (at == keys_.end() ||
      CRYPTO_memcmp(at->second.digest.data(), digest.data(), digest.size()) != 0)
    return nullptr;
  return &at->second;
}

// Both tables are always asked, so that known, wrong and unknown keys take the same path.
const Auth::Key* Auth::find(std::string_view token) const {
  std::array<std::uint8_t, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  const Key* found = find(digest);
  if (!hash_secret_.empty())
    if (const Key* managed = find(hash_key(hash_secret_, token)); managed != nullptr)
      found = managed;
  return found;
}

bool Auth::knows(std::string_view authorization) const {
  const std::string_view token = bearer_token(authorization);
  return !is_open_ && !token.empty() && find(token) != nullptr;
}

Result<Caller> Auth::caller_of(std::string_view authorization, Scope scope) const {
  if (is_open_) return Caller{};
  const std::string_view token = bearer_token(authorization);
  if (token.empty())
    return make_error(Errc::invalid_api_key,
                      "an API key is needed, as the header 'Authorization: Bearer KEY'");
  const Key* found = find(token);
  if (found == nullptr)
    return make_error(Errc::invalid_api_key, "the API key is not known to this server");
  if (found->is_blocked)
    return make_error(Errc::invalid_api_key, "the tenant of this API key is blocked");
  const auto index = static_cast<std::size_t>(scope);
  if ((found->scopes & (1u << index)) == 0)
    return make_error(Errc::insufficient_scope, "this API key lacks the scope '" +
                                                    std::string(cfg::kScopeNames[index]) + "'");
  return found->caller;
}

}  // namespace sluice::gw
