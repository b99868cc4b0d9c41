// LineReader: the lines of a text file that a run replays, with their numbers for errors. Ends of
// lines are LF or CR LF; blank lines are passed over. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "shared/result.h"

namespace sluice::bench {

inline constexpr std::size_t kReplayFileBytesMax = 512u << 20;
inline constexpr std::size_t kReplayLinesMax = 1'000'000;

class LineReader {
 public:
  explicit LineReader(std::string_view text) : rest_(text) {}

  // False at the end.
  bool next(std::string_view& line) {
    while (!rest_.empty()) {
      const std::size_t end = rest_.find('\n');
      line = rest_.substr(0, end);
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      ++number_;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.find_first_not_of(" \t") != std::string_view::npos) return true;
    }
    return false;
  }

  // Of the line that next() gave last, from 1.
  std::size_t number() const { return number_; }
  Error error(const std::string& reason, const char* param) const {
    return make_error(Errc::invalid_value, "line " + std::to_string(number_) + ": " + reason,
                      param);
  }

 private:
  std::string_view rest_;
  std::size_t number_ = 0;
};

}  // namespace sluice::bench
