// check-config, tokenize, key hash, key new.
#include "gateway/commands.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <array>
#include <cstdint>
#include <iostream>
#include <iterator>
#include <string_view>
#include <vector>

#include "config/load_config.h"
#include "tokenizer/tokenizer.h"

namespace sluice::gw {
namespace {

constexpr std::size_t kTextBytesMax = 8u << 20;

int fail(const std::string& why) {
  std::cerr << "sluice: " << why << '\n';
  return 1;
}

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

std::string sha256_hex(std::string_view text) {
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1)
    return {};
  return hex(digest.data(), size);
}

// Control characters would move the terminal's cursor.
std::string printable(std::string_view piece) {
  std::string text;
  for (const char c : piece) {
    const auto byte = static_cast<std::uint8_t>(c);
    if (byte < 0x20 || byte == 0x7f)
      text += "\\x" + hex(&byte, 1);
    else
      text += c;
  }
  return text;
}

}  // namespace

int check_config(const std::string& file) {
  const auto config = cfg::load_config(file);
  if (!config) return fail(config.error().detail);
  std::cout << cfg::print_config(*config, cfg::Secrets::masked);
  return 0;
}

int tokenize(const cfg::Config& config, const std::string& text) {
  const std::string path = cfg::tokenizer_path(config.models.front());
  const auto tokenizer = tok::Tokenizer::load(path);
  if (!tokenizer) return fail(tokenizer.error().detail);
  std::string input = text;
  if (text == "-") {
    input.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (input.size() > kTextBytesMax)
      return fail("the text is too long; allowed: " + std::to_string(kTextBytesMax) + " bytes");
  }
  std::vector<TokenId> ids;
  tokenizer->encode(input, tok::Segment::first, ids);
  for (const TokenId id : ids)
    std::cout << id << '\t' << printable(tokenizer->piece_bytes(id)) << '\n';
  std::cerr << ids.size() << " tokens\n";
  return 0;
}

int hash_key() {
  std::string key;
  if (!std::getline(std::cin, key) || key.empty()) return fail("no key on standard input");
  if (key.back() == '\r') key.pop_back();
  std::cout << sha256_hex(key) << '\n';
  return 0;
}

// sk-sluice-<public id>-<secret>: 64 and 256 random bits.
int make_key() {
  std::array<std::uint8_t, 40> random{};
  if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1)
    return fail("no randomness from the system");
  const std::string key = "sk-sluice-" + hex(random.data(), 8) + "-" + hex(random.data() + 8, 32);
  std::cout << "key:    " << key << "\nsha256: " << sha256_hex(key) << '\n';
  return 0;
}

}  // namespace sluice::gw
