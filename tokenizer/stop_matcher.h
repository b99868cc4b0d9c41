// StopMatcher: finds stop strings across token borders and says how much text may be sent: a suffix
// that could still become a stop string is held back. The earliest match wins: the one that ends
// first, and among those that end at the same place the one that starts first (the longest). Text
// from the match on is never sent.
//
// One Knuth-Morris-Pratt automaton per string (Knuth, Morris, Pratt: "Fast pattern matching in
// strings", 1977), so a byte costs amortized constant work per string and nothing is allocated
// after construction except in the caller's `sendable`. One per sequence; not thread safe. Bounds:
// kStopStringsMax strings of kStopStringBytesMax bytes, checked by the caller; the matcher itself
// works for any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::tok {

class StopMatcher {
 public:
  StopMatcher() = default;
  explicit StopMatcher(std::vector<std::string> stop_strings);  // empty strings are ignored

  // Takes new text, appends what may be sent to `sendable`. True when a stop string is complete:
  // nothing more will be sent, further calls are refused by CHECK.
  bool push(std::string_view text, std::string& sendable);
  // The sequence ended otherwise: releases what was held back.
  void finish(std::string& sendable);

  std::size_t held_bytes() const { return held_.size(); }
  // Which string matched (index into the constructor's list without empty ones).
  std::optional<std::size_t> matched() const { return matched_; }

 private:
  struct Stop {
    std::string text;
    // fallback[k]: length of the longest proper border of the first k + 1 bytes.
    std::vector<std::uint32_t> fallback;
    std::uint32_t matched = 0;  // bytes of `text` that the stream's end matches, < text.size()
  };
  static std::uint32_t advance(const Stop& stop, char byte);

  std::vector<Stop> stops_;
  std::string held_;  // the end of the stream that may become a stop string
  std::optional<std::size_t> matched_;
};

}  // namespace sluice::tok
