// Template source to tokens, with the white space rules that chat templates rely on: a block or
// comment alone in its line takes its indentation and its line break with it (lstrip_blocks and
// trim_blocks are on), "-" takes all white space on its side, "+" none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/result.h"

namespace sluice::jinja {

enum class TokenKind : std::uint8_t {
  data,  // text of the template
  block_begin,
  block_end,
  variable_begin,
  variable_end,
  name,
  string,  // text: with its escapes resolved
  integer,
  real,
  op,
  end,
};

struct Token {
  TokenKind kind;
  std::uint32_t line;
  std::string text;
};

// `source` with line breaks as "\n" and without the last one.
std::string normalized_source(std::string_view source);

// REQUIRES: `source` is normalized, valid UTF-8. The last token is `end`. Errors: bad_file, with
// "line N: reason".
Result<std::vector<Token>> tokenize_template(std::string_view source);

Error template_error(std::uint32_t line, const std::string& reason);

}  // namespace sluice::jinja
