// Text with provenance: which of its bytes the template's author wrote (the frame) and which came
// with the request (content). Every string of the interpreter is such a text, and every operation
// that copies or moves bytes keeps their origin, so that a rendered prompt says for each byte
// whether it may form a special token. Rules:
//
//   1. frame: the template's own text and string constants, and the values that the host marks so.
//   2. What is made anew (numbers as text, JSON, dates, repr) is content, whatever it is made of.
//   3. A change of case keeps each character's origin.
//
// Bytes are valid UTF-8. Pure values; no thread rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::jinja {

enum class Origin : std::uint8_t {
  frame,
  content,
  final_content,  // content that the host wants to find again: that of the last message
};

// Bytes from `begin` to the next run's begin, or to the end.
struct Run {
  std::uint32_t begin;
  Origin origin;
  bool operator==(const Run&) const = default;
};

// INVARIANT: no runs exactly when there are no bytes; else runs[0].begin == 0, begins ascend and
// are below bytes.size(), neighbours differ in origin.
struct Text {
  std::string_view bytes;
  std::span<const Run> runs;

  Origin origin_at(std::size_t at) const;  // REQUIRES: at < bytes.size()
  bool is_uniform() const { return runs.size() <= 1; }
};

// A run over a whole text; lives for ever.
std::span<const Run> uniform_run(Origin origin);
inline Text uniform_text(std::string_view bytes, Origin origin) {
  return {bytes, bytes.empty() ? std::span<const Run>() : uniform_run(origin)};
}

class TextBuilder {
 public:
  void append(std::string_view bytes, Origin origin);
  void append(const Text& text) { append_part(text, 0, text.bytes.size()); }
  // REQUIRES: begin + size <= text.bytes.size().
  void append_part(const Text& text, std::size_t begin, std::size_t size);
  void clear();
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  Text view() const { return {bytes_, runs_}; }  // until the next change
  std::string take_bytes() { return std::move(bytes_); }
  std::vector<Run> take_runs() { return std::move(runs_); }

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

// Bytes of the white space character at the start of `text` (what str.isspace() of Python calls
// so); 0: there is none.
std::size_t leading_space_bytes(std::string_view text);
std::size_t trailing_space_bytes(std::string_view text);
// `text` without white space at its end, at both ends.
std::string_view without_trailing_space(std::string_view text);
std::string_view without_outer_space(std::string_view text);

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Bytes of the character at the start of valid UTF-8. REQUIRES: not empty.
inline std::size_t character_bytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  const std::size_t size = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return size < text.size() ? size : text.size();
}
std::size_t count_characters(std::string_view text);
std::uint32_t code_point(std::string_view character);  // REQUIRES: one character
void append_code_point(std::uint32_t code, std::string& out);

}  // namespace sluice::jinja
