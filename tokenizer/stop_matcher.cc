// Knuth-Morris-Pratt over a stream, for a handful of strings at once; see stop_matcher.h.
#include "tokenizer/stop_matcher.h"

#include <algorithm>

#include "shared/check.h"

namespace sluice::tok {

StopMatcher::StopMatcher(std::vector<std::string> stop_strings) {
  std::size_t longest = 0;
  for (std::string& text : stop_strings) {
    if (text.empty()) continue;
    Stop& stop = stops_.emplace_back();
    stop.text = std::move(text);
    stop.fallback.resize(stop.text.size());
    for (std::size_t k = 1; k < stop.text.size(); ++k) {
      stop.matched = stop.fallback[k - 1];
      stop.fallback[k] = advance(stop, stop.text[k]);
    }
    stop.matched = 0;
    longest = std::max(longest, stop.text.size());
  }
  held_.reserve(longest);
}

// Length of the longest prefix of the string that ends at `byte`.
std::uint32_t StopMatcher::advance(const Stop& stop, char byte) {
  std::uint32_t k = stop.matched;
  while (k > 0 && stop.text[k] != byte) k = stop.fallback[k - 1];
  return stop.text[k] == byte ? k + 1 : 0;
}

bool StopMatcher::push(std::string_view text, std::string& sendable) {
  CHECK(!matched_);
  if (stops_.empty()) {
    sendable += text;
    return false;
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (std::size_t s = 0; s < stops_.size(); ++s) {
      Stop& stop = stops_[s];
      stop.matched = advance(stop, text[i]);
      if (stop.matched < stop.text.size()) continue;
      // Ends here; the longest of those that do starts first.
      if (!matched_ || stop.text.size() > stops_[*matched_].text.size()) matched_ = s;
    }
    if (!matched_) continue;
    const std::size_t total = held_.size() + i + 1;
    const std::size_t sent = total - stops_[*matched_].text.size();
    sendable.append(held_, 0, sent);
    if (sent > held_.size()) sendable.append(text, 0, sent - held_.size());
    held_.clear();
    return true;
  }
  std::size_t keep = 0;  // bytes at the end that some string may still need
  for (const Stop& stop : stops_) keep = std::max<std::size_t>(keep, stop.matched);
  const std::size_t sent = held_.size() + text.size() - keep;
  const std::size_t from_held = std::min(sent, held_.size());
  sendable.append(held_, 0, from_held);
  held_.erase(0, from_held);
  sendable.append(text, 0, sent - from_held);
  held_.append(text, sent - from_held, std::string_view::npos);
  return false;
}

void StopMatcher::finish(std::string& sendable) {
  sendable += held_;
  held_.clear();
}

}  // namespace sluice::tok
