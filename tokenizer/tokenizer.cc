// The tokenizer on libsentencepiece: two processors over one model file (with and without the dummy
// prefix), a table of what each id adds to a text, and the word cache in front; or on byte-level
// BPE with the same table. See tokenizer.h.
#include "tokenizer/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <unordered_map>

#include "shared/check.h"
#include "shared/gguf_file.h"
#include "shared/limits.h"
#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/model_proto.h"
#include "tokenizer/piece_borders.h"
#include "tokenizer/special_pieces.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary_source.h"
#include "tokenizer/word_cache.h"

namespace sluice::tok {
namespace {

constexpr std::size_t kModelBytesMax = 64u << 20;
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, how pieces write a space

// Encodes `text` behind the caller's cache. The library's ids are never negative.
void encode_with(const sentencepiece::SentencePieceProcessor& processor, std::string_view text,
                 std::vector<TokenId>& ids) {
  thread_local std::vector<int> pieces;
  pieces.clear();
  CHECK(processor.Encode(text, &pieces).ok());
  ids.insert(ids.end(), pieces.begin(), pieces.end());
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    if (piece.starts_with(kSpaceSymbol)) {
      text += ' ';
      piece.remove_prefix(kSpaceSymbol.size());
    } else {
      text += piece.front();
      piece.remove_prefix(1);
    }
  }
  return text;
}

// "<0x41>" is the byte 0x41, with upper-case digits as the library writes them.
std::optional<char> byte_of_piece(std::string_view piece) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const std::size_t high = kDigits.find(piece[3]), low = kDigits.find(piece[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

// A vocabulary of either format, with what the files say beyond it.
Result<VocabularySource> read_source(const std::string& path) {
  if (is_gguf_file(path)) {
    const Result<GgufFile> file = GgufFile::read(path);
    if (!file) return file.error();
    Result<VocabularySource> vocabulary = read_gguf_vocabulary(file->header());
    if (!vocabulary) return make_error(Errc::bad_file, path + ": " + vocabulary.error().detail);
    return vocabulary;
  }
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  Result<TokenizerConfig> config =
      load_tokenizer_config((folder / "tokenizer_config.json").string());
  if (!config) return config.error();
  if (path.ends_with(".json")) {
    const Result<std::string> json = read_model_file(path, kTokenizerJsonBytesMax);
    if (!json) return json.error();
    const Result<std::uint32_t> num_rows = load_num_rows((folder / "config.json").string());
    if (!num_rows) return num_rows.error();
    auto vocabulary = read_tokenizer_json(*json, std::move(*config), *num_rows);
    if (!vocabulary) return make_error(Errc::bad_file, path + ": " + vocabulary.error().detail);
    return vocabulary;
  }
  Result<std::string> bytes = read_model_file(path, kModelBytesMax);
  if (!bytes) return bytes.error();
  VocabularySource vocabulary;
  vocabulary.model_proto = std::move(*bytes);
  vocabulary.config = std::move(*config);
  return vocabulary;
}

}  // namespace

struct Tokenizer::State {
  Vocabulary vocabulary;
  TokenizerConfig config;
  sentencepiece::SentencePieceProcessor following;  // adds no dummy prefix
  sentencepiece::SentencePieceProcessor first;      // does if the model does; empty: can_cut()
  PieceBorders borders;
  ByteLevelVocabulary byte_level;   // of those that are not SentencePiece's
  std::optional<ByteLevelBpe> bpe;  // over byte_level; encodes in place of the library
  bool add_dummy_prefix = true;
  bool strips_leading_spaces = false;  // decode: all of them, not only the dummy prefix
  int unknown_id = -1;                 // its mark keeps its spaces
  std::uint32_t serial = 0;            // this vocabulary's number in the word caches
  std::string bytes;                   // of all ids, one after another
  std::vector<std::uint32_t> begins;   // [size + 1], into `bytes`
  std::vector<bool> special;
  std::unordered_map<std::string, TokenId> special_ids;
  SpecialPieces outside_text;  // pieces that user text never yields
  std::unordered_map<TokenId, std::string_view> special_texts;  // into special_ids' keys

  std::string_view piece(TokenId id) const {
    return std::string_view(bytes).substr(begins[id], begins[id + 1] - begins[id]);
  }
  Result<void> load_sentence_piece(std::string_view file, std::span<const TokenId> visible);
  void load_byte_level(VocabularySource source);
  Result<void> fill_pieces(const ModelProtoFacts& model, std::span<const TokenId> visible);
  void encode_word(std::string_view word, std::vector<TokenId>& ids) const;
  void encode_cut(std::string_view text, std::vector<TokenId>& ids) const;
};

Result<void> Tokenizer::State::fill_pieces(const ModelProtoFacts& model,
                                           std::span<const TokenId> visible) {
  const bool keeps_text = !model.has_charsmap && !model.remove_extra_whitespaces;
  for (const PieceFacts& piece : model.pieces) {
    const auto id = static_cast<TokenId>(begins.size());
    begins.push_back(static_cast<std::uint32_t>(bytes.size()));
    const bool unreachable = piece.type == PieceType::unknown && model.byte_fallback;
    const bool is_visible = std::ranges::binary_search(visible, id);
    special.push_back((piece.type == PieceType::control && !is_visible) || unreachable);
    if (piece.type == PieceType::control || unreachable) outside_text.add(piece.text, id);
    if (special.back()) {
      // The library looks single characters up among all pieces: such a one could be written in
      // text.
      if (next_utf8(piece.text).size == piece.text.size())
        return make_error(Errc::bad_file, "a control piece of a single character");
      special_ids.emplace(piece.text, id);
    } else if (piece.type == PieceType::byte) {
      const auto byte = byte_of_piece(piece.text);
      if (!byte) return make_error(Errc::bad_file, "a byte piece that is not <0x00>..<0xFF>");
      bytes += *byte;
    } else if (piece.type == PieceType::unknown) {
      bytes += model.unk_surface;
    } else {
      bytes += with_spaces(piece.text);
    }
    // Text may bring U+2581 itself, three bytes for one space; an unknown character has up to four.
    const std::size_t taken = std::max<std::size_t>(piece.text.size(), 4);
    if (!special.back() && taken > vocabulary.longest_piece_bytes)
      vocabulary.longest_piece_bytes = static_cast<std::uint32_t>(taken);
    // Neighbouring unknown characters become one unknown id.
    if (!keeps_text || (piece.type == PieceType::unknown && !model.byte_fallback))
      vocabulary.longest_piece_bytes = kPieceBytesUnbounded;
  }
  vocabulary.size = static_cast<std::uint32_t>(begins.size());
  begins.push_back(static_cast<std::uint32_t>(bytes.size()));
  return {};
}

Tokenizer::Tokenizer() : state_(std::make_unique<State>()) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<void> Tokenizer::State::load_sentence_piece(std::string_view file,
                                                   std::span<const TokenId> visible) {
  const auto failed = [](const std::string& why) { return make_error(Errc::bad_file, why); };
  Result<ModelProtoFacts> model = parse_model_proto(file);
  if (!model) return model.error();
  // User-defined pieces are matched in text; those that frame a conversation must not be.
  ModelProtoEdit edit;
  for (std::uint32_t id = 0; id < model->pieces.size(); ++id) {
    PieceFacts& piece = model->pieces[id];
    if (piece.type != PieceType::user_defined) continue;
    if (!looks_special(piece.text) &&
        std::ranges::find(config.special_tokens, piece.text) == config.special_tokens.end())
      continue;
    piece.type = PieceType::control;
    edit.make_control.push_back(id);
  }
  borders = PieceBorders(*model);
  if (!borders.can_cut()) {  // a large vocabulary takes the library some 30 ms
    const auto status = first.LoadFromSerializedProto(edit_model_proto(file, edit));
    if (!status.ok()) return failed(status.ToString());
  }
  edit.disable_dummy_prefix = true;
  const auto status = following.LoadFromSerializedProto(edit_model_proto(file, edit));
  if (!status.ok()) return failed(status.ToString());

  if (auto r = fill_pieces(*model, visible); !r) return r;
  if (static_cast<std::size_t>(following.GetPieceSize()) != model->pieces.size())
    return failed("the library sees another number of pieces");
  add_dummy_prefix = model->add_dummy_prefix;
  strips_leading_spaces = model->remove_extra_whitespaces;
  unknown_id = following.unk_id();
  const auto id_or_nothing = [](int id) {
    return id < 0 ? std::nullopt : std::optional(static_cast<TokenId>(id));
  };
  vocabulary.bos = id_or_nothing(following.bos_id());
  vocabulary.eos = id_or_nothing(following.eos_id());
  return {};
}

void Tokenizer::State::load_byte_level(VocabularySource source) {
  byte_level = std::move(*source.byte_level);
  for (TokenId id = 0; id < byte_level.pieces.size(); ++id) {
    const std::string& piece = byte_level.pieces[id];
    begins.push_back(static_cast<std::uint32_t>(bytes.size()));
    special.push_back(!byte_level.is_normal[id] && !std::ranges::binary_search(source.visible, id));
    if (!byte_level.is_normal[id]) outside_text.add(piece, id);
    if (special.back())
      special_ids.emplace(piece, id);
    else
      bytes += piece;
    if (byte_level.is_normal[id])
      vocabulary.longest_piece_bytes =
          std::max(vocabulary.longest_piece_bytes, static_cast<std::uint32_t>(piece.size()));
  }
  vocabulary.size = static_cast<std::uint32_t>(begins.size());
  begins.push_back(static_cast<std::uint32_t>(bytes.size()));
  vocabulary.bos = source.bos;
  vocabulary.eos = source.eos;
  add_dummy_prefix = false;
  bpe.emplace(byte_level, serial);
}

Result<Tokenizer> Tokenizer::load(const std::string& path) {
  Result<VocabularySource> source = read_source(path);
  if (!source) return source.error();
  Tokenizer tokenizer;
  State& state = *tokenizer.state_;
  state.config = std::move(source->config);
  // A number is never used again, so that no cache holds words of a vocabulary that is gone.
  static std::atomic<std::uint32_t> serials{0};
  state.serial = ++serials;
  CHECK(state.serial != 0);
  if (source->byte_level) {
    state.load_byte_level(std::move(*source));
  } else if (auto r = state.load_sentence_piece(source->model_proto, source->visible); !r) {
    return make_error(Errc::bad_file, path + ": " + r.error().detail);
  }
  state.outside_text.finish();
  state.vocabulary.adds_bos =
      state.vocabulary.bos.has_value() && state.config.add_bos_token.value_or(true);
  for (const auto& [text, id] : state.special_ids) state.special_texts.emplace(id, text);
  return tokenizer;
}

Result<std::uint32_t> Tokenizer::count_pieces(const std::string& path) {
  if (is_gguf_file(path)) {
    const Result<GgufFile> file = GgufFile::read(path);
    if (!file) return file.error();
    const Result<std::uint32_t> count = count_gguf_pieces(file->header());
    if (!count) return make_error(Errc::bad_file, path + ": " + count.error().detail);
    return count;
  }
  const Result<VocabularySource> source = read_source(path);
  if (!source) return source.error();
  if (source->byte_level) return static_cast<std::uint32_t>(source->byte_level->pieces.size());
  const Result<ModelProtoFacts> model = parse_model_proto(source->model_proto);
  if (!model) return make_error(Errc::bad_file, path + ": " + model.error().detail);
  return static_cast<std::uint32_t>(model->pieces.size());
}

const Vocabulary& Tokenizer::vocabulary() const {
  return state_->vocabulary;
}
const std::string& Tokenizer::chat_template_source() const {
  return state_->config.chat_template;
}
std::string_view Tokenizer::bos_text() const {
  if (!state_->config.bos_token.empty()) return state_->config.bos_token;
  return state_->vocabulary.bos ? state_->outside_text.text_of(*state_->vocabulary.bos) : "";
}
std::string_view Tokenizer::eos_text() const {
  if (!state_->config.eos_token.empty()) return state_->config.eos_token;
  return state_->vocabulary.eos ? state_->outside_text.text_of(*state_->vocabulary.eos) : "";
}

void Tokenizer::State::encode_word(std::string_view word, std::vector<TokenId>& ids) const {
  WordCache& cache = WordCache::this_thread();
  if (const auto known = cache.find(serial, word); !known.empty()) {
    ids.insert(ids.end(), known.begin(), known.end());
    return;
  }
  const std::size_t before = ids.size();
  encode_with(following, word, ids);
  cache.put(serial, word, std::span(ids).subspan(before));
}

// REQUIRES: borders.can_cut(), valid UTF-8.
void Tokenizer::State::encode_cut(std::string_view text, std::vector<TokenId>& ids) const {
  while (!text.empty()) {
    std::string_view word = text.substr(0, borders.word_bytes(text));
    text.remove_prefix(word.size());
    // Long words get their parts looked up instead: what is left uncut then really hangs together.
    while (word.size() > WordCache::kWordBytesMax) {
      const std::size_t size = borders.part_bytes(word);
      encode_word(word.substr(0, size), ids);
      word.remove_prefix(size);
    }
    if (!word.empty()) encode_word(word, ids);
  }
}

void Tokenizer::encode(std::string_view text, Segment segment, std::vector<TokenId>& ids) const {
  if (text.empty()) return;
  thread_local std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired.clear();
    append_valid_utf8(text, repaired);
    text = repaired;
  }
  const State& state = *state_;
  if (state.bpe) {
    state.bpe->encode(text, ids);
    return;
  }
  if (!state.borders.can_cut()) {
    encode_with(segment == Segment::first ? state.first : state.following, text, ids);
    return;
  }
  if (segment == Segment::first && state.add_dummy_prefix) {
    // The prefix belongs to the first part; the text's own first space stays a second one.
    std::size_t size = state.borders.word_bytes(text);
    if (size > WordCache::kWordBytesMax) size = state.borders.part_bytes(text.substr(0, size));
    thread_local std::string prefixed;
    prefixed.assign(1, ' ').append(text.substr(0, size));
    state.encode_word(prefixed, ids);
    text.remove_prefix(size);
  }
  state.encode_cut(text, ids);
}

std::string_view Tokenizer::piece_bytes(TokenId id) const {
  CHECK(id < state_->vocabulary.size);
  return state_->piece(id);
}

bool Tokenizer::is_special(TokenId id) const {
  CHECK(id < state_->vocabulary.size);
  return state_->special[id];
}

std::string_view Tokenizer::token_text(TokenId id) const {
  if (!is_special(id)) return state_->piece(id);
  const auto found = state_->special_texts.find(id);
  return found == state_->special_texts.end() ? std::string_view() : found->second;
}

std::optional<TokenId> Tokenizer::special_id(std::string_view text) const {
  const auto found = state_->special_ids.find(std::string(text));
  if (found == state_->special_ids.end()) return std::nullopt;
  return found->second;
}

std::optional<SpecialMatch> Tokenizer::special_at(std::string_view text) const {
  return state_->outside_text.match(text);
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids) const {
  const State& state = *state_;
  std::string bytes;
  bool at_start = state.add_dummy_prefix || state.strips_leading_spaces;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= state.vocabulary.size)
      return make_error(Errc::invalid_value,
                        "tokens[" + std::to_string(i) + "]: " + std::to_string(ids[i]) +
                            " is not an id; allowed: 0.." +
                            std::to_string(state.vocabulary.size - 1),
                        "tokens");
    std::string_view piece = state.piece(ids[i]);
    if (at_start && !piece.empty()) {
      const bool is_unknown = static_cast<int>(ids[i]) == state.unknown_id;
      const bool had_space = !is_unknown && piece.starts_with(' ');
      if (had_space) piece.remove_prefix(1);
      at_start = had_space && piece.empty() && state.strips_leading_spaces;
    }
    bytes += piece;
  }
  std::string text;
  append_valid_utf8(bytes, text);
  return text;
}

}  // namespace sluice::tok
