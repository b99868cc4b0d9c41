// YamlReader: the visitor of settings.h that fills structs from a YAML tree. The first error wins;
// after it every member returns at once. Internal to config/.
#pragma once

#include <yaml-cpp/yaml.h>

#include <array>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/quantities.h"
#include "config/settings.h"
#include "shared/result.h"

namespace sluice::cfg {

class YamlReader {
 public:
  // Refuses aliases, anchors, tags, nesting and node counts that no honest file has. Throws
  // YAML::Exception as the parser does.
  static void check_shape(const std::string& yaml);

  explicit YamlReader(std::string file_name) : file_name_(std::move(file_name)) {}
  // Reads the whole document into `config`.
  void read(const YAML::Node& root, Config& config) { map(root, config); }
  const std::optional<Error>& error() const { return error_; }
  // The error of a relation between settings, with the line of the setting that it names.
  Error located(const Error& relation) const;

  template <class T>
  void integer(std::string_view key, T& field, std::uint64_t min, std::uint64_t max) {
    if (const auto value = number(key, min, max)) field = static_cast<T>(*value);
  }
  void limit(std::string_view key, Limit& field, std::uint64_t max);
  template <class T>
  void bytes(std::string_view key, T& field, std::uint64_t min, std::uint64_t max) {
    if (const auto value = size(key, min, max)) field = static_cast<T>(*value);
  }
  void duration(std::string_view key, milliseconds& field, milliseconds min, milliseconds max);
  void boolean(std::string_view key, bool& field);
  void text(std::string_view key, std::string& field, std::size_t bytes_max);
  template <class E>
  void choice(std::string_view key, E& field, std::span<const std::string_view> names) {
    if (const auto index = name_index(key, names)) field = static_cast<E>(*index);
  }
  void name_choice(std::string_view key, std::string& field,
                   std::span<const std::string_view> names);
  void digest(std::string_view key, std::array<std::uint8_t, 32>& field);
  void texts(std::string_view key, std::vector<std::string>& field, std::size_t count_max,
             std::size_t bytes_max);

  template <class S>
  void section(std::string_view key, S& field) {
    const auto value = take(key);
    if (!value) return;
    const PathScope scope(*this, key);
    map(*value, field);
  }
  template <class S>
  void list(std::string_view key, std::vector<S>& field, std::size_t count_max) {
    const auto value = take_list(key, count_max);
    if (!value) return;
    field.clear();
    for (std::size_t i = 0; i < value->size() && !error_; ++i) {
      const PathScope scope(*this, std::string(key) + "[" + std::to_string(i) + "]");
      map((*value)[i], field.emplace_back());
    }
  }

 private:
  struct Entry {
    std::string key;
    YAML::Node value;
    int line;
    bool taken = false;
  };
  // The keys of one YAML map, while its struct is visited.
  struct Map {
    std::vector<Entry> entries;
    std::string known;  // keys that the struct has, for the error about an unknown one
  };
  class PathScope {
   public:
    PathScope(YamlReader& reader, std::string_view key)
        : reader_(reader), size_(reader.path_.size()) {
      reader.path_ = reader.path_to(key);
    }
    ~PathScope() { reader_.path_.resize(size_); }
    PathScope(const PathScope&) = delete;
    PathScope& operator=(const PathScope&) = delete;

   private:
    YamlReader& reader_;
    std::size_t size_;
  };

  template <class S>
  void map(const YAML::Node& node, S& fields) {
    if (error_ || !open(node)) return;
    visit_settings(*this, fields);
    close();
  }
  bool open(const YAML::Node& node);
  void close();
  std::string path_to(std::string_view key) const;
  std::optional<YAML::Node> take(std::string_view key);
  std::optional<YAML::Node> take_list(std::string_view key, std::size_t count_max);
  std::optional<std::string> take_scalar(std::string_view key, std::string_view allowed);
  std::optional<std::uint64_t> number(std::string_view key, std::uint64_t min, std::uint64_t max);
  std::optional<std::uint64_t> size(std::string_view key, std::uint64_t min, std::uint64_t max);
  std::optional<std::size_t> name_index(std::string_view key,
                                        std::span<const std::string_view> names);
  bool accept_text(const YAML::Node& node, const std::string& path, std::size_t bytes_max,
                   std::string& field);
  void fail(int line, const std::string& path, const std::string& what, std::string_view allowed);

  std::string file_name_;
  std::string path_;
  std::vector<Map> open_maps_;
  std::map<std::string, int> lines_;  // of every key that the file has
  std::optional<Error> error_;
};

// The ranges as errors and the key list print them.
std::string allowed_integers(std::uint64_t min, std::uint64_t max);
std::string allowed_limits(std::uint64_t max);
std::string allowed_sizes(std::uint64_t min, std::uint64_t max);
std::string allowed_durations(milliseconds min, milliseconds max);
std::string allowed_text(std::size_t bytes_max);
std::string allowed_names(std::span<const std::string_view> names);
std::string allowed_list(std::size_t count_max);
inline constexpr std::string_view kAllowedDigest = "64 hex digits (SHA-256 of the key)";
inline constexpr std::string_view kAllowedBoolean = "true, false";

}  // namespace sluice::cfg
