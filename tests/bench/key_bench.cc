// How long it takes to tell a known key from an unknown one and from one that is wrong in its last
// digit: the three must not differ measurably. First the search in the key table alone, then the
// whole check, where a refusal also makes its text. Interleaved rounds, medians and range, and each
// kind against the known one; the known one twice says what noise is.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "gateway/admin/admin_keys.h"
#include "gateway/http/auth.h"
#include "shared/check.h"

namespace sluice::gw {
namespace {

constexpr std::size_t kKeys = 1000;
constexpr int kRounds = 201;
constexpr int kCallsPerRound = 400;

struct Kind {
  const char* name;
  std::vector<std::string> headers;
  bool is_known;
  std::vector<double> ns;  // per call, one per round
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

template <class Check>
void measure(Check check, Kind& kind, std::size_t round) {
  std::size_t known = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < kCallsPerRound; ++i) {
    const std::string& header = kind.headers[(round * kCallsPerRound + i) % kind.headers.size()];
    known += check(header) ? 1 : 0;
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  CHECK(known == (kind.is_known ? std::size_t{kCallsPerRound} : 0));
  kind.ns.push_back(took.count() / kCallsPerRound);
}

template <class Check>
void compare(const char* what, std::array<Kind, 4> kinds, Check check) {
  for (int round = 0; round < kRounds; ++round)
    for (std::size_t i = 0; i < kinds.size(); ++i)  // another one begins each time
      measure(check, kinds[(i + static_cast<std::size_t>(round)) % kinds.size()],
              static_cast<std::size_t>(round));
  std::printf("%s, %zu keys\n", what, kKeys);
  for (const Kind& kind : kinds) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < kind.ns.size(); ++i) ratios.push_back(kind.ns[i] / kinds[0].ns[i]);
    const auto [low, high] = std::minmax_element(kind.ns.begin(), kind.ns.end());
    std::printf("  %-24s %7.0f ns (%.0f .. %.0f), %.3f x the known one\n", kind.name,
                median(kind.ns), *low, *high, median(ratios));
  }
}

void run() {
  const std::string secret(kHashSecretBytes, 's');
  cfg::Config config;
  config.tenants.emplace_back();
  std::array<Kind, 4> kinds{{{"known", {}, true, {}},
                             {"known again", {}, true, {}},
                             {"wrong in its last digit", {}, false, {}},
                             {"unknown", {}, false, {}}}};
  for (std::size_t i = 0; i < kKeys; ++i) {
    const NewKey key = make_new_key(kTenantKeyPrefix, secret);
    config.tenants[0].keys.push_back({key.public_id, key.digest, {}, {}});
    std::string wrong = key.text;
    wrong.back() = wrong.back() == '0' ? '1' : '0';
    kinds[0].headers.push_back("Bearer " + key.text);
    kinds[1].headers.push_back("Bearer " + key.text);
    kinds[2].headers.push_back("Bearer " + wrong);
    kinds[3].headers.push_back("Bearer " + make_new_key(kTenantKeyPrefix, secret).text);
  }
  const Auth auth(config, secret);
  compare("search in the key table", kinds,
          [&](const std::string& header) { return auth.knows(header); });
  compare("whole check of a key", kinds, [&](const std::string& header) {
    return auth.caller_of(header, Scope::model_request).has_value();
  });
}

}  // namespace
}  // namespace sluice::gw

int main() {
  sluice::gw::run();
}
