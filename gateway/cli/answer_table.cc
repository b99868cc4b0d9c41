// Flattening and columns.
#include "gateway/cli/answer_table.h"

#include <simdjson.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/api/json_text.h"

namespace sluice::gw {
namespace {

namespace dom = simdjson::dom;
using Members = std::vector<std::pair<std::string, std::string>>;

constexpr std::size_t kCellBytesMax = 64;  // of a column that is not the last

// Control characters would move the terminal's cursor.
std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return out;
}

std::string scalar(dom::element value) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return printable(text);
  if (value.is_null()) return "-";
  return std::string(simdjson::minify(value));
}

std::string joined(dom::array array) {
  std::string out;
  for (const dom::element item : array) {
    if (!out.empty()) out.push_back(',');
    out.append(scalar(item));
  }
  return out.empty() ? "-" : out;
}

void flatten(dom::object object, const std::string& prefix, Members& members) {
  for (const dom::key_value_pair member : object) {
    const std::string name = prefix + printable(member.key);
    if (name == "object") continue;
    dom::object nested;
    dom::array array;
    if (member.value.get(nested) == simdjson::SUCCESS)
      flatten(nested, name + ".", members);
    else if (member.value.get(array) == simdjson::SUCCESS)
      members.emplace_back(name, joined(array));
    else
      members.emplace_back(name, scalar(member.value));
  }
}

std::string list_table(dom::array rows) {
  std::vector<Members> entries;
  std::vector<std::string> columns;
  for (const dom::element row : rows) {
    dom::object object;
    if (row.get(object) != simdjson::SUCCESS) continue;
    flatten(object, "", entries.emplace_back());
    for (const auto& [name, text] : entries.back())
      if (std::find(columns.begin(), columns.end(), name) == columns.end()) columns.push_back(name);
  }
  std::vector<std::vector<std::string>> lines{columns};
  for (const Members& entry : entries) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const std::string& column : columns) {
      const auto at = std::find_if(entry.begin(), entry.end(),
                                   [&](const auto& member) { return member.first == column; });
      line.push_back(at == entry.end() ? "-" : at->second.empty() ? "-" : at->second);
    }
  }
  std::vector<std::size_t> widths(columns.size());
  for (const auto& line : lines)
    for (std::size_t i = 0; i < line.size(); ++i)
      widths[i] = std::min(kCellBytesMax, std::max(widths[i], line[i].size()));
  std::string out;
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      out.append(line[i]);
      if (i + 1 == line.size()) continue;
      out.append(2 + widths[i] - std::min(widths[i], line[i].size()), ' ');
    }
    out.push_back('\n');
  }
  return out;
}

}  // namespace

Result<std::string> answer_table(const std::string& json) {
  dom::parser parser;
  dom::object object;
  if (parser.parse(json).get(object) != simdjson::SUCCESS)
    return make_error(Errc::invalid_json, "the answer is not a JSON object");
  dom::array rows;
  if (object["data"].get(rows) == simdjson::SUCCESS) {
    std::string out = list_table(rows);
    bool has_more = false;
    std::string_view last;
    if (object["has_more"].get(has_more) == simdjson::SUCCESS && has_more &&
        object["last_id"].get(last) == simdjson::SUCCESS)
      out.append("(more: --after ").append(printable(last)).append(")\n");
    return out;
  }
  Members members;
  flatten(object, "", members);
  std::size_t width = 0;
  for (const auto& [name, text] : members) width = std::max(width, name.size());
  std::string out;
  for (const auto& [name, text] : members)
    out.append(name).append(width + 2 - name.size(), ' ').append(text).append("\n");
  return out;
}

std::string error_text(const std::string& json) {
  dom::parser parser;
  dom::object error;
  std::string_view code, message, param;
  if (parser.parse(json)["error"].get(error) != simdjson::SUCCESS ||
      error["code"].get(code) != simdjson::SUCCESS ||
      error["message"].get(message) != simdjson::SUCCESS)
    return printable(std::string_view(json).substr(0, 200));
  std::string out = std::string(code) + ": " + printable(message);
  if (error["param"].get(param) == simdjson::SUCCESS) out += " (" + printable(param) + ")";
  return out;
}

std::string json_text(const std::string& text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

}  // namespace sluice::gw
