// StopMatcher: finds stop strings across token borders and says how much text may be sent: a suffix
// that could still become a stop string is held back. The earliest match wins; among matches that end
// at the same place the one that starts first. Text from the match on is never sent.
// One per sequence; not thread safe. Bounds: kStopStringsMax strings of kStopStringBytesMax bytes.
#pragma once

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
  std::vector<std::string> stops_;
  std::string held_;
  std::optional<std::size_t> matched_;
};

}  // namespace sluice::tok
