// Where the parts of a model lie, so that every program looks in the same places.
#pragma once

#include <string>

namespace sluice {

// model: a GGUF file, which holds its own vocabulary, or a directory: its tokenizer.model, or where
// that is missing and a tokenizer.json is there, this one. Nothing of it need exist.
std::string vocabulary_path(const std::string& model);

}  // namespace sluice
