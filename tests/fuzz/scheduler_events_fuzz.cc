// The scheduler under any list of events. The input is a world's sizes, then one event per three
// bytes: add, cancel, step, drop all. After each event the invariants hold; when the events are
// over every sequence that was added (and not dropped) has ended exactly once.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>

#include "shared/check.h"
#include "tests/support/worker_builders.h"

namespace sluice::eng {
namespace {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool is_empty() const { return at_ >= size_; }
  std::uint32_t next() { return is_empty() ? 0 : data_[at_++]; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

constexpr std::uint64_t kSequences = 32;
constexpr int kEventsMax = 500;

CannedModel read_world(Bytes& bytes) {
  CannedModel model = a_canned_model(16);
  model.facts.block_tokens = 2 * (1 + bytes.next() % 4);
  model.facts.num_blocks = 1 + bytes.next() % 32;
  model.facts.context_tokens = 4 + bytes.next() % 60;
  model.facts.sequences_max = 1 + bytes.next() % 6;
  model.facts.step_tokens_max = model.facts.sequences_max + bytes.next() % 24;
  return model;
}

void run(Bytes bytes) {
  CannedModel model = read_world(bytes);
  const auto classes = bytes.next() % 2 == 0 ? ClassPolicy::separate : ClassPolicy::mixed;
  const std::uint32_t intake_tokens_max = 1 + bytes.next() % 64;
  CannedEngine e(model, classes, intake_tokens_max);
  Scheduler& scheduler = e.engine.scheduler();
  std::map<std::uint64_t, int> owed;  // ends that a sequence must have had
  std::uint64_t next_id = 1;
  for (int i = 0; i < kEventsMax && !bytes.is_empty(); ++i) {
    const std::uint32_t event = bytes.next();
    const std::uint32_t a = bytes.next();
    const std::uint32_t b = bytes.next();
    if (event % 8 < 3) {
      Submission submission = Submission(next_id % kSequences + 1);
      submission.prompt(1 + a % 40, event / 64).output_max(1 + b % 30).priority(event / 32 % 2);
      submission.security_class(event / 16 % 2).stop_ids({kTestEos});
      submission.sampling().num_top_logprobs = static_cast<std::uint16_t>(b % 4);
      const std::uint32_t wish = b / 32;  // of the prompt: its log-probabilities, an embedding
      if ((wish == 5 || wish == 6) && a % 40 > 0) submission.prompt_logprobs_from(1 + b % (a % 40));
      if (wish == 6) submission.output_max(0);
      if (wish == 7) submission.embed();
      if (scheduler.can_take_events() && e.add(submission)) ++owed[submission.id()];
      ++next_id;
    } else if (event % 8 == 3 && scheduler.can_take_events()) {
      scheduler.cancel(SequenceId{1 + a % kSequences});
    } else if (event == 0xff) {
      e.step();
      scheduler.drop_all();
      owed.clear();
      e.endings.clear();
    } else {
      e.step();
    }
    scheduler.check_invariants();
  }
  e.run(20'000);
  e.step();
  CHECK(!scheduler.has_work() && scheduler.blocks().num_used() == 0);
  for (const auto& [id, count] : owed)
    CHECK(e.endings[id].num_ends == static_cast<std::uint32_t>(count));
}

}  // namespace
}  // namespace sluice::eng

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sluice::eng::run({data, size});
  return 0;
}
