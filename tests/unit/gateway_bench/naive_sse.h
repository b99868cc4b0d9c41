// An obvious reader of whole event streams, the oracle of SseParser: lines first, then fields.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::bench {

using NamedEvents = std::vector<std::pair<std::string, std::string>>;  // type, data

inline std::vector<std::string> complete_lines(std::string_view text) {
  std::vector<std::string> lines;
  std::string line;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r' && text[i] != '\n') {
      line += text[i];
      continue;
    }
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') ++i;
    lines.push_back(line);
    line.clear();
  }
  return lines;  // an unfinished last line is not one
}

inline NamedEvents naive_events(std::string_view stream) {
  if (stream.starts_with("\xef\xbb\xbf")) stream.remove_prefix(3);
  NamedEvents events;
  std::string type, data;
  bool has_data = false;
  for (const std::string& line : complete_lines(stream)) {
    if (line.empty()) {
      if (has_data) events.emplace_back(type, data);
      type.clear();
      data.clear();
      has_data = false;
      continue;
    }
    const std::size_t colon = line.find(':');
    const std::string field = line.substr(0, colon);
    std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
    if (!value.empty() && value[0] == ' ') value.erase(0, 1);
    if (field == "data") {
      data += has_data ? "\n" + value : value;
      has_data = true;
    } else if (field == "event") {
      type = value;
    }
  }
  return events;
}

}  // namespace sluice::bench
