// Reads a configuration file under bounds and puts the pieces together; see load_config.h.
#include "config/load_config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "config/yaml_reader.h"
#include "shared/unique_fd.h"

namespace sluice::cfg {
namespace {

Error file_error(const std::string& path, const std::string& what) {
  return make_error(Errc::bad_config, path + ": " + what);
}

Result<std::string> read_bounded(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return file_error(path, std::strerror(errno));
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return file_error(path, std::strerror(errno));
  if (S_ISDIR(facts.st_mode)) return file_error(path, "is a directory; allowed: a YAML file");
  std::string text(kConfigBytesMax + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return file_error(path, std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

}  // namespace

Result<Config> parse_config(std::string_view yaml, const std::string& file_name) {
  if (yaml.size() > kConfigBytesMax)
    return file_error(file_name, "too large; allowed: at most " + format_size(kConfigBytesMax));
  YamlReader reader(file_name);
  Config config;
  // yaml-cpp reports by exceptions; none leaves this function.
  try {
    const std::string text(yaml);
    YamlReader::check_shape(text);
    reader.read(YAML::Load(text), config);
  } catch (const YAML::Exception& e) {
    const std::string line = e.mark.is_null() ? "" : ":" + std::to_string(e.mark.line + 1);
    return file_error(file_name + line, "not valid YAML: " + e.msg);
  }
  if (reader.error()) return *reader.error();
  const Result<void> relations = validate(config);
  if (!relations) return reader.located(relations.error());
  return config;
}

Result<Config> load_config(const std::string& path) {
  Result<std::string> text = read_bounded(path);
  if (!text) return text.error();
  return parse_config(*text, path);
}

}  // namespace sluice::cfg
