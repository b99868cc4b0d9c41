// Auth: bearer key to the tenant and key that it names. Keys are known by their SHA-256 only;
// without any key configured every caller is the first tenant (the server then listens on loopback
// alone). Rebuilt on reload; a single tenant is replaced in time that its own keys take. One
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/config.h"
#include "gateway/core/generation.h"
#include "shared/result.h"

namespace sluice::gw {

// In the order of cfg::kScopeNames.
enum class Scope : std::uint8_t { model_request, model_read, quota_read };

class Auth {
 public:
  // `hash_secret`: of the keys that were made over REST, whose digests are keyed; empty: none are.
  explicit Auth(const cfg::Config& config, std::string hash_secret = {});

  // The keys of the tenant of that number are now these. `is_blocked`: it, or one above it, is.
  void set_tenant(TenantId number, const std::vector<cfg::ApiKey>& keys, bool is_blocked);

  // `authorization`: the header's value, empty when absent. Errors: invalid_api_key, also where the
  // key's tenant, or one above it, is blocked; insufficient_scope.
  Result<Caller> caller_of(std::string_view authorization, Scope scope) const;
  bool knows(std::string_view authorization) const;  // whatever it may do
  bool is_open() const { return is_open_; }
  static std::string_view bearer_token(std::string_view authorization);  // empty: none

 private:
  using Digest = std::array<std::uint8_t, 32>;
  // Digests are spread evenly, and nobody can choose those that are in the table.
  struct DigestHash {
    std::size_t operator()(const Digest& digest) const {
      std::size_t bits = 0;
      std::memcpy(&bits, digest.data(), sizeof bits);
      return bits;
    }
  };
  struct Key {
    Digest digest;
    Caller caller;
    std::uint32_t scopes;  // a bit each
    bool is_blocked;
  };
  const Key* find(const Digest& digest) const;
  const Key* find(std::string_view token) const;

  std::unordered_map<Digest, Key, DigestHash> keys_;
  std::vector<std::vector<Digest>> of_tenant_;  // by number
  std::string hash_secret_;
  bool is_open_;
};

}  // namespace sluice::gw
