// `sluice inspect MODEL`: validates a model directory as the worker would and prints what it holds.
#pragma once

#include <iosfwd>
#include <string>

namespace sluice::eng {

// 0 when the model loads; else 1 with one line "error: FILE: reason" on `errors`.
int inspect_model(const std::string& directory, std::ostream& out, std::ostream& errors);

}  // namespace sluice::eng
