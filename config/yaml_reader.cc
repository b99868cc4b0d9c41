// Fills the configuration structs from YAML, strictly; see yaml_reader.h.
#include "config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <sstream>

namespace sluice::cfg {
namespace {

constexpr std::size_t kDepthMax = 16;
constexpr std::size_t kNodesMax = 200'000;

// Sees the file as a stream of events before a tree is built from it.
class ShapeGuard final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ != 0) refuse(mark, "a second document");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { node(mark, "?", anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "an alias"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string&) override {
    node(mark, tag, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    enter(mark, tag, anchor);
  }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    enter(mark, tag, anchor);
  }
  void OnMapEnd() override { --depth_; }

 private:
  [[noreturn]] static void refuse(const YAML::Mark& mark, const std::string& what) {
    throw YAML::ParserException(mark, what + " is not allowed here");
  }
  void node(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "an anchor");
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, "a tag");
    if (++nodes_ > kNodesMax) refuse(mark, "so many nodes");
  }
  void enter(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    node(mark, tag, anchor);
    if (++depth_ > kDepthMax) refuse(mark, "nesting so deep");
  }

  std::size_t documents_ = 0;
  std::size_t nodes_ = 0;
  std::size_t depth_ = 0;
};

int line_of(const YAML::Node& node) {
  return node.Mark().line + 1;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Values come from a file with secrets in it: errors show only what can't be one.
std::string shown(const std::string& value) {
  constexpr std::size_t kShownBytesMax = 24;
  if (value.size() > kShownBytesMax || std::ranges::any_of(value, is_control)) return "this value";
  return "'" + value + "'";
}

}  // namespace

std::string allowed_integers(std::uint64_t min, std::uint64_t max) {
  return std::to_string(min) + ".." + std::to_string(max);
}
std::string allowed_limits(std::uint64_t max) {
  return allowed_integers(0, max) + ", none";
}
std::string allowed_sizes(std::uint64_t min, std::uint64_t max) {
  return format_size(min) + ".." + format_size(max);
}
std::string allowed_durations(milliseconds min, milliseconds max) {
  return format_duration(min) + ".." + format_duration(max);
}
std::string allowed_text(std::size_t bytes_max) {
  return "text of at most " + std::to_string(bytes_max) + " bytes without control characters";
}
std::string allowed_names(std::span<const std::string_view> names) {
  std::string text;
  for (const std::string_view name : names) {
    if (!text.empty()) text += ", ";
    text += name.empty() ? "\"\"" : name;
  }
  return text;
}
std::string allowed_list(std::size_t count_max) {
  return "a list of at most " + std::to_string(count_max);
}

void YamlReader::check_shape(const std::string& yaml) {
  std::istringstream stream(yaml);
  YAML::Parser parser(stream);
  ShapeGuard guard;
  while (parser.HandleNextDocument(guard)) {
  }
}

Error YamlReader::located(const Error& relation) const {
  // The key itself may stand on its default: then the nearest list or section around it.
  std::string key = relation.param;
  while (!key.empty() && !lines_.contains(key)) {
    const auto cut = key.find_last_of(".[");
    key.resize(cut == std::string::npos ? 0 : cut);
  }
  const auto found = lines_.find(key);
  const std::string line = found == lines_.end() ? "" : ":" + std::to_string(found->second);
  return make_error(relation.code, file_name_ + line + ": " + relation.detail, relation.param);
}

std::string YamlReader::path_to(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

void YamlReader::fail(int line, const std::string& path, const std::string& what,
                      std::string_view allowed) {
  if (error_) return;
  std::string detail = file_name_ + ":" + std::to_string(line) + ": ";
  if (!path.empty()) detail += path + ": ";
  error_ = make_error(Errc::bad_config, detail + what + "; allowed: " + std::string(allowed), path);
}

bool YamlReader::open(const YAML::Node& node) {
  Map& map = open_maps_.emplace_back();
  if (node.IsNull() && path_.empty()) return true;  // an empty file: all defaults
  if (!node.IsMap()) {
    fail(line_of(node), path_, "not a map of settings", "KEY: VALUE lines");
    open_maps_.pop_back();
    return false;
  }
  for (const auto& item : node) {
    if (!item.first.IsScalar()) {
      fail(line_of(item.first), path_, "a key that is not text", "names of settings");
    } else {
      const std::string& key = item.first.Scalar();
      const int line = line_of(item.first);
      if (std::ranges::any_of(map.entries, [&](const Entry& e) { return e.key == key; })) {
        fail(line, path_to(key), "given twice", "each key once");
      }
      lines_.emplace(path_to(key), line);
      map.entries.push_back({key, item.second, line});
      // No struct has so many; the check for duplicates above is quadratic.
      if (map.entries.size() > 64) fail(line, path_, "too many keys", "the known settings");
    }
    if (error_) {
      open_maps_.pop_back();
      return false;
    }
  }
  return true;
}

void YamlReader::close() {
  for (const Entry& entry : open_maps_.back().entries) {
    if (entry.taken) continue;
    const bool printable = entry.key.size() <= 64 && !std::ranges::any_of(entry.key, is_control);
    fail(entry.line, printable ? path_to(entry.key) : path_, "unknown key",
         open_maps_.back().known);
    break;
  }
  open_maps_.pop_back();
}

std::optional<YAML::Node> YamlReader::take(std::string_view key) {
  if (error_) return std::nullopt;
  Map& map = open_maps_.back();
  if (!map.known.empty()) map.known += ", ";
  map.known += key;
  for (Entry& entry : map.entries) {
    if (entry.key != key) continue;
    entry.taken = true;
    return entry.value;
  }
  return std::nullopt;
}

std::optional<YAML::Node> YamlReader::take_list(std::string_view key, std::size_t count_max) {
  auto node = take(key);
  if (!node) return std::nullopt;
  if (!node->IsSequence()) {
    fail(line_of(*node), path_to(key), "not a list", allowed_list(count_max));
    return std::nullopt;
  }
  if (node->size() > count_max) {
    fail(line_of(*node), path_to(key), "too many entries", allowed_list(count_max));
    return std::nullopt;
  }
  return node;
}

// A plain (unquoted) scalar: quoted digits are text, not a number.
std::optional<std::string> YamlReader::take_scalar(std::string_view key, std::string_view allowed) {
  const auto node = take(key);
  if (!node) return std::nullopt;
  if (node->IsScalar() && node->Tag() != "!") return node->Scalar();
  fail(line_of(*node), path_to(key), "wrong type", allowed);
  return std::nullopt;
}

std::optional<std::uint64_t> YamlReader::number(std::string_view key, std::uint64_t min,
                                                std::uint64_t max) {
  const auto scalar = take_scalar(key, allowed_integers(min, max));
  if (!scalar) return std::nullopt;
  const auto value = parse_whole_number(*scalar);
  if (value && *value >= min && *value <= max) return value;
  fail(lines_[path_to(key)], path_to(key),
       shown(*scalar) + (value ? " is out of range" : " is not a whole number"),
       allowed_integers(min, max));
  return std::nullopt;
}

void YamlReader::limit(std::string_view key, Limit& field, std::uint64_t max) {
  const auto scalar = take_scalar(key, allowed_limits(max));
  if (!scalar) return;
  const auto value = parse_whole_number(*scalar);
  if (*scalar == "none") {
    field.reset();
  } else if (value && *value <= max) {
    field = *value;
  } else {
    fail(lines_[path_to(key)], path_to(key),
         shown(*scalar) + (value ? " is out of range" : " is not a whole number"),
         allowed_limits(max));
  }
}

std::optional<std::uint64_t> YamlReader::size(std::string_view key, std::uint64_t min,
                                              std::uint64_t max) {
  const auto scalar = take_scalar(key, allowed_sizes(min, max));
  if (!scalar) return std::nullopt;
  const auto value = parse_size(*scalar);
  if (value && *value >= min && *value <= max) return value;
  fail(lines_[path_to(key)], path_to(key),
       shown(*scalar) + (value ? " is out of range" : " is not a size such as 64KiB or 8MiB"),
       allowed_sizes(min, max));
  return std::nullopt;
}

void YamlReader::duration(std::string_view key, milliseconds& field, milliseconds min,
                          milliseconds max) {
  const auto scalar = take_scalar(key, allowed_durations(min, max));
  if (!scalar) return;
  const auto value = parse_duration(*scalar);
  if (value && *value >= min && *value <= max) {
    field = *value;
    return;
  }
  fail(lines_[path_to(key)], path_to(key),
       shown(*scalar) + (value ? " is out of range" : " is not a duration such as 250ms or 10s"),
       allowed_durations(min, max));
}

void YamlReader::boolean(std::string_view key, bool& field) {
  const auto scalar = take_scalar(key, kAllowedBoolean);
  if (!scalar) return;
  if (*scalar == "true" || *scalar == "false") {
    field = *scalar == "true";
    return;
  }
  fail(lines_[path_to(key)], path_to(key), shown(*scalar) + " is not a truth value",
       kAllowedBoolean);
}

bool YamlReader::accept_text(const YAML::Node& node, const std::string& path, std::size_t bytes_max,
                             std::string& field) {
  if (!node.IsScalar()) {
    fail(line_of(node), path, "wrong type", allowed_text(bytes_max));
  } else if (node.Scalar().size() > bytes_max) {
    fail(line_of(node), path, "too long", allowed_text(bytes_max));
  } else if (std::ranges::any_of(node.Scalar(), is_control)) {
    fail(line_of(node), path, "a control character", allowed_text(bytes_max));
  } else {
    field = node.Scalar();
    return true;
  }
  return false;
}

void YamlReader::text(std::string_view key, std::string& field, std::size_t bytes_max) {
  if (const auto node = take(key)) accept_text(*node, path_to(key), bytes_max, field);
}

void YamlReader::texts(std::string_view key, std::vector<std::string>& field, std::size_t count_max,
                       std::size_t bytes_max) {
  const auto node = take_list(key, count_max);
  if (!node) return;
  field.clear();
  for (std::size_t i = 0; i < node->size(); ++i) {
    const std::string path = path_to(key) + "[" + std::to_string(i) + "]";
    if (!accept_text((*node)[i], path, bytes_max, field.emplace_back())) return;
  }
}

std::optional<std::size_t> YamlReader::name_index(std::string_view key,
                                                  std::span<const std::string_view> names) {
  const auto node = take(key);
  if (!node) return std::nullopt;
  if (node->IsScalar()) {
    const auto found = std::ranges::find(names, node->Scalar());
    if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
    fail(line_of(*node), path_to(key), shown(node->Scalar()) + " is not known",
         allowed_names(names));
  } else {
    fail(line_of(*node), path_to(key), "wrong type", allowed_names(names));
  }
  return std::nullopt;
}

void YamlReader::name_choice(std::string_view key, std::string& field,
                             std::span<const std::string_view> names) {
  if (const auto index = name_index(key, names)) field = names[*index];
}

void YamlReader::digest(std::string_view key, std::array<std::uint8_t, 32>& field) {
  const auto node = take(key);
  if (!node) return;
  const std::string digits = node->IsScalar() ? node->Scalar() : "";
  if (digits.size() != 2 * field.size() ||
      std::ranges::any_of(digits, [](char c) { return hex_value(c) < 0; })) {
    fail(line_of(*node), path_to(key), "not a digest", kAllowedDigest);
    return;
  }
  for (std::size_t i = 0; i < field.size(); ++i)
    field[i] =
        static_cast<std::uint8_t>(hex_value(digits[2 * i]) * 16 + hex_value(digits[2 * i + 1]));
}

}  // namespace sluice::cfg
