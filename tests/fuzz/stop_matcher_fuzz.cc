// Stop strings and text from one input, lines apart: the matcher against a naive search of the
// whole text. Line 1 seeds the cuts, lines 2 to 4 are stop strings, the rest is text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/check.h"
#include "shared/random.h"
#include "tokenizer/stop_matcher.h"

namespace {

// Where sending stops: the match that ends first, of those the longest.
std::size_t sendable_bytes(std::string_view text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops)
      if (!stop.empty() && text.substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    if (longest != 0) return end - longest;
  }
  return text.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  std::string_view text(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 4096));
  std::vector<std::string> lines;
  for (int i = 0; i < 4; ++i) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const std::uint64_t seed = lines[0].size();
  const std::vector<std::string> stops(lines.begin() + 1, lines.end());
  tok::StopMatcher matcher(stops);
  std::string sent;
  bool done = false;
  for (std::size_t at = 0; at < text.size() && !done;) {
    const std::size_t cut = 1 + random_bits({seed, 0, static_cast<std::uint32_t>(at)}, 0) % 7;
    done = matcher.push(text.substr(at, cut), sent);
    at += cut;
  }
  if (!done) matcher.finish(sent);
  CHECK(matcher.matched().has_value() == done);
  CHECK(sent == text.substr(0, sendable_bytes(text, stops)));
  return 0;
}
