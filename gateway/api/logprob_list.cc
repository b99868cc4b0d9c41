// Token texts, bytes and numbers.
#include "gateway/api/logprob_list.h"

#include <algorithm>
#include <array>

#include "gateway/api/json_text.h"
#include "tokenizer/utf8.h"

namespace sluice::gw {
namespace {

constexpr float kLogprobMin = -9999.0f;

void append_logprob(std::string& out, float logprob) {
  append_float(out, std::max(logprob, kLogprobMin));
}

void append_lossy(std::string& out, std::string_view bytes) {
  out.push_back('"');
  if (tok::is_valid_utf8(bytes)) {
    append_json_escaped(out, bytes);
  } else {
    std::string text;
    tok::append_valid_utf8(bytes, text);
    append_json_escaped(out, text);
  }
  out.push_back('"');
}

// Different bytes, different strings.
void append_key(std::string& out, std::string_view bytes) {
  constexpr char kHex[] = "0123456789abcdef";
  if (tok::is_valid_utf8(bytes)) return append_json_string(out, bytes);
  out.append("\"bytes:");
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    const char escaped[5] = {'\\', '\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    out.append(escaped, sizeof escaped);
  }
  out.push_back('"');
}

// "token", "logprob" and "bytes" of an object that stays open.
void append_chat_token(std::string& out, const tok::Tokenizer& tokenizer, TokenId id,
                       float logprob) {
  const std::string_view text = tokenizer.token_text(id);
  out.append("{\"token\":");
  append_lossy(out, text);
  out.append(",\"logprob\":");
  append_logprob(out, logprob);
  out.append(",\"bytes\":");
  if (tokenizer.is_special(id)) {
    out.append("null");  // it adds nothing to the text
    return;
  }
  out.push_back('[');
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_integer(out, static_cast<unsigned>(static_cast<unsigned char>(text[i])));
  }
  out.push_back(']');
}

}  // namespace

void LogprobList::begin(ApiKind kind, std::uint32_t num_top) {
  kind_ = kind;
  num_top_ = num_top;
  clear();
}

void LogprobList::clear() {
  num_tokens_ = 0;
  tokens_.clear();
  logprobs_.clear();
  top_.clear();
  offsets_.clear();
}

void LogprobList::add(const tok::Tokenizer& tokenizer, const TokenLogprob& token,
                      std::uint64_t offset) {
  if (num_tokens_++ > 0)
    for (std::string* const list : {&tokens_, &logprobs_, &top_, &offsets_}) list->push_back(',');
  if (kind_ == ApiKind::chat) return add_chat(tokenizer, token);
  append_key(tokens_, tokenizer.token_text(token.id));
  append_integer(offsets_, offset);
  if (!token.logprob) {
    logprobs_.append("null");
    top_.append("null");
    return;
  }
  append_logprob(logprobs_, *token.logprob);
  add_alternatives(tokenizer, token);
}

void LogprobList::add_chat(const tok::Tokenizer& tokenizer, const TokenLogprob& token) {
  append_chat_token(tokens_, tokenizer, token.id, token.logprob.value_or(0.0f));
  tokens_.append(",\"top_logprobs\":[");
  for (std::size_t i = 0; i < token.top.size(); ++i) {
    if (i > 0) tokens_.push_back(',');
    append_chat_token(tokens_, tokenizer, token.top[i].token, token.top[i].logprob);
    tokens_.push_back('}');
  }
  tokens_.append("]}");
}

// The chosen token is always among them, so there may be one more than asked for. Of two tokens
// with the same text the likelier one stays: keys are unique.
void LogprobList::add_alternatives(const tok::Tokenizer& tokenizer, const TokenLogprob& token) {
  std::array<std::string_view, kTopLogprobsMax + 1> texts;
  std::size_t num_texts = 0;
  const auto append = [&](TokenId id, float logprob) {
    const std::string_view text = tokenizer.token_text(id);
    const auto end = texts.begin() + static_cast<std::ptrdiff_t>(num_texts);
    if (num_texts == texts.size() || std::find(texts.begin(), end, text) != end) return;
    if (num_texts > 0) top_.push_back(',');
    texts[num_texts++] = text;
    append_key(top_, text);
    top_.push_back(':');
    append_logprob(top_, logprob);
  };
  top_.push_back('{');
  for (const TopLogprob& top : token.top) append(top.token, top.logprob);
  append(token.id, *token.logprob);
  top_.push_back('}');
}

void LogprobList::append_to(std::string& out) const {
  if (kind_ == ApiKind::chat) {
    out.append("{\"content\":[").append(tokens_).append("],\"refusal\":null}");
    return;
  }
  out.append("{\"tokens\":[").append(tokens_).append("],\"token_logprobs\":[");
  out.append(logprobs_).append("],\"top_logprobs\":");
  if (num_top_ == 0)
    out.append("null");
  else
    out.append("[").append(top_).append("]");
  out.append(",\"text_offset\":[").append(offsets_).append("]}");
}

}  // namespace sluice::gw
