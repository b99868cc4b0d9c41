// CoreHarness: the serving core with everything around it made of plain values - workers that
// extend sequences by a hash of all ids so far, a journal of two maps, clients that take tokens
// when told. A wrong continuation shows at the first wrong token.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "gateway/core/serving_core.h"
#include "shared/random.h"

namespace sluice::gw {

inline constexpr std::uint32_t kTestVocab = 500;
inline constexpr TokenId kTestStop = 3;

inline TokenId next_token(std::span<const TokenId> prompt, std::span<const TokenId> output,
                          std::uint64_t seed, std::uint32_t choice) {
  std::uint64_t hash = mix64(seed ^ (std::uint64_t{choice} << 40));
  for (const TokenId id : prompt) hash = mix64(hash ^ id);
  for (const TokenId id : output) hash = mix64(hash ^ id);
  return static_cast<TokenId>(hash % kTestVocab);
}

// What an undisturbed run of one choice gives.
inline std::vector<TokenId> undisturbed(const GenerationSpec& spec, std::uint32_t choice) {
  std::vector<TokenId> output;
  while (output.size() < spec.output_tokens_max) {
    output.push_back(next_token(spec.prompt, output, spec.sampling.seed, choice));
    const auto& stops = spec.stop_ids;
    if (std::find(stops.begin(), stops.end(), output.back()) != stops.end()) break;
  }
  return output;
}

inline WorkerFacts test_facts() {
  return {.vocab_size = kTestVocab,
          .context_tokens = 4096,
          .block_tokens = 16,
          .num_blocks = 1024,
          .sequences_max = 8,
          .step_tokens_max = 256,
          .weights_digest = 11,
          .kernel_path = 22};
}

struct Client {
  GenerationSpec spec;
  std::vector<std::vector<TokenId>> taken;  // by choice
  std::vector<bool> finished;               // by choice
  std::optional<Error> failure;
  bool is_gone = false;  // it cancelled
  bool is_over() const {
    return is_gone || failure || std::count(finished.begin(), finished.end(), false) == 0;
  }
};

class CoreHarness {
 public:
  struct Running {
    SubmitRecord head;
    std::vector<TokenId> prompt, output, stop_ids;
    std::uint64_t ring_position;
    bool is_cancelled = false;
    bool is_computed = false;  // at least one token in this epoch
  };
  struct FakeWorker {
    bool is_up = false;
    Epoch epoch{0};
    std::uint64_t step = 0, generated = 0, written = 0;
    std::deque<Running> sequences;  // the first kBatch of them run
    bool is_ring_full = false;
  };
  static constexpr std::size_t kBatch = 4;

  explicit CoreHarness(CoreParams params) : core(std::move(params)), workers(64) {}

  static CoreParams params(std::uint32_t num_workers) {
    CoreParams made;
    made.num_workers = num_workers;
    made.sequences_max = 256;
    made.limits.accounts.resize(4);
    made.limits.num_tenants = 4;
    return made;
  }

  static GenerationSpec spec(std::uint64_t seed, std::uint32_t output_max = 16,
                             std::uint32_t choices = 1, std::uint32_t prompt_tokens = 20) {
    GenerationSpec made;
    for (std::uint32_t i = 0; i < prompt_tokens; ++i) {
      made.prompt.push_back(static_cast<TokenId>(mix64(seed * 1000 + i) % kTestVocab));
    }
    made.sampling.seed = seed;
    made.choices = choices;
    made.output_tokens_max = output_max;
    return made;
  }

  void up(std::uint32_t id, WorkerFacts facts = test_facts(),
          EpochOrigin origin = EpochOrigin::fresh) {
    FakeWorker& worker = workers[id];
    const Epoch epoch{worker.epoch.value + 1};
    worker = FakeWorker{};
    worker.is_up = true;
    worker.epoch = epoch;
    core.worker_up(WorkerId{id}, 0, epoch, facts, origin, now);
    carry_out();
  }

  Result<GenerationHandle> submit(GenerationSpec spec) {
    std::vector<SequenceId> ids;
    for (std::uint32_t i = 0; i < spec.choices; ++i) ids.emplace_back(next_id++);
    spec.arrival = now;
    spec.account = AccountId{spec.tenant.value};
    auto handle = core.submit(spec, RequestId{next_id++}, ids, now);
    carry_out();
    if (!handle) return handle;
    Client client;
    client.taken.resize(spec.choices);
    client.finished.resize(spec.choices, false);
    client.spec = std::move(spec);
    clients.emplace(handle->value, std::move(client));
    return handle;
  }

  // One engine step: every running sequence gets a token, cancelled ones are acknowledged.
  void step(std::uint32_t id) {
    FakeWorker& worker = workers[id];
    if (!worker.is_up) return;
    std::vector<StepEntry> entries;
    std::size_t running = 0;
    for (auto it = worker.sequences.begin(); it != worker.sequences.end();) {
      Running& sequence = *it;
      StepEntry entry{};
      entry.sequence = sequence.head.sequence;
      if (sequence.is_cancelled) {
        entry.kind = EntryKind::finished;
        entry.finish = FinishReason::cancelled;
        entries.push_back(entry);
        it = worker.sequences.erase(it);
        continue;
      }
      if (running++ >= kBatch) break;
      entry.kind = EntryKind::token;
      entry.position = static_cast<std::uint32_t>(sequence.output.size());
      entry.token = next_token(sequence.prompt, sequence.output, sequence.head.sampling.seed,
                               sequence.head.choice);
      sequence.output.push_back(entry.token);
      const auto& stops = sequence.stop_ids;
      if (std::find(stops.begin(), stops.end(), entry.token) != stops.end()) {
        entry.finish = FinishReason::stop;
      } else if (sequence.output.size() == sequence.head.output_ids_max) {
        entry.finish = FinishReason::length;
      }
      entries.push_back(entry);
      ++worker.generated;
      it = entry.finish == FinishReason::none ? it + 1 : worker.sequences.erase(it);
    }
    publish(id, entries);
  }

  StepRecord head(std::uint32_t id, std::size_t num_entries) {
    FakeWorker& worker = workers[id];
    StepRecord made{};
    made.step = ++worker.step;
    made.duration_ns = 1'000'000;
    made.generated_total = worker.generated;
    made.submit_position = worker.written;
    made.credit_tokens = 512;
    made.credit_blocks = 512;
    made.credit_sequences =
        static_cast<std::uint32_t>(2 * kBatch - std::min(2 * kBatch, worker.sequences.size()));
    made.num_decode_tokens = static_cast<std::uint32_t>(num_entries);
    made.num_entries = static_cast<std::uint32_t>(num_entries);
    return made;
  }

  void publish(std::uint32_t id, std::span<const StepEntry> entries,
               std::span<const TopLogprob> top = {}, std::span<const float> values = {}) {
    core.step(WorkerId{id}, {head(id, entries.size()), entries, top, values}, now);
    carry_out();
  }

  // The sequences that the next step computes.
  std::vector<const Running*> batch(std::uint32_t id) const {
    std::vector<const Running*> made;
    for (const Running& running : workers[id].sequences) {
      if (!running.is_cancelled && made.size() < kBatch) made.push_back(&running);
    }
    return made;
  }
  std::vector<SequenceId> in_step(std::uint32_t id) const {
    std::vector<SequenceId> ids;
    for (const Running* running : batch(id)) ids.emplace_back(running->head.sequence);
    return ids;
  }

  void down(std::uint32_t id, DownReason reason, std::span<const SequenceId> suspects) {
    workers[id].is_up = false;
    workers[id].sequences.clear();
    core.worker_down(WorkerId{id}, reason, suspects, now);
    carry_out();
  }

  void carry_out() {
    auto& commands = core.commands();
    for (std::size_t i = 0; i < commands.size(); ++i) carry_out(Command(commands[i]));
    commands.clear();
    core.check_invariants();
  }

  // Delivers all notices; a client that is not in `slow` takes everything.
  void deliver() {
    auto& notices = core.notices();
    for (std::size_t i = 0; i < notices.size(); ++i) {
      const Notice notice = notices[i];
      if (notice.kind == NoticeKind::failed) {
        if (auto error = core.take_failure(notice.handle)) {
          Client& client = clients.at(notice.handle.value);
          EXPECT_FALSE(client.is_over()) << "a second end";
          client.failure = std::move(error);
        }
      } else if (core.take_token_notice(notice) && !slow.contains(notice.handle.value)) {
        take(notice.handle, notice.choice, ~0u);
      }
    }
    notices.clear();
    carry_out();
  }

  void take(GenerationHandle handle, std::uint32_t choice, std::uint32_t most) {
    Client& client = clients.at(handle.value);
    const auto pending = core.pending(handle, choice);
    const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(pending.size(), most));
    for (const OutputToken& token : pending.first(count)) {
      EXPECT_FALSE(client.finished[choice]) << "a token behind the end";
      client.taken[choice].push_back(token.id);
      if (token.finish != FinishReason::none) client.finished[choice] = true;
    }
    core.accept(handle, choice, count, now);
    carry_out();
  }

  void cancel(GenerationHandle handle) {
    clients.at(handle.value).is_gone = true;
    core.cancel(handle, CancelCause::client_gone, now);
    carry_out();
  }

  std::uint64_t billed() const {
    std::uint64_t sum = billed_absorbed;
    for (const auto& [sequence, accepted] : journal) sum += accepted;
    return sum;
  }

  ServingCore core;
  Tick now{std::chrono::seconds(1000)};
  std::vector<FakeWorker> workers;
  std::map<std::uint64_t, Client> clients;         // by handle
  std::set<std::uint64_t> slow;                    // handles that take only when told
  std::map<std::uint32_t, std::uint32_t> journal;  // open slots: table index -> accepted
  std::uint64_t billed_absorbed = 0, billed_prompt = 0;
  ResourceUse used;  // of absorbed sequences
  std::vector<WorkerId> reported_corrupt, recycled;
  std::uint32_t num_drained = 0;
  std::uint64_t next_id = 100;

 private:
  void carry_out(const Command& command) {
    FakeWorker& worker = workers[command.worker.value];
    switch (command.kind) {
      case CommandKind::open_slot:
        EXPECT_TRUE(journal.emplace(command.sequence, 0).second);
        billed_prompt += core.journal_facts(command.sequence).prompt_tokens;
        return;
      case CommandKind::accept_slot:
        EXPECT_LT(journal.at(command.sequence), command.value);
        journal.at(command.sequence) = command.value;
        return;
      case CommandKind::cache_slot:
        EXPECT_TRUE(journal.contains(command.sequence));
        EXPECT_GT(command.value, 0u);
        return;
      case CommandKind::absorb_slot:
        EXPECT_EQ(journal.at(command.sequence), command.value);
        billed_absorbed += command.value;
        used.kv_token_us += command.use.kv_token_us;
        used.device_ns += command.use.device_ns;
        journal.erase(command.sequence);
        return;
      case CommandKind::write_submit: {
        EXPECT_TRUE(worker.is_up);
        EXPECT_TRUE(journal.contains(command.sequence)) << "sent before the journal knew";
        if (worker.is_ring_full) {
          core.submit_unsent(command.sequence);
          return;
        }
        const Submission submission = core.submission(command.sequence);
        worker.written += 128;
        worker.sequences.push_back({submission.head,
                                    {submission.prompt.begin(), submission.prompt.end()},
                                    {submission.output.begin(), submission.output.end()},
                                    {submission.stop_ids.begin(), submission.stop_ids.end()},
                                    worker.written});
        core.submit_written(command.sequence, worker.written);
        return;
      }
      case CommandKind::write_cancel:
        worker.written += 32;
        core.wrote(command.worker, worker.written);
        for (Running& running : worker.sequences) {
          if (running.head.sequence == command.id.value) running.is_cancelled = true;
        }
        return;
      case CommandKind::report_corrupt:
        reported_corrupt.push_back(command.worker);
        return;
      case CommandKind::recycle:
        recycled.push_back(command.worker);
        return;
      case CommandKind::drained:
        ++num_drained;
        return;
    }
  }
};

}  // namespace sluice::gw
