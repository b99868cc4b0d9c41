// Looks at the file system; see model_directory.h.
#include "shared/model_directory.h"

#include <filesystem>

namespace sluice {

std::string vocabulary_path(const std::string& model) {
  const std::filesystem::path path = model;
  std::error_code failed;
  if (std::filesystem::is_regular_file(path, failed)) return model;
  const auto is_there = [&](const char* name) {
    const auto status = std::filesystem::symlink_status(path / name, failed);
    return status.type() != std::filesystem::file_type::not_found;
  };
  const bool is_json = !is_there("tokenizer.model") && is_there("tokenizer.json");
  return (path / (is_json ? "tokenizer.json" : "tokenizer.model")).string();
}

}  // namespace sluice
