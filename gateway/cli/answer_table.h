// Answers of the admin routes for people: a list becomes a table with a column per member, one
// object a line per member. Nested members are named with dots; lists are joined by commas.
#pragma once

#include <string>

#include "shared/result.h"

namespace sluice::gw {

// Errors: invalid_json where `json` is no JSON object.
Result<std::string> answer_table(const std::string& json);
// The error of an envelope, "CODE: MESSAGE (PARAM)", or the text itself, cut, where it is none.
std::string error_text(const std::string& json);
// A text as JSON, quotes included.
std::string json_text(const std::string& text);

}  // namespace sluice::gw
