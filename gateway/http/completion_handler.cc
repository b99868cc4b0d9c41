// From the parsed body to submitted generations, and the routes that only count.
#include "gateway/http/completion_handler.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <utility>

#include "gateway/api/error_response.h"
#include "gateway/api/json_text.h"
#include "gateway/http/session.h"
#include "shared/limits.h"

namespace sluice::gw {
namespace {

// A whole number in a header. Errors: invalid_value.
template <class Int>
Result<std::optional<Int>> header_number(std::string_view text, Int low, Int high,
                                         const char* name) {
  if (text.empty()) return std::optional<Int>();
  Int value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
    return make_error(Errc::invalid_value,
                      std::string("the header '") + name + "' must be a whole number from " +
                          std::to_string(low) + " to " + std::to_string(high),
                      name);
  return std::optional<Int>(value);
}

// Each id once.
void add_stop_ids(GenerationSpec& spec, std::span<const TokenId> ids) {
  for (const TokenId id : ids)
    if (std::find(spec.stop_ids.begin(), spec.stop_ids.end(), id) == spec.stop_ids.end())
      spec.stop_ids.push_back(id);
}

// Inputs of one embeddings request that wait or run at once.
constexpr std::size_t kInputsUnderWayMax = 128;

Result<void> check_embedding(const Service& service, std::uint32_t model,
                             const GenerationRequest& request) {
  const std::uint32_t size = service.loop.model_facts(model).embedding_size;
  if (size == 0)
    return make_error(
        Errc::unsupported_parameter,
        "the model '" + service.models[model].config.name + "' serves no embeddings on its device",
        "model");
  if (request.dimensions.value_or(size) != size)
    return make_error(Errc::invalid_value,
                      "'dimensions' must be " + std::to_string(size) + " for this model",
                      "dimensions");
  if (std::uint64_t{request.prompts.size()} * size > kAnswerEmbeddingValuesMax)
    return make_error(Errc::invalid_value,
                      "'input' must be a list of at most " +
                          std::to_string(kAnswerEmbeddingValuesMax / size) +
                          " entries for this model",
                      "input");
  return {};
}

}  // namespace

CompletionHandler::CompletionHandler(Session& session)
    : session_(session), service_(session.service()) {}

CompletionHandler::~CompletionHandler() {
  cancel(CancelCause::client_gone);
}

void CompletionHandler::start_generation(ApiKind kind) {
  begin_parsing(Purpose::generate, kind);
}

void CompletionHandler::start_count() {
  begin_counted(Purpose::count);
}

void CompletionHandler::start_tokenize() {
  begin_counted(Purpose::tokenize);
}

void CompletionHandler::start_detokenize() {
  begin_counted(Purpose::detokenize);
}

// Routes that generate nothing count as a request.
void CompletionHandler::begin_counted(Purpose purpose) {
  purpose_ = purpose;
  stage_ = Stage::preparing;
  const Result<LeaseState> leased = service_.loop.lease_count(session_.caller(), *this);
  if (!leased) return fail(leased.error());
  waits_for_quota_ = *leased == LeaseState::pending;
  if (waits_for_quota_) return;
  if (const Result<void> counted = service_.loop.count_request(session_.caller()); !counted)
    return fail(counted.error());
  if (purpose == Purpose::count) return begin_parsing(Purpose::count, ApiKind::chat);
  if (purpose == Purpose::tokenize) return begin_tokenize();
  answer_detokenize();
}

void CompletionHandler::on_quota() {
  waits_for_quota_ = false;
  if (purpose_ != Purpose::generate) return begin_counted(purpose_);
  if (const Result<void> submitted = submit_more(); !submitted) fail(submitted.error());
}

// ---- the body

void CompletionHandler::begin_parsing(Purpose purpose, ApiKind kind) {
  purpose_ = purpose;
  stage_ = Stage::preparing;
  if (session_.body().size() > kInlineParseBytesMax && service_.pool) {
    job_ = std::make_shared<EncodeJob>();
    job_->work = EncodeJob::Work::parse;
    job_->body = std::move(session_.body());
    job_->kind = kind;
    job_->hash_seed = service_.ids.next();
    job_->on_done = [this](EncodeJob& job) {
      request_ = std::move(job.request);
      const Result<void> result = std::move(job.result);
      job_.reset();
      on_parsed(result);
    };
    return enqueue_job();
  }
  const Tick started = service_.clock.now();
  const Result<void> parsed = service_.parser.parse_generation(session_.body(), kind, request_);
  service_.metrics.parse_ns += static_cast<std::uint64_t>((service_.clock.now() - started).count());
  on_parsed(parsed);
}

void CompletionHandler::on_parsed(Result<void> result) {
  if (!result) return fail(result.error());
  const Result<std::uint32_t> model = service_.find_model(request_.model, session_.tenant());
  if (!model) return fail(model.error());
  model_ = *model;
  service_.models[model_].generation.apply_to(request_);
  if (purpose_ == Purpose::generate)
    if (const Result<void> open = service_.loop.precheck(session_.caller(), model_); !open)
      return fail(open.error());
  if (request_.kind == ApiKind::embedding)
    if (const Result<void> served = check_embedding(service_, model_, request_); !served)
      return fail(served.error());
  begin_encoding();
}

// The pool answers by the job's on_done, or refuses it now.
void CompletionHandler::enqueue_job() {
  job_->tenant = session_.tenant();
  ++service_.metrics.pool_jobs;
  if (const Result<void> queued = service_.pool->submit(job_); !queued) {
    const std::shared_ptr<EncodeJob> refused = std::move(job_);
    request_ = std::move(refused->request);
    fail(queued.error());
  }
}

void CompletionHandler::begin_tokenize() {
  TokenizeRequest asked;
  if (const Result<void> parsed = service_.parser.parse_tokenize(session_.body(), asked); !parsed)
    return fail(parsed.error());
  const Result<std::uint32_t> model = service_.find_model(asked.model, session_.tenant());
  if (!model) return fail(model.error());
  model_ = *model;
  request_.reset(asked.prompt ? ApiKind::completion : ApiKind::chat);
  request_.messages = std::move(asked.messages);
  request_.add_special_tokens = asked.add_special_tokens;
  request_.add_generation_prompt = asked.add_generation_prompt;
  request_.continue_final_message = asked.continue_final_message;
  if (asked.prompt) request_.prompts.emplace_back().text = std::move(*asked.prompt);
  begin_encoding();
}

void CompletionHandler::answer_detokenize() {
  DetokenizeRequest asked;
  if (const Result<void> parsed = service_.parser.parse_detokenize(session_.body(), asked); !parsed)
    return fail(parsed.error());
  const Result<std::uint32_t> model = service_.find_model(asked.model, session_.tenant());
  if (!model) return fail(model.error());
  const ServedModel& served = service_.models[*model];
  if (asked.tokens.size() > service_.context_tokens(*model))
    return fail(make_error(Errc::context_length_exceeded, "more tokens than the model's context",
                           "tokens"));
  Result<std::string> text = served.tokenizer.decode(asked.tokens);
  if (!text) {
    Error error = text.error();
    error.param = "tokens";
    return fail(error);
  }
  std::string& out = service_.scratch;
  out.assign("{\"prompt\":");
  append_json_string(out, *text);
  out.push_back('}');
  end();
  session_.respond_json(out);
}

// ---- tokens of the prompts

void CompletionHandler::begin_encoding() {
  stage_ = Stage::preparing;
  request_.unix_s = service_.unix_s();
  const std::uint32_t context = service_.context_tokens(model_);
  if (const Result<void> fits = check_text_bytes(model(), context, request_); !fits)
    return on_encoded(fits.error());
  if (encoding_cost(request_) <= service_.config.tokenizing.inline_bytes_max || !service_.pool)
    return on_encoded(encode_prompts(model(), request_, ids_));
  job_ = std::make_shared<EncodeJob>();
  job_->model = &model();
  job_->request = std::move(request_);
  job_->on_done = [this](EncodeJob& job) {
    request_ = std::move(job.request);
    ids_ = std::move(job.ids);
    const Result<void> result = std::move(job.result);
    job_.reset();
    on_encoded(result);
  };
  enqueue_job();
}

void CompletionHandler::on_encoded(Result<void> result) {
  if (!result) return fail(result.error());
  if (purpose_ != Purpose::generate) return answer_tokenize();
  if (const Result<void> submitted = submit_all(); !submitted) return fail(submitted.error());
  stage_ = Stage::generating;
}

void CompletionHandler::answer_tokenize() {
  std::string& out = service_.scratch;
  if (purpose_ == Purpose::count) {
    out.assign("{\"object\":\"response.input_tokens\",\"input_tokens\":");
    append_integer(out, ids_[0].size());
    out.push_back('}');
  } else {
    out.assign("{\"count\":");
    append_integer(out, ids_[0].size());
    out.append(",\"max_model_len\":");
    append_integer(out, service_.context_tokens(model_));
    out.append(",\"tokens\":");
    append_token_ids(out, ids_[0]);
    out.append(",\"token_strs\":null}");
  }
  end();
  session_.respond_json(out);
}

// ---- submission

// How many tokens each choice may produce; cuts `ids` where the request asked for it.
Result<std::uint32_t> CompletionHandler::output_tokens(std::size_t& prompt_tokens) const {
  const cfg::TenantLimits& limits = service_.limits(session_.tenant());
  const std::uint32_t context = service_.context_tokens(model_);
  std::uint32_t output = request_.kind == ApiKind::embedding
                             ? 0
                             : request_.max_tokens.value_or(limits.output_tokens_default);
  if (const cfg::Limit most = limits.output_tokens_max; most && output > *most && !limits.shadow) {
    if (request_.max_tokens || *most == 0)
      return make_error(
          Errc::invalid_value,
          "'max_tokens' must be at most " + std::to_string(*most) + " for this API key",
          "max_tokens");
    output = static_cast<std::uint32_t>(*most);
  }
  if (request_.truncate_prompt_tokens) {
    const std::int64_t asked = *request_.truncate_prompt_tokens;
    const std::size_t keep = asked > 0          ? static_cast<std::size_t>(asked)
                             : context > output ? context - output
                                                : 1;
    prompt_tokens = std::min(prompt_tokens, keep);
  }
  const std::uint64_t room = context > prompt_tokens ? context - prompt_tokens : 0;
  const bool is_too_long = is_prompt_all() ? prompt_tokens > context
                                           : room == 0 || (request_.max_tokens && output > room);
  if (is_too_long)
    return make_error(Errc::context_length_exceeded,
                      "the model's context is " + std::to_string(context) +
                          " tokens; the prompt has " + std::to_string(prompt_tokens) + " and " +
                          std::to_string(request_.max_tokens.value_or(is_prompt_all() ? 0 : 1)) +
                          " were asked for in the completion",
                      prompt_field(request_.kind));
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(output, room));
}

// A stream sends those of a token when it comes and holds those of its prompt alone; a whole answer
// repeats the prompt's for each choice.
Result<void> CompletionHandler::count_logprobs(std::uint64_t prompt_tokens,
                                               std::uint64_t output_tokens) {
  if (!request_.logprobs) return {};
  std::uint64_t tokens = request_.stream ? 0 : output_tokens * request_.best_of;
  if (wants_prompt_scores()) tokens += prompt_tokens * (request_.stream ? 1 : request_.choices);
  num_logprobs_ += tokens * (1 + *request_.logprobs);
  if (num_logprobs_ <= kAnswerLogprobsMax) return {};
  return make_error(Errc::invalid_value,
                    "the answer could hold more than " + std::to_string(kAnswerLogprobsMax) +
                        " log-probabilities; ask for fewer alternatives or tokens" +
                        (request_.stream ? "" : ", or for a stream"),
                    "logprobs");
}

Result<GenerationSpec> CompletionHandler::make_spec(std::size_t index) {
  GenerationSpec spec;
  std::vector<TokenId>& ids = ids_[index];
  if (ids.empty())
    return make_error(Errc::invalid_value, "the prompt must hold at least one token",
                      prompt_field(request_.kind));
  std::size_t prompt_tokens = ids.size();
  const Result<std::uint32_t> output = output_tokens(prompt_tokens);
  if (!output) return output.error();
  ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(prompt_tokens));
  if (const Result<void> counted = count_logprobs(prompt_tokens, *output); !counted)
    return counted.error();

  const tok::Vocabulary& vocabulary = model().tokenizer.vocabulary();
  for (std::size_t i = 0; i < request_.stop_token_ids.size(); ++i)
    if (request_.stop_token_ids[i] >= vocabulary.size)
      return make_error(Errc::invalid_value,
                        "token ids are below " + std::to_string(vocabulary.size),
                        "stop_token_ids[" + std::to_string(i) + "]");
  for (const LogitBias& bias : request_.logit_bias)
    if (bias.token >= vocabulary.size)
      return make_error(Errc::invalid_value,
                        "token ids are below " + std::to_string(vocabulary.size),
                        "logit_bias." + std::to_string(bias.token));

  const RequestHead& head = session_.head();
  const Result<std::optional<std::int64_t>> deadline =
      header_number<std::int64_t>(head.deadline_ms, 1, 86'400'000, "x-sluice-deadline-ms");
  if (!deadline) return deadline.error();
  const Result<std::optional<std::int64_t>> priority = header_number<std::int64_t>(
      head.priority, 0, std::numeric_limits<std::int32_t>::max(), "x-sluice-priority");
  if (!priority) return priority.error();

  spec.tenant = session_.tenant();
  spec.key = session_.caller().key;
  spec.model = model_;
  spec.sampling = request_.sampling;
  if (request_.sampling.ignore_eos == 0) {
    if (vocabulary.eos) spec.stop_ids.push_back(*vocabulary.eos);
    add_stop_ids(spec, model().generation.eos_ids);
    if (request_.kind == ApiKind::chat) add_stop_ids(spec, model().chat_template.stop_ids());
  }
  add_stop_ids(spec, request_.stop_token_ids);
  spec.bias = request_.logit_bias;
  spec.choices = request_.best_of;
  if (request_.kind == ApiKind::embedding) spec.task = SequenceTask::embed;
  if (wants_prompt_scores()) spec.prompt_scores = PromptScores::wanted;
  if (request_.logprobs || request_.best_of > request_.choices) spec.sampling.wants_logprob = 1;
  spec.sampling.num_top_logprobs = static_cast<std::uint16_t>(request_.logprobs.value_or(0));
  spec.output_tokens_max = *output;
  // The smallest value, and so the most urgent, that the tenant may ask for is its ceiling.
  const std::int64_t asked = (*priority).value_or(std::int64_t{request_.priority.value_or(0)});
  spec.priority = static_cast<std::uint32_t>(
      std::max(std::max<std::int64_t>(asked, 0),
               std::int64_t{service_.tenant(session_.tenant()).priority_ceiling}));
  spec.delivery = request_.stream ? Delivery::streamed : Delivery::whole;
  spec.arrival = session_.arrival();
  if (*deadline) spec.deadline = session_.arrival() + std::chrono::milliseconds(**deadline);
  if (request_.sampling.min_tokens > spec.output_tokens_max)
    return make_error(Errc::invalid_value,
                      "'min_tokens' must be at most " + std::to_string(spec.output_tokens_max),
                      "min_tokens");
  return spec;
}

Result<void> CompletionHandler::submit_all() {
  if (!request_.has_seed) request_.sampling.seed = service_.ids.next();
  const std::size_t num_prompts = ids_.size();
  const std::size_t num_choices = num_prompts * request_.best_of;
  choices_.clear();
  choices_.resize(num_choices);
  if (!request_.stop.empty())
    for (Choice& choice : choices_) choice.matcher = tok::StopMatcher(request_.stop);
  if (request_.logprobs)
    for (Choice& choice : choices_) choice.logprobs.begin(request_.kind, *request_.logprobs);
  parts_.resize(num_prompts);
  for (auto& part : parts_) {
    if (!part) part = std::make_unique<Part>();
    part->is_cut = false;
  }
  accepted_ = 0;
  parts_left_ = num_prompts;
  num_submitted_ = 0;
  num_logprobs_ = 0;
  begin_writer();
  return submit_more();
}

Result<void> CompletionHandler::submit_more() {
  const auto num_under_way = [this] {
    return num_submitted_ - (ids_.size() - parts_left_);  // those that are over were submitted
  };
  const std::size_t most = request_.kind == ApiKind::embedding ? kInputsUnderWayMax : ids_.size();
  while (!waits_for_quota_ && num_submitted_ < ids_.size() && num_under_way() < most) {
    const Result<LeaseState> submitted = submit_part(num_submitted_);
    if (submitted) {
      waits_for_quota_ = *submitted == LeaseState::pending;
      if (!waits_for_quota_) ++num_submitted_;
      continue;
    }
    const Errc code = submitted.error().code;
    const bool is_full = code == Errc::concurrency_limit || code == Errc::overloaded;
    if (request_.kind == ApiKind::embedding && is_full && num_under_way() > 0) return {};
    return submitted.error();
  }
  return {};
}

Result<LeaseState> CompletionHandler::submit_part(std::size_t index) {
  std::vector<TokenId>& ids = ids_[index];
  const std::size_t num_ids = ids.size();
  const std::uint64_t num_logprobs = num_logprobs_;
  Result<GenerationSpec> spec = make_spec(index);
  if (!spec) return spec.error();
  Part& part = *parts_[index];
  part.owner = this;
  part.is_cut |= ids.size() != num_ids;  // also when it was tried before
  part.prompt_tokens = static_cast<std::uint32_t>(ids.size());
  part.choices_left = request_.best_of;
  part.first_choice = index * request_.best_of;
  part.has_scores = false;
  part.stats = {};
  part.prompt.clear();
  if (request_.return_token_ids || request_.echo) part.prompt = ids;
  if (request_.echo) {
    const bool is_text = !request_.prompts[index].is_ids && !part.is_cut;
    part.echo = is_text ? request_.prompts[index].text
                        : model().tokenizer.decode(ids).value();  // ids were checked
  }
  // Kept where it may have to be submitted again.
  if (request_.kind == ApiKind::embedding)
    spec->prompt = ids;
  else
    spec->prompt = std::move(ids);
  const Result<LeaseState> leased = service_.loop.lease(*spec, *this);
  if (!leased) return leased.error();
  if (*leased == LeaseState::pending) {
    ids = std::move(spec->prompt);
    num_logprobs_ = num_logprobs;
    return LeaseState::pending;
  }
  const Result<GenerationHandle> handle = service_.loop.submit(std::move(*spec), part);
  if (!handle) return handle.error();
  part.handle = *handle;
  return LeaseState::ready;
}

void CompletionHandler::begin_writer() {
  const bool is_chat = request_.kind == ApiKind::chat;
  response_id_.assign(is_chat ? "chatcmpl-" : "cmpl-");
  service_.ids.append_hex(response_id_, 2);
  // Build, weights and kernel path: equal fingerprints and seeds give equal tokens.
  const ModelFacts facts = service_.loop.model_facts(model_);
  char digits[40];
  const int size = std::snprintf(digits, sizeof digits, "_%012llx_%08llx",
                                 static_cast<unsigned long long>(facts.weights_digest >> 16),
                                 static_cast<unsigned long long>(facts.kernel_path & 0xffffffffu));
  fingerprint_.assign("fp_" SLUICE_VERSION).append(digits, static_cast<std::size_t>(size));
  // Which of them is in the kernel path's hash; a name is easier to compare.
  if (model().config.kv_type == cfg::KvType::f16) fingerprint_ += "_kv-f16";
  if (model().config.kv_type == cfg::KvType::int8) fingerprint_ += "_kv-int8";
  const StreamOptions& options = request_.stream_options;
  writer_.begin({.kind = request_.kind,
                 .id = response_id_,
                 .model = model().config.name,
                 .fingerprint = fingerprint_,
                 .created = service_.unix_s()},
                {.include_usage = options.include_usage,
                 .continuous_usage = options.continuous_usage_stats,
                 .token_ids = request_.return_token_ids});
}

// ---- ends

void CompletionHandler::fail(const Error& error) {
  cancel(CancelCause::failed);
  const bool has_begun = session_.has_begun();
  if (!has_begun) return session_.respond_error(error);
  service_.metrics.count_error(error.code);
  append_error_event(session_.begin_chunk(), error);
  session_.end_chunk();
  session_.abort_stream();
}

void CompletionHandler::cancel(CancelCause cause) {
  if (std::exchange(waits_for_quota_, false)) service_.loop.forget(*this);
  if (job_) {
    job_->is_cancelled.store(true, std::memory_order_relaxed);
    job_->on_done = nullptr;
    job_.reset();
  }
  for (const auto& part : parts_)
    if (part->handle) service_.loop.cancel(std::exchange(part->handle, {}), cause);
  end();
}

void CompletionHandler::end() {
  stage_ = Stage::idle;
  waits_for_quota_ = false;
  parts_left_ = 0;
  choices_.clear();
  // One huge request must not pin its memory to an idle connection.
  if (ids_.size() > 8) ids_.clear();
  if (parts_.size() > 8) parts_.resize(1);
}

}  // namespace sluice::gw
