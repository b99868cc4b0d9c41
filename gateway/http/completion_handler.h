// CompletionHandler: one request that generates, from its parsed body to the last byte of its
// answer; also the routes that only count its tokens.
//
//   parse (here or on the pool) -> model, precheck -> bytes against the context
//         -> encode (here or on the pool) -> submit, one generation per prompt -> take tokens ->
//         text -> answer or stream
//
// Where limits are shared with other gateways, a request may wait for their store before it is
// counted or submitted (DecisionLoop::lease).
//
// Log-probabilities are shown of tokens whose text was sent in full: those of a stop string, and of
// text that it cuts, are not. With best_of the likeliest of the sequences are answered, by mean
// log-probability; all are billed.
//
// Tokens are taken from the decision loop only when no write is in flight and accepted before their
// bytes are handed to the socket: what is ready shares one write, and a lone token never waits.
// Inputs of an embeddings request are submitted some at a time, so that one request does not fill
// the queue; one that finds no place behind the request's own waits for them. Event loop only.
// Reused from request to request; idle when no request runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gateway/api/openai_types.h"
#include "gateway/api/write_response.h"
#include "gateway/http/service.h"
#include "tokenizer/stop_matcher.h"
#include "tokenizer/stream_decoder.h"

namespace sluice::gw {

class Session;

class CompletionHandler final : public QuotaWaiter {
 public:
  explicit CompletionHandler(Session& session);
  ~CompletionHandler() override;

  void start_generation(ApiKind kind);
  void start_count();  // POST /v1/chat/completions/input_tokens
  void start_tokenize();
  void start_detokenize();

  bool is_active() const { return stage_ != Stage::idle; }
  bool is_stream() const { return stage_ == Stage::generating && request_.stream; }
  void on_quota() override;
  void on_writable();    // the last write is done
  void on_commit_due();  // no token for so long: status line and a comment
  void cancel(CancelCause cause);
  void fail(const Error& error);  // answered, or told as an event where the answer has begun

 private:
  enum class Stage : std::uint8_t { idle, preparing, generating };  // parsed or encoded; on workers
  enum class Purpose : std::uint8_t { generate, count, tokenize, detokenize };

  // One prompt's generation. The loop keeps a reference to it while its handle lives.
  struct Part final : GenerationSink {
    void on_tokens(std::uint32_t choice) override;
    void on_failed(const Error& error) override;
    CompletionHandler* owner = nullptr;
    GenerationHandle handle;
    std::vector<TokenId> prompt;  // kept only when the answer repeats it
    std::string echo;             // its text, likewise
    bool is_cut = false;          // its text is longer than what was asked
    bool has_scores = false;
    std::vector<float> prompt_logprobs;  // of prompt[1], prompt[2], ...
    std::vector<TopLogprob> prompt_top;  // the same number for each
    std::uint32_t prompt_tokens = 0;
    std::uint32_t choices_left = 0;
    std::size_t first_choice = 0;  // index into choices_
    GenerationStats stats;         // once choices_left is 0
  };
  struct UnsentLogprob {
    TokenId id;
    float logprob;
    std::size_t end;  // bytes of decoded text up to its end
  };
  struct Choice {
    tok::StreamDecoder decoder;
    tok::StopMatcher matcher;
    std::string text;          // whole answers
    std::vector<TokenId> ids;  // whole answers that show them
    FinishReason finish = FinishReason::none;
    bool has_role = false;
    std::size_t decoded_bytes = 0;  // of text
    std::size_t sent_bytes = 0;     // of it, not held back for a stop string
    // Where log-probabilities are shown: those that are not listed yet.
    std::vector<UnsentLogprob> unsent;
    std::vector<TopLogprob> unsent_top;  // the same number for each
    LogprobList logprobs;
    std::uint64_t num_characters = 0;  // before the next token that is listed
    double logprob_sum = 0.0;          // best_of
    std::uint32_t num_tokens = 0;      // likewise
    std::vector<float> embedding;
  };

  void begin_counted(Purpose purpose);
  void begin_parsing(Purpose purpose, ApiKind kind);
  void begin_tokenize();
  void answer_detokenize();
  void on_parsed(Result<void> result);
  void begin_encoding();
  void enqueue_job();
  void on_encoded(Result<void> result);
  void answer_tokenize();
  Result<void> submit_all();
  Result<void> submit_more();
  Result<LeaseState> submit_part(std::size_t index);  // pending: it waits for shared limits
  Result<std::uint32_t> output_tokens(std::size_t& prompt_tokens) const;
  Result<void> count_logprobs(std::uint64_t prompt_tokens, std::uint64_t output_tokens);
  Result<GenerationSpec> make_spec(std::size_t index);
  void begin_writer();
  void pump_all();
  bool pump(Part& part, std::uint32_t choice, std::string* out);
  void end_with_prompt(Part& part, std::uint32_t choice, std::string* out);
  void end_choice(Part& part, std::size_t index, FinishReason finish);
  bool has_news(const Part& part, std::uint32_t choice);
  bool take_text(Choice& state, const OutputToken& token);
  void keep_logprob(Choice& state, const OutputToken& token, std::span<const TopLogprob> top);
  void list_sent(Choice& state);
  void list_prompt(Choice& state, const Part& part);
  void take_prompt_scores(Part& part);
  void write_event(std::string& out, Part& part, std::uint32_t index, std::span<const TokenId> ids,
                   FinishReason finish);
  void respond_whole();
  void respond_embeddings();
  void add_results(const Part& part, std::vector<ChoiceResult>& results);
  void end();
  Usage usage() const;
  bool is_over() const { return parts_left_ == 0; }
  bool is_prompt_all() const {
    return request_.kind == ApiKind::embedding || request_.max_tokens == 0u;
  }
  // Log-probabilities are written as tokens come, but where a prompt stands before them or only
  // some of the sequences are answered.
  bool lists_at_once() const {
    return request_.stream || (!request_.echo && request_.best_of == request_.choices);
  }
  bool wants_prompt_scores() const { return request_.echo && request_.logprobs.has_value(); }
  const ServedModel& model() const { return service_.models[model_]; }

  Session& session_;
  Service& service_;
  Stage stage_ = Stage::idle;
  Purpose purpose_ = Purpose::generate;
  GenerationRequest request_;
  std::uint32_t model_ = 0;
  std::shared_ptr<EncodeJob> job_;            // while the pool has it
  std::vector<std::vector<TokenId>> ids_;     // per prompt
  std::vector<std::unique_ptr<Part>> parts_;  // addresses are stable: the loop refers to them
  std::size_t parts_left_ = 0;                // whose answer is not whole yet
  std::size_t num_submitted_ = 0;
  bool waits_for_quota_ = false;    // on_quota() goes on
  std::uint64_t num_logprobs_ = 0;  // that the answer may have to hold
  std::vector<Choice> choices_;     // prompt * best_of + i
  std::uint32_t accepted_ = 0;      // output tokens, all choices
  std::string piece_;               // new text of a token, reused
  std::string response_id_;
  std::string fingerprint_;
  ResponseWriter writer_;
};

}  // namespace sluice::gw
