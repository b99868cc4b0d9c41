// The second half of the completion handler: tokens to text, text to chunks or the whole answer.
#include <algorithm>

#include "gateway/api/json_text.h"
#include "gateway/http/completion_handler.h"
#include "gateway/http/session.h"

namespace sluice::gw {
namespace {

// One write takes at most about so much; what is left stays pending, unaccepted.
constexpr std::size_t kWriteBytesMax = 64 << 10;

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
  if (handler.is_over()) handler.respond_whole();
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
    for (std::uint32_t choice = 0; choice < request_.choices && part.handle; ++choice) {
      if (choices_[part.first_choice + choice].finish != FinishReason::none) continue;
      if (service_.loop.pending(part.handle, choice).empty()) continue;
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

// Takes what is pending of one choice, into `out` when it streams. True when it took something and
// the choice goes on.
bool CompletionHandler::pump(Part& part, std::uint32_t choice, std::string* out) {
  const std::span<const OutputToken> tokens = service_.loop.pending(part.handle, choice);
  if (tokens.empty()) return false;
  const std::size_t index = part.first_choice + choice;
  Choice& state = choices_[index];
  std::uint32_t count = 0;
  bool is_stopped = false;
  FinishReason finish = FinishReason::none;
  for (const OutputToken& token : tokens) {
    ++count;
    ++accepted_;
    is_stopped = take_text(state, token);
    finish = is_stopped ? FinishReason::stop : token.finish;
    if (out != nullptr) {
      write_event(*out, part, static_cast<std::uint32_t>(index), token, finish);
    } else {
      state.text.append(piece_);
      if (request_.return_token_ids) state.ids.push_back(token.id);
    }
    if (finish != FinishReason::none) break;
    if (out != nullptr && out->size() >= kWriteBytesMax) break;
  }
  const bool ends_by_itself = tokens[count - 1].finish != FinishReason::none;
  // Stored in the journal before the bytes reach a socket. The span is void from here on.
  service_.loop.accept(part.handle, choice, count);
  if (finish == FinishReason::none) return true;
  state.finish = finish;
  const bool is_last = --part.choices_left == 0;
  if (is_last) part.stats = service_.loop.stats(part.handle);
  if (!ends_by_itself) service_.loop.stop(part.handle, choice);
  if (is_last) {
    part.handle = {};
    --parts_left_;
  }
  return false;
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
    return false;
  }
  std::string& decoded = service_.scratch;
  decoded.clear();
  state.decoder.push(bytes, decoded);
  if (is_end) state.decoder.finish(decoded);
  if (state.matcher.push(decoded, piece_)) return true;
  if (is_end) state.matcher.finish(piece_);
  return false;
}

void CompletionHandler::write_event(std::string& out, Part& part, std::uint32_t index,
                                    const OutputToken& token, FinishReason finish) {
  Choice& state = choices_[index];
  const Usage now = request_.stream_options.continuous_usage_stats ? usage() : Usage{};
  if (!state.has_role) {
    state.has_role = true;
    if (request_.kind == ApiKind::chat || request_.return_token_ids)
      writer_.role_chunk(out, index, part.prompt, now);
    if (request_.echo) echo_prompt(out, part, index);
  }
  // Held-back text makes no event, unless there is something else to say.
  if (piece_.empty() && finish == FinishReason::none && !request_.return_token_ids) return;
  ++service_.metrics.stream_events;
  writer_.text_chunk(out, index, piece_, finish, std::span(&token.id, 1), now);
}

void CompletionHandler::echo_prompt(std::string& out, Part& part, std::uint32_t index) {
  const PromptInput& prompt = request_.prompts[part.first_choice / request_.choices];
  const Usage now = usage();
  if (!prompt.is_ids)
    return writer_.text_chunk(out, index, prompt.text, FinishReason::none, {}, now);
  const Result<std::string> text = model().tokenizer.decode(prompt.ids);
  writer_.text_chunk(out, index, text ? std::string_view(*text) : std::string_view(),
                     FinishReason::none, {}, now);
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
  std::vector<ChoiceResult> results;
  results.reserve(choices_.size());
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    const Part& part = *parts_[i / request_.choices];
    if (request_.echo) {
      const PromptInput& prompt = request_.prompts[i / request_.choices];
      if (!prompt.is_ids) {
        choice.text.insert(0, prompt.text);
      } else if (const Result<std::string> text = model().tokenizer.decode(prompt.ids); text) {
        choice.text.insert(0, *text);
      }
    }
    results.push_back({.text = choice.text,
                       .finish = choice.finish,
                       .token_ids = choice.ids,
                       .prompt_token_ids = part.prompt});
  }
  const TimingInfo timing{.stats = parts_[0]->stats, .seed = request_.sampling.seed};
  std::string& out = service_.scratch;
  out.clear();
  writer_.body(out, results, parts_[0]->prompt, usage(), request_.wants_timing ? &timing : nullptr);
  end();
  session_.respond_json(out);
}

}  // namespace sluice::gw
