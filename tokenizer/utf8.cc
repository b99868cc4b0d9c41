// One decoder of UTF-8 for everything that must agree about broken text; see utf8.h.
#include "tokenizer/utf8.h"

#include <array>

namespace sluice::tok {
namespace {

// What may follow a lead byte: number of continuation bytes and the range of the first of them,
// which keeps out overlong forms, surrogates and values beyond U+10FFFF.
struct Lead {
  std::uint8_t size;  // of the whole character; 0: not a lead byte
  std::uint8_t second_min;
  std::uint8_t second_max;
};

constexpr std::array<Lead, 256> make_leads() {
  std::array<Lead, 256> leads{};
  for (std::size_t b = 0; b < 0x80; ++b) leads[b] = {1, 0, 0};
  for (std::size_t b = 0xC2; b <= 0xDF; ++b) leads[b] = {2, 0x80, 0xBF};
  for (std::size_t b = 0xE0; b <= 0xEF; ++b) leads[b] = {3, 0x80, 0xBF};
  for (std::size_t b = 0xF0; b <= 0xF4; ++b) leads[b] = {4, 0x80, 0xBF};
  leads[0xE0].second_min = 0xA0;
  leads[0xED].second_max = 0x9F;
  leads[0xF0].second_min = 0x90;
  leads[0xF4].second_max = 0x8F;
  return leads;
}
constexpr std::array<Lead, 256> kLeads = make_leads();

}  // namespace

Utf8Unit next_utf8(std::string_view bytes) {
  const auto byte_at = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
  const Lead lead = kLeads[byte_at(0)];
  if (lead.size == 0) return {Utf8Status::invalid, 1};
  for (std::uint8_t i = 1; i < lead.size; ++i) {
    if (i == bytes.size()) return {Utf8Status::incomplete, i};
    const std::uint8_t min = i == 1 ? lead.second_min : std::uint8_t{0x80};
    const std::uint8_t max = i == 1 ? lead.second_max : std::uint8_t{0xBF};
    if (byte_at(i) < min || byte_at(i) > max) return {Utf8Status::invalid, i};
  }
  return {Utf8Status::character, lead.size};
}

bool is_valid_utf8(std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    if (static_cast<std::uint8_t>(bytes[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Unit unit = next_utf8(bytes.substr(i));
    if (unit.status != Utf8Status::character) return false;
    i += unit.size;
  }
  return true;
}

void append_valid_utf8(std::string_view bytes, std::string& out) {
  std::size_t copied = 0;  // bytes before it are in `out`
  std::size_t i = 0;
  while (i < bytes.size()) {
    const Utf8Unit unit = next_utf8(bytes.substr(i));
    if (unit.status != Utf8Status::character) {
      out.append(bytes, copied, i - copied);
      out += kReplacement;
      copied = i + unit.size;
    }
    i += unit.size;
  }
  out.append(bytes, copied, bytes.size() - copied);
}

}  // namespace sluice::tok
