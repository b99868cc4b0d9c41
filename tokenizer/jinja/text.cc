// Runs of equal origin, and characters of UTF-8; see text.h.
#include "tokenizer/jinja/text.h"

#include <algorithm>
#include <array>

namespace sluice::jinja {
namespace {

constexpr std::array<Run, 3> kUniform{
    {{0, Origin::frame}, {0, Origin::content}, {0, Origin::final_content}}};

constexpr std::array<std::string_view, 29> kWhiteSpace{
    "\t",           "\n",           "\v",           "\f",           "\r",
    "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f');
}

// The run that holds byte `at`.
std::size_t run_index(const Text& text, std::size_t at) {
  const auto behind =
      std::ranges::upper_bound(text.runs, static_cast<std::uint32_t>(at), {}, &Run::begin);
  return static_cast<std::size_t>(behind - text.runs.begin()) - 1;
}

}  // namespace

std::span<const Run> uniform_run(Origin origin) {
  return std::span(kUniform).subspan(static_cast<std::size_t>(origin), 1);
}

Origin Text::origin_at(std::size_t at) const {
  return runs[run_index(*this, at)].origin;
}

void TextBuilder::append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  if (runs_.empty() || runs_.back().origin != origin)
    runs_.push_back({static_cast<std::uint32_t>(bytes_.size()), origin});
  bytes_.append(bytes);
}

void TextBuilder::append_part(const Text& text, std::size_t begin, std::size_t size) {
  if (size == 0) return;
  const std::size_t end = begin + size;
  for (std::size_t i = run_index(text, begin); begin < end; ++i) {
    const std::size_t run_end =
        i + 1 < text.runs.size() ? std::min<std::size_t>(end, text.runs[i + 1].begin) : end;
    append(text.bytes.substr(begin, run_end - begin), text.runs[i].origin);
    begin = run_end;
  }
}

void TextBuilder::clear() {
  bytes_.clear();
  runs_.clear();
}

std::size_t leading_space_bytes(std::string_view text) {
  if (text.empty()) return 0;
  if (static_cast<unsigned char>(text.front()) < 0x80) return is_ascii_space(text.front()) ? 1 : 0;
  for (const std::string_view space : kWhiteSpace)
    if (text.starts_with(space)) return space.size();
  return 0;
}

std::size_t trailing_space_bytes(std::string_view text) {
  if (text.empty()) return 0;
  if (static_cast<unsigned char>(text.back()) < 0x80) return is_ascii_space(text.back()) ? 1 : 0;
  for (const std::string_view space : kWhiteSpace)
    if (text.ends_with(space)) return space.size();
  return 0;
}

std::string_view without_trailing_space(std::string_view text) {
  while (const std::size_t size = trailing_space_bytes(text)) text.remove_suffix(size);
  return text;
}

std::string_view without_outer_space(std::string_view text) {
  while (const std::size_t size = leading_space_bytes(text)) text.remove_prefix(size);
  return without_trailing_space(text);
}

std::uint32_t code_point(std::string_view character) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  if (character.size() == 1) return byte(0);
  std::uint32_t code = byte(0) & (0xFFu >> (character.size() + 1));
  for (std::size_t i = 1; i < character.size(); ++i) code = (code << 6) | (byte(i) & 0x3Fu);
  return code;
}

void append_code_point(std::uint32_t code, std::string& out) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & '\xC0') != '\x80'; }));
}

}  // namespace sluice::jinja
