// write_model DIR TOKENIZER.model [DTYPE] [SEED]: a seeded random Llama model of some 700,000
// parameters for the vocabulary of a tokenizer, which is copied beside it with its
// tokenizer_config.json. For process tests: a real transformer, though it learned nothing.
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/support/model_files.h"
#include "tokenizer/tokenizer.h"

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::fprintf(stderr, "usage: %s DIR TOKENIZER.model [F32|F16|BF16] [SEED]\n", argv[0]);
    return 2;
  }
  const std::filesystem::path directory = argv[1];
  const std::filesystem::path tokenizer_path = argv[2];
  const auto tokenizer = sluice::tok::Tokenizer::load(tokenizer_path.string());
  if (!tokenizer) {
    std::fprintf(stderr, "error: %s\n", tokenizer.error().detail.c_str());
    return 1;
  }
  sluice::test::RandomModel model;
  model.vocab_size = tokenizer->vocabulary().size;
  model.hidden_size = 128;
  model.intermediate_size = 352;
  model.num_layers = 3;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  model.context_tokens = 1024;
  if (argc > 3) model.dtype = argv[3];
  if (argc > 4) model.seed = std::strtoull(argv[4], nullptr, 10);
  std::filesystem::create_directories(directory);
  sluice::test::write_random_model(directory.string(), model);
  std::filesystem::copy(tokenizer_path, directory / "tokenizer.model");
  std::filesystem::copy(tokenizer_path.parent_path() / "tokenizer_config.json",
                        directory / "tokenizer_config.json");
  return 0;
}
