// Compares the tokenizer with golden vectors: one JSON object a line with "model" (the end of a
// path), "text", "ids" and "decoded". usage: tokenizer_golden_check GOLDEN.jsonl MODEL_FILE...
#include <simdjson.h>

#include <algorithm>
#include <cstdio>
#include <map>

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

}  // namespace
}  // namespace sluice::tok

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: tokenizer_golden_check GOLDEN.jsonl MODEL_FILE...\n");
    return 2;
  }
  return sluice::tok::check(argc, argv);
}
