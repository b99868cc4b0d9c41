// One function per part of the file; see tokenizer_json.h.
#include "tokenizer/tokenizer_json.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "shared/limits.h"
#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/utf8.h"

namespace sluice::tok {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr std::size_t kDepthMax = 32;
constexpr std::size_t kStepsMax = 16;  // of a normalizer or pre-tokenizer

Error bad(std::string_view part, const std::string& reason) {
  return make_error(Errc::bad_file, std::string(part) + " " + reason, std::string(part));
}

// For messages: printable ASCII, not too long.
std::string shown(std::string_view text) {
  std::string out(text.substr(0, 64));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return "'" + out + "'";
}

bool find(object from, std::string_view key, element& value) {
  return from[key].get(value) == simdjson::SUCCESS && !value.is_null();
}

std::string_view text_at(object from, std::string_view key) {
  std::string_view text;
  return from[key].get(text) == simdjson::SUCCESS ? text : std::string_view();
}

// A flag that is missing is `fallback`; nothing when it is none.
std::optional<bool> flag_at(object from, std::string_view key, bool fallback) {
  element value;
  bool flag = fallback;
  if (find(from, key, value) && value.get(flag) != simdjson::SUCCESS) return std::nullopt;
  return flag;
}

// The steps of a part: the elements of a Sequence, or the part alone.
Result<std::vector<object>> steps_of(std::string_view part, object value, std::string_view list) {
  std::vector<object> steps;
  array sequence;
  if (text_at(value, "type") != "Sequence") return std::vector<object>{value};
  if (value[list].get(sequence) != simdjson::SUCCESS || sequence.size() > kStepsMax)
    return bad(part, "must hold a list of at most " + std::to_string(kStepsMax) + " steps");
  for (const element step : sequence) {
    object fields;
    if (step.get(fields) != simdjson::SUCCESS) return bad(part, "holds a step that is no object");
    steps.push_back(fields);
  }
  return steps;
}

// A part that may be missing.
Result<std::vector<object>> part_of(object root, std::string_view part, std::string_view list) {
  element value;
  object fields;
  if (!find(root, part, value)) return std::vector<object>{};
  if (value.get(fields) != simdjson::SUCCESS) return bad(part, "is no object");
  return steps_of(part, fields, list);
}

Result<void> check_normalizer(object root) {
  const auto steps = part_of(root, "normalizer", "normalizers");
  if (!steps) return steps.error();
  for (const object step : *steps)
    if (const auto type = text_at(step, "type"); type != "NFC")
      return bad("normalizer", "of type " + shown(type) + " is not read; NFC and none are");
  return {};
}

// Split by a published pattern and ByteLevel without one; or ByteLevel with its own, alone or
// behind a cut around every digit.
Result<PreTokenizer> read_pre_tokenizer(object root) {
  constexpr std::string_view kPart = "pre_tokenizer";
  const auto steps = part_of(root, kPart, "pretokenizers");
  if (!steps) return steps.error();
  std::optional<PreTokenizer> split;
  bool cuts_digits = false, has_bytes = false, uses_pattern = false;
  for (const object step : *steps) {
    const std::string_view type = text_at(step, "type");
    if (has_bytes) return bad(kPart, "goes on behind ByteLevel");
    if (type == "ByteLevel") {
      has_bytes = true;
      const auto pattern = flag_at(step, "use_regex", true);
      if (!pattern) return bad(kPart, "has a use_regex that is neither true nor false");
      uses_pattern = *pattern;
      if (flag_at(step, "add_prefix_space", true) != false)
        return bad(kPart, "with add_prefix_space is not read");
    } else if (type == "Digits" && !split) {
      if (flag_at(step, "individual_digits", false) != true)
        return bad(kPart, "Digits without individual_digits is not read");
      cuts_digits = true;
    } else if (type == "Split" && !split && !cuts_digits) {
      object pattern;
      std::string_view regex;
      if (step["pattern"].get(pattern) == simdjson::SUCCESS) regex = text_at(pattern, "Regex");
      split = find_pattern(regex);
      if (!split) return bad(kPart, "has a pattern that is not known: " + shown(regex));
      if (text_at(step, "behavior") != "Isolated" || flag_at(step, "invert", false) != false)
        return bad(kPart, "must isolate what its pattern matches");
    } else {
      return bad(kPart, "has a step " + shown(type) + " that is not read there");
    }
  }
  if (!has_bytes) return bad(kPart, "has no ByteLevel; byte-level BPE is what is read");
  if (split) return uses_pattern ? bad(kPart, "has two patterns") : Result<PreTokenizer>(*split);
  if (!uses_pattern) return bad(kPart, "has no pattern");
  return cuts_digits ? PreTokenizer::smollm : PreTokenizer::gpt2;
}

Result<object> read_model(object root) {
  object model;
  if (root["model"].get(model) != simdjson::SUCCESS) return bad("model", "is missing");
  // Old files have no type.
  if (const auto type = text_at(model, "type"); type != "BPE" && !type.empty())
    return bad("model", "of type " + shown(type) + " is not read; BPE is");
  element value;
  if (find(model, "dropout", value)) return bad("model", "with dropout is not read");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!text_at(model, key).empty())
      return bad("model", std::string("with ") + key + " is not read");
  if (flag_at(model, "byte_fallback", false) != false)
    return bad("model", "with byte_fallback is not read; a tokenizer.model is");
  if (!flag_at(model, "ignore_merges", false))
    return bad("model", "has an ignore_merges that is neither true nor false");
  return model;
}

// Pieces by id; the texts of holes, as their pieces point to them, are kept in `names`.
class Pieces {
 public:
  // The first word about an id, or the same text again with another type.
  Result<void> put(std::uint64_t id, std::string_view text, PieceType type) {
    if (id >= kVocabularyMax)
      return bad("vocabulary", "has an id above " + std::to_string(kVocabularyMax - 1));
    if (text.empty() || text.find('\0') != std::string_view::npos)
      return bad("vocabulary", "has an empty token, or one with a NUL: " + std::to_string(id));
    if (id >= pieces_.size()) pieces_.resize(id + 1);
    PieceFacts& piece = pieces_[id];
    if (!piece.text.empty() && piece.text != text)
      return bad("vocabulary", "has two tokens of id " + std::to_string(id));
    piece.text = text;
    piece.type = type;
    return {};
  }

  void hide(TokenId id) { pieces_[id].type = PieceType::control; }

  // Fills the holes, up to num_rows. No text means such an id.
  std::vector<PieceFacts> take(std::uint32_t num_rows, std::vector<std::string>& names) {
    pieces_.resize(std::max<std::size_t>(pieces_.size(), std::min(num_rows, kVocabularyMax)));
    names.reserve(pieces_.size());  // the texts keep their places
    for (std::size_t id = 0; id < pieces_.size(); ++id) {
      if (!pieces_[id].text.empty()) continue;
      names.push_back("[PAD" + std::to_string(id) + "]");
      pieces_[id].text = names.back();
      pieces_[id].type = PieceType::control;
    }
    return std::move(pieces_);
  }

  // Ascending by text, to find tokens and twins.
  std::vector<std::pair<std::string_view, TokenId>> by_text() const {
    std::vector<std::pair<std::string_view, TokenId>> texts;
    texts.reserve(pieces_.size());
    for (std::size_t id = 0; id < pieces_.size(); ++id)
      if (!pieces_[id].text.empty()) texts.emplace_back(pieces_[id].text, static_cast<TokenId>(id));
    std::ranges::sort(texts);
    return texts;
  }

 private:
  std::vector<PieceFacts> pieces_;
};

Result<void> read_vocabulary(object root, object model, Pieces& pieces) {
  object vocabulary;
  if (model["vocab"].get(vocabulary) != simdjson::SUCCESS)
    return bad("model", "has no object vocab");
  for (const auto& [text, value] : vocabulary) {
    std::uint64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS) return bad("model", "has a vocab with what is no id");
    if (auto put = pieces.put(id, text, PieceType::normal); !put) return put;
  }
  element value;
  array added;
  if (!find(root, "added_tokens", value)) return {};
  if (value.get(added) != simdjson::SUCCESS) return bad("added_tokens", "is no list");
  for (const element token : added) {
    object fields;
    std::uint64_t id = 0;
    if (token.get(fields) != simdjson::SUCCESS || fields["id"].get(id) != simdjson::SUCCESS)
      return bad("added_tokens", "holds what has no id");
    const auto is_special = flag_at(fields, "special", false);
    if (!is_special) return bad("added_tokens", "has a special that is neither true nor false");
    const PieceType type = *is_special ? PieceType::control : PieceType::user_defined;
    if (auto put = pieces.put(id, text_at(fields, "content"), type); !put) return put;
  }
  return {};
}

// "a b", or ["a", "b"] in younger files; `joined` keeps those.
Result<std::vector<std::string_view>> read_merges(object model, std::vector<std::string>& joined) {
  array list;
  if (model["merges"].get(list) != simdjson::SUCCESS) return bad("model", "has no list merges");
  std::vector<std::string_view> merges;
  std::size_t count = 0;
  for (const element merge : list) {
    if (++count > kVocabularyMax)
      return bad("model", "has more than " + std::to_string(kVocabularyMax) + " merges");
    std::string_view text;
    array pair;
    if (merge.get(text) == simdjson::SUCCESS) {
      joined.emplace_back(text);
      continue;
    }
    std::string_view left, right;
    if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS ||
        left.find(' ') != std::string_view::npos)
      return bad("model", "has a merge that is no pair of tokens");
    joined.emplace_back(std::string(left) + " " + std::string(right));
  }
  merges.assign(joined.begin(), joined.end());
  return merges;
}

// The special token that a post-processor puts before a text; empty: none.
Result<std::string_view> read_first_token(object root) {
  const auto steps = part_of(root, "post_processor", "processors");
  if (!steps) return steps.error();
  for (const object step : *steps) {
    array single;
    object special;
    if (text_at(step, "type") != "TemplateProcessing") continue;
    if (step["single"].get(single) != simdjson::SUCCESS)
      return bad("post_processor", "has a template without a list single");
    if (single.size() != 0 && single.at(0)["SpecialToken"].get(special) == simdjson::SUCCESS)
      return text_at(special, "id");
  }
  return std::string_view();
}

}  // namespace

Result<VocabularySource> read_tokenizer_json(const std::string& json, TokenizerConfig config,
                                             std::uint32_t num_rows) {
  simdjson::dom::parser parser;
  object root;
  simdjson::error_code code = parser.allocate(json.size() + 1, kDepthMax);
  if (code == simdjson::SUCCESS) code = parser.parse(json).get(root);
  if (code != simdjson::SUCCESS)
    return make_error(Errc::bad_file,
                      std::string("no JSON object: ") + simdjson::error_message(code));
  if (auto checked = check_normalizer(root); !checked) return checked.error();
  const auto pattern = read_pre_tokenizer(root);
  if (!pattern) return pattern.error();
  const auto model = read_model(root);
  if (!model) return model.error();
  Pieces pieces;
  if (auto read = read_vocabulary(root, *model, pieces); !read) return read.error();
  const auto texts = pieces.by_text();
  const auto twin = std::ranges::adjacent_find(
      texts, [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twin != texts.end()) return bad("vocabulary", "holds " + shown(twin->first) + " twice");
  const auto id_of = [&](std::string_view text) -> std::optional<TokenId> {
    const auto at =
        std::ranges::lower_bound(texts, text, {}, [](const auto& t) { return t.first; });
    if (at == texts.end() || at->first != text) return std::nullopt;
    return at->second;
  };
  VocabularySource source;
  source.bos = id_of(config.bos_token);
  source.eos = id_of(config.eos_token);
  for (const auto& id : {source.bos, source.eos})
    if (id) pieces.hide(*id);
  for (const std::string& special : config.special_tokens)
    if (const auto id = id_of(special)) pieces.hide(*id);

  const auto first_token = read_first_token(root);
  if (!first_token) return first_token.error();
  if (!config.add_bos_token)
    config.add_bos_token = source.bos.has_value() && *first_token == config.bos_token;
  source.config = std::move(config);
  std::vector<std::string> names, joined;
  const auto merges = read_merges(*model, joined);
  if (!merges) return merges.error();
  const std::vector<PieceFacts> all = pieces.take(num_rows, names);
  for (std::size_t id = 0; id < all.size(); ++id)
    if (all[id].type == PieceType::user_defined && !looks_special(all[id].text))
      source.visible.push_back(static_cast<TokenId>(id));
  auto made = make_byte_level_vocabulary(*pattern, all, *merges);
  if (!made) return made.error();
  made->keeps_known_words = flag_at(*model, "ignore_merges", *pattern == PreTokenizer::llama3);
  source.byte_level = std::move(*made);
  return source;
}

}  // namespace sluice::tok
