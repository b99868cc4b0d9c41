// `sluice inspect MODEL`: validates a model directory or GGUF file as the worker would (weights,
// and the tokenizer where there is one) and prints what it holds. The program is sluice-worker:
// gateway and worker share no headers, so `sluice inspect` runs it.
#pragma once

#include <iosfwd>
#include <string>

namespace sluice::eng {

// 0 when the model loads; else 1 with one line "error: FILE: reason" on `errors`, nothing on `out`.
int inspect_model(const std::string& model, std::ostream& out, std::ostream& errors);

}  // namespace sluice::eng
