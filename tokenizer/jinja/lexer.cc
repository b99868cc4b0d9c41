// The tokens of templates; see lexer.h.
#include "tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "tokenizer/jinja/text.h"

namespace sluice::jinja {
namespace {

// Longer ones first.
constexpr std::array<std::string_view, 26> kOperators{
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  "<",  ">", "=", ".", ":", "|", ",", ";"};

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::optional<std::uint32_t> read_digits(std::string_view text, int base) {
  std::uint32_t value = 0;
  for (const char c : text) {
    const int digit = is_digit(c)            ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) return std::nullopt;
    value = value * static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(digit);
  }
  return value;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size())
      if (!read_text_and_tag()) return template_error(error_line_, error_);
    push(TokenKind::end, {});
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return source_.substr(at_); }

  void push(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  void advance(std::size_t size) {
    const std::string_view taken = source_.substr(at_, size);
    line_ += static_cast<std::uint32_t>(std::ranges::count(taken, '\n'));
    at_ += size;
    is_line_start_ = taken.ends_with('\n');
  }

  bool fail(std::string reason) {
    error_ = std::move(reason);
    error_line_ = line_;
    return false;
  }

  std::size_t white_space_bytes(std::size_t at) const {
    const std::size_t begin = at;
    while (at < source_.size()) {
      const std::size_t size = leading_space_bytes(source_.substr(at));
      if (size == 0) break;
      at += size;
    }
    return at - begin;
  }

  // Bytes of a tag's end with its white space at `at`; 0: none is there.
  std::size_t tag_end_bytes(std::size_t at, std::string_view mark, bool is_block) const {
    const std::string_view text = source_.substr(at);
    if (text.starts_with('-') && text.substr(1).starts_with(mark))
      return 1 + mark.size() + white_space_bytes(at + 1 + mark.size());
    if (is_block && text.starts_with('+') && text.substr(1).starts_with(mark))
      return 1 + mark.size();
    if (!text.starts_with(mark)) return 0;
    return mark.size() + (is_block && text.substr(mark.size()).starts_with('\n') ? 1 : 0);
  }

  // The text before a tag, without what its sign and lstrip_blocks take.
  std::string_view stripped(std::string_view text, char sign, bool is_block) const {
    if (sign == '-') return without_trailing_space(text);
    if (sign == '+' || !is_block) return text;
    const std::size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
    if (line_begin == 0 && !is_line_start_) return text;
    const bool is_blank = without_outer_space(text.substr(line_begin)).empty();
    return is_blank ? text.substr(0, line_begin) : text;
  }

  bool read_text_and_tag() {
    std::size_t begin = source_.find('{', at_);
    while (begin != std::string_view::npos &&
           (begin + 1 == source_.size() ||
            std::string_view("{%#").find(source_[begin + 1]) == std::string_view::npos))
      begin = source_.find('{', begin + 1);
    if (begin == std::string_view::npos) {
      push(TokenKind::data, std::string(rest()));
      advance(rest().size());
      return true;
    }
    const char kind = source_[begin + 1];
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
    const std::size_t tag_bytes = sign == '-' || sign == '+' ? 3 : 2;
    const std::string_view text = source_.substr(at_, begin - at_);
    const std::string_view kept = stripped(text, sign, kind != '{');
    if (!kept.empty()) push(TokenKind::data, std::string(kept));
    advance(text.size() + tag_bytes);
    if (kind == '#') return skip_comment();
    if (kind == '%')
      if (const std::size_t raw = raw_begin_bytes()) return read_raw(raw);
    push(kind == '%' ? TokenKind::block_begin : TokenKind::variable_begin, {});
    return read_tag(kind == '%');
  }

  bool skip_comment() {
    for (std::size_t at = at_; at < source_.size(); ++at) {
      const std::size_t size = tag_end_bytes(at, "#}", true);
      if (size == 0) continue;
      advance(at + size - at_);
      return true;
    }
    return fail("a comment without its end");
  }

  // Bytes of `WORD %}` behind a block's begin; 0: it is another block.
  std::size_t block_of_word_bytes(std::size_t at, std::string_view word, bool trims) const {
    const std::size_t begin = at;
    at += white_space_bytes(at);
    if (!source_.substr(at).starts_with(word)) return 0;
    at += word.size();
    at += white_space_bytes(at);
    const std::size_t end = tag_end_bytes(at, "%}", true);
    if (end == 0) return 0;
    // Behind {% raw %} a line break stays.
    const bool is_plain_end = source_[at] == '%';
    return at + (is_plain_end && !trims ? 2 : end) - begin;
  }
  std::size_t raw_begin_bytes() const { return block_of_word_bytes(at_, "raw", false); }

  bool read_raw(std::size_t begin_bytes) {
    advance(begin_bytes);
    for (std::size_t at = source_.find("{%", at_); at != std::string_view::npos;
         at = source_.find("{%", at + 1)) {
      const char sign = at + 2 < source_.size() ? source_[at + 2] : '\0';
      const std::size_t tag_bytes = sign == '-' || sign == '+' ? 3 : 2;
      const std::size_t size = block_of_word_bytes(at + tag_bytes, "endraw", true);
      if (size == 0) continue;
      const std::string_view text = source_.substr(at_, at - at_);
      const std::string_view kept = stripped(text, sign, true);
      if (!kept.empty()) push(TokenKind::data, std::string(kept));
      advance(text.size() + tag_bytes + size);
      return true;
    }
    return fail("raw without its endraw");
  }

  bool read_tag(bool is_block) {
    std::string open;  // closing brackets that are still to come
    while (at_ < source_.size()) {
      if (open.empty()) {
        if (const std::size_t size = tag_end_bytes(at_, is_block ? "%}" : "}}", is_block)) {
          push(is_block ? TokenKind::block_end : TokenKind::variable_end, {});
          advance(size);
          return true;
        }
      }
      if (const std::size_t size = white_space_bytes(at_)) {
        advance(size);
        continue;
      }
      if (!read_token(open)) return false;
    }
    return fail(is_block ? "a block without its end" : "an expression without its end");
  }

  bool read_token(std::string& open) {
    const char c = source_[at_];
    if (is_digit(c)) return read_number();
    if (is_name_start(c)) {
      std::size_t size = 1;
      while (size < rest().size() && (is_name_start(rest()[size]) || is_digit(rest()[size])))
        ++size;
      push(TokenKind::name, std::string(rest().substr(0, size)));
      advance(size);
      return true;
    }
    if (c == '"' || c == '\'') return read_string(c);
    for (const std::string_view op : kOperators) {
      if (!rest().starts_with(op)) continue;
      if (c == '(') open += ')';
      if (c == '[') open += ']';
      if (c == '{') open += '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) return fail(std::string("unexpected '") + c + "'");
        open.pop_back();
      }
      push(TokenKind::op, std::string(op));
      advance(op.size());
      return true;
    }
    return fail("unexpected character in an expression");
  }

  // Digits with single underscores between them; 0: there are none.
  std::size_t digits_bytes(std::size_t at) const {
    std::size_t size = 0;
    const auto digit_at = [&](std::size_t i) { return i < source_.size() && is_digit(source_[i]); };
    while (digit_at(at + size) || (size > 0 && at + size < source_.size() &&
                                   source_[at + size] == '_' && digit_at(at + size + 1)))
      ++size;
    return size;
  }

  bool read_number() {
    const auto letter_at = [&](std::size_t i) {
      return i < source_.size() ? static_cast<char>(source_[i] | 0x20) : '\0';
    };
    if (source_[at_] == '0' &&
        std::string_view("xob").find(letter_at(at_ + 1)) != std::string_view::npos)
      return fail("a number in another base than ten");
    std::size_t size = digits_bytes(at_);
    bool is_real = false;
    if (at_ + size < source_.size() && source_[at_ + size] == '.')
      if (const std::size_t fraction = digits_bytes(at_ + size + 1)) {
        size += 1 + fraction;
        is_real = true;
      }
    if (letter_at(at_ + size) == 'e') {
      std::size_t exponent = at_ + size + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
        ++exponent;
      if (const std::size_t digits = digits_bytes(exponent)) {
        size = exponent + digits - at_;
        is_real = true;
      }
    }
    std::string text(rest().substr(0, size));
    std::erase(text, '_');
    if (!is_real && text.size() > 1 && text.front() == '0' &&
        text.find_first_not_of('0') != std::string::npos)
      return fail("a number with leading zeros");
    push(is_real ? TokenKind::real : TokenKind::integer, std::move(text));
    advance(size);
    return true;
  }

  bool read_string(char quote) {
    const std::size_t begin = at_ + 1;
    std::size_t end = begin;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return fail("a string without its end");
    std::string text;
    if (!read_escapes(source_.substr(begin, end - begin), text)) return false;
    push(TokenKind::string, std::move(text));
    advance(end + 1 - at_);
    return true;
  }

  bool read_escapes(std::string_view raw, std::string& out) {
    while (!raw.empty()) {
      if (raw.front() != '\\') {
        const std::size_t size = std::min(raw.find('\\'), raw.size());
        out += raw.substr(0, size);
        raw.remove_prefix(size);
        continue;
      }
      raw.remove_prefix(1);
      if (!read_escape(raw, out)) return false;
    }
    return true;
  }

  // `raw` begins behind a backslash.
  bool read_escape(std::string_view& raw, std::string& out) {
    constexpr std::string_view kLetters = "abfnrtv\\'\"";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = raw.front();
    if (const std::size_t i = kLetters.find(c); i != std::string_view::npos) {
      out += kMeanings[i];
      raw.remove_prefix(1);
      return true;
    }
    if (c == '\n') {
      raw.remove_prefix(1);
      return true;
    }
    std::size_t digits = 0, skipped = 1;
    int base = 16;
    if (c == 'x') digits = 2;
    if (c == 'u') digits = 4;
    if (c == 'U') digits = 8;
    if (c >= '0' && c <= '7') {
      base = 8;
      skipped = 0;
      while (digits < 3 && digits < raw.size() && raw[digits] >= '0' && raw[digits] <= '7')
        ++digits;
    }
    if (c == 'N') return fail("an escape by a character's name");
    if (digits == 0) {
      out += '\\';  // not an escape: both characters stay
      return true;
    }
    const std::string_view number = raw.substr(skipped, digits);
    const auto code = read_digits(number, base);
    if (number.size() != digits || !code || *code > 0x10FFFF || (*code >= 0xD800 && *code < 0xE000))
      return fail("an escape that is no character");
    append_code_point(*code, out);
    raw.remove_prefix(skipped + digits);
    return true;
  }

  std::string_view source_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 1;
  bool is_line_start_ = true;
  std::vector<Token> tokens_;
  std::string error_;
  std::uint32_t error_line_ = 0;
};

}  // namespace

std::string normalized_source(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    const bool is_return = source[i] == '\r';
    if (is_return && i + 1 < source.size() && source[i + 1] == '\n') continue;
    out += is_return ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

Result<std::vector<Token>> tokenize_template(std::string_view source) {
  return Lexer(source).run();
}

Error template_error(std::uint32_t line, const std::string& reason) {
  return make_error(Errc::bad_file, "line " + std::to_string(line) + ": " + reason,
                    "chat_template");
}

}  // namespace sluice::jinja
