// JSON escaping: a run of bytes that need none is one append.
#include "gateway/api/json_text.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace sluice::gw {
namespace {

constexpr std::array<bool, 256> make_needs_escape() {
  std::array<bool, 256> table{};
  for (std::size_t c = 0; c < 0x20; ++c) table[c] = true;
  table['"'] = true;
  table['\\'] = true;
  table[0x7f] = true;  // legal in JSON, unwelcome in terminals
  return table;
}
constexpr std::array<bool, 256> kNeedsEscape = make_needs_escape();

// True when one of the eight bytes may need an escape; exact for the absence of any (the borrow of
// the subtractions can only add false alarms above a true one).
bool any_needs_escape(const char* at) {
  std::uint64_t word;
  std::memcpy(&word, at, 8);
  constexpr std::uint64_t kOnes = 0x0101010101010101ull;
  constexpr std::uint64_t kHigh = 0x8080808080808080ull;
  const auto has_zero = [](std::uint64_t x) { return (x - kOnes) & ~x & kHigh; };
  const std::uint64_t below_space = (word - kOnes * 0x20) & ~word & kHigh;
  return (below_space | has_zero(word ^ (kOnes * '"')) | has_zero(word ^ (kOnes * '\\')) |
          has_zero(word ^ (kOnes * 0x7f))) != 0;
}

void append_escape(std::string& out, unsigned char c) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out.append("\\\"");
      return;
    case '\\':
      out.append("\\\\");
      return;
    case '\b':
      out.append("\\b");
      return;
    case '\f':
      out.append("\\f");
      return;
    case '\n':
      out.append("\\n");
      return;
    case '\r':
      out.append("\\r");
      return;
    case '\t':
      out.append("\\t");
      return;
    default: {
      const char escaped[6] = {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
      out.append(escaped, sizeof escaped);
    }
  }
}

}  // namespace

void append_json_escaped(std::string& out, std::string_view text) {
  std::size_t begin = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    if (at + 8 <= text.size() && !any_needs_escape(text.data() + at)) {
      at += 8;
      continue;
    }
    const std::size_t end = at + 8 <= text.size() ? at + 8 : text.size();
    for (; at < end; ++at) {
      const auto c = static_cast<unsigned char>(text[at]);
      if (!kNeedsEscape[c]) continue;
      out.append(text, begin, at - begin);
      append_escape(out, c);
      begin = at + 1;
    }
  }
  out.append(text, begin, text.size() - begin);
}

void append_milliseconds(std::string& out, double ms) {
  char digits[32];
  const int size = std::snprintf(digits, sizeof digits, "%.3f", ms);
  out.append(digits, static_cast<std::size_t>(size));
}

}  // namespace sluice::gw
