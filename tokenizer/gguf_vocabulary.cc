// Keys to pieces, pieces to a model proto; see gguf_vocabulary.h.
#include "tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "shared/limits.h"
#include "tokenizer/model_proto.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

constexpr std::string_view kModel = "tokenizer.ggml.model";
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
// Where the format has defaults for SentencePiece vocabularies.
constexpr TokenId kUnknownDefault = 0, kBosDefault = 1, kEosDefault = 2;

Error bad_key(std::string_view key, const std::string& reason) {
  return make_error(Errc::bad_file, "key '" + std::string(key) + "' " + reason, std::string(key));
}

Error bad_token(std::size_t id, const std::string& reason) {
  return bad_key(kTokens, "holds token " + std::to_string(id) + ", which " + reason);
}

// For messages: printable ASCII, not too long.
std::string shown(std::string_view text) {
  std::string out(text.substr(0, 64));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

bool is_single_character(std::string_view text) {
  return next_utf8(text).size == text.size();
}

Result<void> check_model(const GgufHeader& header) {
  const GgufValue* model = header.find(kModel);
  const auto name = model == nullptr ? std::nullopt : model->text();
  if (!name) return bad_key(kModel, "is missing or not a text");
  if (*name == "llama") return {};
  return bad_key(kModel, "names '" + shown(*name) + "'; 'llama' (SentencePiece) is what is read");
}

// Of a key that may be missing.
Result<std::optional<bool>> read_flag(const GgufHeader& header, std::string_view key) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return std::optional<bool>();
  const auto flag = value->flag();
  if (!flag) return bad_key(key, "must be true or false");
  return flag;
}

Result<std::optional<TokenId>> read_id(const GgufHeader& header, std::string_view key,
                                       std::size_t num_tokens) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return std::optional<TokenId>();
  const auto id = value->unsigned_number();
  if (!id || *id >= num_tokens)
    return bad_key(key, "must be a token id below " + std::to_string(num_tokens));
  return std::optional(static_cast<TokenId>(*id));
}

Result<void> check_tokens(const std::vector<PieceFacts>& pieces) {
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const std::string_view text = pieces[id].text;
    if (text.empty()) return bad_token(id, "is empty");
    if (text.find('\0') != std::string_view::npos) return bad_token(id, "contains a NUL");
    if (!is_valid_utf8(text)) return bad_token(id, "is not valid UTF-8");
    if (!std::isfinite(pieces[id].score))
      return bad_key(kScores, "holds something else than numbers");
  }
  std::vector<std::string_view> texts;
  texts.reserve(pieces.size());
  for (const PieceFacts& piece : pieces) texts.push_back(piece.text);
  std::ranges::sort(texts);
  const auto twin = std::ranges::adjacent_find(texts);
  if (twin != texts.end()) return bad_key(kTokens, "holds '" + shown(*twin) + "' twice");
  return {};
}

Result<std::vector<PieceFacts>> read_pieces(const GgufHeader& header) {
  const GgufValue* tokens = header.find(kTokens);
  const GgufValue* scores = header.find(kScores);
  const GgufValue* types = header.find(kTypes);
  using Needed = std::pair<std::string_view, const GgufValue*>;
  for (const auto& [key, value] :
       {Needed{kTokens, tokens}, Needed{kScores, scores}, Needed{kTypes, types}})
    if (value == nullptr) return bad_key(key, "is missing");
  if (tokens->num_elements < 1 || tokens->num_elements > kVocabularyMax)
    return bad_key(kTokens, "must be a list of 1 to " + std::to_string(kVocabularyMax) + " texts");
  if (scores->num_elements != tokens->num_elements || types->num_elements != tokens->num_elements)
    return bad_key(kTokens, "has " + std::to_string(tokens->num_elements) + " elements, scores " +
                                std::to_string(scores->num_elements) + ", token_type " +
                                std::to_string(types->num_elements));
  const auto texts = tokens->texts();
  const auto numbers = scores->floats();
  const auto kinds = types->integers();
  if (!texts) return bad_key(kTokens, "must be a list of texts");
  if (!numbers) return bad_key(kScores, "must be a list of F32 numbers");
  if (!kinds) return bad_key(kTypes, "must be a list of integers");
  std::vector<PieceFacts> pieces;
  pieces.reserve(texts->size());
  for (std::size_t id = 0; id < texts->size(); ++id) {
    const std::int32_t kind = (*kinds)[id];
    if (kind < 1 || kind > 6) return bad_key(kTypes, "must hold numbers from 1 to 6");
    pieces.push_back({(*texts)[id], static_cast<PieceType>(kind), (*numbers)[id]});
  }
  if (auto checked = check_tokens(pieces); !checked) return checked.error();
  return pieces;
}

// Exactly one piece of type unknown, as the library wants it.
void settle_unknown(std::optional<TokenId> named, std::vector<PieceFacts>& pieces) {
  const auto first = std::ranges::find(pieces, PieceType::unknown, &PieceFacts::type);
  const std::size_t unknown = first != pieces.end()
                                  ? static_cast<std::size_t>(first - pieces.begin())
                                  : named.value_or(kUnknownDefault);
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (id == unknown)
      pieces[id].type = PieceType::unknown;
    else if (pieces[id].type == PieceType::unknown)
      pieces[id].type = PieceType::control;
  }
}

// The id of a key, else the format's default where that is a control piece.
std::optional<TokenId> id_or_default(std::optional<TokenId> named, TokenId fallback,
                                     const std::vector<PieceFacts>& pieces) {
  if (named) return named;
  if (fallback < pieces.size() && pieces[fallback].type == PieceType::control) return fallback;
  return std::nullopt;
}

std::string_view text_of(std::optional<TokenId> id, const ModelProtoFacts& facts) {
  return id ? facts.pieces[*id].text : std::string_view();
}

struct EndIds {
  std::optional<TokenId> unknown, bos, eos, eot, eom;
};

Result<EndIds> read_end_ids(const GgufHeader& header, std::size_t num_tokens) {
  EndIds ids;
  struct Row {
    const char* key;
    std::optional<TokenId>* id;
  };
  for (const auto& [key, id] :
       {Row{"tokenizer.ggml.unknown_token_id", &ids.unknown},
        Row{"tokenizer.ggml.bos_token_id", &ids.bos}, Row{"tokenizer.ggml.eos_token_id", &ids.eos},
        Row{"tokenizer.ggml.eot_token_id", &ids.eot},
        Row{"tokenizer.ggml.eom_token_id", &ids.eom}}) {
    const auto read = read_id(header, key, num_tokens);
    if (!read) return read.error();
    *id = *read;
  }
  return ids;
}

// User-defined pieces become control ones, apart from single characters.
void hide_from_text(const EndIds& ids, std::vector<PieceFacts>& pieces,
                    std::vector<TokenId>& visible) {
  for (const auto& id : {ids.bos, ids.eos, ids.eot, ids.eom})
    if (id && pieces[*id].type != PieceType::unknown) pieces[*id].type = PieceType::control;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    PieceFacts& piece = pieces[id];
    if (piece.type != PieceType::user_defined) continue;
    piece.type = is_single_character(piece.text) ? PieceType::normal : PieceType::control;
    if (piece.type == PieceType::control && !looks_special(piece.text))
      visible.push_back(static_cast<TokenId>(id));
  }
}

}  // namespace

Result<GgufVocabulary> read_gguf_vocabulary(const GgufHeader& header) {
  if (auto checked = check_model(header); !checked) return checked.error();
  auto pieces = read_pieces(header);
  if (!pieces) return pieces.error();
  auto ids = read_end_ids(header, pieces->size());
  if (!ids) return ids.error();
  const auto adds_bos = read_flag(header, "tokenizer.ggml.add_bos_token");
  if (!adds_bos) return adds_bos.error();
  const auto space_prefix = read_flag(header, "tokenizer.ggml.add_space_prefix");
  if (!space_prefix) return space_prefix.error();
  const auto removes_spaces = read_flag(header, "tokenizer.ggml.remove_extra_whitespaces");
  if (!removes_spaces) return removes_spaces.error();

  GgufVocabulary vocabulary;
  settle_unknown(ids->unknown, *pieces);
  ids->bos = id_or_default(ids->bos, kBosDefault, *pieces);
  ids->eos = id_or_default(ids->eos, kEosDefault, *pieces);
  hide_from_text(*ids, *pieces, vocabulary.visible);
  ModelProtoFacts facts;
  facts.algorithm = ModelProtoFacts::Algorithm::bpe;
  facts.byte_fallback = std::ranges::count(*pieces, PieceType::byte, &PieceFacts::type) != 0;
  facts.add_dummy_prefix = space_prefix->value_or(true);
  facts.remove_extra_whitespaces = removes_spaces->value_or(false);
  facts.pieces = std::move(*pieces);
  vocabulary.model_proto =
      write_model_proto(facts, text_of(ids->bos, facts), text_of(ids->eos, facts));
  vocabulary.config.add_bos_token = *adds_bos;
  if (const GgufValue* source = header.find("tokenizer.chat_template")) {
    const auto text = source->text();
    if (!text) return bad_key("tokenizer.chat_template", "must be a text");
    vocabulary.config.chat_template = std::string(*text);
  }
  return vocabulary;
}

}  // namespace sluice::tok
