// Auth: bearer key to the tenant and key that it names. Keys are known by their SHA-256 only;
// without any key configured every caller is the first tenant (the server then listens on loopback
// alone). Rebuilt on reload. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "gateway/core/generation.h"
#include "shared/result.h"

namespace sluice::gw {

class Auth {
 public:
  explicit Auth(const cfg::Config& config);

  // `authorization`: the header's value, empty when absent. Errors: invalid_api_key.
  Result<Caller> caller_of(std::string_view authorization) const;
  bool is_open() const { return keys_.empty(); }

 private:
  struct Key {
    std::array<std::uint8_t, 32> digest;
    Caller caller;
  };
  std::vector<Key> keys_;  // ascending by digest
};

}  // namespace sluice::gw
