// Tokens to the tree of a template.
#pragma once

#include <memory>
#include <string_view>

#include "shared/result.h"
#include "tokenizer/jinja/node.h"

namespace sluice::jinja {

// What is not in the language that node.h lists is refused by name: inheritance, includes and
// imports, call blocks, recursive loops, star arguments, unknown filters and tests outside of
// conditions. Errors: bad_file, "line N: reason".
Result<std::unique_ptr<const Program>> parse_template(std::string_view source);

}  // namespace sluice::jinja
