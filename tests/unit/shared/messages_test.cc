// The records' payloads: what is written is parsed back, and no bytes make a parse read outside its
// payload or hand out a value out of range.
#include "shared/messages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace sluice {
namespace {

// Bytes aligned as the reader's copy is.
std::vector<std::byte> bytes_of(const void* data, std::size_t size) {
  const auto* const first = static_cast<const std::byte*>(data);
  return {first, first + size};
}

struct Submission {
  SubmitRecord head{};
  std::vector<TokenId> prompt{1, 2, 3}, output{4}, stop{9, 10};
  std::vector<LogitBias> bias{{5, 1.5f}};

  Submission() {
    head.sequence = 77;
    head.output_ids_max = 10;
    sync();
  }
  void sync() {
    head.num_prompt_ids = static_cast<std::uint32_t>(prompt.size());
    head.num_output_ids = static_cast<std::uint32_t>(output.size());
    head.num_stop_ids = static_cast<std::uint32_t>(stop.size());
    head.num_bias = static_cast<std::uint32_t>(bias.size());
  }
  std::vector<std::byte> write() const {
    std::vector<std::byte> bytes(submit_bytes(head));
    write_submit(bytes, head, prompt, output, stop, bias);
    return bytes;
  }
};

TEST(Messages, ASubmissionIsReadBack) {
  const Submission made;
  const auto bytes = made.write();
  const auto view = parse_submit(bytes);
  ASSERT_TRUE(view) << view.error().detail;
  EXPECT_EQ(view->head.sequence, 77u);
  EXPECT_TRUE(std::equal(view->prompt.begin(), view->prompt.end(), made.prompt.begin()));
  EXPECT_EQ(view->output[0], 4u);
  EXPECT_EQ(view->stop_ids[1], 10u);
  EXPECT_EQ(view->bias[0].token, 5u);
  EXPECT_EQ(view->bias[0].bias, 1.5f);
}

TEST(Messages, AFullContextFitsTheBoundOfARecord) {
  Submission made;
  made.prompt.assign(kContextTokensMax - 1, 1);
  made.stop.assign(kStopIdsMax, 1);
  made.bias.assign(kLogitBiasMax, {1, 0.0f});
  made.head.output_ids_max = kContextTokensMax;
  made.sync();
  EXPECT_LE(submit_bytes(made.head), kRecordBytesMax);
  const auto bytes = made.write();
  EXPECT_TRUE(parse_submit(bytes));
}

TEST(Messages, ASubmissionWithOneFieldOutOfRangeIsRefused) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::function<void(SubmitRecord&)>> changes = {
      [](SubmitRecord& r) { r.sequence = 0; },
      [](SubmitRecord& r) { r.choice = kChoicesMax; },
      [](SubmitRecord& r) { r.num_prompt_ids = 0; },
      [](SubmitRecord& r) { r.num_prompt_ids = 4; },
      [](SubmitRecord& r) { r.num_prompt_ids = 0xffffffff; },
      [](SubmitRecord& r) { r.num_output_ids = 0xffffffff; },
      [](SubmitRecord& r) { r.num_output_ids = 0; },
      [](SubmitRecord& r) { r.output_ids_max = 1; },
      [](SubmitRecord& r) { r.output_ids_max = kContextTokensMax + 1; },
      [](SubmitRecord& r) { r.num_stop_ids = 0xffffffff; },
      [](SubmitRecord& r) { r.num_stop_ids = kStopIdsMax + 1; },
      [](SubmitRecord& r) { r.num_bias = kLogitBiasMax + 1; },
      [](SubmitRecord& r) { r.num_bias = 0; },
      [](SubmitRecord& r) { r.sampling.temperature = 2.1f; },
      [](SubmitRecord& r) { r.sampling.temperature = kNan; },
      [](SubmitRecord& r) { r.sampling.top_p = -0.1f; },
      [](SubmitRecord& r) { r.sampling.top_p = kNan; },
      [](SubmitRecord& r) { r.sampling.min_p = 1.1f; },
      [](SubmitRecord& r) { r.sampling.presence_penalty = -3.0f; },
      [](SubmitRecord& r) { r.sampling.frequency_penalty = 3.0f; },
      [](SubmitRecord& r) { r.sampling.repetition_penalty = 0.0f; },
      [](SubmitRecord& r) { r.sampling.repetition_penalty = kNan; },
      [](SubmitRecord& r) { r.sampling.ignore_eos = 2; },
      [](SubmitRecord& r) { r.sampling.wants_logprob = 2; },
      [](SubmitRecord& r) { r.sampling.num_top_logprobs = kTopLogprobsMax + 1; },
      [](SubmitRecord& r) { r.output_ids_max = 0; },        // but it has output
      [](SubmitRecord& r) { r.prompt_logprobs_from = 1; },  // likewise
      [](SubmitRecord& r) { r.prompt_logprobs_from = 3; },
      [](SubmitRecord& r) { r.task = SequenceTask::embed; },
      [](SubmitRecord& r) { r.task = static_cast<SequenceTask>(2); },
      [](SubmitRecord& r) { r.check_golden = 2; },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    auto bytes = Submission().write();
    SubmitRecord head;
    std::memcpy(&head, bytes.data(), sizeof head);
    changes[i](head);
    std::memcpy(bytes.data(), &head, sizeof head);
    const auto view = parse_submit(bytes);
    ASSERT_FALSE(view) << "change " << i;
    EXPECT_EQ(view.error().code, Errc::corrupt_record);
  }
}

TEST(Messages, EveryTruncationIsRefused) {
  const auto submit = Submission().write();
  for (std::size_t size = 0; size < submit.size(); ++size)
    EXPECT_FALSE(parse_submit(bytes_of(submit.data(), size))) << size;
  const CancelRecord cancel{5};
  EXPECT_TRUE(parse_cancel(bytes_of(&cancel, sizeof cancel)));
  EXPECT_FALSE(parse_cancel(bytes_of(&cancel, sizeof cancel - 1)));
  const CancelRecord nobody{0};
  EXPECT_FALSE(parse_cancel(bytes_of(&nobody, sizeof nobody)));
}

std::vector<std::byte> step_bytes(const StepRecord& head, const std::vector<StepEntry>& entries) {
  std::vector<std::byte> bytes(sizeof head + entries.size() * sizeof(StepEntry));
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!entries.empty())
    std::memcpy(bytes.data() + sizeof head, entries.data(), entries.size() * sizeof(StepEntry));
  return bytes;
}

StepEntry token_entry() {
  StepEntry entry{};
  entry.sequence = 3;
  entry.token = 8;
  entry.logprob = -0.5f;
  entry.kind = EntryKind::token;
  return entry;
}

TEST(Messages, AStepIsReadBackAndItsEntriesAreChecked) {
  StepRecord head{};
  head.step = 9;
  head.num_entries = 2;
  StepEntry finished = token_entry();
  finished.kind = EntryKind::finished;
  finished.finish = FinishReason::cancelled;
  const auto bytes = step_bytes(head, {token_entry(), finished});
  const auto view = parse_step(bytes);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->head.step, 9u);
  EXPECT_EQ(view->entries[1].finish, FinishReason::cancelled);

  const std::vector<std::function<void(StepEntry&)>> changes = {
      [](StepEntry& e) { e.sequence = 0; },
      [](StepEntry& e) { e.kind = static_cast<EntryKind>(0); },
      [](StepEntry& e) { e.kind = static_cast<EntryKind>(5); },
      [](StepEntry& e) {
        e.kind = EntryKind::prompt_token;
        e.finish = FinishReason::length;
      },
      [](StepEntry& e) { e.kind = EntryKind::prompt_finished; },  // with no finish reason
      [](StepEntry& e) { e.num_top = 1; },                        // that nothing stands for
      [](StepEntry& e) { e.num_values = 1; },
      [](StepEntry& e) { e.logprob = 0.5f; },
      [](StepEntry& e) { e.finish = static_cast<FinishReason>(5); },
      [](StepEntry& e) { e.kind = EntryKind::finished; },
      [](StepEntry& e) { e.token = kVocabularyMax; },
      [](StepEntry& e) { e.position = kContextTokensMax; },
      [](StepEntry& e) { e.cached_tokens = kContextTokensMax + 1; },
      [](StepEntry& e) { e.logprob = std::nanf(""); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    StepEntry bad = token_entry();
    changes[i](bad);
    const auto corrupt = step_bytes(head, {token_entry(), bad});
    EXPECT_FALSE(parse_step(corrupt)) << "change " << i;
  }
  for (const std::uint32_t count : {0u, 1u, 3u, 0xffffffffu}) {
    head.num_entries = count;
    const auto corrupt = step_bytes(head, {token_entry(), finished});
    EXPECT_FALSE(parse_step(corrupt)) << count;
  }
}

// A step of a token with two alternatives, a prompt's token with one, and an embedding.
struct RichStep {
  StepRecord head{};
  std::vector<StepEntry> entries{token_entry(), token_entry(), token_entry()};
  std::vector<TopLogprob> top{{8, -0.5f}, {9, -1.5f}, {7, -0.25f}};
  std::vector<float> values{0.6f, -0.8f};
  RichStep() {
    entries[0].num_top = 2;
    entries[1].kind = EntryKind::prompt_token;
    entries[1].num_top = 1;
    entries[2].kind = EntryKind::prompt_finished;
    entries[2].finish = FinishReason::length;
    entries[2].num_values = 2;
    head.num_entries = 3;
    head.num_top = 3;
    head.num_values = 2;
  }
  // Unchecked: what a hostile peer may write.
  std::vector<std::byte> write() const {
    std::vector<std::byte> bytes(sizeof head + std::span(entries).size_bytes() +
                                 std::span(top).size_bytes() + std::span(values).size_bytes());
    std::byte* to = bytes.data();
    const auto put = [&to](const void* from, std::size_t size) {
      std::memcpy(to, from, size);
      to += size;
    };
    put(&head, sizeof head);
    put(entries.data(), std::span(entries).size_bytes());
    put(top.data(), std::span(top).size_bytes());
    put(values.data(), std::span(values).size_bytes());
    return bytes;
  }
};

TEST(Messages, AlternativesAndEmbeddingsAreReadBackAndTheirCountsMustAgree) {
  const RichStep good;
  const auto bytes = good.write();
  const auto view = parse_step(bytes);
  ASSERT_TRUE(view) << view.error().detail;
  EXPECT_TRUE(std::equal(view->top.begin(), view->top.end(), good.top.begin(), good.top.end()));
  EXPECT_EQ(view->values[1], -0.8f);
  std::vector<std::byte> again(step_bytes(view->head));
  write_step(again, *view);
  EXPECT_EQ(again, bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(parse_step(bytes_of(bytes.data(), size))) << size;

  const std::vector<std::function<void(RichStep&)>> changes = {
      [](RichStep& s) { s.entries[0].num_top = 3; },
      [](RichStep& s) { s.entries[0].num_top = 255; },
      [](RichStep& s) { s.entries[1].num_top = 0; },
      [](RichStep& s) { s.entries[2].num_top = 1; },
      [](RichStep& s) { s.entries[2].num_values = 3; },
      [](RichStep& s) { s.entries[2].num_values = 0xffffffff; },
      [](RichStep& s) { s.entries[2].finish = FinishReason::stop; },
      [](RichStep& s) { s.head.num_top = 2; },
      [](RichStep& s) { s.head.num_top = 0xffffffff; },
      [](RichStep& s) { s.head.num_values = 0xffffffff; },
      [](RichStep& s) { s.head.num_entries = 0xffffffff; },
      [](RichStep& s) { s.top[1].token = kVocabularyMax; },
      [](RichStep& s) { s.top[2].logprob = 0.1f; },
      [](RichStep& s) { s.top[2].logprob = std::nanf(""); },
      [](RichStep& s) { s.values[0] = std::nanf(""); },
      [](RichStep& s) { s.values[1] = std::numeric_limits<float>::infinity(); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    RichStep bad;
    changes[i](bad);
    EXPECT_FALSE(parse_step(bad.write())) << "change " << i;
  }
  RichStep unlikely;  // a probability that no float can say
  unlikely.top[1].logprob = -std::numeric_limits<float>::infinity();
  EXPECT_TRUE(parse_step(unlikely.write()));
}

TEST(Messages, TheLargestStepFitsTheSmallestRingUpTo64Sequences) {
  EXPECT_LE(step_bytes_max(64) + 16, kRingBytesMin / 2);
  EXPECT_LE(step_bytes_max(kBatchSequencesMax) + 16, (std::size_t{256} << 10) / 2);
}

TEST(Messages, AnUnknownRejectionReadsAsAnInternalError) {
  RejectRecord record{4, 9999, 0};
  EXPECT_EQ(parse_reject(bytes_of(&record, sizeof record))->errc,
            static_cast<std::uint32_t>(Errc::internal_error));
  record.errc = static_cast<std::uint32_t>(Errc::context_length_exceeded);
  EXPECT_EQ(parse_reject(bytes_of(&record, sizeof record))->errc, record.errc);
}

TEST(Messages, RandomDamageIsRefusedOrStaysInRange) {
  const std::uint64_t seed = test::test_seed(3);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto good = Submission().write();
  for (int round = 0; round < 20'000; ++round) {
    auto bytes = good;
    for (std::uint64_t n = test::uniform(rng, 1, 4); n > 0; --n)
      bytes[test::uniform(rng, 0, bytes.size() - 1)] = static_cast<std::byte>(rng());
    bytes.resize(test::uniform(rng, 0, 1) == 0 ? bytes.size()
                                               : test::uniform(rng, 0, bytes.size()));
    const auto view = parse_submit(bytes);
    if (!view) continue;
    ASSERT_EQ(view->prompt.size() + view->output.size() + view->stop_ids.size(), 6u);
    ASSERT_TRUE(view->head.output_ids_max > view->head.num_output_ids ||
                view->head.num_output_ids == 0);
    ASSERT_LT(view->head.prompt_logprobs_from, view->head.num_prompt_ids);
    ASSERT_LE(view->head.sampling.num_top_logprobs, kTopLogprobsMax);
    ASSERT_LE(view->head.sampling.temperature, 2.0f);
  }
}

}  // namespace
}  // namespace sluice
