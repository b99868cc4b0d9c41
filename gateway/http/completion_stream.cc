// The second half of the completion handler: tokens to text, text to chunks or the whole answer.
#include <algorithm>
#include <functional>
#include <utility>

#include "gateway/api/json_text.h"
#include "gateway/http/completion_handler.h"
#include "gateway/http/session.h"

namespace sluice::gw {
namespace {

// One write takes at most about so much; what is left stays pending, unaccepted.
constexpr std::size_t kWriteBytesMax = 64 << 10;

// Of UTF-8, whole or in pieces: each character counts where it begins.
std::uint64_t num_characters(std::string_view bytes) {
  return static_cast<std::uint64_t>(std::ranges::count_if(
      bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u; }));
}

}  // namespace

void CompletionHandler::Part::on_tokens(std::uint32_t choice) {
  CompletionHandler& handler = *owner;
  if (handler.request_.stream) {
    // All choices at once: their tokens of this batch share the write.
    if (!handler.session_.is_writing()) handler.pump_all();
    return;
  }
  while (handle && handler.pump(*this, choice, nullptr)) {
  }
  if (handler.is_over()) return handler.respond_whole();
  if (const Result<void> more = handler.submit_more(); !more) handler.fail(more.error());
}

void CompletionHandler::Part::on_failed(const Error& error) {
  handle = {};
  owner->fail(error);
}

void CompletionHandler::on_writable() {
  if (stage_ == Stage::generating && request_.stream) pump_all();
}

void CompletionHandler::on_commit_due() {
  if (!session_.has_begun()) session_.begin_stream();
  session_.begin_chunk().append(": waiting\n\n");
  session_.end_chunk();
  session_.flush();
}

void CompletionHandler::pump_all() {
  std::string* out = nullptr;
  const auto open = [&]() -> std::string& {
    if (out == nullptr) {
      if (!session_.has_begun()) session_.begin_stream();
      out = &session_.begin_chunk();
    }
    return *out;
  };
  for (std::size_t i = 0; i < parts_.size() && stage_ == Stage::generating; ++i) {
    Part& part = *parts_[i];
    for (std::uint32_t choice = 0; choice < request_.best_of && part.handle; ++choice) {
      if (choices_[part.first_choice + choice].finish != FinishReason::none) continue;
      if (!has_news(part, choice)) continue;
      while (part.handle && open().size() < kWriteBytesMax && pump(part, choice, &open())) {
      }
    }
  }
  if (out == nullptr) return;
  if (!is_over()) {
    session_.end_chunk();
    return session_.flush();
  }
  const TimingInfo timing{.stats = parts_[0]->stats, .seed = request_.sampling.seed};
  if (request_.stream_options.include_usage || request_.wants_timing)
    writer_.closing_chunk(*out, usage(), request_.wants_timing ? &timing : nullptr);
  writer_.done(*out);
  session_.end_chunk();
  end();
  session_.finish_stream();
}

// The log-probabilities of a prompt come with its first choice: the others wait for them.
bool CompletionHandler::has_news(const Part& part, std::uint32_t choice) {
  if (choice > 0 && wants_prompt_scores() && !part.has_scores) return false;
  if (!service_.loop.pending(part.handle, choice).empty()) return true;
  return is_prompt_all() &&
         service_.loop.prompt_result(part.handle, choice).finish != FinishReason::none;
}

// Takes what is pending of one choice, into `out` when it streams. True when it took something and
// the choice goes on.
bool CompletionHandler::pump(Part& part, std::uint32_t choice, std::string* out) {
  const std::span<const OutputToken> tokens = service_.loop.pending(part.handle, choice);
  if (tokens.empty()) {
    if (is_prompt_all()) end_with_prompt(part, choice, out);
    return false;
  }
  if (choice == 0 && wants_prompt_scores()) take_prompt_scores(part);
  std::span<const TopLogprob> top;
  if (request_.logprobs) top = service_.loop.pending_top(part.handle, choice);
  const std::size_t num_top = top.size() / tokens.size();
  const std::size_t index = part.first_choice + choice;
  Choice& state = choices_[index];
  std::uint32_t count = 0;
  bool is_stopped = false;
  FinishReason finish = FinishReason::none;
  for (const OutputToken& token : tokens) {
    ++accepted_;
    is_stopped = take_text(state, token);
    finish = is_stopped ? FinishReason::stop : token.finish;
    if (request_.logprobs) keep_logprob(state, token, top.subspan(count * num_top, num_top));
    ++count;
    if (request_.logprobs && lists_at_once()) list_sent(state);
    if (out != nullptr) {
      write_event(*out, part, static_cast<std::uint32_t>(index), std::span(&token.id, 1), finish);
    } else {
      state.text.append(piece_);
      state.logprob_sum += double{token.logprob};
      ++state.num_tokens;
      if (request_.return_token_ids) state.ids.push_back(token.id);
    }
    if (finish != FinishReason::none) break;
    if (out != nullptr && out->size() >= kWriteBytesMax) break;
  }
  const bool ends_by_itself = tokens[count - 1].finish != FinishReason::none;
  // Stored in the journal before the bytes reach a socket. The span is void from here on.
  service_.loop.accept(part.handle, choice, count);
  if (finish == FinishReason::none) return true;
  if (part.choices_left == 1) part.stats = service_.loop.stats(part.handle);
  if (!ends_by_itself) service_.loop.stop(part.handle, choice);
  end_choice(part, index, finish);
  return false;
}

void CompletionHandler::end_choice(Part& part, std::size_t index, FinishReason finish) {
  choices_[index].finish = finish;
  if (--part.choices_left > 0) return;
  part.handle = {};
  --parts_left_;
}

// Nothing follows the prompt: an embedding, or its echo alone.
void CompletionHandler::end_with_prompt(Part& part, std::uint32_t choice, std::string* out) {
  const PromptResult result = service_.loop.prompt_result(part.handle, choice);
  if (result.finish == FinishReason::none) return;
  const std::size_t index = part.first_choice + choice;
  choices_[index].embedding.assign(result.embedding.begin(), result.embedding.end());
  if (choice == 0 && wants_prompt_scores()) take_prompt_scores(part);
  piece_.clear();
  if (out != nullptr)
    write_event(*out, part, static_cast<std::uint32_t>(index), {}, FinishReason::length);
  service_.loop.accept(part.handle, choice, 0);
  if (part.choices_left == 1) part.stats = service_.loop.stats(part.handle);
  end_choice(part, index, FinishReason::length);
}

// The new text that may be sent goes to piece_. True when it completes a stop string.
bool CompletionHandler::take_text(Choice& state, const OutputToken& token) {
  piece_.clear();
  const bool is_end = token.finish != FinishReason::none;
  // The id that stops a sequence is counted and billed, but is no text.
  const bool is_stop_id = token.finish == FinishReason::stop;
  const std::string_view bytes =
      is_stop_id ? std::string_view() : model().tokenizer.piece_bytes(token.id);
  if (request_.stop.empty()) {
    state.decoder.push(bytes, piece_);
    if (is_end) state.decoder.finish(piece_);
    state.decoded_bytes += piece_.size();
    state.sent_bytes = state.decoded_bytes;
    return false;
  }
  std::string& decoded = service_.scratch;
  decoded.clear();
  state.decoder.push(bytes, decoded);
  if (is_end) state.decoder.finish(decoded);
  state.decoded_bytes += decoded.size();
  const bool is_stopped = state.matcher.push(decoded, piece_);
  if (!is_stopped && is_end) state.matcher.finish(piece_);
  state.sent_bytes += piece_.size();
  return is_stopped;
}

// A token that ends inside a character is sent with the rest of it. The id that stops a sequence is
// not shown.
void CompletionHandler::keep_logprob(Choice& state, const OutputToken& token,
                                     std::span<const TopLogprob> top) {
  if (token.finish == FinishReason::stop) return;
  const std::size_t rest = state.decoder.held_bytes() > 0 ? 1 : 0;
  state.unsent.push_back({token.id, token.logprob, state.decoded_bytes + rest});
  state.unsent_top.insert(state.unsent_top.end(), top.begin(), top.end());
}

// Moves the tokens whose text was sent to the list.
void CompletionHandler::list_sent(Choice& state) {
  if (state.unsent.empty()) return;
  const std::size_t num_top = state.unsent_top.size() / state.unsent.size();
  const std::span<const TopLogprob> top = state.unsent_top;
  std::size_t count = 0;
  for (; count < state.unsent.size() && state.unsent[count].end <= state.sent_bytes; ++count) {
    const UnsentLogprob& token = state.unsent[count];
    state.logprobs.add(model().tokenizer,
                       {token.id, token.logprob, top.subspan(count * num_top, num_top)},
                       state.num_characters);
    state.num_characters += num_characters(model().tokenizer.piece_bytes(token.id));
  }
  const auto listed = static_cast<std::ptrdiff_t>(count);
  state.unsent.erase(state.unsent.begin(), state.unsent.begin() + listed);
  state.unsent_top.erase(state.unsent_top.begin(),
                         state.unsent_top.begin() + listed * static_cast<std::ptrdiff_t>(num_top));
}

void CompletionHandler::take_prompt_scores(Part& part) {
  if (std::exchange(part.has_scores, true)) return;
  const PromptResult result = service_.loop.prompt_result(part.handle, 0);
  part.prompt_logprobs.assign(result.logprobs.begin(), result.logprobs.end());
  part.prompt_top.assign(result.top.begin(), result.top.end());
}

// The prompt's tokens in front of the output's. Pieces may hold a space that the text has not (the
// tokenizer's dummy prefix).
void CompletionHandler::list_prompt(Choice& state, const Part& part) {
  const tok::Tokenizer& tokenizer = model().tokenizer;
  std::uint64_t in_pieces = 0;
  for (const TokenId id : part.prompt) in_pieces += num_characters(tokenizer.piece_bytes(id));
  const std::uint64_t in_text = num_characters(part.echo);
  const std::uint64_t dropped = in_pieces > in_text ? in_pieces - in_text : 0;
  const std::size_t num_scores = part.prompt_logprobs.size();
  const std::size_t num_top = num_scores > 0 ? part.prompt_top.size() / num_scores : 0;
  std::uint64_t before = 0;
  for (std::size_t i = 0; i < part.prompt.size(); ++i) {
    TokenLogprob token{part.prompt[i], std::nullopt, {}};
    if (i > 0 && i <= num_scores) {
      token.logprob = part.prompt_logprobs[i - 1];
      token.top = std::span(part.prompt_top).subspan((i - 1) * num_top, num_top);
    }
    state.logprobs.add(tokenizer, token, before > dropped ? before - dropped : 0);
    before += num_characters(tokenizer.piece_bytes(part.prompt[i]));
  }
  state.num_characters = in_text;
}

void CompletionHandler::write_event(std::string& out, Part& part, std::uint32_t index,
                                    std::span<const TokenId> ids, FinishReason finish) {
  Choice& state = choices_[index];
  const Usage now = request_.stream_options.continuous_usage_stats ? usage() : Usage{};
  if (!state.has_role) {
    state.has_role = true;
    if (request_.kind == ApiKind::chat || request_.return_token_ids)
      writer_.role_chunk(out, index, part.prompt, now);
    if (request_.echo) {
      LogprobList prompt_list;
      std::swap(prompt_list, state.logprobs);
      state.logprobs.begin(request_.kind, request_.logprobs.value_or(0));
      if (request_.logprobs) list_prompt(state, part);
      writer_.text_chunk(out, index, {.text = part.echo, .logprobs = &state.logprobs}, now);
      std::swap(prompt_list, state.logprobs);
    }
  }
  // Held-back text makes no event, unless there is something else to say.
  const bool is_silent =
      piece_.empty() && finish == FinishReason::none && state.logprobs.is_empty();
  if (is_silent && !request_.return_token_ids) return;
  ++service_.metrics.stream_events;
  writer_.text_chunk(
      out, index, {.text = piece_, .finish = finish, .ids = ids, .logprobs = &state.logprobs}, now);
  state.logprobs.clear();
}

Usage CompletionHandler::usage() const {
  Usage sum;
  sum.completion_tokens = accepted_;
  for (const auto& part : parts_) {
    sum.prompt_tokens += part->prompt_tokens;
    sum.cached_tokens += part->handle ? 0 : part->stats.cached_tokens;
  }
  return sum;
}

void CompletionHandler::respond_whole() {
  if (request_.kind == ApiKind::embedding) return respond_embeddings();
  std::vector<ChoiceResult> results;
  results.reserve(choices_.size());
  for (std::size_t i = 0; i < ids_.size(); ++i) add_results(*parts_[i], results);
  const TimingInfo timing{.stats = parts_[0]->stats, .seed = request_.sampling.seed};
  std::string& out = service_.scratch;
  out.clear();
  writer_.body(out, results, parts_[0]->prompt, usage(), request_.wants_timing ? &timing : nullptr);
  end();
  session_.respond_json(out);
}

// All choices of a prompt, or the likeliest of its sequences (the first among equals).
void CompletionHandler::add_results(const Part& part, std::vector<ChoiceResult>& results) {
  std::vector<Choice*> order;
  for (std::size_t i = 0; i < request_.best_of; ++i)
    order.push_back(&choices_[part.first_choice + i]);
  if (request_.best_of > request_.choices) {
    const auto mean = [](const Choice* choice) {
      return choice->num_tokens > 0 ? choice->logprob_sum / choice->num_tokens : 0.0;
    };
    std::ranges::stable_sort(order, std::ranges::greater{}, mean);
    order.resize(request_.choices);
  }
  for (Choice* const choice : order) {
    if (request_.echo) choice->text.insert(0, part.echo);
    if (wants_prompt_scores()) list_prompt(*choice, part);
    list_sent(*choice);
    results.push_back({.text = choice->text,
                       .finish = choice->finish,
                       .token_ids = choice->ids,
                       .prompt_token_ids = part.prompt,
                       .logprobs = request_.logprobs ? &choice->logprobs : nullptr});
  }
}

void CompletionHandler::respond_embeddings() {
  std::vector<EmbeddingResult> results;
  results.reserve(choices_.size());
  for (const Choice& choice : choices_) results.push_back({choice.embedding});
  std::string& out = service_.scratch;
  out.clear();
  append_embeddings(out, model().config.name, results, request_.encoding_format,
                    usage().prompt_tokens);
  end();
  session_.respond_json(out);
}

}  // namespace sluice::gw
