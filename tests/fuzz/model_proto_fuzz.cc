// Any bytes as a SentencePiece model: read or refused; what is read can be edited and read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "shared/check.h"
#include "tokenizer/model_proto.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto facts = tok::parse_model_proto(bytes);
  if (!facts) {
    CHECK(facts.error().code == Errc::bad_file);
    return 0;
  }
  tok::ModelProtoEdit edit;
  edit.disable_dummy_prefix = true;
  edit.make_control = {0};
  const std::string edited = tok::edit_model_proto(bytes, edit);
  const auto again = tok::parse_model_proto(edited);
  CHECK(again.has_value());
  CHECK(again->pieces.size() == facts->pieces.size());
  CHECK(again->pieces[0].type == tok::PieceType::control);
  CHECK(!again->add_dummy_prefix);
  return 0;
}
