// The parts of a SentencePiece model file that we need ourselves: a reader, an editor and a writer
// of its protocol-buffer bytes (sentencepiece_model.proto of SentencePiece 0.1.97; the message
// ModelProto). The library parses the same bytes again; here they are input: every length is
// checked. Pure functions; no thread rule.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/result.h"

namespace sluice::tok {

enum class PieceType : std::uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

struct PieceFacts {
  std::string_view text;  // into the parsed bytes
  PieceType type = PieceType::normal;
  float score = 0;
};

// How vocabularies write tokens that frame a conversation: <|...|>.
bool looks_special(std::string_view text);

struct ModelProtoFacts {
  enum class Algorithm : std::uint8_t { unigram = 1, bpe = 2 };

  std::vector<PieceFacts> pieces;
  Algorithm algorithm = Algorithm::unigram;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_charsmap = false;                   // text is normalized: NFKC or rules of its own
  std::string unk_surface = " \xE2\x81\x87 ";  // what an unknown id decodes to
};

// Errors: bad_file (the reason). `bytes` must outlive the result.
Result<ModelProtoFacts> parse_model_proto(std::string_view bytes);

// What may differ between the file and what the library loads.
struct ModelProtoEdit {
  bool disable_dummy_prefix = false;
  std::vector<std::uint32_t> make_control;  // ascending ids that become control pieces
};
// REQUIRES: parse_model_proto(bytes) succeeded. Self-test samples are dropped: they describe the
// unedited model.
std::string edit_model_proto(std::string_view bytes, const ModelProtoEdit& edit);

// A model of its own that parse_model_proto and the library read as `facts`; bos and eos are the
// texts of control pieces, empty where there is none. REQUIRES: no charsmap; pieces valid.
std::string write_model_proto(const ModelProtoFacts& facts, std::string_view bos,
                              std::string_view eos);

}  // namespace sluice::tok
