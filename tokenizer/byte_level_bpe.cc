// Patterns through PCRE2, merges through a heap of candidates; see byte_level_bpe.h.
#include "tokenizer/byte_level_bpe.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <string>
#include <unordered_map>

#include "shared/check.h"
#include "shared/random.h"
#include "tokenizer/utf8.h"
#include "tokenizer/word_cache.h"

namespace sluice::tok {
namespace {

// White space of Unicode, for {S} in the patterns. PCRE2's \s has U+180E, too, which is none since
// Unicode 6.3.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

struct PatternRow {
  PreTokenizer pre_tokenizer;
  std::string_view pattern;  // of a word, as the family published it
  bool keeps_known_words;    // a word that is a token stays one, whatever its merges
};
constexpr std::array<PatternRow, 4> kPatterns{{
    {PreTokenizer::gpt2,
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^{S}\p{L}\p{N}]+|[{S}]+(?![^{S}])|[{S}]+)",
     false},
    {PreTokenizer::llama3,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^{S}\p{L}\p{N}]+[\r\n]*)"
     R"(|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+)",
     true},
    {PreTokenizer::qwen2,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^{S}\p{L}\p{N}]+[\r\n]*)"
     R"(|[{S}]*[\r\n]+|[{S}]+(?![^{S}])|[{S}]+)",
     false},
    // GPT-2's behind a cut around every digit: a digit ends a run of white space as a text's end
    // does.
    {PreTokenizer::smollm,
     R"(\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^{S}\p{L}\p{N}]+|[{S}]+(?![^{S}\p{N}])|[{S}]+)",
     false},
}};

std::string with_all(std::string text, std::string_view mark, std::string_view replacement) {
  for (std::size_t at = text.find(mark); at != std::string::npos;
       at = text.find(mark, at + replacement.size()))
    text.replace(at, mark.size(), replacement);
  return text;
}

std::string with_white_space(std::string_view pattern) {
  return with_all(std::string(pattern), "{S}", kWhiteSpace);
}

// As the family writes it.
std::string published(std::string_view pattern) {
  std::string text = with_all(std::string(pattern), "[{S}]", "\\s");
  text = with_all(std::move(text), "[^{S}]", "\\S");
  return with_all(std::move(text), "{S}", "\\s");
}

struct NameRow {
  std::string_view name;
  PreTokenizer pre_tokenizer;
};
constexpr std::array<NameRow, 6> kNames{{{"gpt-2", PreTokenizer::gpt2},
                                         {"llama-bpe", PreTokenizer::llama3},
                                         {"llama3", PreTokenizer::llama3},
                                         {"llama-v3", PreTokenizer::llama3},
                                         {"qwen2", PreTokenizer::qwen2},
                                         {"smollm", PreTokenizer::smollm}}};

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

using Code = std::unique_ptr<pcre2_code, FreeCode>;

Code compile(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE at = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr));
  CHECK(code != nullptr);  // the patterns are ours
  // Without machine code (memory that may not be executed) it is interpreted: slower, the same.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

// What one thread needs to match.
struct Matcher {
  std::unique_ptr<pcre2_match_data, FreeMatch> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, FreeContext> context{pcre2_match_context_create(nullptr)};

  Matcher() {
    CHECK(match != nullptr && context != nullptr);
    // The patterns backtrack over one run at most, so a long run is no sign of a runaway.
    pcre2_set_match_limit(context.get(), UINT32_MAX);
  }
  static Matcher& this_thread() {
    thread_local Matcher matcher;
    return matcher;
  }
};

std::uint64_t pair_of(TokenId left, TokenId right) {
  return std::uint64_t{left} << 32 | right;
}

// Tokens of a word as a list from which merges take out the right one.
struct Symbol {
  TokenId id;
  std::uint32_t previous;
  std::uint32_t next;
};
constexpr std::uint32_t kNone = UINT32_MAX;

// A merge that was possible when it was found: its rank, then the place of its left symbol, so that
// the smallest comes first. Stale when one of the two symbols has changed since.
using Candidate = std::uint64_t;

Candidate candidate_of(std::uint32_t rank, std::uint32_t at) {
  return std::uint64_t{rank} << 32 | at;
}

}  // namespace

struct ByteLevelBpe::State {
  struct Slot {
    std::uint64_t pair = UINT64_MAX;  // free
    std::uint32_t rank = 0;
  };

  const ByteLevelVocabulary* vocabulary;
  std::uint32_t serial;
  bool keeps_known_words = false;
  Code code;
  std::vector<Slot> merges;  // open addressing, a power of two
  std::unordered_map<std::string_view, TokenId> words;

  const Slot* find(TokenId left, TokenId right) const {
    const std::uint64_t pair = pair_of(left, right);
    std::size_t at = mix64(pair) & (merges.size() - 1);
    while (merges[at].pair != UINT64_MAX && merges[at].pair != pair)
      at = (at + 1) & (merges.size() - 1);
    return merges[at].pair == pair ? &merges[at] : nullptr;
  }
};

ByteLevelBpe::ByteLevelBpe(const ByteLevelVocabulary& vocabulary, std::uint32_t serial)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.vocabulary = &vocabulary;
  state.serial = serial;
  const PatternRow& row = kPatterns[static_cast<std::size_t>(vocabulary.pre_tokenizer)];
  CHECK(row.pre_tokenizer == vocabulary.pre_tokenizer);
  state.code = compile(with_white_space(row.pattern));
  state.keeps_known_words = vocabulary.keeps_known_words.value_or(row.keeps_known_words);
  if (state.keeps_known_words) {
    for (TokenId id = 0; id < vocabulary.pieces.size(); ++id)
      if (vocabulary.is_normal[id]) state.words.emplace(vocabulary.pieces[id], id);
  }
  state.merges.resize(std::bit_ceil(2 * vocabulary.merges.size() + 1));
  for (std::uint32_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const auto& merge = vocabulary.merges[rank];
    const std::uint64_t pair = pair_of(merge.left, merge.right);
    std::size_t at = mix64(pair) & (state.merges.size() - 1);
    while (state.merges[at].pair != UINT64_MAX && state.merges[at].pair != pair)
      at = (at + 1) & (state.merges.size() - 1);
    if (state.merges[at].pair == pair) continue;  // the first rank counts
    state.merges[at] = {pair, rank};
  }
}

ByteLevelBpe::ByteLevelBpe(ByteLevelBpe&&) noexcept = default;
ByteLevelBpe& ByteLevelBpe::operator=(ByteLevelBpe&&) noexcept = default;
ByteLevelBpe::~ByteLevelBpe() = default;

std::optional<PreTokenizer> pre_tokenizer(std::string_view name) {
  const auto row = std::ranges::find(kNames, name, &NameRow::name);
  return row == kNames.end() ? std::nullopt : std::optional(row->pre_tokenizer);
}

std::optional<PreTokenizer> find_pattern(std::string_view regex) {
  for (const PatternRow& row : kPatterns)
    if (published(row.pattern) == regex) return row.pre_tokenizer;
  return std::nullopt;
}

std::size_t ByteLevelBpe::word_end(std::string_view text, std::size_t begin) const {
  Matcher& matcher = Matcher::this_thread();
  const int found =
      pcre2_match(state_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                  PCRE2_NO_UTF_CHECK, matcher.match.get(), matcher.context.get());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(matcher.match.get());
  // Every character begins a match of one of the alternatives; should the library give up, a
  // character alone is a word.
  if (found < 0 || bounds[0] != begin || bounds[1] <= begin)
    return begin + next_utf8(text.substr(begin)).size;
  return bounds[1];
}

void ByteLevelBpe::encode_word(std::string_view word, std::vector<TokenId>& ids) const {
  const State& state = *state_;
  if (state.keeps_known_words) {
    const auto known = state.words.find(word);
    if (known != state.words.end()) {
      ids.push_back(known->second);
      return;
    }
  }
  thread_local std::vector<Symbol> symbols;
  thread_local std::vector<Candidate> heap;
  symbols.clear();
  heap.clear();
  const auto size = static_cast<std::uint32_t>(word.size());
  for (std::uint32_t i = 0; i < size; ++i)
    symbols.push_back({state.vocabulary->byte_ids[static_cast<std::uint8_t>(word[i])], i - 1,
                       i + 1 < size ? i + 1 : kNone});
  const auto add = [&](std::uint32_t at) {
    if (at == kNone || symbols[at].next == kNone) return false;
    const State::Slot* merge = state.find(symbols[at].id, symbols[symbols[at].next].id);
    if (merge != nullptr) heap.push_back(candidate_of(merge->rank, at));
    return merge != nullptr;
  };
  for (std::uint32_t i = 0; i < size; ++i) add(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](std::uint32_t at) {
    if (add(at)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto at = static_cast<std::uint32_t>(heap.back());
    const auto& merge = state.vocabulary->merges[heap.back() >> 32];
    heap.pop_back();
    Symbol& left = symbols[at];
    if (left.id != merge.left || left.next == kNone || symbols[left.next].id != merge.right)
      continue;
    const Symbol right = symbols[left.next];
    symbols[left.next].id = kNone;  // no longer there
    left.id = merge.result;
    left.next = right.next;
    if (right.next != kNone) symbols[right.next].previous = at;
    push(left.previous);
    push(at);
  }
  for (std::uint32_t at = 0; at != kNone; at = symbols[at].next) ids.push_back(symbols[at].id);
}

void ByteLevelBpe::encode(std::string_view text, std::vector<TokenId>& ids) const {
  WordCache& cache = WordCache::this_thread();
  for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end) {
    end = word_end(text, begin);
    const std::string_view word = text.substr(begin, end - begin);
    if (const auto known = cache.find(state_->serial, word); !known.empty()) {
      ids.insert(ids.end(), known.begin(), known.end());
      continue;
    }
    const std::size_t before = ids.size();
    encode_word(word, ids);
    cache.put(state_->serial, word, std::span(ids).subspan(before));
  }
}

}  // namespace sluice::tok
