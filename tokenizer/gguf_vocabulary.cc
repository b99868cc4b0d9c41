// Keys to pieces, pieces to a model proto; see gguf_vocabulary.h.
#include "tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "shared/limits.h"
#include "tokenizer/byte_level_bpe.h"
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

enum class VocabularyModel : std::uint8_t { sentence_piece, byte_level };

Result<VocabularyModel> read_model(const GgufHeader& header) {
  const GgufValue* model = header.find(kModel);
  const auto name = model == nullptr ? std::nullopt : model->text();
  if (!name) return bad_key(kModel, "is missing or not a text");
  if (*name == "llama") return VocabularyModel::sentence_piece;
  if (*name == "gpt2") return VocabularyModel::byte_level;
  return bad_key(kModel, "names '" + shown(*name) +
                             "'; 'llama' (SentencePiece) and 'gpt2' (byte-level BPE) are read");
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
  }
  std::vector<std::string_view> texts;
  texts.reserve(pieces.size());
  for (const PieceFacts& piece : pieces) texts.push_back(piece.text);
  std::ranges::sort(texts);
  const auto twin = std::ranges::adjacent_find(texts);
  if (twin != texts.end()) return bad_key(kTokens, "holds '" + shown(*twin) + "' twice");
  return {};
}

// A list with one element for each of num_tokens.
Result<const GgufValue*> find_list(const GgufHeader& header, std::string_view key,
                                   std::uint64_t num_tokens) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return bad_key(key, "is missing");
  if (value->num_elements != num_tokens)
    return bad_key(key, "has " + std::to_string(value->num_elements) + " elements for " +
                            std::to_string(num_tokens) + " tokens");
  return value;
}

Result<const GgufValue*> find_tokens(const GgufHeader& header) {
  const GgufValue* tokens = header.find(kTokens);
  if (tokens == nullptr) return bad_key(kTokens, "is missing");
  if (tokens->num_elements < 1 || tokens->num_elements > kVocabularyMax)
    return bad_key(kTokens, "must be a list of 1 to " + std::to_string(kVocabularyMax) + " texts");
  return tokens;
}

// Texts and types.
Result<std::vector<PieceFacts>> read_pieces(const GgufHeader& header) {
  const auto tokens = find_tokens(header);
  if (!tokens) return tokens.error();
  const auto types = find_list(header, kTypes, (*tokens)->num_elements);
  if (!types) return types.error();
  const auto texts = (*tokens)->texts();
  if (!texts) return bad_key(kTokens, "must be a list of texts");
  const auto kinds = (*types)->integers();
  if (!kinds) return bad_key(kTypes, "must be a list of integers");
  std::vector<PieceFacts> pieces;
  pieces.reserve(texts->size());
  for (std::size_t id = 0; id < texts->size(); ++id) {
    const std::int32_t kind = (*kinds)[id];
    if (kind < 1 || kind > 6) return bad_key(kTypes, "must hold numbers from 1 to 6");
    pieces.push_back({(*texts)[id], static_cast<PieceType>(kind)});
  }
  if (auto checked = check_tokens(pieces); !checked) return checked.error();
  return pieces;
}

Result<void> read_scores(const GgufHeader& header, std::vector<PieceFacts>& pieces) {
  const auto list = find_list(header, kScores, pieces.size());
  if (!list) return list.error();
  const auto scores = (*list)->floats();
  if (!scores || !std::ranges::all_of(*scores, [](float score) { return std::isfinite(score); }))
    return bad_key(kScores, "must be a list of F32 numbers");
  for (std::size_t id = 0; id < pieces.size(); ++id) pieces[id].score = (*scores)[id];
  return {};
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

void hide_end_ids(const EndIds& ids, std::vector<PieceFacts>& pieces) {
  for (const auto& id : {ids.bos, ids.eos, ids.eot, ids.eom})
    if (id && pieces[*id].type != PieceType::unknown) pieces[*id].type = PieceType::control;
}

// User-defined pieces become control ones, apart from single characters.
std::vector<TokenId> hide_user_defined(std::vector<PieceFacts>& pieces) {
  std::vector<TokenId> visible;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    PieceFacts& piece = pieces[id];
    if (piece.type != PieceType::user_defined) continue;
    piece.type = is_single_character(piece.text) ? PieceType::normal : PieceType::control;
    if (piece.type == PieceType::control && !looks_special(piece.text))
      visible.push_back(static_cast<TokenId>(id));
  }
  return visible;
}

Result<void> read_sentence_piece(const GgufHeader& header, EndIds ids,
                                 std::vector<PieceFacts> pieces, VocabularySource& vocabulary) {
  const auto space_prefix = read_flag(header, "tokenizer.ggml.add_space_prefix");
  if (!space_prefix) return space_prefix.error();
  const auto removes_spaces = read_flag(header, "tokenizer.ggml.remove_extra_whitespaces");
  if (!removes_spaces) return removes_spaces.error();
  if (auto read = read_scores(header, pieces); !read) return read;
  settle_unknown(ids.unknown, pieces);
  ids.bos = id_or_default(ids.bos, kBosDefault, pieces);
  ids.eos = id_or_default(ids.eos, kEosDefault, pieces);
  hide_end_ids(ids, pieces);
  vocabulary.visible = hide_user_defined(pieces);
  vocabulary.bos = ids.bos;
  vocabulary.eos = ids.eos;
  ModelProtoFacts facts;
  facts.algorithm = ModelProtoFacts::Algorithm::bpe;
  facts.byte_fallback = std::ranges::count(pieces, PieceType::byte, &PieceFacts::type) != 0;
  facts.add_dummy_prefix = space_prefix->value_or(true);
  facts.remove_extra_whitespaces = removes_spaces->value_or(false);
  facts.pieces = std::move(pieces);
  vocabulary.model_proto =
      write_model_proto(facts, text_of(ids.bos, facts), text_of(ids.eos, facts));
  return {};
}

Result<void> read_byte_level(const GgufHeader& header, const EndIds& ids,
                             std::vector<PieceFacts> pieces, VocabularySource& vocabulary) {
  constexpr std::string_view kPre = "tokenizer.ggml.pre";
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  const GgufValue* pre = header.find(kPre);
  const auto name = pre == nullptr ? std::nullopt : pre->text();
  if (!name) return bad_key(kPre, "is missing or not a text");
  const auto pattern = pre_tokenizer(*name);
  if (!pattern)
    return bad_key(
        kPre, "names '" + shown(*name) + "'; 'gpt-2', 'llama-bpe', 'qwen2' and 'smollm' are read");
  const GgufValue* list = header.find(kMerges);
  if (list == nullptr) return bad_key(kMerges, "is missing");
  const auto merges = list->num_elements <= kVocabularyMax ? list->texts() : std::nullopt;
  if (!merges)
    return bad_key(kMerges,
                   "must be a list of at most " + std::to_string(kVocabularyMax) + " texts");
  hide_end_ids(ids, pieces);
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const PieceFacts& piece = pieces[id];
    const bool is_output = piece.type == PieceType::user_defined || piece.type == PieceType::unused;
    if (is_output && !looks_special(piece.text))
      vocabulary.visible.push_back(static_cast<TokenId>(id));
  }
  auto made = make_byte_level_vocabulary(*pattern, pieces, *merges);
  if (!made) return made.error();
  vocabulary.byte_level = std::move(*made);
  vocabulary.bos = ids.bos;
  vocabulary.eos = ids.eos;
  // Llama-3 alone begins with bos where nothing is said.
  if (!vocabulary.config.add_bos_token)
    vocabulary.config.add_bos_token = *pattern == PreTokenizer::llama3;
  return {};
}

}  // namespace

Result<std::uint32_t> count_gguf_pieces(const GgufHeader& header) {
  const auto tokens = find_tokens(header);
  if (!tokens) return tokens.error();
  return static_cast<std::uint32_t>((*tokens)->num_elements);
}

Result<VocabularySource> read_gguf_vocabulary(const GgufHeader& header) {
  const auto model = read_model(header);
  if (!model) return model.error();
  auto pieces = read_pieces(header);
  if (!pieces) return pieces.error();
  const auto ids = read_end_ids(header, pieces->size());
  if (!ids) return ids.error();
  const auto adds_bos = read_flag(header, "tokenizer.ggml.add_bos_token");
  if (!adds_bos) return adds_bos.error();
  VocabularySource vocabulary;
  vocabulary.config.add_bos_token = *adds_bos;
  if (const GgufValue* source = header.find("tokenizer.chat_template")) {
    const auto text = source->text();
    if (!text) return bad_key("tokenizer.chat_template", "must be a text");
    vocabulary.config.chat_template = std::string(*text);
  }
  const auto read = *model == VocabularyModel::byte_level
                        ? read_byte_level(header, *ids, std::move(*pieces), vocabulary)
                        : read_sentence_piece(header, *ids, std::move(*pieces), vocabulary);
  if (!read) return read.error();
  return vocabulary;
}

}  // namespace sluice::tok
