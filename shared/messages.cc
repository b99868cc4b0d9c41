// Reading and writing the records' payloads. Every parse copies the fixed head, checks each field
// and compares the payload's size with the counts before it makes a span of it.
#include "shared/messages.h"

#include <cmath>
#include <cstring>
#include <string>

#include "shared/check.h"

namespace sluice {
namespace {

Error corrupt(const char* field) {
  return make_error(Errc::corrupt_record, std::string("record field out of range: ") + field);
}

// NaN is in no range.
bool in_range(float value, float low, float high) {
  return value >= low && value <= high;
}

template <class T>
Result<T> parse_plain(std::span<const std::byte> payload) {
  if (payload.size() != sizeof(T)) return corrupt("size");
  T record;
  std::memcpy(&record, payload.data(), sizeof record);
  if (record.sequence == 0) return corrupt("sequence");
  return record;
}

// `count` elements at `offset`; the caller compared the counts with the payload's size. The payload
// is the reader's own copy and aligned as operator new aligns.
template <class T>
std::span<const T> take(std::span<const std::byte> payload, std::size_t& offset,
                        std::size_t count) {
  const std::byte* const first = payload.data() + offset;
  CHECK(reinterpret_cast<std::uintptr_t>(first) % alignof(T) == 0);
  offset += count * sizeof(T);
  return {reinterpret_cast<const T*>(first), count};
}

template <class T>
void put(std::span<std::byte> out, std::size_t& offset, std::span<const T> values) {
  if (!values.empty()) std::memcpy(out.data() + offset, values.data(), values.size_bytes());
  offset += values.size_bytes();
}

Result<void> check_sampling(const SamplingParams& sampling) {
  if (!in_range(sampling.temperature, 0.0f, 2.0f)) return corrupt("temperature");
  if (!in_range(sampling.top_p, 0.0f, 1.0f)) return corrupt("top_p");
  if (!in_range(sampling.min_p, 0.0f, 1.0f)) return corrupt("min_p");
  if (!in_range(sampling.presence_penalty, -2.0f, 2.0f)) return corrupt("presence_penalty");
  if (!in_range(sampling.frequency_penalty, -2.0f, 2.0f)) return corrupt("frequency_penalty");
  if (!in_range(sampling.repetition_penalty, 0.0f, 2.0f) || sampling.repetition_penalty == 0.0f)
    return corrupt("repetition_penalty");
  if (sampling.ignore_eos > 1) return corrupt("ignore_eos");
  if (sampling.wants_logprob > 1) return corrupt("wants_logprob");
  if (sampling.num_top_logprobs > kTopLogprobsMax) return corrupt("num_top_logprobs");
  return {};
}

Result<void> check_submit(const SubmitRecord& head) {
  if (head.sequence == 0) return corrupt("sequence");
  if (head.choice >= kChoicesMax) return corrupt("choice");
  if (head.num_prompt_ids == 0 || head.num_prompt_ids > kContextTokensMax)
    return corrupt("num_prompt_ids");
  if (head.num_output_ids > kContextTokensMax - head.num_prompt_ids)
    return corrupt("num_output_ids");
  const bool is_prompt_all = head.output_ids_max == 0 && head.num_output_ids == 0;
  if ((head.output_ids_max <= head.num_output_ids && !is_prompt_all) ||
      head.output_ids_max > kContextTokensMax)
    return corrupt("output_ids_max");
  if (head.prompt_logprobs_from >= head.num_prompt_ids ||
      (head.prompt_logprobs_from > 0 && head.num_output_ids > 0))
    return corrupt("prompt_logprobs_from");
  if (head.task > SequenceTask::embed) return corrupt("task");
  if (head.task == SequenceTask::embed && (!is_prompt_all || head.prompt_logprobs_from > 0))
    return corrupt("task");
  if (head.check_golden > 1) return corrupt("check_golden");
  if (head.num_stop_ids > kStopIdsMax) return corrupt("num_stop_ids");
  if (head.num_bias > kLogitBiasMax) return corrupt("num_bias");
  return check_sampling(head.sampling);
}

// Not NaN; minus infinity is the logarithm of a probability too small to write.
bool is_logprob(float value) {
  return value <= 0.0f;
}

Result<void> check_entry(const StepEntry& entry) {
  if (entry.sequence == 0) return corrupt("entry.sequence");
  if (entry.kind < EntryKind::token || entry.kind > EntryKind::prompt_finished)
    return corrupt("entry.kind");
  if (entry.finish > FinishReason::error) return corrupt("entry.finish");
  if (entry.kind == EntryKind::finished && entry.finish == FinishReason::none)
    return corrupt("entry.finish");
  if (entry.kind == EntryKind::prompt_token && entry.finish != FinishReason::none)
    return corrupt("entry.finish");
  if (entry.kind == EntryKind::prompt_finished && entry.finish != FinishReason::length)
    return corrupt("entry.finish");
  const bool has_top = entry.kind == EntryKind::token || entry.kind == EntryKind::prompt_token;
  if (entry.num_top > (has_top ? kTopLogprobsMax : 0)) return corrupt("entry.num_top");
  if (entry.num_values > (entry.kind == EntryKind::prompt_finished ? kEmbeddingSizeMax : 0))
    return corrupt("entry.num_values");
  if (entry.token >= kVocabularyMax) return corrupt("entry.token");
  if (entry.position >= kContextTokensMax) return corrupt("entry.position");
  if (entry.cached_tokens > kContextTokensMax) return corrupt("entry.cached_tokens");
  if (!is_logprob(entry.logprob)) return corrupt("entry.logprob");
  return {};
}

// What stands behind the entries, and that they share it without a rest.
Result<void> check_shares(const StepView& view) {
  std::uint64_t num_top = 0;
  std::uint64_t num_values = 0;
  for (const StepEntry& entry : view.entries) {
    num_top += entry.num_top;
    num_values += entry.num_values;
  }
  if (num_top != view.top.size()) return corrupt("num_top");
  if (num_values != view.values.size()) return corrupt("num_values");
  for (const TopLogprob& top : view.top) {
    if (top.token >= kVocabularyMax) return corrupt("top.token");
    if (!is_logprob(top.logprob)) return corrupt("top.logprob");
  }
  for (const float value : view.values)
    if (!std::isfinite(value)) return corrupt("values");
  return {};
}

}  // namespace

std::size_t submit_bytes(const SubmitRecord& head) {
  const std::size_t num_ids =
      std::size_t{head.num_prompt_ids} + head.num_output_ids + head.num_stop_ids;
  return sizeof(SubmitRecord) + num_ids * sizeof(TokenId) + head.num_bias * sizeof(LogitBias);
}

Result<SubmitView> parse_submit(std::span<const std::byte> payload) {
  if (payload.size() < sizeof(SubmitRecord)) return corrupt("size");
  SubmitView view;
  std::memcpy(&view.head, payload.data(), sizeof view.head);
  if (const auto checked = check_submit(view.head); !checked) return checked.error();
  if (payload.size() != submit_bytes(view.head)) return corrupt("size");
  std::size_t offset = sizeof(SubmitRecord);
  view.prompt = take<TokenId>(payload, offset, view.head.num_prompt_ids);
  view.output = take<TokenId>(payload, offset, view.head.num_output_ids);
  view.stop_ids = take<TokenId>(payload, offset, view.head.num_stop_ids);
  view.bias = take<LogitBias>(payload, offset, view.head.num_bias);
  for (const LogitBias& bias : view.bias)
    if (!in_range(bias.bias, -100.0f, 100.0f)) return corrupt("bias");
  return view;
}

void write_submit(std::span<std::byte> out, const SubmitRecord& head,
                  std::span<const TokenId> prompt, std::span<const TokenId> output,
                  std::span<const TokenId> stop_ids, std::span<const LogitBias> bias) {
  CHECK(prompt.size() == head.num_prompt_ids && output.size() == head.num_output_ids);
  CHECK(stop_ids.size() == head.num_stop_ids && bias.size() == head.num_bias);
  CHECK(out.size() == submit_bytes(head));
  std::memcpy(out.data(), &head, sizeof head);
  std::size_t offset = sizeof head;
  put(out, offset, prompt);
  put(out, offset, output);
  put(out, offset, stop_ids);
  put(out, offset, bias);
}

std::size_t step_bytes(const StepRecord& head) {
  return sizeof(StepRecord) + std::size_t{head.num_entries} * sizeof(StepEntry) +
         std::size_t{head.num_top} * sizeof(TopLogprob) +
         std::size_t{head.num_values} * sizeof(float);
}

void write_step(std::span<std::byte> out, const StepView& step) {
  CHECK(step.entries.size() == step.head.num_entries);
  CHECK(step.top.size() == step.head.num_top && step.values.size() == step.head.num_values);
  CHECK(out.size() == step_bytes(step.head));
  std::memcpy(out.data(), &step.head, sizeof step.head);
  std::size_t offset = sizeof step.head;
  put(out, offset, step.entries);
  put(out, offset, step.top);
  put(out, offset, step.values);
}

Result<StepView> parse_step(std::span<const std::byte> payload) {
  if (payload.size() < sizeof(StepRecord)) return corrupt("size");
  StepView view;
  std::memcpy(&view.head, payload.data(), sizeof view.head);
  if (payload.size() != step_bytes(view.head)) return corrupt("size");
  std::size_t offset = sizeof(StepRecord);
  view.entries = take<StepEntry>(payload, offset, view.head.num_entries);
  view.top = take<TopLogprob>(payload, offset, view.head.num_top);
  view.values = take<float>(payload, offset, view.head.num_values);
  for (const StepEntry& entry : view.entries)
    if (const auto checked = check_entry(entry); !checked) return checked.error();
  if (const auto checked = check_shares(view); !checked) return checked.error();
  return view;
}

Result<CancelRecord> parse_cancel(std::span<const std::byte> payload) {
  return parse_plain<CancelRecord>(payload);
}

Result<RejectRecord> parse_reject(std::span<const std::byte> payload) {
  auto record = parse_plain<RejectRecord>(payload);
  if (record && record->errc >= kErrcCount)
    record->errc = static_cast<std::uint32_t>(Errc::internal_error);
  return record;
}

}  // namespace sluice
