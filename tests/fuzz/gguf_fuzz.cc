// Any bytes as a GGUF file: the header is read or refused, whole and from prefixes alike, and what
// is read keeps its invariants; its vocabulary ends in a model that can be read again or an error,
// its model in a plan or an error.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "shared/check.h"
#include "shared/gguf.h"
#include "tests/support/gguf_bytes.h"
#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/model_proto.h"
#include "worker/model/gguf_model.h"
#include "worker/model/weight_plan.h"

namespace {

using namespace sluice;

void read_vocabulary(const GgufHeader& header) {
  const auto vocabulary = tok::read_gguf_vocabulary(header);
  if (!vocabulary) {
    CHECK(vocabulary.error().code == Errc::bad_file && !vocabulary.error().detail.empty());
    return;
  }
  if (vocabulary->byte_level) {
    // What can be made of it encodes any text in known ids.
    const tok::ByteLevelBpe bpe(*vocabulary->byte_level, 0xFFFFFFFF);
    std::vector<TokenId> ids;
    for (const std::string_view word : {"abab", " a", "12\n"}) bpe.encode_word(word, ids);
    for (const TokenId id : ids) CHECK(vocabulary->byte_level->is_normal.at(id));
    return;
  }
  const auto facts = tok::parse_model_proto(vocabulary->model_proto);
  CHECK(facts.has_value());
  for (const tok::PieceFacts& piece : facts->pieces) CHECK(std::isfinite(piece.score));
  for (const TokenId id : vocabulary->visible)
    CHECK(id < facts->pieces.size() && facts->pieces[id].type == tok::PieceType::control);
}

void plan_model(const GgufHeader& header) {
  const auto config = eng::read_gguf_config(header);
  if (!config) {
    CHECK(config.error().code == Errc::bad_file && !config.error().detail.empty());
    return;
  }
  const auto plan = eng::make_weight_plan(*config, {{"fuzz.gguf", eng::gguf_tensor_table(header)}},
                                          {.naming = eng::TensorNaming::gguf});
  CHECK(plan || plan.error().code == Errc::bad_file);
  if (plan) CHECK(plan->layers.size() == config->num_layers);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto header = parse_gguf_header(bytes, size);
  // A prefix asks for more, refuses what the whole is refused for, or has read the same.
  const auto part = parse_gguf_header(bytes.substr(0, size / 2), size);
  if (!header) {
    CHECK(header.error().code == Errc::bad_file && !header.error().detail.empty());
    CHECK(!part || !*part);
    return 0;
  }
  CHECK(header->has_value());
  test::check_gguf_header(**header, size, size);
  CHECK(part.has_value());
  if (*part) CHECK((*part)->data_begin == (*header)->data_begin);
  read_vocabulary(**header);
  plan_model(**header);
  return 0;
}
