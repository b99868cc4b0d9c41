// Compares the tokenizer with golden vectors: one JSON object a line with "model" (the end of a
// path), "text", "ids" and "decoded"; or a file of texts with lines "__ggml_vocab_test__" between
// them and one of their ids, a line each.
// usage: tokenizer_golden_check GOLDEN.jsonl MODEL_FILE... | --texts TEXTS IDS MODEL_FILE
#include <simdjson.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace sluice::tok {
namespace {

struct Tally {
  int good = 0;
  int bad = 0;
};

bool matches(const Tokenizer& tokenizer, simdjson::dom::element row) {
  std::vector<TokenId> want, got;
  for (const std::uint64_t id : row["ids"].get_array()) want.push_back(static_cast<TokenId>(id));
  const std::string_view text = row["text"];
  const std::string_view decoded = row["decoded"];
  tokenizer.encode(text, Segment::first, got);
  const auto back = tokenizer.decode(want);
  if (got == want && back && *back == decoded) return true;
  std::printf("differs (%s): %.60s\n", got == want ? "decode" : "encode",
              std::string(text).c_str());
  return false;
}

int check(int argc, char** argv) {
  std::map<std::string, Tokenizer> tokenizers;
  for (int i = 2; i < argc; ++i) {
    auto loaded = Tokenizer::load(argv[i]);
    if (!loaded) {
      std::printf("%s\n", loaded.error().detail.c_str());
      return 1;
    }
    tokenizers.emplace(argv[i], std::move(*loaded));
  }
  std::map<std::string, Tally> tallies;
  simdjson::dom::parser parser;
  for (const simdjson::dom::element row : parser.load_many(argv[1])) {
    const std::string_view name = row["model"];
    const std::string model(name);
    const auto found = std::ranges::find_if(
        tokenizers, [&](const auto& entry) { return entry.first.ends_with("/" + model); });
    if (found == tokenizers.end()) continue;
    ++(matches(found->second, row) ? tallies[model].good : tallies[model].bad);
  }
  int bad = tallies.empty() ? 1 : 0;
  for (const auto& [model, tally] : tallies) {
    std::printf("%s: %d equal, %d different\n", model.c_str(), tally.good, tally.bad);
    bad += tally.bad;
  }
  return bad == 0 ? 0 : 1;
}

std::string file_text(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int check_texts(const char* texts_path, const char* ids_path, const char* model) {
  const auto tokenizer = Tokenizer::load(model);
  if (!tokenizer) {
    std::printf("%s\n", tokenizer.error().detail.c_str());
    return 1;
  }
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  std::string texts = file_text(texts_path);
  std::istringstream lines(file_text(ids_path));
  Tally tally;
  for (std::string line; std::getline(lines, line) && !texts.empty();) {
    const std::size_t end = std::min(texts.find(kBetween), texts.size());
    std::istringstream numbers(line);
    const std::vector<TokenId> want(std::istream_iterator<TokenId>(numbers), {});
    std::vector<TokenId> got;
    tokenizer->encode(texts.substr(0, end), Segment::first, got);
    if (got != want) std::printf("differs: %.60s\n", texts.substr(0, end).c_str());
    ++(got == want ? tally.good : tally.bad);
    texts.erase(0, end + kBetween.size());
  }
  std::printf("%s: %d equal, %d different\n", model, tally.good, tally.bad);
  return tally.good != 0 && tally.bad == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sluice::tok

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "--texts")
    return sluice::tok::check_texts(argv[2], argv[3], argv[4]);
  if (argc < 3) {
    std::fprintf(stderr,
                 "usage: tokenizer_golden_check GOLDEN.jsonl MODEL_FILE... | "
                 "--texts TEXTS IDS MODEL_FILE\n");
    return 2;
  }
  return sluice::tok::check(argc, argv);
}
