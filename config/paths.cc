// Where files lie when the configuration does not say: the only reader of environment variables.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "config/load_config.h"
#include "shared/model_directory.h"

namespace sluice::cfg {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT: read at start, before threads
  return value == nullptr ? "" : value;
}

fs::path program_dir() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path(".") : program.parent_path();
}

}  // namespace

std::string default_data_dir() {
  if (std::string named = environment("SLUICE_DATA_DIR"); !named.empty()) return named;
  const fs::path here = program_dir();
  const fs::path build_tree = (here / "../../../models").lexically_normal();
  std::error_code error;
  if (fs::exists(build_tree / "canned" / "tokenizer.model", error)) return build_tree.string();
  return (here / "../share/sluice/models").lexically_normal().string();
}

std::string model_path(const Model& model) {
  if (!model.path.empty()) return model.path;
  const char* built_in = model.kind == ModelKind::canned ? "canned" : "brook";
  return (fs::path(default_data_dir()) / built_in).string();
}

std::string beside_program(const std::string& file) {
  return (program_dir() / file).string();
}

std::string tokenizer_path(const Model& model) {
  if (!model.tokenizer.empty()) return model.tokenizer;
  return vocabulary_path(model_path(model));
}

std::string gateway_url() {
  const std::string named = environment("SLUICE_URL");
  return named.empty() ? "http://127.0.0.1:" + std::to_string(Listen{}.port) : named;
}

std::string admin_key_from_environment() {
  return environment("SLUICE_ADMIN_KEY");
}

Result<std::string> quota_store_password(const QuotaStore& store) {
  if (store.password_file.empty()) return environment("SLUICE_REDIS_PASSWORD");
  constexpr std::size_t kPasswordBytesMax = 4096;
  std::ifstream file(store.password_file);
  std::string password(kPasswordBytesMax + 1, '\0');
  file.read(password.data(), static_cast<std::streamsize>(password.size()));
  const auto size = static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0));
  password.resize(size);
  if (file.bad() || size == 0 || size > kPasswordBytesMax)
    return make_error(Errc::bad_config,
                      "quota_store.password_file: cannot be read, empty or too long; allowed: a "
                      "file with the password in its first line",
                      "quota_store.password_file");
  password.resize(std::min(password.find_first_of("\r\n"), password.size()));
  return password;
}

Result<std::string> effective_state_dir(const Config& config) {
  if (!config.state_dir.empty()) return config.state_dir;
  if (::geteuid() == 0) return std::string("/var/lib/sluice");
  // The specification of these variables says that relative paths are to be ignored.
  if (const std::string state = environment("XDG_STATE_HOME"); state.starts_with('/'))
    return state + "/sluice";
  if (const std::string home = environment("HOME"); home.starts_with('/'))
    return home + "/.local/state/sluice";
  return make_error(Errc::bad_config,
                    "state_dir: no default without $XDG_STATE_HOME or $HOME; allowed: a path",
                    "state_dir");
}

}  // namespace sluice::cfg
