// Reads tokenizer_config.json; see tokenizer_config.h.
#include "tokenizer/tokenizer_config.h"

#include <fcntl.h>
#include <simdjson.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "shared/limits.h"
#include "shared/unique_fd.h"

namespace sluice::tok {
namespace {

constexpr std::size_t kConfigBytesMax = 8u << 20;
constexpr std::size_t kDepthMax = 32;

Error file_error(const std::string& path, const std::string& what) {
  return make_error(Errc::bad_file, path + ": " + what);
}

std::string chat_template_of(const simdjson::dom::element& value) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  simdjson::dom::array named;
  if (value.get(named) != simdjson::SUCCESS) return {};
  for (const simdjson::dom::element item : named) {
    std::string_view name;
    if (item["name"].get(name) == simdjson::SUCCESS && name == "default" &&
        item["template"].get(text) == simdjson::SUCCESS)
      return std::string(text);
  }
  return {};
}

// "<s>", or an object with this content.
std::string token_text_of(const simdjson::dom::element& value) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  if (value["content"].get(text) == simdjson::SUCCESS) return std::string(text);
  return {};
}

// These files usually have "model_max_length": 1000000000000000019884624838656, which simdjson
// refuses. Digits beyond what 64 bits hold become spaces; nobody here reads such a number.
void blank_huge_numbers(std::string& json) {
  constexpr std::size_t kDigitsMax = 18;
  bool in_string = false;
  std::size_t digits = 0;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
      continue;
    }
    in_string = c == '"';
    digits = c >= '0' && c <= '9' ? digits + 1 : 0;
    if (digits > kDigitsMax) json[i] = ' ';
  }
}

}  // namespace

Result<std::string> read_model_file(const std::string& path, std::size_t bytes_max) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return file_error(path, std::strerror(errno));
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return file_error(path, std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) return file_error(path, "not a regular file");
  if (static_cast<std::uint64_t>(facts.st_size) > bytes_max)
    return file_error(path, "larger than " + std::to_string(bytes_max) + " bytes");
  std::string bytes(static_cast<std::size_t>(facts.st_size), '\0');
  std::size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got = ::read(fd.get(), bytes.data() + size, bytes.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return file_error(path, std::strerror(errno));
    if (got == 0) return file_error(path, "cut off while it was read");
    size += static_cast<std::size_t>(got);
  }
  return bytes;
}

namespace {

// The object of a file that exists; valid while the parser lives.
Result<simdjson::dom::object> load_object(const std::string& path, simdjson::dom::parser& parser) {
  Result<std::string> bytes = read_model_file(path, kConfigBytesMax);
  if (!bytes) return bytes.error();
  blank_huge_numbers(*bytes);
  if (const auto error = parser.allocate(bytes->size() + 1, kDepthMax))
    return file_error(path, simdjson::error_message(error));
  simdjson::dom::object root;
  if (const auto error = parser.parse(*bytes).get(root))
    return file_error(path, simdjson::error_message(error));
  return root;
}

Result<TokenizerConfig> parse_tokenizer_config(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return TokenizerConfig{};
  simdjson::dom::parser parser;
  const Result<simdjson::dom::object> object = load_object(path, parser);
  if (!object) return object.error();
  const simdjson::dom::object root = *object;
  TokenizerConfig config;
  bool flag = false;
  if (root["add_bos_token"].get(flag) == simdjson::SUCCESS) config.add_bos_token = flag;
  simdjson::dom::element source;
  if (root["chat_template"].get(source) == simdjson::SUCCESS)
    config.chat_template = chat_template_of(source);
  simdjson::dom::element token_text;
  if (root["bos_token"].get(token_text) == simdjson::SUCCESS)
    config.bos_token = token_text_of(token_text);
  if (root["eos_token"].get(token_text) == simdjson::SUCCESS)
    config.eos_token = token_text_of(token_text);
  simdjson::dom::object added;
  if (root["added_tokens_decoder"].get(added) == simdjson::SUCCESS) {
    for (const auto& [id, token] : added) {
      std::string_view content;
      if (token["special"].get(flag) == simdjson::SUCCESS && flag &&
          token["content"].get(content) == simdjson::SUCCESS)
        config.special_tokens.emplace_back(content);
    }
  }
  return config;
}

}  // namespace

Result<std::uint32_t> load_num_rows(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return std::uint32_t{0};
  simdjson::dom::parser parser;
  const Result<simdjson::dom::object> root = load_object(path, parser);
  if (!root) return root.error();
  std::uint64_t rows = 0;
  if ((*root)["vocab_size"].get(rows) != simdjson::SUCCESS) return std::uint32_t{0};
  if (rows > kVocabularyMax)
    return file_error(path, "vocab_size must be at most " + std::to_string(kVocabularyMax));
  return static_cast<std::uint32_t>(rows);
}

Result<TokenizerConfig> load_tokenizer_config(const std::string& path) {
  Result<TokenizerConfig> config = parse_tokenizer_config(path);
  if (!config) return config;
  const std::string jinja =
      (std::filesystem::path(path).parent_path() / "chat_template.jinja").string();
  if (::access(jinja.c_str(), F_OK) != 0) return config;
  Result<std::string> source = read_model_file(jinja, kConfigBytesMax);
  if (!source) return source.error();
  config->chat_template = std::move(*source);
  return config;
}

}  // namespace sluice::tok
