// config/sluice.yaml is documentation that must not drift: it parses to the defaults, lists exactly
// the keys that the loader knows, and its comments state the ranges that the loader enforces.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <fstream>
#include <set>
#include <sstream>

#include "config/load_config.h"

namespace sluice::cfg {
namespace {

std::string file_text() {
  std::ifstream file(SLUICE_SOURCE_DIR "/config/sluice.yaml");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void collect(const YAML::Node& node, const std::string& path, std::set<std::string>& keys) {
  if (node.IsMap()) {
    for (const auto& item : node)
      collect(item.second, (path.empty() ? "" : path + ".") + item.first.Scalar(), keys);
  } else if (node.IsSequence() && node.size() != 0 && node[0].IsMap()) {
    collect(node[0], path + "[]", keys);
  } else {
    keys.insert(path);
  }
}

// The commented example under `tenants`, made into YAML.
std::string tenants_example(const std::string& text) {
  std::istringstream lines(text);
  std::string line, example = "tenants:\n";
  bool inside = false;
  while (std::getline(lines, line)) {
    if (inside && !line.starts_with("#")) break;
    if (inside) example += line.substr(1) + "\n";
    if (line.ends_with("for example")) inside = true;
  }
  return example;
}

TEST(SluiceYaml, ParsesToTheDefaults) {
  const auto config = load_config(SLUICE_SOURCE_DIR "/config/sluice.yaml");
  ASSERT_TRUE(config) << config.error().detail;
  const Config defaults;
  EXPECT_EQ(*config, defaults);
}

TEST(SluiceYaml, ListsExactlyTheKeysThatTheLoaderKnows) {
  std::set<std::string> known, listed;
  for (const SettingFacts& setting : known_settings()) known.insert(setting.key);
  collect(YAML::Load(file_text()), "", listed);
  EXPECT_EQ(listed.erase("tenants"), 1u);
  collect(YAML::Load(tenants_example(file_text())), "", listed);
  // The example refers to default_limits for these.
  EXPECT_EQ(listed.erase("tenants[].limits"), 0u);
  std::erase_if(known, [](const std::string& key) {
    return key.starts_with("tenants[].limits.") || key.starts_with("tenants[].keys[].limits.") ||
           key.find("_overrides[].") != std::string::npos;
  });
  for (const char* overrides : {"model_overrides", "temporary_overrides"})
    EXPECT_EQ(listed.erase(std::string("default_limits.") + overrides), 1u);
  EXPECT_EQ(listed, known);
}

TEST(SluiceYaml, StatesTheRangesThatTheLoaderEnforces) {
  std::istringstream lines(file_text());
  std::string line, comment, commented_keys;
  std::multimap<std::string, std::string> comments;  // last part of the key -> comment above it
  while (std::getline(lines, line)) {
    const auto start = line.find_first_not_of(" -");
    if (start == std::string::npos) {
      comment.clear();
    } else if (line[start] == '#') {
      comment += line.substr(start + 1) + " ";
    } else {
      comments.emplace(line.substr(start, line.find(':') - start), comment);
      comment.clear();
    }
  }
  for (const SettingFacts& setting : known_settings()) {
    if (setting.allowed.find("..") == std::string::npos || setting.key.starts_with("tenants[]") ||
        setting.key.find("_overrides[]") != std::string::npos)
      continue;
    const std::string name = setting.key.substr(setting.key.find_last_of('.') + 1);
    bool stated = false;
    for (auto [it, end] = comments.equal_range(name); it != end; ++it)
      stated |= it->second.find(setting.allowed) != std::string::npos;
    EXPECT_TRUE(stated) << setting.key << " allows " << setting.allowed;
  }
}

}  // namespace
}  // namespace sluice::cfg
