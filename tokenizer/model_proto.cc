// Protocol-buffer wire format by hand, as far as ModelProto needs it; see model_proto.h.
#include "tokenizer/model_proto.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "shared/limits.h"

namespace sluice::tok {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr std::uint32_t kModelPieces = 1, kModelTrainer = 2, kModelNormalizer = 3,
                        kModelSelfTest = 4;
constexpr std::uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr std::uint32_t kTrainerModelType = 3, kTrainerWhitespaceAsSuffix = 24,
                        kTrainerByteFallback = 35, kTrainerUnkSurface = 44, kTrainerUnkPiece = 45,
                        kTrainerBosPiece = 46, kTrainerEosPiece = 47;
constexpr std::uint32_t kNormalizerCharsmap = 2, kNormalizerDummyPrefix = 3,
                        kNormalizerRemoveExtra = 4, kNormalizerEscape = 5;
constexpr std::uint32_t kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5;

struct Field {
  std::uint32_t number = 0;
  std::uint32_t wire_type = 0;
  std::uint64_t value = 0;  // varint
  std::string_view bytes;   // length-delimited or of fixed size
  std::string_view whole;   // tag and all
};

class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : rest_(bytes) {}

  // Nothing at the end or at malformed bytes; is_malformed() tells which.
  std::optional<Field> next() {
    if (rest_.empty() || malformed_) return std::nullopt;
    const std::string_view start = rest_;
    Field field;
    std::uint64_t tag = 0;
    if (!varint(tag) || (tag >> 3) == 0 || (tag >> 3) > 0x1FFFFFFF) return fail();
    field.number = static_cast<std::uint32_t>(tag >> 3);
    field.wire_type = static_cast<std::uint32_t>(tag & 7);
    std::uint64_t size = 0;
    switch (field.wire_type) {
      case kVarint:
        if (!varint(field.value)) return fail();
        break;
      case kFixed64:
        size = 8;
        break;
      case kFixed32:
        size = 4;
        break;
      case kLengthDelimited:
        if (!varint(size)) return fail();
        break;
      default:
        return fail();  // groups: not in this format
    }
    if (size > rest_.size()) return fail();
    field.bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    field.whole = start.substr(0, start.size() - rest_.size());
    return field;
  }
  bool is_malformed() const { return malformed_; }

 private:
  std::optional<Field> fail() {
    malformed_ = true;
    return std::nullopt;
  }
  bool varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const auto byte = static_cast<std::uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  std::string_view rest_;
  bool malformed_ = false;
};

void append_varint(std::uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}

void append_tag(std::uint32_t number, std::uint32_t wire_type, std::string& out) {
  append_varint((std::uint64_t{number} << 3) | wire_type, out);
}

void append_number(std::uint32_t number, std::uint64_t value, std::string& out) {
  append_tag(number, kVarint, out);
  append_varint(value, out);
}

void append_bytes(std::uint32_t number, std::string_view bytes, std::string& out) {
  append_tag(number, kLengthDelimited, out);
  append_varint(bytes.size(), out);
  out += bytes;
}

Error malformed(const std::string& what) {
  return make_error(Errc::bad_file, "not a SentencePiece model: " + what);
}

bool is_flag(const Field& field, std::uint32_t number, bool& flag) {
  if (field.number != number || field.wire_type != kVarint) return false;
  flag = field.value != 0;
  return true;
}

Result<PieceFacts> parse_piece(std::string_view bytes) {
  PieceFacts piece;
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == kPieceText && field->wire_type == kLengthDelimited) {
      piece.text = field->bytes;
    } else if (field->number == kPieceScore && field->wire_type == kFixed32) {
      std::memcpy(&piece.score, field->bytes.data(), sizeof piece.score);
    } else if (field->number == kPieceType && field->wire_type == kVarint) {
      if (field->value < 1 || field->value > 6) return malformed("a piece of an unknown type");
      piece.type = static_cast<PieceType>(field->value);
    }
  }
  if (reader.is_malformed()) return malformed("a broken piece");
  if (piece.text.empty()) return malformed("an empty piece");
  return piece;
}

Result<void> parse_trainer(std::string_view bytes, ModelProtoFacts& facts) {
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == kTrainerModelType && field->wire_type == kVarint) {
      // Word and character models look whole words up, control pieces included.
      if (field->value != 1 && field->value != 2)
        return malformed("its type is not BPE or unigram");
      facts.algorithm = static_cast<ModelProtoFacts::Algorithm>(field->value);
    } else if (field->number == kTrainerUnkSurface && field->wire_type == kLengthDelimited) {
      facts.unk_surface = field->bytes;
    } else {
      is_flag(*field, kTrainerByteFallback, facts.byte_fallback) ||
          is_flag(*field, kTrainerWhitespaceAsSuffix, facts.whitespace_as_suffix);
    }
  }
  if (reader.is_malformed()) return malformed("a broken trainer section");
  return {};
}

Result<void> parse_normalizer(std::string_view bytes, ModelProtoFacts& facts) {
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == kNormalizerCharsmap && field->wire_type == kLengthDelimited) {
      facts.has_charsmap = !field->bytes.empty();
    } else {
      is_flag(*field, kNormalizerDummyPrefix, facts.add_dummy_prefix) ||
          is_flag(*field, kNormalizerRemoveExtra, facts.remove_extra_whitespaces) ||
          is_flag(*field, kNormalizerEscape, facts.escape_whitespaces);
    }
  }
  if (reader.is_malformed()) return malformed("a broken normalizer section");
  return {};
}

}  // namespace

bool looks_special(std::string_view text) {
  return text.size() > 4 && text.starts_with("<|") && text.ends_with("|>");
}

Result<ModelProtoFacts> parse_model_proto(std::string_view bytes) {
  ModelProtoFacts facts;
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->wire_type != kLengthDelimited) continue;
    if (field->number == kModelPieces) {
      if (facts.pieces.size() == kVocabularyMax)
        return malformed("more than " + std::to_string(kVocabularyMax) + " pieces");
      const Result<PieceFacts> piece = parse_piece(field->bytes);
      if (!piece) return piece.error();
      facts.pieces.push_back(*piece);
    } else if (field->number == kModelTrainer) {
      if (auto r = parse_trainer(field->bytes, facts); !r) return r.error();
    } else if (field->number == kModelNormalizer) {
      if (auto r = parse_normalizer(field->bytes, facts); !r) return r.error();
    }
  }
  if (reader.is_malformed()) return malformed("broken or cut off");
  if (facts.pieces.empty()) return malformed("no pieces");
  return facts;
}

std::string edit_model_proto(std::string_view bytes, const ModelProtoEdit& edit) {
  std::string out;
  out.reserve(bytes.size() + 64);
  std::uint32_t id = 0;
  auto control = edit.make_control.begin();
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    const bool is_piece = field->number == kModelPieces && field->wire_type == kLengthDelimited;
    if (is_piece && control != edit.make_control.end() && *control == id) {
      // The last occurrence of a field counts: the new type goes behind the old one.
      std::string piece(field->bytes);
      append_number(kPieceType, static_cast<std::uint64_t>(PieceType::control), piece);
      append_bytes(kModelPieces, piece, out);
      ++control;
    } else if (field->number != kModelSelfTest) {
      out += field->whole;
    }
    if (is_piece) ++id;
  }
  if (edit.disable_dummy_prefix) {
    // Occurrences of a message field are merged: this one overrides a single flag.
    std::string normalizer;
    append_number(kNormalizerDummyPrefix, 0, normalizer);
    append_bytes(kModelNormalizer, normalizer, out);
  }
  return out;
}

std::string write_model_proto(const ModelProtoFacts& facts, std::string_view bos,
                              std::string_view eos) {
  static_assert(std::endian::native == std::endian::little, "floats are written as they lie");
  std::string out, part;
  for (const PieceFacts& piece : facts.pieces) {
    part.clear();
    append_bytes(kPieceText, piece.text, part);
    append_tag(kPieceScore, kFixed32, part);
    part.append(reinterpret_cast<const char*>(&piece.score), sizeof piece.score);
    append_number(kPieceType, static_cast<std::uint64_t>(piece.type), part);
    append_bytes(kModelPieces, part, out);
  }
  part.clear();
  append_number(kTrainerModelType, static_cast<std::uint64_t>(facts.algorithm), part);
  append_number(kTrainerWhitespaceAsSuffix, facts.whitespace_as_suffix ? 1 : 0, part);
  append_number(kTrainerByteFallback, facts.byte_fallback ? 1 : 0, part);
  append_bytes(kTrainerUnkSurface, facts.unk_surface, part);
  const auto unknown = std::ranges::find(facts.pieces, PieceType::unknown, &PieceFacts::type);
  if (unknown != facts.pieces.end()) append_bytes(kTrainerUnkPiece, unknown->text, part);
  if (!bos.empty()) append_bytes(kTrainerBosPiece, bos, part);
  if (!eos.empty()) append_bytes(kTrainerEosPiece, eos, part);
  append_bytes(kModelTrainer, part, out);
  part.clear();
  append_number(kNormalizerDummyPrefix, facts.add_dummy_prefix ? 1 : 0, part);
  append_number(kNormalizerRemoveExtra, facts.remove_extra_whitespaces ? 1 : 0, part);
  append_number(kNormalizerEscape, facts.escape_whitespaces ? 1 : 0, part);
  append_bytes(kModelNormalizer, part, out);
  return out;
}

}  // namespace sluice::tok
