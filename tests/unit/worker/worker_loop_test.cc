// The worker's loop over real regions, rings, doorbells and a control channel: a thread runs it,
// the test is its gateway and its parent.
#include "worker/worker_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "tests/support/region_pair.h"
#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

constexpr std::size_t kRingBytes = 64 << 10;
constexpr std::size_t kSubmitRingBytes = 8 << 20;
using shm::Region;
using shm::RegionKind;

// A running worker with the canned executor.
class RunningWorker {
 public:
  explicit RunningWorker(const CannedModel& model = a_canned_model(),
                         GoldenDigest* golden = nullptr)
      : executor_(model), engine_(executor_, clock_, scheduler_limits(executor_.facts(), {1, 2})) {
    auto pair = *ControlChannel::make_pair();
    parent_.emplace(std::move(pair.first));
    child_.emplace(std::move(pair.second));
    step_ = *Region::create({RegionKind::step, WorkerId{3}, Epoch{9}, Epoch{}}, kRingBytes);
    worker_bell_ = *shm::make_doorbell();
    gateway_bell_ = *shm::make_doorbell();
    thread_ = std::thread([this, golden] {
      WorkerLoop loop(
          {*child_, step_, WorkerId{3}, Epoch{9}, worker_bell_.get(), gateway_bell_.get(), golden},
          engine_, clock_);
      result_ = loop.run();
      child_.reset();
    });
  }
  ~RunningWorker() { stop(); }

  void stop() {
    parent_.reset();
    if (thread_.joinable()) thread_.join();
  }
  Result<void> end() {
    stop();
    return result_;
  }
  // Waits until the loop ends by itself.
  Result<void> join() {
    thread_.join();
    return result_;
  }
  ControlChannel& parent() { return *parent_; }
  void send(ControlKind kind) {
    ControlMessage message;
    message.kind = kind;
    ASSERT_TRUE(parent_->send(message));
  }
  std::optional<shm::Progress> progress() const { return shm::read_progress(step_); }

  SystemClock clock_;
  CannedExecutor executor_;
  Engine engine_;
  std::optional<ControlChannel> parent_, child_;
  Region step_;
  UniqueFd worker_bell_, gateway_bell_;
  std::thread thread_;
  Result<void> result_;
};

// The other end of the rings.
class TestGateway {
 public:
  TestGateway(RunningWorker& worker, Epoch epoch, std::uint64_t start = 0)
      : worker_(worker),
        submit_(
            *Region::create({RegionKind::submit, WorkerId{3}, Epoch{9}, epoch}, kSubmitRingBytes)),
        step_(*Region::attach(test::duplicate(worker.step_.fd()),
                              {RegionKind::step, WorkerId{3}, Epoch{9}, Epoch{}})),
        reader_(submit_, step_, start),
        writer_(submit_, step_),
        bell_(worker.worker_bell_.get(), submit_, step_) {
    ControlMessage attach;
    attach.kind = ControlKind::attach;
    attach.gateway_epoch = epoch;
    attach.fds.push_back(test::duplicate(submit_.fd()));
    EXPECT_TRUE(worker.parent().send(attach));
  }

  void submit(const Submission& submission) {
    const SubmitView view = submission.view();
    const auto space = writer_.try_claim(RecordType::submit, submit_bytes(view.head));
    ASSERT_NE(space.data(), nullptr);
    write_submit(space, view.head, view.prompt, view.output, view.stop_ids, view.bias);
    writer_.commit(space.size());
    bell_.ring_if_sleeping(shm::WakeFor::records);
  }
  void cancel(std::uint64_t sequence) {
    const CancelRecord record{sequence};
    ASSERT_TRUE(writer_.try_write(RecordType::cancel, std::as_bytes(std::span(&record, 1))));
    bell_.ring_if_sleeping(shm::WakeFor::records);
  }
  void garbage(std::size_t num_words = 3) {
    const std::vector<std::uint64_t> words(num_words, 1);
    ASSERT_TRUE(writer_.try_write(RecordType::submit, std::as_bytes(std::span(words))));
    bell_.ring_if_sleeping(shm::WakeFor::records);
  }

  // Reads records until `done()`; false when nothing came for ten seconds.
  template <class Done>
  bool read_until(Done done) {
    while (!done()) {
      const shm::ReadOutcome record = reader_.read();
      if (record.status == shm::ReadStatus::corrupt) return false;
      if (record.status == shm::ReadStatus::empty) {
        reader_.release();
        bell_.ring_if_sleeping(shm::WakeFor::room);
        const shm::SleepScope scope(submit_, shm::WakeFor::records);
        if (!reader_.is_empty()) continue;
        if (!shm::wait_doorbell(worker_.gateway_bell_.get(), std::chrono::seconds(10)))
          return false;
        shm::drain_doorbell(worker_.gateway_bell_.get());
        continue;
      }
      take(record);
    }
    return true;
  }
  bool read_until_ended(std::size_t count) {
    return read_until([&] { return num_ended_ >= count; });
  }
  std::uint64_t position() const { return reader_.position(); }
  std::uint64_t written() const { return writer_.position(); }

  Endings endings;
  std::map<std::uint64_t, Errc> rejects;
  bool is_golden_wrong = false;  // of the last one
  StepRecord last{};
  std::uint64_t num_records = 0;

 private:
  void take(const shm::ReadOutcome& record) {
    if (record.type == RecordType::reject) {
      const auto reject = parse_reject(record.payload);
      ASSERT_TRUE(reject);
      rejects[reject->sequence] = static_cast<Errc>(reject->errc);
      is_golden_wrong = reject->is_golden_wrong != 0;
      ++num_ended_;
      return;
    }
    const auto step = parse_step(record.payload);
    ASSERT_TRUE(step);
    EXPECT_GT(step->head.step, last.step);
    std::uint64_t num_tokens = 0;
    for (const StepEntry& entry : step->entries) {
      num_tokens += entry.kind == EntryKind::token ? 1 : 0;
      num_ended_ += entry.finish != FinishReason::none ? 1 : 0;
    }
    if (num_records > 0) {
      EXPECT_EQ(step->head.generated_total, last.generated_total + num_tokens);
    }
    last = step->head;
    ++num_records;
    collect_all(*step, endings);
  }

  RunningWorker& worker_;
  Region submit_;
  Region step_;
  shm::RingReader reader_;
  shm::RingWriter writer_;
  shm::DoorbellRinger bell_;
  std::size_t num_ended_ = 0;
};

TEST(WorkerLoop, PublishesCreditsWhenAGatewayAttaches) {
  RunningWorker worker;
  TestGateway gateway(worker, Epoch{1});
  ASSERT_TRUE(gateway.read_until([&] { return gateway.num_records > 0; }));
  EXPECT_EQ(gateway.last.credit_sequences, 16u);
  EXPECT_EQ(gateway.last.credit_blocks, 64u);
  EXPECT_TRUE(worker.end());
}

TEST(WorkerLoop, StreamsTheTokensThatEachSequenceGivesAlone) {
  RunningWorker worker;
  TestGateway gateway(worker, Epoch{1});
  std::vector<Submission> submissions;
  for (std::uint64_t id = 1; id <= 12; ++id)
    submissions.push_back(Submission(id).prompt(10 + id * 5, id % 3).output_max(40).temperature(1));
  for (Submission& submission : submissions) {
    submission.sampling().wants_logprob = submission.id() % 2 == 0 ? 1 : 0;
    submission.sampling().num_top_logprobs = static_cast<std::uint16_t>(submission.id() % 6 * 4);
    if (submission.id() % 3 == 0) submission.prompt_logprobs_from(1);
    gateway.submit(submission);
  }
  gateway.submit(Submission(13).prompt(90, 5).embed());
  ASSERT_TRUE(gateway.read_until_ended(13));
  for (const Submission& submission : submissions) {
    const Ended alone = run_alone(submission);
    const Ended& got = gateway.endings[submission.id()];
    EXPECT_EQ(got.tokens, alone.tokens);
    EXPECT_EQ(got.scored, alone.scored);
    EXPECT_EQ(got.top, alone.top);
    EXPECT_EQ(got.prompt_scored, alone.prompt_scored);
    EXPECT_EQ(got.prompt_top, alone.prompt_top);
  }
  EXPECT_EQ(gateway.endings[13].embedding,
            run_alone(Submission(13).prompt(90, 5).embed()).embedding);
  EXPECT_EQ(gateway.last.generated_total, 12u * 40);
}

TEST(WorkerLoop, CancelEndsASequenceAndUnknownIdsAreIgnored) {
  RunningWorker worker;
  TestGateway gateway(worker, Epoch{1});
  gateway.cancel(99);
  gateway.submit(Submission(1).output_max(200));
  gateway.cancel(1);
  gateway.cancel(1);
  ASSERT_TRUE(gateway.read_until_ended(1));
  EXPECT_EQ(gateway.endings[1].num_ends, 1u);
  EXPECT_EQ(gateway.endings.count(99), 0u);
}

// What the step took travels with it: of three sequences, in a step that lasts.
TEST(WorkerLoop, SaysWhatEachStepTook) {
  CannedModel model = a_canned_model();
  model.step_duration = std::chrono::milliseconds(2);
  RunningWorker worker(model);
  TestGateway gateway(worker, Epoch{1});
  for (std::uint64_t id = 1; id <= 3; ++id) gateway.submit(Submission(id).prompt(5).output_max(20));
  ASSERT_TRUE(gateway.read_until([&] { return gateway.last.num_sequences == 3; }));
  EXPECT_GE(gateway.last.forward_ns, 2'000'000u);
  EXPECT_GE(gateway.last.duration_ns, gateway.last.forward_ns);
  // Blocks of 8 slots: 5 prompt tokens and the first output leave some of them empty.
  EXPECT_GT(gateway.last.num_slots_unfilled, 0u);
  EXPECT_EQ(gateway.last.operations, 0u);  // the canned executor has no model
  ASSERT_TRUE(gateway.read_until_ended(3));
  EXPECT_EQ(gateway.last.num_slots_unfilled, 0u);
}

// Logits of the canned executor, until it computes something else.
class FaultyExecutor final : public Executor {
 public:
  explicit FaultyExecutor(CannedModel model) : canned_(std::move(model)) {}
  WorkerFacts facts() const override { return canned_.facts(); }
  std::string description() const override { return canned_.description(); }
  void zero_blocks(std::span<const BlockId> blocks) override { canned_.zero_blocks(blocks); }
  std::span<const float> forward(std::span<const SequenceSpan> spans) override {
    const std::span<const float> right = canned_.forward(spans);
    logits_.assign(right.begin(), right.end());
    if (is_wrong && !logits_.empty()) logits_.back() = std::nextafter(logits_.back(), 1e9f);
    return logits_;
  }
  std::atomic<bool> is_wrong{false};

 private:
  CannedExecutor canned_;
  std::vector<float> logits_;
};

TEST(GoldenDigest, IsTheSameUntilOneBitOfALogitIsAnother) {
  FaultyExecutor executor(a_canned_model());
  GoldenDigest golden(executor, BlockId(3));
  int passes = 0;
  const auto go_on = [&] { return ++passes > 0; };
  const auto first = golden.take(go_on);
  EXPECT_EQ(passes, 9);  // 8 ids at once, then 8 one by one
  EXPECT_TRUE(first.has_value());
  EXPECT_EQ(golden.take(go_on), first);
  executor.is_wrong = true;
  EXPECT_NE(golden.take(go_on), first);
  executor.is_wrong = false;
  EXPECT_EQ(golden.take([] { return false; }), std::nullopt);
  EXPECT_EQ(golden.take(go_on), first);
}

// A worker on trial whose executor computes something else gives the sequence back; one that is
// right runs it, and so does a faulty one that is not on trial.
TEST(WorkerLoop, OnTrialRunsNothingThatItComputesOtherwise) {
  CannedModel model = a_canned_model();
  model.facts.num_blocks += golden_blocks(model.facts.block_tokens);
  FaultyExecutor executor(model);
  GoldenDigest golden(executor, BlockId(a_canned_model().facts.num_blocks));
  RunningWorker worker(a_canned_model(), &golden);
  TestGateway gateway(worker, Epoch{1});
  const auto submit = [&](std::uint64_t id, std::uint16_t check_golden) {
    Submission submission = Submission(id).output_max(2);
    submission.check_golden(check_golden);
    gateway.submit(submission);
    ASSERT_TRUE(gateway.read_until_ended(id));
  };
  submit(1, 1);
  EXPECT_EQ(gateway.endings[1].tokens.size(), 2u);
  executor.is_wrong = true;
  submit(2, 1);
  EXPECT_EQ(gateway.rejects[2], Errc::no_healthy_worker);
  EXPECT_TRUE(gateway.is_golden_wrong);
  submit(3, 0);
  EXPECT_EQ(gateway.endings[3].tokens.size(), 2u);
  executor.is_wrong = false;
  submit(4, 1);
  EXPECT_EQ(gateway.endings[4].tokens.size(), 2u);
}

TEST(WorkerLoop, RejectsWhatItCanNeverRun) {
  RunningWorker worker;
  TestGateway gateway(worker, Epoch{1});
  gateway.submit(Submission(1).prompt(200).output_max(200));
  gateway.submit(Submission(2).prompt({63, 64}));
  gateway.submit(Submission(3).output_max(2));
  ASSERT_TRUE(gateway.read_until_ended(3));
  EXPECT_EQ(gateway.rejects[1], Errc::context_length_exceeded);
  EXPECT_EQ(gateway.rejects[2], Errc::invalid_value);
  EXPECT_EQ(gateway.endings[3].tokens.size(), 2u);
}

TEST(WorkerLoop, LosesNoTokenWhenTheStepRingIsFull) {
  CannedModel model = a_canned_model();
  model.facts.context_tokens = 4096;
  model.facts.num_blocks = 4096;
  RunningWorker worker(model);
  TestGateway gateway(worker, Epoch{1});
  // Eight sequences of 800 tokens are 800 records of about 360 bytes: over four rings full.
  for (std::uint64_t id = 1; id <= 8; ++id) gateway.submit(Submission(id).output_max(800));
  const auto is_blocked = [&] {
    const auto progress = worker.progress();
    return progress && progress->phase == static_cast<std::uint32_t>(shm::WorkerPhase::blocked);
  };
  while (!is_blocked()) std::this_thread::yield();
  ASSERT_TRUE(gateway.read_until_ended(8));
  for (std::uint64_t id = 1; id <= 8; ++id) EXPECT_EQ(gateway.endings[id].tokens.size(), 800u);
  EXPECT_EQ(gateway.last.generated_total, 8u * 800);
}

TEST(WorkerLoop, ANewGatewayEndsTheFormersSequencesAndReadsOnWhereItStopped) {
  CannedModel model = a_canned_model();
  model.step_duration = std::chrono::milliseconds(1);
  RunningWorker worker(model);
  auto former = std::make_unique<TestGateway>(worker, Epoch{1});
  former->submit(Submission(1).output_max(250));
  ASSERT_TRUE(former->read_until([&] { return former->endings[1].tokens.size() >= 3; }));
  const std::uint64_t position = former->position();
  const StepRecord last = former->last;
  former.reset();
  TestGateway gateway(worker, Epoch{2}, position);
  gateway.last = last;
  gateway.num_records = 1;
  const Submission submission = Submission(2).prompt(30).output_max(5);
  gateway.submit(submission);
  ASSERT_TRUE(gateway.read_until([&] { return gateway.endings[2].num_ends > 0; }));
  EXPECT_EQ(gateway.endings[2].tokens, run_alone(submission).tokens);
  EXPECT_EQ(gateway.endings[1].num_ends, 0u);
  EXPECT_LT(gateway.endings[1].tokens.size(), 240u);
}

TEST(WorkerLoop, DrainFinishesWhatRunsAndRefusesTheRest) {
  CannedModel model = a_canned_model();
  model.step_duration = std::chrono::milliseconds(1);
  RunningWorker worker(model);
  TestGateway gateway(worker, Epoch{1});
  gateway.submit(Submission(1).output_max(50));
  ASSERT_TRUE(gateway.read_until([&] { return !gateway.endings[1].tokens.empty(); }));
  worker.send(ControlKind::drain);
  ASSERT_TRUE(gateway.read_until([&] { return gateway.last.credit_sequences == 0; }));
  gateway.submit(Submission(2));
  ASSERT_TRUE(gateway.read_until_ended(2));
  EXPECT_EQ(gateway.rejects[2], Errc::no_healthy_worker);
  EXPECT_EQ(gateway.endings[1].tokens.size(), 50u);
  ControlMessage message;
  while (true) {
    const auto received = worker.parent().try_receive(message);
    ASSERT_TRUE(received);
    if (*received) break;
    std::this_thread::yield();
  }
  EXPECT_EQ(message.kind, ControlKind::drained);
  EXPECT_TRUE(worker.end());
}

// Long enough to be set aside and taken in over many turns, each of them a step of 2 ms.
constexpr std::size_t kLongIds = 400'000;

CannedModel long_context() {
  CannedModel model = a_canned_model();
  model.facts.context_tokens = 420'000;
  model.facts.block_tokens = 64;
  model.facts.num_blocks = 16'384;
  model.facts.step_tokens_max = 16'384;
  model.eos.reset();
  model.step_duration = std::chrono::milliseconds(2);
  return model;
}

TEST(WorkerLoop, OthersRunWhileALongSubmissionIsTakenIn) {
  RunningWorker worker(long_context());
  TestGateway gateway(worker, Epoch{1});
  gateway.submit(Submission(1).output_max(400));
  ASSERT_TRUE(gateway.read_until([&] { return !gateway.endings[1].tokens.empty(); }));
  const std::uint64_t before = gateway.written();
  const Submission first = Submission(2).prompt(kLongIds, 1).output_max(3);
  const Submission second = Submission(3).prompt(kLongIds, 2).output_max(3);
  const Submission small = Submission(4).prompt(20, 3).output_max(5);
  gateway.submit(first);
  gateway.submit(small);
  ASSERT_TRUE(gateway.read_until([&] { return gateway.endings[4].num_ends > 0; }));
  // The small one came and went while the long one's ring space was still held, and the credits had
  // made up for both.
  EXPECT_EQ(gateway.last.submit_position, before);
  EXPECT_GE(gateway.last.credit_tokens, kLongIds + 20);
  EXPECT_EQ(gateway.last.credit_sequences, 16u);  // 15 and the small one, which is charged still
  gateway.submit(second);
  ASSERT_TRUE(gateway.read_until_ended(4));
  EXPECT_EQ(gateway.last.submit_position, gateway.written());
  for (const Submission& submission : {first, second, small})
    EXPECT_EQ(gateway.endings[submission.id()].tokens,
              run_alone(submission, long_context()).tokens);
  EXPECT_EQ(gateway.endings[1].tokens.size(), 400u);
}

TEST(WorkerLoop, ALongSubmissionIsCancelledWhileItIsTakenIn) {
  RunningWorker worker(long_context());
  TestGateway gateway(worker, Epoch{1});
  gateway.submit(Submission(1).output_max(100));
  gateway.submit(Submission(2).prompt(kLongIds, 1).output_max(3));
  gateway.cancel(2);
  gateway.cancel(1);
  ASSERT_TRUE(gateway.read_until_ended(2));
  EXPECT_EQ(gateway.endings[2].finish, FinishReason::cancelled);
  EXPECT_TRUE(gateway.endings[2].tokens.empty());
  EXPECT_EQ(gateway.endings[1].num_ends, 1u);
  EXPECT_EQ(gateway.last.submit_position, gateway.written());
}

TEST(WorkerLoop, RejectsLongSubmissionsThatItCanNeverRun) {
  RunningWorker worker(long_context());
  TestGateway gateway(worker, Epoch{1});
  std::vector<TokenId> outside(kLongIds, 1);
  outside.back() = 64;
  gateway.submit(Submission(1).prompt(outside));
  gateway.submit(Submission(2).prompt(kLongIds).output_max(30'000));
  gateway.submit(Submission(3).output_max(2));
  ASSERT_TRUE(gateway.read_until_ended(3));
  EXPECT_EQ(gateway.rejects[1], Errc::invalid_value);
  EXPECT_EQ(gateway.rejects[2], Errc::context_length_exceeded);
  EXPECT_EQ(gateway.endings[3].tokens.size(), 2u);
}

TEST(WorkerLoop, ANewGatewayEndsALongSubmissionThatIsTakenIn) {
  RunningWorker worker(long_context());
  auto former = std::make_unique<TestGateway>(worker, Epoch{1});
  former->submit(Submission(1).output_max(5000));
  ASSERT_TRUE(former->read_until([&] { return !former->endings[1].tokens.empty(); }));
  former->submit(Submission(2).prompt(kLongIds, 1).output_max(3));
  const std::uint64_t position = former->position();
  const StepRecord last = former->last;
  former.reset();
  TestGateway gateway(worker, Epoch{2}, position);
  gateway.last = last;
  gateway.num_records = 1;
  const Submission again = Submission(3).prompt(kLongIds, 1).output_max(3);
  gateway.submit(again);
  ASSERT_TRUE(gateway.read_until([&] { return gateway.endings[3].num_ends > 0; }));
  EXPECT_EQ(gateway.endings[3].tokens, run_alone(again, long_context()).tokens);
  EXPECT_EQ(gateway.endings[2].num_ends, 0u);
}

TEST(WorkerLoop, DrainRefusesALongSubmissionThatIsTakenIn) {
  RunningWorker worker(long_context());
  TestGateway gateway(worker, Epoch{1});
  gateway.submit(Submission(1).output_max(50));
  ASSERT_TRUE(gateway.read_until([&] { return !gateway.endings[1].tokens.empty(); }));
  gateway.submit(Submission(2).prompt(kLongIds, 1));
  worker.send(ControlKind::drain);
  ASSERT_TRUE(gateway.read_until_ended(2));
  EXPECT_EQ(gateway.rejects[2], Errc::no_healthy_worker);
  EXPECT_EQ(gateway.endings[1].tokens.size(), 50u);
}

TEST(WorkerLoop, ACorruptLongSubmissionCostsTheEpoch) {
  RunningWorker worker(long_context());
  TestGateway gateway(worker, Epoch{1});
  gateway.garbage(20'000);
  const auto result = worker.join();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::corrupt_record);
}

TEST(WorkerLoop, ACorruptSubmissionCostsTheEpoch) {
  RunningWorker worker;
  TestGateway gateway(worker, Epoch{1});
  gateway.garbage();
  const auto result = worker.join();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::corrupt_record);
}

TEST(WorkerLoop, ARegionOfAnotherEpochIsRefused) {
  RunningWorker worker;
  const Region wrong =
      *Region::create({RegionKind::submit, WorkerId{3}, Epoch{8}, Epoch{1}}, kRingBytes);
  ControlMessage attach;
  attach.kind = ControlKind::attach;
  attach.gateway_epoch = Epoch{1};
  attach.fds.push_back(test::duplicate(wrong.fd()));
  ASSERT_TRUE(worker.parent().send(attach));
  const auto result = worker.join();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::corrupt_region);
}

// The suspects stand on the page while the step computes.
TEST(WorkerLoop, NamesTheSuspectsBeforeTheForwardPass) {
  CannedModel model = a_canned_model();
  model.step_duration = std::chrono::milliseconds(20);
  RunningWorker worker(model);
  TestGateway gateway(worker, Epoch{1});
  gateway.submit(Submission(41).output_max(200));
  gateway.submit(Submission(42).output_max(200));
  std::optional<shm::Progress> seen;
  do {
    seen = worker.progress();
  } while (!seen || seen->num_suspects < 2);
  EXPECT_EQ(seen->phase, static_cast<std::uint32_t>(shm::WorkerPhase::forward));
  EXPECT_EQ(seen->suspects[0], 41u);
  EXPECT_EQ(seen->suspects[1], 42u);
  EXPECT_TRUE(worker.end());
}

}  // namespace
}  // namespace sluice::eng
